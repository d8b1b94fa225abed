"""Open calls: what durable code asked for and is being performed or waited for. One class a way of waiting.

A call is made when it is asked, `begin`s when all that led to it is durable, and ends by `Activation.record`, or by `stop`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from actorflow.errors import StoreError
from actorflow.failures import encode_failure
from actorflow.kernel.requests import Asked
from actorflow.message import Message
from actorflow.records import Entry, EntryStatus, Envelope, Write, made
from actorflow.verbs import Sleep

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.timers import Timer

log: logging.Logger = logging.getLogger("actorflow")
REPEAT_S = 1.0  #: before a store that could not be read is asked again

Stopped = Callable[[list[Write]], object]
"""Told once when a call has stopped: what is to be recorded of it."""


class Unreadable(Exception):
    """A waiting message, or what it was compared with, failed: its run cannot go on."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error
        super().__init__(error)


class Call:
    """One open call."""

    working: bool = False  #: True while the run cannot be said to wait only
    due_at: float | None = None  #: when it goes on by itself (wall clock)
    held: bool = True  #: what led to it is not durable yet
    awaits: tuple[str, str] | None = None  #: type and sender of the system's message that answers it; None: a user's, if any

    def __init__(self, activation: Activation, asked: Asked) -> None:
        self.activation: Activation = activation
        self.asked: Asked = asked
        self.input: bytes | None = asked.request.input()  #: what is recorded of it

    def opening(self) -> list[Write]:
        """What is recorded in the commit that opens it."""
        return []

    def at_once(self) -> tuple[Entry, list[Write]] | None:
        """Its entry, and what goes with that, if it can be decided without waiting."""
        return None

    def begin(self) -> None:
        """Perform it, or wait: all that led to it is durable."""

    def takes(self, of: type[Message[Any]]) -> bool:
        """True if a message of that class may answer it."""
        return False

    def offer(self, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        """Its entry, if this message answers it."""
        return None

    def ask(self, question: Callable[[], Awaitable[object]]) -> None:
        """Do what has to look into the store first, beside. A store that cannot be read now is asked again."""
        host = self.activation.host

        async def asking() -> None:
            while self.activation.calls.get(self.asked) is self and host.committer.stopped is None:
                try:
                    await question()
                except StoreError as error:
                    log.warning("%s of %s: %s", self.asked, self.activation, error)
                    await anyio.sleep(REPEAT_S)
                except Exception as error:  # noqa: BLE001  (rows that today's classes cannot read)
                    self.activation.record(self.asked, self.failed(error))
                else:
                    return

        host.spawn(asking)

    def stop(self, told: Stopped, *, cancel: bool) -> None:
        """End it without an answer.

        Args:
            told: Called when it has stopped, with what to record.
            cancel: Cancel what is running; False: let it finish and record that, but begin nothing new.
        """
        self.forget()
        told([])

    def forget(self) -> None:
        """It was answered or stopped: let go of timers, and of its place among those who await something."""
        if self.awaits is not None:
            self.activation.unawait(self)

    def kill(self) -> None:
        """Its activation is dropped: end what runs, and tell nobody."""
        self.forget()

    def entry(
        self,
        *,
        status: EntryStatus = "ok",
        attempt: int = 0,
        kind: str | None = None,
        due_at: float | None = None,
        input: bytes | None = None,
        outcome: bytes | None = None,
        ref: str | None = None,
    ) -> Entry:
        """An entry of this call; of one that is not of its own *kind* the input is left out."""
        activation, run = self.activation, self.activation.run.id
        branch, name, n = self.asked.identity
        if kind is None:
            kind, input = self.asked.request.kind, self.input if input is None else input
        at = activation.host.clock.wall()
        row = (run, activation.round, kind, branch, name, n, status, attempt, at, due_at, input, outcome, ref)
        return made(Entry, row)

    def failed(self, error: BaseException, *, status: EntryStatus = "failed") -> Entry:
        """The entry of a call that failed."""
        return self.entry(status=status, outcome=encode_failure(error))


class Waiting(Call):
    """A call that ends at a moment, unless something else ends it before."""

    due_at: float | None = None
    _timer: Timer | None = None

    def moment(self) -> float | None:
        """When, if it begins now."""
        return None

    def opening(self) -> list[Write]:
        recorded = self.activation.turn.journal.due_at(self.asked.identity)
        self.due_at = recorded if recorded is not None else self.moment()
        if self.due_at is None or recorded is not None:
            return []
        # Not before this is durable does the wait begin: a crash must not make it longer.
        return [self.entry(kind="timer", status="", due_at=self.due_at)]

    def begin(self) -> None:
        if self.due_at is not None:
            self._timer = self.activation.host.timers.at(self.due_at, self._fire)

    def _fire(self) -> None:
        if self.activation.fires():
            try:
                self.due()
            except Unreadable as found:
                self.activation.unreadable(found.error, [])

    def due(self) -> None:
        """Its time has come."""

    def forget(self) -> None:
        super().forget()
        if self._timer is not None:
            self._timer.cancel()


class Sleeping(Waiting):
    """`sleep`, `sleep_until`."""

    def moment(self) -> float | None:
        assert isinstance(self.asked.request, Sleep)
        return self.asked.request.due_at(self.activation.host.clock.wall())

    def due(self) -> None:
        self.activation.record(self.asked, self.entry())


class Stopper:
    """Stops several calls and tells once, when all have stopped or the grace is over."""

    def __init__(self, calls: list[Call], *, cancel: bool, grace_s: float | None, told: Callable[[list[Write]], Any]) -> None:
        """It begins by `stop`ping them.

        Args:
            calls: Already taken out of the activation, so that nobody else records them.
            cancel: Cancel what is running; False: let it finish.
            grace_s: How long cancelled work may take before it is abandoned; None is without end.
            told: Called once, with all there is to record.
        """
        self._left = set(calls)
        self._writes: list[Write] = []
        self._told: Callable[[list[Write]], Any] | None = told
        self._timer: Timer | None = None
        for call in calls:
            call.stop(lambda writes, call=call: self._stopped(call, writes), cancel=cancel)  # type: ignore[misc]
        if self._left and grace_s is not None:
            self._timer = calls[0].activation.host.deadlines.after(grace_s, self._abandon)
        self._tell()

    def _stopped(self, call: Call, writes: list[Write]) -> None:
        if call in self._left:
            self._left.discard(call)
            self._writes.extend(writes)
            self._tell()

    def _abandon(self) -> None:
        for call in list(self._left):
            self._left.discard(call)
            self._writes.extend(call.abandon() if isinstance(call, Abandonable) else [])
        self._tell()

    def _tell(self) -> None:
        if not self._left and self._told is not None:
            told, self._told = self._told, None
            if self._timer is not None:
                self._timer.cancel()
            told(self._writes)


class Abandonable(Call):
    """A call whose work may outlive its cancellation."""

    def drain(self) -> bool:
        """The runtime leaves: cancel what still runs, and say whether anything did. As if the process had died, but nobody
        counts it."""
        return False

    def abandon(self) -> list[Write]:
        """Its grace is over: what to record; whatever it says later is dropped."""
        return []
