"""The jobs of memory-only actors: handlers run in them, and at the first thing that one waits for its deadline begins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from actorflow.errors import HandlerTimeout
from actorflow.runtime.tickets import Letter
from actorflow.runtime.workers import Job, Tell

if TYPE_CHECKING:
    from actorflow.runtime.memory_actor import MemoryActor
    from actorflow.runtime.timers import Timer

log: logging.Logger = logging.getLogger("actorflow")

START_TIMEOUT_S = 30.0
"""How long `on_start` and `on_stop` may take; messages wait behind them."""


class Serving(Job):
    """A job in which handlers of one actor run."""

    tell: Tell | None
    late: bool = False  #: it was cancelled because its deadline had passed
    _timer: Timer | None = None

    def __init__(
        self,
        actor: MemoryActor,
        call: Callable[[], Any],
        then: Callable[[Any, BaseException | None], object],
        about: Letter | None = None,
    ) -> None:
        super().__init__(call, actor.context, self._over)
        self._actor = actor
        self._then = then
        self._about = about
        actor.nearby.workers.perform(self)

    def __await__(self) -> Generator[Any, Any, None]:
        if self.tell is not None:
            self._timer = self._actor.host.deadlines.after(self._timeout_s, self._too_late)
            self._actor.waits(self)
        return super().__await__()

    @property
    def _letter(self) -> Letter | None:
        return self._actor.current if self._about is None else self._about

    @property
    def _timeout_s(self) -> float:
        letter = self._letter
        return START_TIMEOUT_S if letter is None else letter[1].timeout_s

    def _too_late(self) -> None:
        self.late = True
        self._timer = self._actor.host.deadlines.after(self._actor.host.limits.cancel_grace_s, self._abandon)
        self._actor.nearby.workers.cancel(self)

    def _abandon(self) -> None:
        log.error("%s does not end though it was cancelled, and was abandoned", self._actor)
        self.done(None, None)

    def _over(self, _: Job, value: Any, error: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.late:  # Also if it made a value of its cancellation: nobody waits for that any more.
            letter = self._letter
            error = HandlerTimeout("on_start or on_stop" if letter is None else letter[1].name, self._timeout_s)
        self._then(value, error)

    def cut(self) -> None:
        """End it; nobody is told."""
        self.tell = None
        if self._timer is not None:
            self._timer.cancel()
        self._actor.nearby.workers.cancel(self)
