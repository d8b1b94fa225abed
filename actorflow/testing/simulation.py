"""A whole service, its disk, its network and its clients in one thread and in virtual time, decided by one seed.

Processes come up over one store, die, hang, are cut off and come back while clients speak to them through a network that loses,
delays and repeats. After every commit the rows of the runs that it changed are looked at; in the end every client must have
had the answers that the model (`programs`) says, every effect must have had one idempotency key, and nothing may be left over.

One plan gives one history, byte for byte: its hash says so. Whatever decides anything is drawn from the plan's seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from actorflow.clock import Chance
from actorflow.errors import InvalidState, RunEnded, StoreError, StoreUnavailable
from actorflow.records import Address, Commit, Refusal, RunQuery
from actorflow.runtime import Runtime
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, Ticks, run_virtual
from actorflow.testing.faults import Fault, FaultStore, PowerCut
from actorflow.testing.invariants import replays, rows_of, violations
from actorflow.testing.plans import Plan
from actorflow.testing.players import TREE, Account, Here, Ledger, Play, live_in
from actorflow.testing.programs import Expected
from actorflow.testing.scenario import pauses

DAYS_MAX = 300  #: of virtual time: who has not come to an end by then never will
TICKS_MAX = 1_000_000  #: of a loop that comes to no end
LOOK_S = 100.0  #: how often somebody looks whether anything is paused
ON_CALL = ("operator", "interrupted", "budget")
"""Why a run or an actor is paused that an operator resumes: everything else is a finding."""
STORE_ID = "simulated"


class Disk:
    """Where the data are; processes come and go."""

    def __init__(self) -> None:
        self._memory = MemoryStore(store_id=STORE_ID)

    def store(self) -> Store:
        """For the next process."""
        return MemoryStore(share=self._memory)

    def reader(self) -> Store:
        """To look at the rows, without claiming anything."""
        store = MemoryStore(share=self._memory)
        # `open` would count a crash.
        store._opened = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return store


@define(eq=False)
class WallClock(LoopClock):
    """A clock that somebody sets."""

    offset_s: float = 0.0
    recheck_s: float = 60.0

    def __attrs_pre_init__(self) -> None:
        LoopClock.__init__(self)

    def wall(self) -> float:
        return super().wall() + self.offset_s


@frozen
class History:
    """What happened."""

    plan: Plan
    hash: str  #: of everything that happened, in order
    lines: Sequence[str] = field(repr=False)  #: the same, for a person
    faults: Counter[str] = field(factory=Counter[str])  #: those that came to pass
    events: int = 0  #: commits, after each of which the rows were looked at
    failure: str | None = None  #: what must not be
    virtual_s: float = 0.0
    seen: tuple[str, ...] = ()  #: what clients and the ledger saw in the end, in order: the same over every store and loop


class Wrong(AssertionError):
    """Something is as it must not be."""


@define(eq=False)
class World:
    """Everything of one history while it happens."""

    plan: Plan
    ticks: Ticks
    disk: Disk
    group: TaskGroup
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
        self.check(violations(await rows_of(self.disk.reader(), changed), [Account, Play]))
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
                    if run.reason in ON_CALL:
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


def simulate(plan: Plan, *, backend: Backend = "trio", disk: Callable[[], Disk] = Disk) -> History:
    """Live through a plan. What goes wrong that must not is the `failure` of the history."""
    ticks, told = Ticks(), list[History]()

    async def main() -> None:
        told.append(await _simulated(plan, ticks, disk()))

    run_virtual(main, backend=backend, seed=plan.seed, ticks=ticks)
    return told[0]


async def _simulated(plan: Plan, ticks: Ticks, disk: Disk) -> History:
    from actorflow.testing.network import Network  # noqa: PLC0415  (it speaks to this world)

    failure, worlds, seen = None, list[World](), list[str]()
    try:
        with anyio.move_on_after(DAYS_MAX * 86_400) as whole:
            ticks.arm(TICKS_MAX, whole.cancel)
            async with anyio.create_task_group() as group:
                world = World(plan, ticks, disk, group)
                worlds.append(world)
                for task in (world.live, world.set_clock):
                    group.start_soon(task)
                expected = Expected.of(plan.clients)
                seen = await Network(world).serve(expected)
                world.over = True
                world.nodes[-1].life.cancel()
                await world.nodes[-1].gone.wait()
                group.cancel_scope.cancel()
            rows = await rows_of(world.disk.reader())
            world.check([*violations(rows, [Account, Play]), *replays(rows, [Account, Play]), *_left_over(world, expected)])
            seen += [f"{each.run.address} {each.run.status} {len(each.loaded.mailbox)}" for each in rows]
        if whole.cancelled_caught:
            failure = f"it came to no end in {DAYS_MAX} days, or in {TICKS_MAX} turns of the loop"
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what we are looking for)
        failure = shown(error)
    except BaseExceptionGroup as group_of:
        failure = shown(group_of)
    world = worlds[0]
    if failure is not None:
        world.note(f"failure: {failure}")
    return History(
        plan=plan,
        hash=world.hash(),
        lines=world.lines,
        faults=world.faults,
        events=world.events,
        failure=failure,
        virtual_s=world.clock.monotonic(),
        seen=tuple(sorted(seen)),
    )


def shown(error: BaseException) -> str:
    """An error in one line; of a group, those that are not its consequences."""
    if isinstance(error, BaseExceptionGroup):
        parts = [shown(each) for each in cast("BaseExceptionGroup[BaseException]", error).exceptions]
        return "; ".join(dict.fromkeys(parts))
    if isinstance(error, Wrong):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _left_over(world: World, expected: Expected) -> list[str]:
    """What the world outside saw, against what it had to see."""
    effects = world.ledger.effects
    wrong = [
        f"{what} had its effect under {len(keys)} keys: {', '.join(keys)}" for what, keys in effects.items() if len(keys) > 1
    ]
    of_steps = {what for what in effects if "undo of" not in what and not what.startswith("Account/")}
    wrong += [f"{what} never had its effect" for what in sorted(expected.effects - of_steps)]
    wrong += [f"{what} had an effect that nobody wanted" for what in sorted(of_steps - expected.effects - expected.possible)]
    for run, undos in expected.undone.items():
        done = [each.partition("/")[2] for each in world.ledger.undone if each.startswith(f"{run}/")]
        if done != undos:
            wrong.append(f"{run} undid {done}, and it had to undo {undos}")
    wrong += [
        f"{each} was undone, and nothing failed" for each in world.ledger.undone if each.split("/")[0] not in expected.undone
    ]
    return wrong
