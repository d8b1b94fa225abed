"""Messages of a mailbox, given to the open calls that they answer.

A message of the system (the end of a child, a reply) answers one call, which it names; those are found by name, however many
wait. Messages of users are offered to all calls that may take them, in the order in which they began to wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from actorflow.kernel.mailbox import Mailbox
from actorflow.kernel.requests import Asked
from actorflow.kernel.turn import Turn
from actorflow.records import Entry, Envelope, Run, Write
from actorflow.runtime.calls import Call
from actorflow.runtime.commits import Commits

if TYPE_CHECKING:
    from actorflow.runtime.host import Host


class Delivery(Commits):
    """The mailbox of a run, and its open calls."""

    turn: Turn

    def __init__(self, host: Host, run: Run, mailbox: Sequence[Envelope]) -> None:
        super().__init__(host, run)
        self.mailbox: Mailbox = Mailbox(mailbox)
        self.calls: dict[Asked, Call] = {}
        self.awaited: dict[tuple[str, str], dict[Call, None]] = {}  #: calls by the message of the system that answers them
        self.stopping: str | None = None  #: why nothing new begins
        self.served_at: float = -math.inf  #: up to here, delayed messages were shown to all that wait; later ones must wake it

    def unawait(self, call: Call) -> None:
        """That call awaits nothing any more."""
        assert call.awaits is not None
        calls = self.awaited.get(call.awaits, {})
        calls.pop(call, None)
        if not calls:
            self.awaited.pop(call.awaits, None)

    def serve(self) -> None:
        """Give waiting messages to waiting calls: calls in the order they began to wait, messages oldest first."""
        self.served_at = self.host.clock.wall()
        while self.mailbox.waiting and self.stopping is None and self.live:
            if not self._serve_one():
                return

    def _serve_one(self) -> bool:
        for call in self._hopeful():
            if call.held or not self.turn.wants(call.asked):
                continue
            answer = self.look(call)
            if answer is not None:
                self.record(call.asked, *answer)
                return True
            if self.stopping is not None:
                return False
        return False

    def _hopeful(self) -> Iterator[Call]:
        """Calls that a message may answer."""
        for of in self.mailbox.notices:
            yield from self.awaited.get(of, ())
        if self.mailbox.has_mail:
            yield from [call for call in self.calls.values() if call.awaits is None]

    def look(self, call: Call) -> tuple[Entry, list[Write]] | None:
        """The oldest message that answers this call, taken out of the mailbox."""
        answer: tuple[Entry, list[Write]] | None = None

        def wanted(envelope: Envelope) -> bool:
            nonlocal answer
            answer = call.offer(envelope)
            return answer is not None

        if not self.mailbox.waiting:
            return None
        try:
            now = self.host.clock.wall()
            if call.awaits is None:
                envelope = self.mailbox.oldest(wanted, now=now)
            else:
                envelope = self.mailbox.oldest_notice(call.awaits, wanted, now=now)
        except BaseException as error:  # noqa: BLE001  (a `where` of the user's, or a message that today's classes cannot read)
            self.unreadable(error)
            return None
        if envelope is not None:
            self.mailbox.remove(envelope)
        return answer

    def record(self, asked: Asked, entry: Entry, more: Iterable[Write] = ()) -> None:
        """The outcome of an open call."""
        raise NotImplementedError

    def unreadable(self, error: BaseException) -> None:
        """A waiting message, or what it was compared with, failed: set it aside."""
        raise NotImplementedError
