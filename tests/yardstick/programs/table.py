"""The handlers of the cases, written as a user of actorflow would write them; one module for each suite.

Rules of translation, the same for all:

- A handler that does not catch an error fails its execution. Here an uncaught error pauses a run, so that nothing is lost;
  `Program.run` says `Abort` for it.
- A name that comes from data is the key of a task: names of steps and checkpoints are those of the code.
- A child context is a `@checkpoint`; a callback is a task that receives; an invoked function is a child run; a map or
  parallel operation is a `gather`; a poll is a `@checkpoint` around a loop of a step and a sleep.
"""

from __future__ import annotations

import functools

from tests.yardstick.programs import branches, callbacks, children, contexts, polls, steps
from tests.yardstick.programs.program import Program

SUITES = (steps, contexts, callbacks, children, polls, branches)


@functools.cache
def programs() -> dict[str, type[Program]]:
    """Which program is the handler of which case."""
    found: dict[str, type[Program]] = {}
    for suite in SUITES:
        for case, program in suite.CASES.items():
            assert case not in found, f"case {case} has two programs"
            found[case] = program
    return found
