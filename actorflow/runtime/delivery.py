"""Messages of a mailbox, given to the open calls that they answer.

A message of the system (the end of a child, a reply) answers one call, which it names; those are found by name, however many
wait. Messages of users are offered to all calls that may take them, in the order in which they began to wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from actorflow.kernel.mailbox import Mailbox
from actorflow.kernel.requests import Asked
from actorflow.kernel.turn import Turn
from actorflow.message import resolve
from actorflow.records import Entry, Envelope, Run, Write
from actorflow.runtime.calls import Call, Unreadable
from actorflow.runtime.commits import Commits

if TYPE_CHECKING:
    from actorflow.runtime.host import Host


Answer = tuple[Asked, Entry, Sequence[Write]]
"""What an open call came to: its entry, and what goes with that."""

NO_MORE: Iterator[Answer] = iter(())


class Delivery(Commits):
    """The mailbox of a run, and its open calls."""

    turn: Turn

    def __init__(self, host: Host, run: Run, mailbox: Sequence[Envelope]) -> None:
        super().__init__(host, run)
        self.mailbox: Mailbox = Mailbox(mailbox)
        self.calls: dict[Asked, Call] = {}
        self.awaited: dict[tuple[str, str], dict[Call, None]] = {}  #: calls by the message of the system that answers them
        self.stopping: str | None = None  #: why nothing new begins
        self.unserved: bool = False  #: a message has come that was not looked at yet
        self.served_at: float = -math.inf  #: up to here, delayed messages were shown to all that wait; later ones must wake it

    def close(self, asked: Asked) -> bool:
        """That call has come to its end. False if nobody wants its outcome any more."""
        if (call := self.calls.pop(asked, None)) is not None:
            call.forget()
        return self.turn.wants(asked)

    def takes(self, type_: str) -> bool:
        """True if a message of that type is taken as soon as it is there, and what led to this is durable."""
        if self.stopping is not None or self.mailbox.reserved:  # What is on its way there was sent before.
            return False
        of = resolve(type_)
        return any(call.takes(of) for call in self.calls.values())

    def unawait(self, call: Call) -> None:
        """That call awaits nothing any more."""
        assert call.awaits is not None
        calls = self.awaited.get(call.awaits, {})
        calls.pop(call, None)
        if not calls:
            self.awaited.pop(call.awaits, None)

    def serve(self) -> None:
        """Give waiting messages to waiting calls: calls in the order they began to wait, messages oldest first."""
        self.served_at, self.unserved = self.host.clock.wall(), False
        try:
            while self.mailbox.waiting and self.stopping is None and self.live:
                if not self.record_each(self._answers()):
                    return
        except Unreadable as found:
            self.unreadable(found.error, [])

    def _answers(self) -> Iterator[Answer]:
        """What waiting messages answer, one after another: each is to be recorded before the next is looked for."""
        while (answer := self._next_answer()) is not None:
            yield answer

    def _next_answer(self) -> Answer | None:
        if not self.mailbox.waiting or self.stopping is not None or not self.live:
            return None
        for call in self._hopeful():
            if call.held or not self.turn.wants(call.asked):
                continue
            answer = self.look(call)
            if answer is not None:
                return call.asked, *answer
        return None

    def _hopeful(self) -> Iterator[Call]:
        """Calls that a message may answer."""
        for of in self.mailbox.notices:
            yield from self.awaited.get(of, ())
        if self.mailbox.has_mail:
            yield from [call for call in self.calls.values() if call.awaits is None]

    def look(self, call: Call) -> tuple[Entry, list[Write]] | None:
        """The oldest message that answers this call, taken out of the mailbox.

        Raises:
            Unreadable: A `where` of the user's failed, or a message cannot be read by today's classes.
        """
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
        except BaseException as error:
            raise Unreadable(error) from error
        if envelope is not None:
            self.mailbox.remove(envelope)
        return answer

    def record_each(self, answers: Iterator[Answer]) -> bool:
        """Outcomes of open calls; False if there is none."""
        raise NotImplementedError

    def unreadable(self, error: BaseException, writes: list[Write]) -> None:
        """A waiting message, or what it was compared with, failed: set it aside. *writes* is what was recorded before."""
        raise NotImplementedError
