"""What a simulated history happens in: a disk, a clock that somebody sets, processes one after the other, a record of it all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from actorflow.clock import Chance
from actorflow.errors import InvalidState, RunEnded, StoreError, StoreUnavailable
from actorflow.records import Address, Commit, Refusal, RunQuery
from actorflow.runtime.runtime import Runtime
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import LoopClock, Ticks
from actorflow.testing.faults import Fault, FaultStore, PowerCut
from actorflow.testing.inline import InlineSqliteStore
from actorflow.testing.invariants import Rows, rows_of, violations
from actorflow.testing.plans import Plan
from actorflow.testing.players import TREE, Account, Here, Ledger, Play, live_in
from actorflow.testing.scenario import pauses

LOOK_S = 100.0  #: how often somebody looks whether anything is paused
STORE_ID = "simulated"


def is_resumed(kind: str, reason: str | None) -> bool:
    """True if the operator on call resumes what was paused for that: any other pause is a finding."""
    exploded = kind == "Account" and reason == "bug"  # Too many messages that no handler can handle.
    return exploded or reason in ("operator", "interrupted", "undo")  # The last: an operator's pause came between two undos.


class Disk:
    """Where the data are; processes come and go. This one is in memory."""

    def __init__(self) -> None:
        self._memory = MemoryStore(store_id=STORE_ID)

    def store(self) -> Store:
        """For the next process."""
        return MemoryStore(share=self._memory)

    def let_go(self, store: Store) -> None:
        """The process that had that store has ended, in order or not."""

    @property
    def readable(self) -> bool:
        """False while only a process could tell what is there."""
        return True

    async def rows(self, runs: Iterable[int] | None = None) -> list[Rows]:
        """Of those runs, or of all, without claiming anything."""
        store = MemoryStore(share=self._memory)
        # `open` would count a crash.
        store._opened = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return await rows_of(store, runs)


class SqliteDisk(Disk):
    """The same in a file, by the real statements. One process at a time has it: its plans are those `of_one_holder`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._store: InlineSqliteStore

    def store(self) -> Store:
        self._store = InlineSqliteStore(self._path, durability="normal")
        return self._store

    def let_go(self, store: Store) -> None:
        self._store.drop()

    @property
    def readable(self) -> bool:
        return self._store.is_open

    async def rows(self, runs: Iterable[int] | None = None) -> list[Rows]:
        if self._store.is_open:
            return await rows_of(self._store, runs)
        after = InlineSqliteStore(self._path)
        await after.open(now=0.0)
        try:
            return await rows_of(after, runs)
        finally:
            await after.close()


@define(eq=False)
class WallClock(LoopClock):
    """A clock that somebody sets."""

    offset_s: float = 0.0
    recheck_s: float = 60.0

    def __attrs_pre_init__(self) -> None:
        LoopClock.__init__(self)

    def wall(self) -> float:
        return super().wall() + self.offset_s


class Wrong(AssertionError):
    """Something is as it must not be."""


@define(eq=False)
class World:
    """Everything of one history while it happens."""

    plan: Plan
    ticks: Ticks
    disk: Disk
    group: TaskGroup = field(init=False)  #: all processes, and requests under way
    ledger: Ledger = field(factory=lambda: Ledger(STORE_ID))
    clock: WallClock = field(factory=WallClock)
    nodes: list[Node] = field(factory=list["Node"])
    faults: Counter[str] = field(factory=Counter[str])
    lines: list[str] = field(factory=list[str])
    events: int = 0
    over: bool = False
    up: anyio.Event = field(factory=anyio.Event)  #: set, and replaced, when a process takes requests
    _digest: Any = field(factory=hashlib.sha256)

    def note(self, text: str) -> None:
        """It is part of the history."""
        line = f"{self.clock.monotonic():.6f} {text}"
        self._digest.update(line.encode())
        self.lines.append(line)

    def fault(self, what: str, kind: str) -> None:
        """Something goes wrong as planned."""
        self.faults[kind] += 1
        self.note(f"fault: {what}")

    def hash(self) -> str:
        return str(self._digest.hexdigest())

    async def committed(self, node: Node, batch: Sequence[Commit], answers: Sequence[Refusal | None]) -> None:
        """A batch is durable: what it changed must be in order."""
        self.events += 1
        changed = self.ledger.committed(batch, answers)
        content = hashlib.sha256(repr([commit.writes for commit in batch]).encode()).hexdigest()
        self.note(f"process {node.number} commits {len(batch)}: {content[:16]}")
        self.check(violations(await self.disk.rows(changed), [Account, Play]))
        self.check(self.ledger.wrong)

    def check(self, wrong: Sequence[str]) -> None:
        """Nothing must be wrong."""
        if wrong:
            raise Wrong("; ".join(wrong))

    async def live(self) -> None:
        """One process after the other, until all is over."""
        while not self.over:
            number = len(self.nodes)
            faults = self.plan.lives[number] if number < len(self.plan.lives) else ()
            node = Node(self, number, faults)
            self.nodes.append(node)
            self.group.start_soon(node.live, name=f"process {number}")
            await node.gone.wait()
            await anyio.sleep(self.plan.downtime_s if faults else 0.0)

    async def set_clock(self) -> None:
        """Somebody sets it, now and then."""
        for jump in sorted(self.plan.jumps, key=lambda jump: jump.at_s):
            await anyio.sleep(max(0.0, jump.at_s - self.clock.monotonic()))
            self.clock.offset_s += jump.by_s
            self.fault(str(jump), "clock")


