"""What is said of a test that did not survive: what happened, when, why, and what to do. For who reads of it the first time."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from attrs import frozen

from actorflow.records import LOG_ONLY, Entry
from actorflow.testing.invariants import Rows
from actorflow.testing.watch import TEXT_MAX, Change
from actorflow.value import Value

SHOWN_MAX = 6  #: things, lines or entries of one kind
RUNS_SHOWN_MAX = 3


class DidNotSurvive(AssertionError):
    """A crash, or a store in trouble, changed what it must not."""


@frozen
class Cause(Value):
    """Who changed the world once too often."""

    who: str  #: "charge", "Checkout.run"
    is_step: bool
    path: str  #: what was changed
    times: int
    line: str = ""  #: where: the file, the number of the line, and what it says
    key: str = ""  #: the idempotency key under which it was done again


@frozen(kw_only=True)
class Verdict(Value):
    """All there is to say."""

    test: str
    when: Sequence[str]  #: the faults, in words
    then: Sequence[str]  #: what was otherwise
    causes: Sequence[Cause]
    diverged: bool  #: durable code took another way
    journal: Sequence[str]
    again: str  #: the command that repeats it
    point: str  #: the how-manieth it was
    ignorable: bool  #: something that the test can see is otherwise, which may be meant to be

    def __str__(self) -> str:
        parts = [("crash", self.when), ("then", self.then)]
        because, remedy = self._explained()
        parts += [("because", because), ("to do", remedy), ("journal", self.journal), ("again", [self.again])]
        head = f"{self.test} does not survive ({self.point})"
        return "\n".join([head, "", *(line for title, lines in parts for line in _part(title, lines))])

    def _explained(self) -> tuple[list[str], list[str]]:
        outside = next((cause for cause in self.causes if not cause.is_step), None)
        twice = next((cause for cause in self.causes if cause.is_step), None)
        if outside is not None:
            return _outside(outside)
        if twice is not None:
            because, remedy = _twice(twice)
            meant = f'If `{twice.path}` may differ (it counts calls, say): survives(ignore=["{twice.path}"]).'
            return because, [*remedy, *([meant] if self.ignorable else [])]
        if self.diverged:
            return _DIVERGED
        return _UNKNOWN


def _outside(cause: Cause) -> tuple[list[str], list[str]]:
    return (
        [
            f"`{cause.who}` changed `{cause.path}` itself, outside of any step, and did so in {cause.times} lives{_at(cause)}",
            "After a crash durable code starts again from its top. Steps that are recorded give back what they gave; all other",
            "lines run again, and so does what they do to the world.",
        ],
        ["Move that line into a function with @step, and await it: it is done once, and remembered."],
    )


def _twice(cause: Cause) -> tuple[list[str], list[str]]:
    return (
        [
            f"the step `{cause.who}` changed `{cause.path}` {cause.times} times{_at(cause)}",
            f"Each time its idempotency key was the same: {cause.key}",
            "Nobody lived to record that it was done, so it was done again: a step runs at least once.",
        ],
        [
            "Hand `current_step().key` to whoever has the effect (the bank, the mailer, a table with a unique key), so that it",
            'knows the second time as such. Or choose @step(on_interrupt="fail") (at most once) or "ask" (a person decides).',
        ],
    )


def _at(cause: Cause) -> str:
    return f", at {cause.line}" if cause.line else "."


_DIVERGED = (
    [
        "durable code took another way when it started again from its top than the one that is recorded. It decides by",
        "something that is not the same again: the clock, chance, a global, a file.",
    ],
    ["Take time and chance from `self.now()`, `self.random()`, `self.uuid()`, and read everything else in a @step."],
)
_UNKNOWN = (
    ["nothing that the test can see was done twice; so something decides differently after a restart, or this test does."],
    [
        "Look at what the lines above say, and repeat it with the command below (--pdb works). What the test looks at must not",
        "depend on how often a step was tried, nor on the moment: `await run.result()` rather than a look in between.",
    ],
)


def strayed(test: str, lines: Sequence[str]) -> str:
    """What is said of durable code that does not even repeat itself without any fault."""
    parts = [("then", lines), ("because", _DIVERGED[0]), ("to do", _DIVERGED[1])]
    head = f"{test} does not survive: driven again from its journal, with no fault at all, durable code does something else"
    return "\n".join([head, "", *(line for title, lines in parts for line in _part(title, lines))])


def said_of(change: Change) -> list[str]:
    """A change of the world, in words."""
    if change.before == change.after == 1:
        return [f"`{change.path}` is {_cut(change.more[0])}; without the crash it is {_cut(change.fewer[0])}"]
    lines = [f"`{change.path}` holds {_things(change.after)}; without the crash {change.before}"]
    lines += [f"    more: {_cut(thing)}" for thing in _few(change.more)]
    return lines + [f"    missing: {_cut(thing)}" for thing in _few(change.fewer)]


def journal_of(rows: Iterable[Rows]) -> list[str]:
    """What was recorded of each run when the process died."""
    lines: list[str] = []
    for each in list(rows)[:RUNS_SHOWN_MAX]:
        entries = [entry for _, entry in each.past if entry.kind not in LOG_ONLY or entry.kind in ("handled", "dead", "paused")]
        what = "and recorded were" if entries else "and nothing was recorded"
        lines.append(f"{each} was {each.run.status} then, {what}")
        lines += [f"    {_entry(entry)}" for entry in entries[-SHOWN_MAX:]]
    return lines or ["nothing was recorded then"]


def _entry(entry: Entry) -> str:
    call = f"{entry.branch}:{entry.name}" if entry.branch else entry.name
    return f"{entry.kind} {call} {entry.status or '(begun)'}" if entry.kind != entry.name else f"{entry.kind} {entry.status}"


def command(test: str, schedule: str, *options: str) -> str:
    """What repeats it."""
    return shlex.join(["pytest", test, "--actorflow-crash", schedule, *options])


def _part(title: str, lines: Sequence[str]) -> list[str]:
    return [f"  {title if n == 0 else '':<9} {line}" for n, line in enumerate(lines)] + [""]


def _few(things: Sequence[str]) -> list[str]:
    more = [f"... and {len(things) - SHOWN_MAX} more"] if len(things) > SHOWN_MAX else []
    return [*things[:SHOWN_MAX], *more]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."


def _things(count: int) -> str:
    return "1 thing" if count == 1 else f"{count} things"
