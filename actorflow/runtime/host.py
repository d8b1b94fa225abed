"""What all live runs of one process share: who is in memory, how messages travel between them, and how a run is loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup
from attrs import evolve

from actorflow.attempt import Mark, current, idempotency_key
from actorflow.clock import Chance, Clock
from actorflow.codec import check_size
from actorflow.errors import StoreError, Undecodable
from actorflow.failures import split_answer
from actorflow.kernel.journal import entry as new_entry
from actorflow.kind import Kind, blank_kind
from actorflow.policies.limits import Limits
from actorflow.records import (
    ENDED,
    Address,
    Entry,
    Envelope,
    Identity,
    Lease,
    Refusal,
    Run,
    RunStatus,
    SetEnd,
    SetState,
    Wake,
    Write,
    made,
)
from actorflow.resources import Resources
from actorflow.runtime import reports
from actorflow.runtime.activation import Activation
from actorflow.runtime.cast import Cast
from actorflow.runtime.children import Vacancies
from actorflow.runtime.direct import Direct
from actorflow.runtime.ending import Ending
from actorflow.runtime.loading import Loading
from actorflow.runtime.loops import Loop, Signal
from actorflow.runtime.mail import Waiter
from actorflow.runtime.performing import Stage, Threads
from actorflow.runtime.resting import Resting
from actorflow.runtime.sending import notice
from actorflow.runtime.timers import Timers
from actorflow.runtime.tree import Tree
from actorflow.runtime.workers import Workers
from actorflow.stores import Store
from actorflow.stores.committer import Committer

if TYPE_CHECKING:
    from actorflow.supervisor import Supervisor

log: logging.Logger = logging.getLogger("actorflow")

ENDS_KEPT_MAX = 1_000
"""Ends of which the newest are remembered: a read that was on its way when a run ended must not bring it back to life."""


class Host:
    """The shared part of a runtime. Owned by `Runtime`; nothing here outlives it."""

    def __init__(
        self,
        *,
        store: Store,
        lease: Lease,
        kinds: dict[str, Kind],
        limits: Limits,
        clock: Clock,
        chance: Chance,
        loop: Loop,
        group: TaskGroup,
        tree: tuple[Supervisor, ...] = (),
        resources: Resources | None = None,
        stage: Stage | None = None,
    ) -> None:
        self.store: Store = store
        self.lease: Lease = lease
        self.kinds: dict[str, Kind] = kinds
        self.limits: Limits = limits
        self.clock: Clock = clock
        self.chance: Chance = chance
        self.loop: Loop = loop
        self.group: TaskGroup = group
        self.direct: Direct = Direct(self)
        self.committer: Committer = Committer(
            store, lease.fence, limits.batch_max, self.on_stop, self.direct.serve, event=partial(Signal, loop)
        )
        self.timers: Timers = Timers(clock.wall, loop, getattr(clock, "recheck_s", 1.0))
        self.deadlines: Timers = Timers(clock.monotonic, loop, math.inf)
        self.workers: Workers = Workers(group, loop)
        self.stage: Stage | None = stage
        self.threads: Threads = Threads(limits, loop, in_place=stage is not None)
        self.processes: anyio.CapacityLimiter = anyio.CapacityLimiter(limits.processes_max)
        self.ending: Ending = Ending(self)
        self.loading: Loading = Loading(self)
        self.vacancies: Vacancies = Vacancies(self)
        self.cast: Cast = Cast(self, Tree(self, tree))
        self.context: Context = copy_context()
        self.context.run(current.set, Mark())
        self.resources: Resources = (resources or Resources()).entered(self.context)
        self.resident: dict[int, Activation] = {}
        self.by_address: dict[Address, Activation] = {}
        self.results: dict[int, list[Waiter]] = {}
        self.replies: dict[int, list[Waiter]] = {}
        self.asks: dict[int, dict[str, int]] = {}  #: who asks whom, for cycles
        self.closing = False  #: nothing new is taken in
        self.lost: Signal = Signal(loop)
        self._on_the_way: dict[int, int] = {}  #: messages that are being written, by receiver
        self._just_ended: dict[int, RunStatus] = {}
        self.resting: Resting = Resting(clock, self.deadlines, lambda run: self.passivate(self.resident[run]))
        self._bugs: dict[int, int] = {}
        self._run_id, self._message_id = lease.run_id_last, lease.message_id_last

    # --- names and records ----------------------------------------------------------------------------------------------

    def idempotency_key(self, activation: Activation, identity: Identity) -> str:
        """The same over attempts, crashes and `retry`."""
        return idempotency_key(activation.scope, identity)

    def checked(self, payload: bytes, what: str) -> bytes:
        """The payload, if it is not too large to be stored."""
        check_size(payload, what, self.limits.payload_bytes_max)
        return payload

    def kind_of(self, name: str) -> Kind:
        """The registered class, or a blank one that can only be ended."""
        return self.kinds.get(name) or blank_kind(name)

    def mailbox_max(self, kind: str) -> int:
        registered = self.kinds.get(kind)
        return self.limits.mailbox_depth_max if registered is None or registered.mailbox_max is None else registered.mailbox_max

    def new_run(
        self, to: Address, fields: bytes, *, deadline_at: float | None, parent: int | None = None, detached: bool = False
    ) -> Run:
        """A run to be accepted."""
        self._run_id += 1
        at = self.clock.wall()
        return Run(
            id=self._run_id,
            kind=to.kind,
            key=to.key,
            status="running",
            wake_at=0.0,
            seed=self.chance.seed(),
            deadline_at=deadline_at,
            parent=parent,
            detached=detached,
            actor=self.cast.is_actor(to.kind),
            created_at=at,
            updated_at=at,
            input=fields,
        )

    def begun(self, run: Run, request: str = "") -> Entry:
        """The event of its acceptance; *request* names the call that started it, if that may be repeated."""
        return made(Entry, (run.id, 0, "started", "", run.kind, 0, "", 0, run.created_at, None, None, None, request or None))

    def next_message(self) -> int:
        """The number of a message to be, or of a place in line."""
        self._message_id += 1
        return self._message_id

    def envelope(
        self,
        run: int,
        type_: str,
        body: bytes,
        *,
        sender: str,
        key: str | None = None,
        due_at: float | None = None,
        reply_to: int | None = None,
        expires_at: float | None = None,
    ) -> Envelope:
        """A message to be accepted."""
        self._message_id += 1
        at = self.clock.wall()
        row = (self._message_id, run, type_, key, body, sender, at, due_at, reply_to, "pending", None, expires_at)
        return made(Envelope, row)

    def notice(self, type_: str, run: int, of: str, status: str, outcome: bytes | None) -> list[Write]:
        """What the system tells a run."""
        body = notice.encode({"of": of, "status": status, "outcome": None if outcome is None else outcome.decode()}, "notice")
        return [self.envelope(run, type_, body, sender=of), Wake(run, 0.0)]

    def reply(self, envelope: Envelope | None, answer: bytes) -> list[Write]:
        """What tells an asking run its answer; nothing if a client asked (the commit tells it) or nobody did."""
        if envelope is None or envelope.reply_to is None or envelope.type.startswith("~"):
            return []
        self.asks.get(envelope.reply_to, {}).pop(envelope.key or "", None)
        return self.notice("~reply", envelope.reply_to, envelope.key or "", *split_answer(answer))

    # --- who is in memory -----------------------------------------------------------------------------------------------

    def add(self, activation: Activation) -> None:
        self.resident[activation.run.id] = self.by_address[activation.address] = activation
        activation.live = True
        activation.mailbox.reserved = self._on_the_way.get(activation.run.id, 0)

    def remove(self, activation: Activation) -> None:
        """Drop it from memory; nothing is written."""
        if activation.live:
            activation.live = False
            del self.resident[activation.run.id], self.by_address[activation.address]
            if activation.run.id in self.resting.lines_of:
                self.resting.end(activation.run.id)
            if self.asks:
                self.asks.pop(activation.run.id, None)
            activation.drop()

    async def find(self, address: Address, *, whole: bool = False) -> Run | None:
        """The run under that address, with the status it has now.

        Args:
            address: Which one.
            whole: Its payloads are needed, too.
        """
        activation = self.by_address.get(address)
        if activation is not None and not whole:
            return evolve(activation.run, status=activation.status)
        found = await self.store.find(address)
        if found is None or whole:
            return found
        return self.present(found)

    def present(self, found: Run) -> Run:
        """What was read, with the status it has now: another turn of the loop may have come between."""
        activation = self.resident.get(found.id)
        status = activation.status if activation is not None else self._just_ended.get(found.id, found.status)
        return found if status == found.status else evolve(found, status=status)

    def depth(self, run: int) -> int:
        """Messages that wait for it, as far as is known in memory."""
        activation = self.resident.get(run)
        return self._on_the_way.get(run, 0) if activation is None else activation.mailbox.depth

    def rest(self, activation: Activation) -> None:
        """It may only wait now: let it leave memory after a while, or at once if too many do."""
        run = activation.run.id
        if not activation.idle:
            self.resting.end(run)
            return
        after_s = activation.kind.passivate_after_s
        self.resting.begin(run, self.limits.passivate_after_s if after_s is None else after_s)
        if len(self.resting) > self.limits.resident_max:
            self.passivate(self.resident[self.resting.longest()])

    def passivate(self, activation: Activation) -> None:
        """Drop a run that only waits; it is loaded again when a message or its moment comes."""
        self.resting.end(activation.run.id)
        if not activation.idle:
            return
        writes: list[Write] = []
        activation.last_words(writes)
        activation.place(writes)
        if writes:  # A message that nobody wants yet had set `wake_at`; the row must say when it really goes on.
            activation.submit(writes, lambda: self.passivate(activation))
            return
        asks = dict(self.asks.get(activation.run.id, {}))
        self.remove(activation)
        if asks:  # It waits for them also while it sleeps.
            self.asks[activation.run.id] = asks
        if activation.wake_at is not None:
            self.loading.expect(activation.wake_at, activation.run.id)

    # --- messages -------------------------------------------------------------------------------------------------------

    def reserve(self, envelope: Envelope, places: int) -> None:
        """Keep places for a message that is on its way, or give them back; its receiver may be loaded meanwhile."""
        run = envelope.run
        self._on_the_way[run] = left = self._on_the_way.get(run, 0) + places
        if not left:
            del self._on_the_way[run]
        activation = self.resident.get(run)
        if activation is not None:
            activation.mailbox.reserved = left

    def arrived(self, envelope: Envelope) -> None:
        """A message is durable: its receiver sees it, or is loaded."""
        activation = self.resident.get(envelope.run)
        if activation is not None:
            activation.arrived(envelope)
        elif envelope.due_at is not None and envelope.due_at > self.clock.wall():
            self.loading.expect(envelope.due_at, envelope.run)
        else:
            self.loading.wake(envelope.run, envelope)

    def answered(self, message: int, answer: bytes) -> None:
        """Tell the clients that wait for the answer to that message; it is durable."""
        for waiter in self.replies.pop(message, ()):
            waiter.status, waiter.payload = split_answer(answer)
            waiter.set()

    # --- what became of a run -------------------------------------------------------------------------------------------

    def ended(self, activation: Activation, status: RunStatus, outcome: bytes) -> None:
        """Its end is durable."""
        self.remove(activation)
        self.ended_at_rest(activation.run.id, status, outcome)

    def ended_at_rest(self, run: int, status: RunStatus, outcome: bytes) -> None:
        """Likewise of a run that is not in memory."""
        self._bugs.pop(run, None)
        self._just_ended[run] = status
        if len(self._just_ended) > ENDS_KEPT_MAX:
            del self._just_ended[next(iter(self._just_ended))]
        self._tell(run, status, outcome)

    def gone(self, activation: Activation) -> None:
        """Its pause is durable."""
        self.remove(activation)
        self.cast.gone(activation, "paused")
        self._tell(activation.run.id, "paused", b"")

    def _tell(self, run: int, status: str, payload: bytes) -> None:
        for waiter in self.results.pop(run, ()):
            waiter.status, waiter.payload = status, payload
            waiter.set()

    def refused(self, activation: Activation, refusal: Refusal | StoreError) -> None:
        """A commit was not taken: what it led to must not be; begin again from what is durable."""
        if activation.live and not isinstance(refusal, StoreError):
            log.warning("a commit of %s was refused (%s); it is loaded again", activation, refusal)
            self.remove(activation)
            self.cast.tree.dropped(activation)
            self.deadlines.after(1.0, lambda: self.loading.wake(activation.run.id))

    def reload(self, activation: Activation) -> None:
        """Drop it and load it again."""
        self.remove(activation)
        self.loading.wake(activation.run.id)

    def tried_before(self, run: int, delivered: int) -> bool:
        """True if its code failed before without getting further since."""
        before = self._bugs.get(run)
        self._bugs[run] = delivered
        return before is not None and delivered <= before

    def forget_bugs(self, run: int) -> None:
        """An operator resumes it: a new budget."""
        self._bugs.pop(run, None)
        self.cast.forgive(run)

    def unreadable(self, run: Run, error: Undecodable) -> list[Write]:
        """The writes that set a run aside whose rows cannot be read."""
        return self.set_aside(run, "undecodable", str(error))

    def set_aside(self, run: Run, reason: str, what: str) -> list[Write]:
        """The writes that pause a run that is not in memory."""
        report = reports.encode(reports.plain(reason, what, str(run.address)))  # type: ignore[arg-type]
        at = self.clock.wall()
        state = SetState(run=run.id, status="paused", reason=reason, wake_at=None, crashes=run.crashes, at=at)  # type: ignore[arg-type]
        paused = new_entry(run.id, run.round, "paused", Identity("", reason, 0), at=at, outcome=report)
        return [state, SetEnd(run=run.id, report=report), paused]

    # --- tasks ----------------------------------------------------------------------------------------------------------

    def spawn(self, call: Callable[[], Awaitable[object]]) -> None:
        """Run something beside; what it raises is logged, and takes nobody along."""

        async def guarded() -> None:
            try:
                await call()
            except StoreError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a task of the runtime failed")

        self.group.start_soon(guarded)

    def on_stop(self, error: StoreError) -> None:
        """The store takes no more writes: nothing that is in memory may go on."""
        self.cast.tree.abandon()
        for activation in list(self.resident.values()):
            self.remove(activation)
        for waiters in (*self.results.values(), *self.replies.values()):
            for waiter in waiters:
                waiter.status = "stopped"
                waiter.set()
        self.results.clear()
        self.replies.clear()
        self.lost.set()


def ended(run: Run) -> bool:
    """True if nothing more can happen to it."""
    return run.status in ENDED
