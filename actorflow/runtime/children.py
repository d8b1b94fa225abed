"""Children: `start` of a run by a run, and `result` of it. The end of a run comes to whoever waits for it as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.clock import seconds
from actorflow.errors import ChildFailed, KeyTaken, RunPruned, UnknownKind, UnknownRun
from actorflow.failures import decode_failure, describe_failure
from actorflow.kernel.requests import Asked
from actorflow.records import ENDED, Address, Consume, Entry, Envelope, Wake, Write
from actorflow.runtime.calls import Call
from actorflow.runtime.sending import Sending, notice
from actorflow.verbs import ResultOf, Start

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation


class Starting(Sending):
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
            if existing.input == b"":
                return self.failed(RunPruned(request.to)), []
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

    working: bool

    def __init__(self, activation: Activation, asked: Asked) -> None:
        super().__init__(activation, asked)
        assert isinstance(asked.request, ResultOf)
        self.of: Address = asked.request.of
        self.awaits: tuple[str, str] | None = ("~child", str(self.of))

    def opening(self) -> list[Write]:
        # Until it is known that a message will come, nothing but this call would wake the run after a crash.
        self.working = self.of not in self.activation.children
        return []

    def at_once(self) -> tuple[Entry, list[Write]] | None:
        return self.activation.look(self)

    def begin(self) -> None:
        if self.of not in self.activation.children:
            self.ask(self._watch)

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
        end = notice.decode(envelope.body, "end of a child")
        self.activation.children.pop(self.of, None)
        for call in self.activation.awaited.get((envelope.type, envelope.sender), ()):
            if isinstance(call, Awaiting) and call is not self:
                call.working = True  # There is one message, and several wait for it: the others look for themselves.
                call.ask(call._watch)  # noqa: SLF001  (its own class)
        entry, more = self._ended(end["status"], (end["outcome"] or "null").encode())
        return entry, [Consume(envelope.id, None), *more]

    def _ended(self, status: str, outcome: bytes) -> tuple[Entry, list[Write]]:
        if status == "completed":
            return self.entry(outcome=outcome), []
        error = ChildFailed(str(self.of), status, describe_failure(outcome))
        error.__cause__ = decode_failure(outcome)
        return self.failed(error), []
