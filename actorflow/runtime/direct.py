"""Asks that take one commit instead of two: an actor that is free handles them in the commit that accepts them.

An ask that nobody can repeat (it has no key) promises nothing before it is answered, so it need not be accepted first. It is
put into the mailbox as it is, and handled when the writer is about to take its next batch: whatever was asked until then is
handled together. If its turn is over at once, as most are, the message itself is never written: the event of its turn has all
of it. A turn that waits, or fails, writes it with its first commit, and from then on it is a message like any other.

If its actor leaves memory before that is durable, the asker is told so, and asks the usual way: nothing was written of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actorflow.records import Envelope, Write

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.handling import ActorActivation
    from actorflow.runtime.host import Host

AGAIN = "again"
"""The status of a waiter whose message was not taken after all."""

TURNS_MAX = 256
"""Messages handled for one batch: then it is written, and the loop gets a turn."""


class Direct:
    """Messages that are not durable yet, though they are in the mailbox of their receiver."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._taken: set[int] = set()  #: not durable
        self._unwritten: dict[int, Envelope] = {}  #: those of them that no commit on its way has
        self._ready: dict[Activation, None] = {}  #: actors that have some to handle

    def take(self, actor: ActorActivation, envelope: Envelope) -> None:
        """Put it into the mailbox of an actor that `may_begin`; it is handled soon."""
        self._taken.add(envelope.id)
        self._unwritten[envelope.id] = envelope
        actor.mailbox.put(envelope)
        self._ready[actor] = None
        self._host.committer.look()

    def soon(self, receiver: Activation) -> None:
        """It has mail, and may get more until the writer takes its next batch: then it is served."""
        self._ready[receiver] = None
        self._host.committer.look()

    def serve(self) -> None:
        """The writer is about to take a batch: have it all that can be handled now."""
        turns = 0
        while self._ready and turns < TURNS_MAX:
            receiver = next(iter(self._ready))
            del self._ready[receiver]
            if receiver.live:
                turns += len(receiver.mailbox)
                receiver.serve()
                turns -= len(receiver.mailbox)  # What was not taken is not in the batch.

    def write(self, envelope: Envelope | None, writes: list[Write]) -> None:
        """Its turn is not over at once: the message is accepted with what the turn writes first."""
        if envelope is not None and self._unwritten.pop(envelope.id, None) is not None:
            writes.append(envelope)

    def holds(self, message: int) -> bool:
        """True if it is in a mailbox, and not durable."""
        return message in self._taken

    def durable(self, message: int) -> None:
        """It is accepted, or answered, durably."""
        self._taken.discard(message)
        self._unwritten.pop(message, None)

    def again(self, message: int) -> None:
        """Nothing was written of it, and nobody will handle it: its asker asks the usual way."""
        if message in self._taken:
            self.durable(message)
            for waiter in self._host.replies.pop(message, ()):
                waiter.status = AGAIN
                waiter.set()

    def dropped(self, messages: Iterable[int]) -> None:
        """Their actor leaves memory."""
        for message in self._taken.intersection(messages):
            self.again(message)
