"""Children: `start` of a run by a run, and `result` of it. The end of a run comes to whoever waits for it as a message."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from actorflow.clock import seconds
from actorflow.errors import ChildFailed, KeyTaken, RunPruned, UnknownKind, UnknownRun
from actorflow.failures import decode_failure, describe_failure
from actorflow.kernel.requests import Asked
from actorflow.records import ENDED, Address, Consume, Entry, Envelope, Wake, Write
from actorflow.runtime.calls import Call
from actorflow.runtime.delivery import Answer
from actorflow.runtime.sending import Sending, notice
from actorflow.verbs import ResultOf, Start

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host

log: logging.Logger = logging.getLogger("actorflow")

TOGETHER_MAX = 512
"""Addresses that are looked up at once: a millisecond of the store's time."""
SLICE = 32  #: children that are started in a row before the loop gets a turn
COMMIT_MAX = 4  #: children of one commit: all of them come to life when its owner is told


class Starting(Sending):
    """`start` of a child: the child and the entry are one commit."""

    def __init__(self, activation: Activation, asked: Asked) -> None:
        super().__init__(activation, asked)
        assert isinstance(asked.request, Start)
        self.request: Start = asked.request

    def begin(self) -> None:
        self.activation.host.vacancies.look_up(self)

    @property
    def open(self) -> bool:
        """False once nobody waits for it any more."""
        activation = self.activation
        goes_on = activation.calls.get(self.asked) is self and activation.stopping is None
        return goes_on and activation.turn.wants(self.asked)

    def look_closer(self) -> None:
        """Its address is in use, or nobody could tell: see who is there."""
        self.ask(self._send)

    async def decide(self) -> tuple[Entry, list[Write]]:
        request, host = self.request, self.activation.host
        if request.to.kind not in host.kinds:
            return self.failed(UnknownKind(request.to.kind, list(host.kinds))), []
        existing = await host.find(request.to)
        if existing is None:
            return self.start()
        existing = await host.store.get(existing.id) or existing
        if existing.input == b"":
            return self.failed(RunPruned(request.to)), []
        fields = host.kinds[request.to.kind].coder
        if fields.decode(existing.input, "recorded input") == fields.decode(request.fields, "input"):
            return self.entry(ref=request.ref), []
        return self.failed(KeyTaken(request.to, existing.input.decode(), request.fields.decode())), []

    def start(self) -> tuple[Entry, list[Write]]:
        """Nobody is there: a new child."""
        request, activation = self.request, self.activation
        host = activation.host
        deadline_at = None if request.deadline_s is None else host.clock.wall() + seconds(request.deadline_s)
        if activation.run.deadline_at is not None and not request.detached:
            deadline_at = min(activation.run.deadline_at, deadline_at or activation.run.deadline_at)
        child = host.new_run(
            request.to, request.fields, deadline_at=deadline_at, parent=activation.run.id, detached=request.detached
        )
        if not request.detached:
            activation.children[request.to] = child.id
        return self.entry(ref=request.ref), [child, host.begun(child)]


class Vacancies:
    """Whether the addresses of children to be are free: asked of the store for all who want to know, at a time.

    A parent of hundreds starts them all at once. A task and a question for each of them would cost as much as the child.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls: list[Starting] = []
        self._looking = False

    def look_up(self, call: Starting) -> None:
        """Start its child, if nobody is there; else have it look who that is."""
        self._calls.append(call)
        if not self._looking:
            self._looking = True
            self._host.spawn(self._look_up)

    async def _look_up(self) -> None:
        try:
            while self._calls:
                calls, self._calls = self._calls[:TOGETHER_MAX], self._calls[TOGETHER_MAX:]
                await self._start(calls)
        finally:
            self._looking = False

    async def _start(self, calls: Sequence[Starting]) -> None:
        try:
            taken = await self._host.store.taken([call.request.to for call in calls])
        except Exception:  # noqa: BLE001  (each by itself, which tells what is wrong and asks again)
            taken = {call.request.to for call in calls}
        for first in range(0, len(calls), SLICE):
            for activation, siblings in groupby(calls[first : first + SLICE], attrgetter("activation")):
                children = self._children(siblings, taken)
                try:
                    while activation.record_each(islice(children, COMMIT_MAX)):
                        pass
                except Exception:  # Other parents shall not suffer for it.
                    log.exception("children of %s could not be started", activation)
            await anyio.lowlevel.checkpoint()

    def _children(self, calls: Iterable[Starting], taken: set[Address]) -> Iterator[Answer]:
        """The children of those whose address is free. Two that want one address are not both the first there."""
        for call in calls:
            to = call.request.to
            if to in taken or to in self._host.by_address or to.kind not in self._host.kinds:
                call.look_closer()
            elif call.open:
                taken.add(to)
                yield call.asked, *call.start()


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