@define(eq=False)
class Node:
    """One process."""

    world: World
    number: int
    faults: Sequence[Fault]
    gone: anyio.Event = field(factory=anyio.Event, init=False)  #: another one may come
    runtime: Runtime | None = field(default=None, init=False)  #: while it takes requests
    serving: TaskGroup = field(init=False)
    life: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    here: Here = field(init=False)

    def __attrs_post_init__(self) -> None:
        store = FaultStore(self.world.disk.store(), self.faults, self._on_fault, partial(self.world.committed, self))
        self.here = Here(store, self.world.ledger)

    def _on_fault(self, fault: Fault) -> None:
        self.world.fault(f"process {self.number}: {fault}", fault.mode)
        if fault.mode in ("stop", "zombie"):
            self.here.fenced = True
        if fault.mode == "stop":  # Nobody hears of it: a watchdog gives its place to another process.
            self.takes(None)
            self.gone.set()

    def _die(self, fault: Fault) -> None:
        if not self.gone.is_set():
            self._on_fault(fault)
            if fault.mode == "await":
                self.here.store.cut()
            self.life.cancel()

    async def live(self) -> None:
        """From its start to its end, in order or not."""
        live_in(self.here)
        self.world.note(f"process {self.number} comes up")
        for fault in self.faults:
            if fault.mode in ("await", "cancel"):
                self.world.ticks.arm(fault.at, partial(self._die, fault))
        try:
            with self.life:
                async with self._runtime() as runtime:
                    await self._serve(runtime)
        except BaseException as error:
            if self._is_wrong(error):
                raise
        finally:
            self.world.note(f"process {self.number} is gone")
            self.world.disk.let_go(self.here.store.store)
            self.gone.set()

    def _runtime(self) -> AbstractAsyncContextManager[Runtime]:
        return Runtime(
            actors=[Play, Account],
            tree=[TREE],
            store=cast("Store", self.here.store),  # What only reads goes through its `__getattr__`.
            clock=self.world.clock,
            chance=Chance(self.world.plan.seed * 1_000 + self.number),
        )

    async def _serve(self, runtime: Runtime) -> None:
        async with anyio.create_task_group() as self.serving:
            self.takes(runtime)
            self.serving.start_soon(pauses, runtime, self.here.store)
            self.serving.start_soon(self._look_after, runtime)
            for fault in self.faults:
                if fault.mode == "pause":
                    self.world.fault(f"process {self.number}: {fault}", "pause")
                elif fault.mode == "drain":
                    self.serving.start_soon(self._drain_after, fault)
            try:
                await runtime._running().lost.wait()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            finally:
                self.takes(None)
                self.serving.cancel_scope.cancel()

    def takes(self, runtime: Runtime | None) -> None:
        """Clients reach it, or not."""
        self.runtime = runtime
        if runtime is not None:
            self.world.up.set()
            self.world.up = anyio.Event()

    async def _look_after(self, runtime: Runtime) -> None:
        """The operator on call resumes what crashed too often, and what somebody paused and forgot."""
        while True:
            await anyio.sleep(LOOK_S)
            with suppress(StoreError, InvalidState, RunEnded):
                page = await runtime.operations.runs(RunQuery(status="paused"))
                for run in page.runs:
                    if is_resumed(run.kind, run.reason):
                        await runtime.operations.resume(Address(run.kind, run.key))

    async def _drain_after(self, fault: Fault) -> None:
        await anyio.sleep(fault.delay_s)
        self._die(fault)

    def _is_wrong(self, error: BaseException) -> bool:
        """True if that is no way for this process to end."""
        if isinstance(error, BaseExceptionGroup):
            return any(map(self._is_wrong, cast("BaseExceptionGroup[BaseException]", error).exceptions))
        if isinstance(error, StoreUnavailable):
            return False  # It could not start. Whoever looks after it starts another one.
        lost = isinstance(error, PowerCut | StoreError) and (self.here.store.dead or self.here.fenced)
        return not (lost or isinstance(error, anyio.get_cancelled_exc_class()))
