"""Tasks that a step leaves behind: found when its attempt ends, cancelled, and warned of. asyncio only; trio has nurseries.

Whatever a step starts ends with its attempt: the next attempt, or the undo, must not meet a task of the one before. What shall
go on belongs to somebody who outlives the step, and says so by being there: a task group that the service holds open, or a
context of its own (`asyncio.create_task(..., context=contextvars.Context())`). A client that starts tasks of its own at its
first use is to be connected before it is used in a step.

Theory of operation. A task inherits the context in which it was made, and the context of a step names its attempt. To look
at all tasks for that would be dear, so only an attempt is followed during which their number grew while it was running
itself; all that end in one turn of the loop are looked after together.
"""

from __future__ import annotations

import logging

from actorflow.attempt import StepInfo, current
from actorflow.runtime.blame import step_of
from actorflow.runtime.loops import Loop
from actorflow.runtime.workers import Job

log: logging.Logger = logging.getLogger("actorflow")


class Leaks:
    """What the attempts of one runtime leave behind."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._ended: dict[StepInfo, str] = {}  #: attempts of this turn, and who they are

    def look_after(self, job: Job) -> None:
        """A job has ended that made tasks."""
        info = job.context.get(current)
        if isinstance(info, StepInfo):
            # In the next turn: what the step cancelled itself has its chance to end until then.
            if not self._ended:
                self.loop.post(self._sweep)
            self._ended[info] = step_of(job, told=job.spawned)

    def _sweep(self) -> None:
        ended, self._ended = self._ended, {}
        for stray in self.loop.strays():
            info = stray.context.get(current)
            if isinstance(info, StepInfo) and info in ended:
                stray.cancel()
                log.warning(
                    "%s has ended and left the task %s behind: it is cancelled. Await it in the step, or, if it shall go on, "
                    "start it in a task group that the service holds open.", ended[info], stray.name,
                )  # fmt: skip
