"""Asks that take one commit instead of two: whoever takes the message at once does so in the commit that accepts it.

An ask that nobody can repeat (it has no key) promises nothing before it is answered, so it need not be accepted first. It is
put into the mailbox as it is, and taken when the writer is about to take its next batch: whatever was asked until then is
taken together. If its answer is in the same commit, as most are, the message itself is never written: the event of the actor's
turn, or the entry of the run's `receive`, has all of it. A turn that waits, or fails, and a run that answers later, write it
with their first commit, and from then on it is a message like any other.

Ends of children are looked at then, too: those that come until then are one commit of their parent.

If its receiver does not take it after all, or its commit is refused, the asker is told so, and asks the usual way: nothing was
written of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.records import Consume, Envelope, SetDead, Write

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host

AGAIN = "again"
"""The status of a waiter whose message was not taken after all."""

TURNS_MAX = 256
"""Messages taken for one batch: then it is written, and the loop gets a turn."""


class Direct:
    """Messages that are not durable yet, though they are in the mailbox of their receiver, or taken out of it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._taken: set[int] = set()  #: not durable
        self._unwritten: dict[int, Envelope] = {}  #: those of them that no commit on its way has
        self._ready: dict[Activation, None] = {}  #: receivers that have some in their mailboxes

    def take(self, receiver: Activation, envelope: Envelope) -> None:
        """Put it into the mailbox of one that `takes` it; soon it does."""
        self._taken.add(envelope.id)
        self._unwritten[envelope.id] = envelope
        receiver.mailbox.put(envelope)
        self._ready[receiver] = None
        self._host.committer.look()

    def soon(self, receiver: Activation) -> None:
        """It has mail, and may get more until the writer takes its next batch: then it is served."""
        self._ready[receiver] = None
        self._host.committer.look()

    def serve(self) -> None:
        """The writer is about to take a batch: have it all that can be taken now."""
        turns = 0
        later: dict[Activation, None] = {}
        while self._ready and turns < TURNS_MAX:
            receiver = next(iter(self._ready))
            del self._ready[receiver]
            if not receiver.live:
                continue
            turns += len(receiver.mailbox)
            receiver.serve()
            turns -= len(receiver.mailbox)
            if not receiver.inflight:
                self.untaken(receiver)
            elif receiver.mailbox.waiting:  # It may when that is durable.
                later[receiver] = None
        self._ready.update(later)

    def write(self, envelope: Envelope | None, writes: list[Write]) -> None:
        """Its turn is not over at once, or it is dropped: the message is accepted with what is written of that first."""
        if envelope is not None and self._unwritten.pop(envelope.id, None) is not None:
            writes.append(envelope)

    def accepted(self, writes: list[Write]) -> tuple[int, ...]:
        """Those that a commit makes durable. What it takes and was never written it need not take out of the store."""
        if not self._taken:
            return ()
        accepted: list[int] = []
        taken: dict[int, bytes | None] = {}  #: the answer, if that is in the same commit
        others: list[Write] = []
        for write in writes:
            if type(write) is Consume or type(write) is SetDead:
                if write.id in self._unwritten:
                    taken[write.id] = write.answer or taken.get(write.id)
                    continue
            elif type(write) is Envelope and write.id in self._taken:
                accepted.append(write.id)
            others.append(write)
        for message, answer in taken.items():
            envelope = self._unwritten.pop(message)
            if answer is None:  # It has its number, and may be answered later.
                others.append(envelope._replace(state="done"))
        writes[:] = others
        return (*accepted, *taken)

    def holds(self, message: int) -> bool:
        """True if it is not durable."""
        return message in self._taken

    def durable(self, accepted: tuple[int, ...]) -> None:
        """The commit that has them is durable."""
        self._taken.difference_update(accepted)

    def again(self, message: int) -> bool:
        """Nothing was written of it, and nobody will take it: its asker asks the usual way. False if it is none of these."""
        if message not in self._taken:
            return False
        self._taken.discard(message)
        self._unwritten.pop(message, None)
        for waiter in self._host.replies.pop(message, ()):
            waiter.status = AGAIN
            waiter.set()
        return True

    def untaken(self, receiver: Activation) -> None:
        """What is in its mailbox now it does not take, unless a commit on its way has it."""
        waiting = receiver.mailbox.waiting
        if waiting and self._unwritten:
            for message in self._unwritten.keys() & waiting.keys():
                receiver.mailbox.remove(waiting[message])
                self.again(message)
