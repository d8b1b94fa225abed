"""`tell` and `ask` of durable code: a message on its way, and the answer to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from actorflow.codec import RecordCoder
from actorflow.errors import (
    ActorPaused,
    AskTimeout,
    CallCycle,
    KeyTaken,
    MailboxFull,
    RunEnded,
    RunEnding,
    StoreStopped,
    UnknownRun,
)
from actorflow.failures import split_answer
from actorflow.kernel.outbox import Post
from actorflow.kernel.requests import Asked
from actorflow.records import ENDED, Commit, Consume, Entry, EntryStatus, Envelope, Run, Wake, Write
from actorflow.runtime.calls import Call, Waiting
from actorflow.verbs import Ask, Tell

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host

notice: RecordCoder = RecordCoder({"of": str, "status": str, "outcome": str | None})
"""The body of what the system tells a run: "~child" (a run that it waits for ended) and "~reply" (an ask was answered)."""


class Sending(Call):
    """A verb that needs to know where its receiver stands before it can be recorded."""

    working = True
    tell_when_durable: Callable[[], object] | None = None

    def begin(self) -> None:
        self.ask(self._send)

    async def _send(self) -> None:
        answer = await self.decide()
        if self.activation.calls.get(self.asked) is self and self.activation.stopping is None:
            self.activation.record(self.asked, *answer)
            if self.tell_when_durable is not None:
                then, commit = self.tell_when_durable, Commit((), self.activation)
                self.activation.host.committer.submit(commit, lambda refusal: then() if refusal is None else None)

    async def decide(self) -> tuple[Entry, list[Write]]:
        raise NotImplementedError

    def accept(self, target: Run, envelope: Envelope) -> tuple[Entry, list[Write]] | None:
        """The refusal, if that run does not take this message; else None."""
        host = self.activation.host
        target = host.present(target)
        if target.status in ENDED:
            return self.failed(RunEnded(target.address, target.status)), []
        if target.status == "undoing":
            return self.failed(RunEnding(target.address)), []
        if envelope.reply_to is not None and target.status == "paused":
            return self.failed(ActorPaused(target.address, target.reason or "", None)), []
        depth_max = host.mailbox_max(target.kind)
        if host.depth(target.id) >= depth_max:
            return self.failed(MailboxFull(target.address, depth_max)), []
        return None


class Telling(Sending):
    """`tell`: the message and the entry are one commit."""

    tell_when_durable: Callable[[], object] | None

    async def decide(self) -> tuple[Entry, list[Write]]:
        request = self.asked.request
        assert isinstance(request, Tell)
        host = self.activation.host
        if host.cast.in_memory(request.to):
            return self._in_memory(request)
        target = await host.cast.receiver(request.to)
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

    def _in_memory(self, request: Tell) -> tuple[Entry, list[Write]]:
        """To a memory-only actor, once the entry is durable; a crash between the two loses it."""
        activation, host = self.activation, self.activation.host
        if not host.cast.memory.has_room(request.to, 0):
            return self.failed(MailboxFull(request.to, host.mailbox_max(request.to.kind))), []
        post = Post(request.to, request.type, request.body, None, request.after_s)
        self.tell_when_durable = lambda: host.cast.tell_in_memory(post, str(activation))
        return self.entry(), []


class AskingInMemory(Call):
    """`ask` of a memory-only actor: recorded when it is answered, and asked again after a crash, like a step."""

    working = True
    _scope: anyio.CancelScope | None = None

    def begin(self) -> None:
        self.activation.host.spawn(self._ask)

    async def _ask(self) -> None:
        request, host = self.asked.request, self.activation.host
        assert isinstance(request, Ask)
        with anyio.CancelScope() as self._scope:
            try:
                answer = await host.cast.memory.ask_encoded(request.to, request.type, request.body, request.within_s, inside=True)
                entry = self.entry(outcome=host.checked(answer, f"reply of {request.to}"))
            except StoreStopped:
                return  # It is asked again by the next holder.
            except AskTimeout as error:
                entry = self.failed(error, status="timeout")
            except Exception as error:  # noqa: BLE001  (what the handler failed with, or why it was not asked)
                entry = self.failed(error)
            if self.activation.calls.get(self.asked) is self and self.activation.stopping is None:
                self.activation.record(self.asked, entry)

    def forget(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class Asking(Waiting):
    """`ask`: the message is sent once, with an intent; the reply, a typed error or the timeout is the outcome."""

    working: bool = True
    due_at: float | None = None

    @property
    def request(self) -> Ask:
        assert isinstance(self.asked.request, Ask)
        return self.asked.request

    def __init__(self, activation: Activation, asked: Asked) -> None:
        super().__init__(activation, asked)
        self.key: str = activation.host.idempotency_key(activation, asked.identity)
        self.awaits: tuple[str, str] | None = ("~reply", self.key)

    def opening(self) -> list[Write]:
        intent = self.activation.turn.journal.intent(self.asked.identity)
        if intent is not None:
            self.working, self.due_at = False, intent.due_at
        return []

    def begin(self) -> None:
        if self.working:
            self.ask(self._send)
        else:
            super().begin()
            if self.key not in self.activation.host.asks.get(self.activation.run.id, {}):
                self.ask(self._edge)

    async def _edge(self) -> None:
        """It was asked in an earlier life: who waits for whom is known in memory only."""
        host = self.activation.host
        target = await host.find(self.request.to)
        if target is not None and self.activation.calls.get(self.asked) is self:
            host.asks.setdefault(self.activation.run.id, {})[self.key] = target.id

    async def _send(self) -> None:
        host, activation, request = self.activation.host, self.activation, self.request
        target = await host.cast.receiver(request.to)
        if activation.calls.get(self.asked) is not self or activation.stopping is not None:
            return
        if target is None:
            activation.record(self.asked, self.failed(UnknownRun(request.to)))
            return
        if (circle := cycle(host, activation.run.id, target.id)) is not None:
            activation.record(self.asked, self.failed(CallCycle(circle)))
            return
        envelope = host.envelope(
            target.id,
            request.type,
            request.body,
            key=self.key,
            sender=str(activation),
            reply_to=activation.run.id,
            expires_at=host.clock.wall() + request.within_s if host.cast.is_actor(request.to.kind) else None,
        )
        earlier = await host.store.message(target.id, self.key)
        if activation.calls.get(self.asked) is not self or activation.stopping is not None:
            return
        if earlier is not None:  # Asked before, and set aside by a `retry`: it gets the first answer.
            self._joined(earlier)
            return
        refused = Sending.accept(self, target, envelope)  # type: ignore[arg-type]
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
            status, payload = split_answer(earlier.answer)
            self.activation.record(self.asked, self.entry(status=status, outcome=payload))
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
        reply = notice.decode(envelope.body, "reply")
        status: EntryStatus = "ok" if reply["status"] == "ok" else "failed"
        return self.entry(status=status, outcome=(reply["outcome"] or "null").encode()), [Consume(envelope.id, None)]

    def due(self) -> None:
        answer = self.activation.look(self)
        timeout = self.failed(AskTimeout(self.request.to, self.request.within_s), status="timeout")
        self.activation.record(self.asked, *(answer or (timeout, [])))


def cycle(host: Host, asker: int, target: int) -> list[str] | None:
    """The circle that this ask would close, or None."""
    seen, todo = {asker}, [(target, [asker, target])]
    while todo:
        run, trail = todo.pop()
        if run == asker:
            return [str(host.resident[r].run.address) if r in host.resident else str(r) for r in trail]
        if run not in seen:
            seen.add(run)
            todo.extend((nxt, [*trail, nxt]) for nxt in host.asks.get(run, {}).values())
    return None
