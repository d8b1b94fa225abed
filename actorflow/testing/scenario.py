"""Scenarios: what a client does with some workflows, once without faults and then with a crash at every commit.

A `Scenario` is a script for the client. It is run again from its top after each crash, so it gives everything a key, as a
client must. A crash may change how often something is tried, and nothing else: not the result, not what was recorded, and no
step may run whose outcome was recorded. `World` is what survives a crash: the store's data, and the ledger of effects.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import anyio
from attrs import define, field, frozen

from actorflow.actor import Actor
from actorflow.attempt import current_step
from actorflow.clock import Chance, Clock
from actorflow.errors import InvalidState, RunEnded, RunPaused, StoreUnavailable
from actorflow.policies.limits import Limits
from actorflow.records import ENDED, Address, Commit, Entry, Envelope, Refusal, Run, RunQuery
from actorflow.runtime.runtime import Runtime
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, Ticks, run_virtual
from actorflow.testing.faults import Fault, FaultStore, PowerCut
from actorflow.testing.invariants import Rows, lost, replays, rows_of, violations
from actorflow.value import Value

LIVES_MAX = 20


@define(eq=False)
class World:
    """What survives a crash, and what is asked about it afterwards."""

    memory: MemoryStore = field(factory=MemoryStore)
    effects: Counter[str] = field(factory=Counter[str])  #: how often each idempotency key had its effect
    tries: list[tuple[str, int]] = field(factory=list[tuple[str, int]])  #: (key, attempt), in order
    marks: list[Any] = field(factory=list[Any])  #: whatever a test wants to remember
    crashes: int = 0
    ticks: Ticks = field(factory=Ticks)
    store: FaultStore = field(init=False)
    recorded_first: list[str] = field(factory=list[str])  #: steps that ran although their outcome was recorded
    accepted: set[tuple[int, str]] = field(factory=set[tuple[int, str]])  #: messages by receiver and key, once durable

    async def committed(self, batch: Sequence[Commit], answers: Sequence[Refusal | None]) -> None:
        """A batch is durable: what it accepts under a key must be found from now on."""
        written = (write for commit, refusal in zip(batch, answers, strict=True) if refusal is None for write in commit.writes)
        self.accepted.update((write.run, write.key) for write in written if isinstance(write, Envelope) and write.key is not None)

    def recorded(self, key: str) -> bool:
        """True if the store holds an outcome of the step with that idempotency key."""
        # Synchronous: an effect must see the store as it is at this instant.
        data = self.memory._memory  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return any(
            entry.kind == "step"
            and seq not in data.aside
            and entry.name in key
            and key == f"{data.store_id}/{self._scope(data.runs[entry.run], entry)}/{entry.branch}/{entry.name}/{entry.n}"
            for seq, entry in data.entries.items()
        )

    def _scope(self, run: Run, of: Entry) -> str:
        """Where names of steps are unique: a round of a run, a message of an actor."""
        scope = str(of.round)
        if run.actor:
            journal = self.memory._memory.journals[run.id]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            entries = (self.memory._memory.entries[seq] for seq in journal)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            turn = next(e for e in entries if e.kind == "turn" and e.round == of.round)
            scope = f"m{int(turn.input or b'0')}" if turn.input != b"0" else scope
        return f"{run.kind}/{run.key}/{scope}"


_world: ContextVar[World] = ContextVar("actorflow_world")


def world() -> World:
    """The world in which this step runs."""
    return _world.get()


def effect() -> int:
    """This step has its effect on the world now; returns how often it had it, this time included."""
    here, info = _world.get(), current_step()
    if here.store.dead:
        raise PowerCut("a dead process has no effects")
    key = info.key.partition("/")[2]
    if here.recorded(info.key):
        here.recorded_first.append(f"{key} ran again, although its outcome is recorded")
    here.effects[key] += 1
    here.tries.append((key, info.attempt))
    return here.effects[key]


Script = Callable[[Runtime, World], Awaitable[Any]]


@frozen(kw_only=True)
class Scenario(Value):
    """What is crashed."""

    name: str
    actors: Sequence[type[Actor]]
    script: Script  #: repeatable; what it returns must not depend on crashes
    limits: Limits = field(factory=Limits)
    deadline_s: float = 10_000.0  #: in virtual time: whoever has not ended by then never will
    expect: Callable[[World, list[Rows]], object] | None = None  #: further assertions once all is over
    late_s: float = 15.0  #: how much longer a crash may make it, besides the time that nobody runs: whoever is forgotten is late
    same_effects: bool = True  #: a crash changes how often a step runs, not which ones
    clock: Callable[[], Clock] = LoopClock


@frozen
class Outcome(Value):
    """What came of one telling of the scenario."""

    result: Any
    batches: Sequence[int]  #: how many commits each batch had, in the life with most batches
    awaits: int  #: how often the loop let something go on, in the first life
    effects: frozenset[str]
    crashes: int
    took_s: float  #: in virtual time

    @property
    def commits(self) -> int:
        return len(self.batches)


class Failed(AssertionError):
    """A crash changed what it must not; says how to get there again."""


async def tell(
    scenario: Scenario, lives: Sequence[Sequence[Fault]], *, downtime_s: float = 0.0, ticks: Ticks | None = None
) -> Outcome:
    """Play a scenario to its end, life after life; life N has the faults *lives[N]*, later ones none.

    Deaths at an await need the *ticks* of the loop that this runs on.

    Raises:
        AssertionError: Something is not as it must be.
    """
    world, began = World(ticks=ticks or Ticks()), anyio.current_time()
    batches: Sequence[int] = ()
    awaits, result = 0, None
    for number in range(LIVES_MAX):
        store = world.store = FaultStore(
            MemoryStore(share=world.memory), lives[number] if number < len(lives) else (), on_commit=world.committed
        )
        before = world.ticks.count
        crashed, result = await _live(scenario, world, store)
        awaits = awaits or world.ticks.count - before
        batches = max(batches, store.batches, key=len)
        rows = await _rows(world)
        _none(violations(rows, scenario.actors), "the rows are inconsistent")
        _none(await lost(_reader(world), world.accepted), "a message was accepted, and lost")
        _none(world.recorded_first, "a recorded step ran again")
        if not crashed:
            break
        world.crashes += 1
        await anyio.sleep(downtime_s)
    else:
        raise AssertionError(f"it came to no end in {LIVES_MAX} lives")
    _none(replays(rows, scenario.actors), "replay is not as live")
    if scenario.expect is not None:
        scenario.expect(world, rows)
    # An undo's key names the entry that it undoes by its place in the store, which depends on what else was recorded.
    # Likewise the number of a message, by which the steps of its handler are named.
    effects = frozenset(re.sub(r"/m\d+/", "/m/", re.sub(r"~undo/\d+", "~undo", key)) for key in world.effects)
    return Outcome(result, batches, awaits, effects, world.crashes, anyio.current_time() - began)


def _none(lines: Iterable[str], what: str) -> None:
    found = list(lines)
    assert not found, f"{what}: " + "; ".join(found)


async def _rows(world: World) -> list[Rows]:
    return await rows_of(_reader(world))


def _reader(world: World) -> MemoryStore:
    """Read as the next process would, without claiming anything."""
    store = MemoryStore(share=world.memory)
    # `open` would count a crash.
    store._opened = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return store


class Mortal(Runtime):
    """A runtime whose process may die."""

    def end_at_once(self) -> None:
        """Nothing goes on, and nothing is drained."""
        held: anyio.CancelScope | None = getattr(self, "_held", None)
        if held is not None:
            held.cancel()


async def _live(scenario: Scenario, world: World, store: FaultStore) -> tuple[bool, Any]:
    """One life of the process: True and nothing if it crashed, else False and what the script returned."""
    _world.set(world)
    life = anyio.CancelScope()
    runtime = Mortal(
        actors=scenario.actors,
        store=cast("Store", store),  # What only reads goes through its `__getattr__`.
        clock=scenario.clock(),
        chance=Chance(7),
        limits=scenario.limits,
    )

    def die() -> None:
        store.cut()
        runtime.end_at_once()
        life.cancel()

    for fault in store.faults:
        if fault.mode == "await":
            world.ticks.arm(fault.at, die)
    with life:
        return await _lived(scenario, world, store, runtime)
    return True, None


async def _lived(scenario: Scenario, world: World, store: FaultStore, runtime: Runtime) -> tuple[bool, Any]:
    result = None
    try:
        async with runtime:
            drain_s = next((fault.delay_s for fault in store.faults if fault.mode == "drain"), math.inf)
            scope = anyio.move_on_after(drain_s)
            async with anyio.create_task_group() as beside:
                beside.start_soon(pauses, runtime, store)
                with anyio.fail_after(scenario.deadline_s), scope:
                    result = await _persistent(scenario, runtime, world)
                beside.cancel_scope.cancel()
            if scope.cancelled_caught:
                return True, None
    except (PowerCut, Exception, BaseExceptionGroup):
        if not store.dead:
            raise
    return store.dead, result


async def pauses(runtime: Runtime, store: FaultStore) -> None:
    """An operator who pauses all runs at planned moments, and resumes them a second later, or in the next life."""
    began = anyio.current_time()
    forgotten = await runtime.operations.runs(RunQuery(status="paused", reason="operator"))
    for run in forgotten.runs:  # A crash kept somebody from resuming it.
        with suppress(StoreUnavailable):
            await runtime.operations.resume(Address(run.kind, run.key))
    for fault in sorted((fault for fault in store.faults if fault.mode == "pause"), key=lambda fault: fault.delay_s):
        await anyio.sleep_until(began + fault.delay_s)
        runs = (await runtime.operations.runs(RunQuery())).runs
        for verb in ("pause", "resume"):
            for run in runs:
                if run.status not in ENDED:
                    with suppress(StoreUnavailable, RunEnded, InvalidState):
                        await getattr(runtime.operations, verb)(Address(run.kind, run.key))
            await anyio.sleep(1.0)


async def _persistent(scenario: Scenario, runtime: Runtime, world: World) -> Any:
    """The script, begun again whenever the store refused it (nothing was written, and everything has a key), or a run was
    paused by the operator beside it, whom a crash may have kept from resuming it."""
    while True:
        try:
            return await scenario.script(runtime, world)
        except StoreUnavailable:
            await anyio.sleep(0.1)
        except RunPaused as paused:
            if paused.report is None or "operator" not in paused.report.what:
                raise
            await anyio.sleep(2.0)
            with suppress(RunEnded, StoreUnavailable):
                await runtime.operations.resume(Address(*paused.address.split("/", 1)))


def play(
    scenario: Scenario, backend: Backend, *lives: Sequence[Fault], seed: int | None = None, downtime_s: float = 0.0
) -> Outcome:
    """`tell` in virtual time; an error says how to get there again."""
    try:
        ticks = Ticks()
        telling = partial(tell, scenario, lives, downtime_s=downtime_s, ticks=ticks)
        return run_virtual(telling, backend=backend, seed=seed, ticks=ticks)
    except BaseException as error:
        shown = ", ".join(f"[{' '.join(map(str, faults))}]" for faults in lives)
        how = f"faults by life: {shown or 'none'}, seed {seed}, downtime {downtime_s} s"
        raise Failed(f"{scenario.name} on {backend}, {how}: {_shown(error)}") from error


def _shown(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(_shown(each) for each in group.exceptions)
    return f"{type(error).__name__}: {error}"


RECOVERY_COMMITS = 3  #: of so many first commits of the next life, one is the last, in turn


def enumerate_crashes(
    scenario: Scenario,
    backend: Backend,
    *,
    points_max: int = 28,
    awaits_max: int = 8,
    pairs: int = 3,
    seed: int = 0,
    downtime_s: float = 0.0,
) -> int:
    """Crash a scenario before, after and within each of its commits, there and in the recovery from it, at its awaits, and
    then twice in a row at random.

    Returns how many crashes that was.

    Args:
        scenario: What to crash.
        backend: On which loop.
        points_max: How many crash points at commits at most; with more commits they are drawn by *seed*.
        awaits_max: How many at awaits; with more awaits they are drawn by *seed*.
        pairs: How many pairs of random crashes, with a shuffled order of tasks.
        seed: Of everything drawn here; a failure tells it.
        downtime_s: How long nobody runs after a crash.

    Raises:
        Failed: A crash changed what it must not.
    """
    calm = play(scenario, backend)
    chance = random.Random(f"{scenario.name}/{seed}")  # noqa: S311
    commits = [
        Fault(at, mode)
        for at, batch in enumerate(calm.batches, start=1)
        for mode in ("before", "after", "torn")
        if batch > 1 or mode != "torn"  # Half of one commit is none of it.
    ]
    awaits = [Fault(at, "await") for at in range(1, calm.awaits + 1)]
    points = _drawn(chance, commits, points_max) + _drawn(chance, awaits, awaits_max)
    crashes = 0
    for point in points:
        lives = [[point]]
        crashes += _compared(scenario, calm, play(scenario, backend, *lives, downtime_s=downtime_s), f"{lives}", downtime_s)
        if point.mode == "after":  # What was durable then is what a recovery writes about: it is cut short, too.
            lives.append([Fault(1 + point.at % RECOVERY_COMMITS, "after")])
            crashes += _compared(scenario, calm, play(scenario, backend, *lives, downtime_s=downtime_s), f"{lives}", downtime_s)
    for _ in range(pairs):
        lives = [[chance.choice(commits)], [chance.choice(commits + awaits)]]
        again = play(scenario, backend, *lives, seed=chance.getrandbits(32), downtime_s=downtime_s)
        crashes += _compared(scenario, calm, again, f"seed {seed}, {lives}", downtime_s)
    return crashes


def _drawn(chance: random.Random, points: Sequence[Fault], count: int) -> list[Fault]:
    return sorted(chance.sample(points, min(count, len(points))), key=lambda fault: fault.at)


def _compared(scenario: Scenario, calm: Outcome, crashed: Outcome, where: str, downtime_s: float) -> int:
    if crashed.result != calm.result:
        raise Failed(f"{scenario.name}, crash {where}: the result is {crashed.result!r}, without a crash {calm.result!r}")
    if scenario.same_effects and crashed.effects != calm.effects:
        other = sorted(crashed.effects ^ calm.effects)
        raise Failed(f"{scenario.name}, crash {where}: other steps had effects: {other} (of {sorted(calm.effects)})")
    late_s = crashed.took_s - calm.took_s
    if late_s > crashed.crashes * (downtime_s + scenario.late_s):
        raise Failed(f"{scenario.name}, crash {where}: it took {late_s:.1f} s longer than without a crash")
    return crashed.crashes
