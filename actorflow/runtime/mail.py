"""What a commit brings to others: new runs, messages, answers. Shown to nobody before it is durable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define

from actorflow.errors import StoreError
from actorflow.records import Commit, Consume, Entry, Envelope, Loaded, Refusal, Run, SetDead, Write
from actorflow.runtime import room
from actorflow.runtime.loops import Loop, Signal

if TYPE_CHECKING:
    from actorflow.runtime.host import Host


LATE = "late"


class Waiter(Signal):
    """Somebody outside who waits for the end of a run, or for an answer."""

    __slots__ = ("payload", "status")

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.status: str = ""
        self.payload: bytes = b""

    def late(self) -> None:
        """Its time is over."""
        if not self.is_set:
            self.status = LATE
            self.set()


class Handed(Signal):
    """A commit that came in by the door: set when it is durable or refused, and its mail is delivered.

    The mail is delivered, and what follows from the commit done, also if the caller is gone by then.
    """

    __slots__ = ("_durable", "_mail", "refusal")

    def __init__(self, host: Host, writes: Sequence[Write], durable: Callable[[], object] | None = None) -> None:
        super().__init__(host.loop)
        written = list(writes)
        self._mail = mail_of(host, written)
        self._durable = durable
        self.refusal: Refusal | StoreError | None = None
        host.committer.submit(Commit(tuple(written)), self._told, door=True)

    def _told(self, refusal: Refusal | StoreError | None) -> None:
        self.refusal = refusal
        if self._mail is not None:
            self._mail.told(refusal)
        if self._durable is not None and refusal is None:
            self._durable()
        self.set()


@define(eq=False, repr=False)
class Mail:
    """The new runs, envelopes and answers of one commit."""

    host: Host
    runs: tuple[Run, ...] = ()
    envelopes: tuple[Envelope, ...] = ()
    answers: tuple[Consume | SetDead, ...] = ()
    accepted: tuple[int, ...] = ()  #: messages that were not durable before, though their receiver has them: see `Direct`

    def told(self, refusal: Refusal | StoreError | None) -> None:
        """The commit is durable, or nothing of it was written."""
        if refusal is not None:
            for envelope in self.envelopes:
                self.host.reserve(envelope, -1)
            for answer in self.answers:
                room.keep(self.host, answer.id)
            for message in self.accepted:
                self.host.direct.again(message)
            return
        if self.accepted:
            self.host.direct.durable(self.accepted)
        for run in self.runs:  # At once: whoever writes to it from here on finds it in memory, and nobody loads it, too.
            self.host.loading.enter(Loaded(run=run), [])
        for envelope in self.envelopes:
            self.host.reserve(envelope, -1)
            self.host.arrived(envelope)
        for answer in self.answers:
            self.host.answered(answer.id, answer.answer or b"null")
        if self.host.cast.dropping:
            for answer in self.answers:
                self.host.cast.dropping.pop(answer.id, None)


TRAVELS = frozenset((Run, Envelope, Consume, SetDead))  #: writes that are of somebody else's business


def mail_of(host: Host, writes: list[Write]) -> Mail | None:
    """The mail of a commit that is on its way: from now on places are kept for its messages. Most commits have none.

    What need not be written of messages that were never accepted is taken out of *writes*.
    """
    if TRAVELS.isdisjoint(map(type, writes)):
        return None
    mail, forks = Mail(host), set[int]()
    for write in writes:
        if type(write) is Entry:
            if write.kind == "forked":
                forks.add(write.run)
        elif type(write) is Consume or type(write) is SetDead:
            if write.answer is not None:
                mail.answers += (write,)
        elif type(write) is Envelope:
            # Not one that is a dead letter from the start, or that its receiver has already.
            if write.state == "pending" and not host.direct.holds(write.id):
                host.reserve(write, 1)
                mail.envelopes += (write,)
        elif type(write) is Run:
            mail.runs += (write,)
    if forks:
        mail.runs = tuple(run for run in mail.runs if run.id not in forks)  # They inherit: they are loaded.
    mail.accepted = host.direct.accepted(writes)
    return mail


def given_up(host: Host, envelope: Envelope, answer: bytes) -> list[Write]:
    """The writes that say of a message, taken or not, that nobody will answer it any more.

    The answer (a failure, see `failed_answer`) is kept for who asks again with the same key; an asking run is told.
    """
    if envelope.type.startswith("~"):
        return []
    kept: list[Write] = []
    if envelope.key is not None:
        kept.append(Consume(envelope.id, answer) if envelope.state == "done" else SetDead(envelope.id, answer))
    return [*kept, *host.reply(envelope, answer)]
