"""A runtime whose store fails under it: dead, taken over, unavailable, or with its acknowledgements lost. On both loops."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from actorflow import FenceLost, Limits, Message, Retry, Run, RunPaused, Runtime, StoreError, Transient, Workflow, step
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from actorflow.testing.faults import Fault, FaultStore, Mode, PowerCut
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes, play
from tests.harness import both


class Go(Message[None]): ...


class Ask(Message[int]): ...


BEGUN: list[str] = []
ENDED: list[str] = []


@step
async def endless(name: str) -> None:
    BEGUN.append(name)
    try:
        await anyio.sleep_forever()
    finally:
        ENDED.append(name)


@step
async def quick(n: int) -> int:
    effect()
    await anyio.sleep(0.1)
    return n + 1


class Endless(Workflow[None]):
    async def run(self) -> None:
        await endless("step")


class Waiter(Workflow[None]):
    async def run(self) -> None:
        await self.receive(Go)


def virtually(backend: Backend, fn: Callable[[], Awaitable[Any]]) -> Any:
    BEGUN.clear()
    ENDED.clear()
    return run_virtual(fn, backend=backend)


async def until(what: Callable[[], object]) -> None:
    with anyio.fail_after(100):
        while not what():  # noqa: ASYNC110  (in virtual time)
            await anyio.sleep(0.01)


def _is_only(error: BaseException, kind: type[BaseException]) -> bool:
    return all(_is_only(e, kind) for e in error.exceptions) if isinstance(error, BaseExceptionGroup) else isinstance(error, kind)


@both
@pytest.mark.parametrize("verb", ["start", "result", "ask", "cancel", "pause", "nothing"])
def test_a_power_cut_ends_a_runtime_at_once_whoever_waits_for_it(backend: Backend, verb: str) -> None:
    """The harness itself: nothing hangs, nothing reaches the store, running steps end."""

    async def main() -> tuple[float, int, int]:
        memory = MemoryStore()
        store = FaultStore(MemoryStore(share=memory))
        began = anyio.current_time()
        with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012  (the block is a process)
            async with Runtime(actors=[Endless, Waiter], store=store, clock=LoopClock()) as runtime:
                run = await runtime.start(Endless(), key="e")
                waiter = await runtime.start(Waiter(), key="w")
                await until(lambda: BEGUN)
                store.faults = [Fault(store.commits + 1, "before")]
                async with anyio.create_task_group() as group:
                    if verb != "nothing":
                        group.start_soon(_use, runtime, run, waiter, verb)
                    group.start_soon(_tell, waiter)
        assert store.dead
        assert _is_only(caught.value, (PowerCut, StoreError)), caught.value  # type: ignore[arg-type]
        return anyio.current_time() - began, len(memory._memory.messages), memory._memory.fence

    took_s, messages, _ = virtually(backend, main)

    assert took_s < 1.0
    assert messages == 0
    assert ENDED == ["step"]


@both
@pytest.mark.parametrize("mode", ["before", "zombie"])
def test_a_cancel_that_could_not_be_written_is_not_said_to_be_done(backend: Backend, mode: Mode) -> None:
    """P4: whoever is told that a run is cancelled may rely on it."""

    async def main() -> str:
        memory = MemoryStore()
        store = FaultStore(MemoryStore(share=memory))
        with suppress(PowerCut, StoreError, BaseExceptionGroup):
            async with Runtime(actors=[Waiter], store=store, clock=LoopClock()) as runtime:
                run = await runtime.start(Waiter(), key="w")
                store.faults = [Fault(store.commits + 1, mode)]
                with pytest.raises((StoreError, PowerCut)):
                    await run.cancel()
        return memory._memory.runs[1].status

    assert virtually(backend, main) != "cancelled"


async def _tell(waiter: Run[Waiter]) -> None:
    await waiter.tell(Go())


async def _use(runtime: Runtime, run: Run[Endless], waiter: Run[Waiter], verb: str) -> None:
    match verb:
        case "start":
            await runtime.start(Waiter(), key="other")
        case "result":
            await run.result()
        case "ask":
            await waiter.ask(Ask(), within="1d")
        case "cancel":
            await run.cancel()
        case _:
            await run.pause()


@both
def test_a_holder_whose_lease_is_lost_writes_nothing_and_ends_its_steps(backend: Backend) -> None:
    """X39, R14, P7, law 3."""

    async def main() -> tuple[int, int]:
        memory = MemoryStore()
        store = FaultStore(MemoryStore(share=memory))
        async with Runtime(actors=[Endless, Waiter], store=store, clock=LoopClock()) as runtime:
            await runtime.start(Endless(), key="e")
            waiter = await runtime.start(Waiter(), key="w")
            await until(lambda: BEGUN)
            store.faults = [Fault(store.commits + 1, "zombie")]
            before = memory._memory.seq_last
            with pytest.raises(FenceLost):
                await waiter.tell(Go())
            with anyio.move_on_after(60):
                await until(lambda: ENDED)
            assert ENDED == ["step"]
            with pytest.raises(StoreError):
                await waiter.tell(Go())
            return before, memory._memory.seq_last

    before, after = virtually(backend, main)

    assert before == after


class Steps(Workflow[int]):
    async def run(self) -> int:
        total = await quick(0)
        total = await quick(total)
        await self.receive(Go)
        return await quick(total)


async def _steps(runtime: Runtime, _: World) -> Any:
    run = await runtime.start(Steps(), key="k")
    await run.tell(Go(), key="go")
    return await run.result()


@both
@pytest.mark.parametrize("mode", ["unavailable", "lost_ack", "delay"])
@pytest.mark.parametrize("at", range(1, 8))
def test_a_store_that_hiccups_loses_and_doubles_nothing(backend: Backend, mode: Mode, at: int) -> None:
    """X40, B4, B18: refused, applied without an answer, or slow."""

    def expect(world: World, rows: Any) -> None:
        assert set(world.effects.values()) == {1}

    scenario = Scenario(name="Steps", actors=[Steps], script=_steps, expect=expect)

    outcome = play(scenario, backend, [Fault(at, mode), Fault(at + 1, mode)])

    assert outcome.result == 3
    assert outcome.crashes == 0


@both
def test_a_process_may_end_at_every_single_await_from_its_first_one_on(backend: Backend) -> None:
    """A3, A4, A15: while it opens its store, in steps, in turns, between a commit and its answer."""
    scenario = Scenario(name="Steps", actors=[Steps], script=_steps)
    calm = play(scenario, backend)

    for at in range(1, calm.awaits + 1):
        outcome = play(scenario, backend, [Fault(at, "await")])

        assert (outcome.result, outcome.effects, outcome.crashes) == (3, calm.effects, 1), at


@both
def test_a_cancelled_service_leaves_its_runs_to_the_next_holder_in_order(backend: Backend) -> None:
    """Rule 20: a turn that was cut by whoever cancelled the service is no crash."""

    async def main() -> tuple[float, str, int]:
        memory = MemoryStore()
        began = anyio.current_time()
        with anyio.move_on_after(5.0):
            async with Runtime(
                actors=[Endless], store=MemoryStore(share=memory), clock=LoopClock(), limits=Limits(drain_s=2.0)
            ) as runtime:
                run = await runtime.start(Endless(), key="e")
                await run.result()
        took_s = anyio.current_time() - began
        again = MemoryStore(share=memory)
        lease = await again.open(now=0.0)
        assert lease.interrupted == 0
        return took_s, memory._memory.runs[1].status, memory._memory.runs[1].crashes

    took_s, status, crashes = virtually(backend, main)

    assert took_s < 10.0
    assert (status, crashes) == ("waiting", 0)
    assert ENDED == ["step"]


# --- steps in threads: real time -----------------------------------------------------------------------------------------


@step(retry=Retry(attempts=2, first="1ms"))
def threaded(n: int) -> int:
    count = effect()
    assert threading.current_thread() is not threading.main_thread()
    if n == 2 and count == 1:
        raise Transient("once")
    return n + 1


class Threads(Workflow[int]):
    async def run(self) -> int:
        total = 0
        for _ in range(3):
            total = await threaded(total)
        return total


@both
def test_steps_in_threads_survive_a_crash_as_others_do(backend: Backend) -> None:
    """X2, X3: a few points, as a thread knows no virtual time."""
    from actorflow.clock import SystemClock
    from actorflow.testing.scenario import tell

    async def script(runtime: Runtime, _: World) -> Any:
        return await (await runtime.start(Threads(), key="k")).result()

    scenario = Scenario(name="Threads", actors=[Threads], script=script, clock=SystemClock, deadline_s=20.0)

    for at in range(1, 6):
        for mode in ("before", "after"):
            outcome = anyio.run(tell, scenario, [[Fault(at, mode)]], backend=backend)
            assert outcome.result == 3
            assert outcome.crashes == 1


# --- a deploy between two lives ------------------------------------------------------------------------------------------


class Old(Workflow[str], kind="Deployed"):
    async def run(self) -> str:
        first = await quick(0)
        await quick(100)
        await self.sleep("100s")
        return f"{first} {await quick(first)}"


class New(Workflow[str], kind="Deployed"):
    async def run(self) -> str:
        first = await quick(0)
        if self.patched("more"):
            first = await quick(first)
        await quick(100)
        await self.sleep("100s")
        return f"{first} {await quick(first)}"


class Changed(Workflow[str], kind="Deployed"):
    async def run(self) -> str:
        first = await quick(0)
        await self.receive(Go)
        return f"{first} {await quick(100)}"


async def _deployed(after: type[Workflow[Any]]) -> tuple[str, str]:
    from actorflow.testing import scenario as scenarios

    present = World()
    scenarios._world.set(present)

    def store() -> FaultStore:
        present.store = FaultStore(MemoryStore(share=present.memory))
        return present.store

    async with Runtime(actors=[Old], store=store(), clock=LoopClock()) as runtime:
        await runtime.start(Old(), key="old")
        await until(lambda: present.memory._memory.seq_last >= 4)
    async with Runtime(actors=[after], store=store(), clock=LoopClock()) as runtime:
        await runtime.start(after(), key="new")
        await runtime.run(after, "new").tell(Go())
        results = []
        for key in ("old", "new"):
            try:
                results.append(await runtime.run(after, key).result())
            except RunPaused as error:
                results.append(f"paused {error.reason}")
        return results[0], results[-1]


@both
def test_a_run_that_began_before_a_patch_keeps_its_path(backend: Backend) -> None:
    """C16, E2, rule 11."""
    old, new = virtually(backend, lambda: _deployed(New))

    assert (old, new) == ("1 2", "2 3")


@both
def test_code_that_changed_behind_a_run_pauses_it_before_anything_runs(backend: Backend) -> None:
    """E1, X15, P8."""
    old, _ = virtually(backend, lambda: _deployed(Changed))

    assert old == "paused diverged"


@both
def test_every_pair_of_faults_of_a_short_run_ends_well(backend: Backend) -> None:
    """A15: crashes of the recovery, too."""
    scenario = Scenario(name="Steps", actors=[Steps], script=_steps)

    for first in range(1, 7):
        for second in range(1, 6):
            outcome = play(scenario, backend, [Fault(first, "after")], [Fault(second, "before")])
            assert outcome.result == 3


def test_the_ledger_knows_how_often_a_step_ran() -> None:
    """A4, and the harness itself: a crash after the effect and before its record repeats it."""
    seen: list[int] = []
    scenario = Scenario(
        name="Steps", actors=[Steps], script=_steps, expect=lambda world, _: seen.append(sum(world.effects.values()))
    )

    for at in range(1, 6):
        play(scenario, "asyncio", [Fault(at, "before")])

    assert max(seen) == 4
    assert enumerate_crashes(scenario, "asyncio", points_max=4, pairs=1) >= 4
