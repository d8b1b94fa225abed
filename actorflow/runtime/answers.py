"""How each verb of durable code is answered: what can be decided at once is, the rest waits or is performed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from actorflow.kernel.requests import Asked, Closing
from actorflow.message import Message, decode_message, reply_type, resolve
from actorflow.records import Consume, Entry, Envelope, Event, Write
from actorflow.runtime.attempts import Attempt
from actorflow.runtime.calls import Call, Sleeping, Stopper, Waiting
from actorflow.runtime.children import Awaiting, Starting
from actorflow.runtime.looping import Looping
from actorflow.runtime.sending import Asking, AskingInMemory, Telling
from actorflow.steps import StepCall
from actorflow.verbs import Ask, Each, Receive, ResultOf, Sleep, Start, Tell

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation


def open_call(activation: Activation, asked: Asked) -> Call:
    """The call for what was asked."""
    match asked.request:
        case StepCall():
            return Attempt(activation, asked)
        case Sleep():
            return Sleeping(activation, asked)
        case Receive():
            return Receiving(activation, asked)
        case Tell():
            return Telling(activation, asked)
        case Ask(to=to) if activation.host.cast.in_memory(to):
            return AskingInMemory(activation, asked)
        case Ask():
            return Asking(activation, asked)
        case Start():
            return Starting(activation, asked)
        case ResultOf():
            return Awaiting(activation, asked)
        case Each():
            return Looping(activation, asked)
        case Closing():
            return ClosingCall(activation, asked)
        case other:
            raise AssertionError(f"nobody answers {other!r}")


def _taken(envelope: Envelope) -> bytes:
    """What a `receive` records of the message besides its content: its number, and whom an answer goes to if a run asked."""
    asked = b"" if envelope.reply_to is None else b" %d %s" % (envelope.reply_to, (envelope.key or "").encode())
    return b"%d%s" % (envelope.id, asked)


def unanswered(run: int, events: Iterable[Event]) -> dict[int, Envelope]:
    """Asks of other runs that the code has taken and not yet answered, as far as they are recorded."""
    asks: dict[int, Envelope] = {}
    for _, entry in events:
        if entry.kind == "receive" and entry.input is not None and b" " in entry.input:
            number, reply_to, key = entry.input.split(b" ", 2)
            asks[int(number)] = Envelope(
                int(number), run, entry.ref or "", key.decode(), b"", "", entry.at, None, int(reply_to), "done"
            )
        elif entry.kind == "reply" and entry.input is not None:
            asks.pop(int(entry.input), None)
    return asks


class Receiving(Waiting):
    """`receive`: the oldest message that fits; with `within`, until its time has come."""

    asked: Asked

    @property
    def request(self) -> Receive:
        assert isinstance(self.asked.request, Receive)
        return self.asked.request

    def moment(self) -> float | None:
        within_s = self.request.within_s
        return None if within_s is None else self.activation.host.clock.wall() + within_s

    def at_once(self) -> tuple[Entry, list[Write]] | None:
        answer = self.activation.look(self)
        if answer is None and self.request.within_s == 0:
            return self.entry(outcome=None), []
        return answer

    def takes(self, of: type[Message[Any]]) -> bool:
        return issubclass(of, self.request.types)

    def offer(self, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        if envelope.type.startswith("~"):
            return None
        of = resolve(envelope.type)
        if not issubclass(of, self.request.types):
            return None
        where = self.request.where
        if where is not None and not where(decode_message(envelope.type, envelope.body)):
            return None
        entry = self.entry(input=_taken(envelope), outcome=envelope.body, ref=envelope.type)
        if reply_type(of) in (None, type(None)):
            return entry, [Consume(envelope.id, b"null"), *self.activation.host.reply(envelope, b"null")]
        self.activation.unanswered[envelope.id] = envelope._replace(state="done")
        return entry, [Consume(envelope.id, None)]

    def due(self) -> None:
        # A message that is there beats the clock: the timeout is decided here, in the commit of its entry.
        answer = self.activation.look(self)
        self.activation.record(self.asked, *(answer or (self.entry(outcome=None), [])))


class ClosingCall(Call):
    """The end of a failed gather, or of a checkpoint: calls that it leaves open stop first, and are recorded with it."""

    working = True

    @property
    def closing(self) -> Closing:
        assert isinstance(self.asked.request, Closing)
        return self.asked.request

    def at_once(self) -> tuple[Entry, list[Write]] | None:
        if any(call.working for asked in self.closing.dropped if (call := self.activation.calls.get(asked)) is not None):
            return None
        begun = self._take()
        for call in begun:
            call.forget()
        return self.entry(outcome=self._checked()), self._cancelled(begun, [])

    def begin(self) -> None:
        begun = self._take()
        grace_s = self.activation.host.limits.cancel_grace_s
        Stopper(begun, cancel=True, grace_s=grace_s, told=lambda writes: self._stopped(begun, writes))

    def _take(self) -> list[Call]:
        return [call for asked in self.closing.dropped if (call := self.activation.calls.pop(asked, None)) is not None]

    def _stopped(self, begun: list[Call], writes: list[Write]) -> None:
        if self.activation.calls.get(self.asked) is self:
            self.activation.record(self.asked, self.entry(outcome=self._checked()), [*writes, *self._cancelled(begun, writes)])

    def _cancelled(self, begun: list[Call], recorded: list[Write]) -> list[Write]:
        """Entries for steps that may have landed and whose outcome nobody waits for.

        Right after a load it is not known which of them an earlier life had begun, so all of them may have.
        """
        known = {write.identity for write in recorded if type(write) is Entry}
        if self.activation.replayed:  # What ended while the run was being paused is recorded, though nobody waits for it.
            known.update(entry.identity for entry in self.activation.turn.journal.order)
        held = {call.asked for call in begun if call.held}
        maybe = self.closing.dropped if self.activation.replayed else [call.asked for call in begun]
        return [
            Call(self.activation, asked).entry(status="cancelled", ref=asked.request.ref)
            for asked in maybe
            if isinstance(asked.request, StepCall) and asked.identity not in known and asked not in held
        ]

    def _checked(self) -> bytes | None:
        outcome = self.closing.outcome()
        return None if outcome is None else self.activation.host.checked(outcome, f"outcome of {self.asked}")
