"""How each verb of durable code is answered: what can be decided at once is, the rest waits or is performed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actorflow.clock import seconds
from actorflow.codec import RecordCoder
from actorflow.errors import (
    AskTimeout,
    CallCycle,
    ChildFailed,
    KeyTaken,
    MailboxFull,
    RunEnded,
    RunEnding,
    UnknownKind,
    UnknownRun,
)
from actorflow.failures import decode_failure, describe_failure
from actorflow.kernel.requests import Asked, Closing
from actorflow.message import decode_message, reply_type, resolve
from actorflow.records import ENDED, Address, Consume, Entry, EntryStatus, Envelope, Event, Run, Wake, Write
from actorflow.runtime.attempts import Attempt
from actorflow.runtime.calls import Call, Sleeping, Stopper, Waiting
from actorflow.runtime.looping import Looping
from actorflow.step import StepCall
from actorflow.verbs import Ask, Each, Receive, ResultOf, Sleep, Start, Tell

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation

notice = RecordCoder({"of": str, "status": str, "outcome": str | None})
"""The body of what the system tells a run: "~child" (a run that it waits for ended) and "~reply" (an ask was answered)."""


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

    def offer(self, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        if envelope.type.startswith("~"):
            return None
        of = resolve(envelope.type)
        if not issubclass(of, self.request.types):
            return None
        where = self.request.where
        if where is not None and not where(decode_message(envelope.type, envelope.body)):
            return None
        entry = self.entry(outcome=envelope.body, ref=envelope.type)._replace(input=_taken(envelope))
        if reply_type(of) in (None, type(None)):
            return entry, [Consume(envelope.id, b"null"), *self.activation.host.reply(envelope, b"null", None)]
        self.activation.unanswered[envelope.id] = envelope
        return entry, [Consume(envelope.id, None)]

    def due(self) -> None:
        # A message that is there beats the clock: the timeout is decided here, in the commit of its entry.
        answer = self.activation.look(self)
        self.activation.record(self.asked, *(answer or (self.entry(outcome=None), [])))


class _Sending(Call):
    """A verb that needs to know where its receiver stands before it can be recorded."""

    working = True

    def begin(self) -> None:
        self.activation.host.spawn(self._send)

    async def _send(self) -> None:
        answer = await self.decide()
        if self.activation.calls.get(self.asked) is self and self.activation.stopping is None:
            self.activation.record(self.asked, *answer)

    async def decide(self) -> tuple[Entry, list[Write]]:
        raise NotImplementedError

    def accept(self, target: Run, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        """The refusal, if that run does not take this message; else None."""
        host = self.activation.host
        if target.status in ENDED:
            return self.failed(RunEnded(target.address, target.status)), []
        if target.status == "undoing":
            return self.failed(RunEnding(target.address)), []
        depth_max = host.mailbox_max(target.kind)
        if host.depth(target.id) >= depth_max:
            return self.failed(MailboxFull(target.address, depth_max)), []
        return None


class Telling(_Sending):
    """`tell`: the message and the entry are one commit."""

    async def decide(self) -> tuple[Entry, list[Write]]:
        request = self.asked.request
        assert isinstance(request, Tell)
        host = self.activation.host
        target = await host.find(request.to)
        if target is None:
            return self.failed(UnknownRun(request.to)), []
        envelope = host.envelope(
            target.id,
            request.type,
            request.body,
            key=request.key,
            sender=str(self.activation),
            due_at=None if request.after_s is None else host.clock.wall() + request.after_s,
        )
        if request.key is not None:
            earlier = await host.store.message(target.id, request.key)
            if earlier is not None:
                if (earlier.type, earlier.body) == (request.type, request.body):
                    return self.entry(), []
                return self.failed(KeyTaken(f"message key {request.key!r}", earlier.body.decode(), request.body.decode())), []
        return self.accept(target, envelope) or (self.entry(), [envelope, Wake(target.id, envelope.due_at or 0.0)])


class Asking(Waiting):
    """`ask`: the message is sent once, with an intent; the reply, a typed error or the timeout is the outcome."""

    working = True

    @property
    def request(self) -> Ask:
        assert isinstance(self.asked.request, Ask)
        return self.asked.request

    @property
    def key(self) -> str:
        return self.activation.host.idempotency_key(self.activation, self.asked.identity)

    def opening(self) -> list[Write]:
        intent = self.activation.turn.journal.intent(self.asked.identity)
        if intent is not None:
            self.working, self.due_at = False, intent.due_at
        return []

    def begin(self) -> None:
        if self.working:
            self.activation.host.spawn(self._send)
        else:
            super().begin()

    async def _send(self) -> None:
        host, activation, request = self.activation.host, self.activation, self.request
        target = await host.find(request.to)
        if activation.calls.get(self.asked) is not self or activation.stopping is not None:
            return
        if target is None:
            activation.record(self.asked, self.failed(UnknownRun(request.to)))
            return
        if (cycle := host.cycle(activation.run.id, target.id)) is not None:
            activation.record(self.asked, self.failed(CallCycle(cycle)))
            return
        envelope = host.envelope(
            target.id, request.type, request.body, key=self.key, sender=str(activation), reply_to=activation.run.id
        )
        earlier = await host.store.message(target.id, self.key)
        if activation.calls.get(self.asked) is not self or activation.stopping is not None:
            return
        if earlier is not None:  # Asked before, and set aside by a `retry`: it gets the first answer.
            self._joined(earlier)
            return
        refused = _Sending.accept(self, target, envelope)  # type: ignore[arg-type]
        if refused is not None:
            activation.record(self.asked, *refused)
            return
        self.working, self.due_at = False, host.clock.wall() + request.within_s
        intent = self.entry(kind="intent", status="", due_at=self.due_at)
        activation.turn.journal.note(intent)
        host.asks.setdefault(activation.run.id, {})[self.key] = target.id
        writes: list[Write] = [intent, envelope, Wake(target.id, 0.0)]
        activation.place(writes)
        activation.submit(writes, lambda: Waiting.begin(self))

    def _joined(self, earlier: Envelope) -> None:
        if earlier.answer is not None:
            self.activation.record(self.asked, self.entry(outcome=earlier.answer))
            return
        self.working, self.due_at = False, self.activation.host.clock.wall() + self.request.within_s
        intent = self.entry(kind="intent", status="", due_at=self.due_at)
        self.activation.turn.journal.note(intent)
        writes: list[Write] = [intent]
        self.activation.place(writes)
        self.activation.submit(writes, lambda: Waiting.begin(self))

    def forget(self) -> None:
        super().forget()
        self.activation.host.asks.get(self.activation.run.id, {}).pop(self.key, None)

    def offer(self, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        if envelope.type != "~reply":
            return None
        reply = notice.decode(envelope.body, "reply")
        if reply["of"] != self.key:
            return None
        status: EntryStatus = "ok" if reply["status"] == "ok" else "failed"
        return self.entry(status=status, outcome=(reply["outcome"] or "null").encode()), [Consume(envelope.id, None)]

    def due(self) -> None:
        answer = self.activation.look(self)
        timeout = self.failed(AskTimeout(self.request.to, self.request.within_s), status="timeout")
        self.activation.record(self.asked, *(answer or (timeout, [])))


class Starting(_Sending):
    """`start` of a child: the child and the entry are one commit."""

    async def decide(self) -> tuple[Entry, list[Write]]:
        request, activation = self.asked.request, self.activation
        assert isinstance(request, Start)
        host = activation.host
        if request.to.kind not in host.kinds:
            return self.failed(UnknownKind(request.to.kind, list(host.kinds))), []
        existing = await host.find(request.to)
        if existing is not None:
            existing = await host.store.get(existing.id) or existing
            if host.kinds[request.to.kind].coder.decode(existing.input, "recorded input") == host.kinds[
                request.to.kind
            ].coder.decode(request.fields, "input"):
                return self.entry(ref=request.ref), []
            return self.failed(KeyTaken(request.to, existing.input.decode(), request.fields.decode())), []
        deadline_at = None if request.deadline_s is None else host.clock.wall() + seconds(request.deadline_s)
        if activation.run.deadline_at is not None and not request.detached:
            deadline_at = min(activation.run.deadline_at, deadline_at or activation.run.deadline_at)
        child = host.new_run(
            request.to, request.fields, deadline_at=deadline_at, parent=activation.run.id, detached=request.detached
        )
        if not request.detached:
            activation.children[request.to] = child.id
        return self.entry(ref=request.ref), [child, host.begun(child)]


class Awaiting(Call):
    """`result` of a child: its end comes as a message."""

    def opening(self) -> list[Write]:
        # Until it is known that a message will come, nothing but this call would wake the run after a crash.
        self.working = self.of not in self.activation.children
        return []

    @property
    def of(self) -> Address:
        assert isinstance(self.asked.request, ResultOf)
        return self.asked.request.of

    def at_once(self) -> tuple[Entry, list[Write]] | None:
        return self.activation.look(self)

    def begin(self) -> None:
        if self.of not in self.activation.children:
            self.activation.host.spawn(self._watch)

    async def _watch(self) -> None:
        """Not a running child of ours: it may have ended, be somebody else's, or be detached."""
        host, activation = self.activation.host, self.activation
        target = await host.find(self.of, whole=True)
        if activation.calls.get(self.asked) is not self or activation.stopping is not None:
            return
        if target is None:
            activation.record(self.asked, self.failed(UnknownRun(self.of)))
        elif target.status in ENDED:
            activation.record(self.asked, *self._ended(target.status, target.outcome or b"null"))
        elif target.parent != activation.run.id:
            key = f"watch/{activation.run.id}"
            if await host.store.message(target.id, key) is None and activation.calls.get(self.asked) is self:
                watch = host.envelope(target.id, "~watch", b"null", key=key, sender=str(activation), reply_to=activation.run.id)
                self._rest([watch, Wake(target.id, 0.0)])
            elif activation.calls.get(self.asked) is self:
                self._rest([])
        else:
            self._rest([])

    def _rest(self, writes: list[Write]) -> None:
        """A message will come: until then it only waits."""
        self.working = False
        self.activation.place(writes)
        self.activation.submit(writes, lambda: self.activation.host.rest(self.activation))

    def offer(self, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        if envelope.type != "~child":
            return None
        end = notice.decode(envelope.body, "end of a child")
        if end["of"] != str(self.of):
            return None
        self.activation.children.pop(self.of, None)
        entry, more = self._ended(end["status"], (end["outcome"] or "null").encode())
        return entry, [Consume(envelope.id, None), *more]

    def _ended(self, status: str, outcome: bytes) -> tuple[Entry, list[Write]]:
        if status == "completed":
            return self.entry(outcome=outcome), []
        error = ChildFailed(str(self.of), status, describe_failure(outcome))
        error.__cause__ = decode_failure(outcome)
        return self.failed(error), []


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
