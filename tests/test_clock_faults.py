"""A wall clock that is set, or that cannot decide: what was asked for by the wall clock follows it, once; the rest does not."""

from __future__ import annotations

import math

import anyio
import pytest
from attrs import define, field

from actorflow import Message, Retry, Runtime, Transient, Workflow, gather, step
from actorflow.runtime.runtime import Runtime as AnyRuntime
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock
from actorflow.testing.invariants import rows_of, violations
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes
from tests.harness import both, virtual

HOUR_S = 3_600.0


class Set(LoopClock):
    """A wall clock that somebody sets; the monotonic one goes on as ever."""

    recheck_s = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.offset_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset_s


class Strobing(LoopClock):
    """A wall clock that is 200 ms early at one look, and 200 ms late at the next."""

    recheck_s = 1.0

    def __init__(self) -> None:
        super().__init__()
        self._late = False

    def wall(self) -> float:
        self._late = not self._late
        return super().wall() + (0.2 if self._late else -0.2)


class Hint(Message[None], kind="clock-hint"):
    n: int


@define
class Stage:
    """What steps did, and when by the monotonic clock."""

    runs: list[str] = field(factory=list[str])


_stage = Stage()


@step(timeout="30m", retry=Retry(attempts=1))
async def long_work() -> str:
    _stage.runs.append("long")
    await anyio.sleep(20 * 60)
    return "in time"


@step(timeout="1m", retry=Retry(attempts=1))
async def hanging() -> str:
    _stage.runs.append("hanging")
    await anyio.sleep(math.inf)
    return "never"


class Waits(Workflow[list[str]]):
    """All that waits, side by side: a timer, a message that does not come, a step in time and one that hangs."""

    async def run(self) -> list[str]:
        return [*await gather(self.slept(), self.unheard(), long_work(), self.cut())]

    async def slept(self) -> str:
        await self.sleep("30m")
        return "slept"

    async def unheard(self) -> str:
        return "heard" if await self.receive(Hint, within="45m") else "unheard"

    async def cut(self) -> str:
        try:
            return await hanging()
        except TimeoutError:
            return "cut"


def served(backend: Backend, set_to_s: float) -> tuple[float, MemoryStore]:
    """A minute after the start the wall clock is set; how long it all took by the monotonic one."""
    _stage.runs.clear()
    store, clock = MemoryStore(), list[Set]()

    async def main() -> float:
        clock.append(Set())
        began = anyio.current_time()
        with anyio.fail_after(10 * HOUR_S):
            async with Runtime(store=store, actors=[Waits], clock=clock[0]) as runtime:
                run = await runtime.start(Waits(), key="w")
                await anyio.sleep(60.5)
                clock[0].offset_s = set_to_s
                assert await run.result() == ["slept", "unheard", "in time", "cut"]
                took_s = anyio.current_time() - began
                assert violations(await rows_of(store)) == []
                history = await run.history()
                assert [entry.seq for entry in history] == sorted({entry.seq for entry in history})
                return took_s

    return virtual(backend, main), store


@both
def test_a_clock_set_forward_by_an_hour_lets_what_is_due_happen_once_and_cuts_no_step_short(backend: Backend) -> None:
    """C17, D1: timers follow the wall clock, timeouts of steps do not."""
    took_s, _ = served(backend, HOUR_S)

    assert sorted(_stage.runs) == ["hanging", "long"]
    assert took_s == pytest.approx(20 * 60, abs=5)  # The step that takes 20 minutes is the last.


@both
def test_a_clock_set_back_by_an_hour_keeps_timers_waiting_for_their_moment_and_nothing_else(backend: Backend) -> None:
    """D2: nothing happens twice, and steps end in their own time."""
    took_s, _ = served(backend, -HOUR_S)

    assert sorted(_stage.runs) == ["hanging", "long"]
    assert took_s == pytest.approx(45 * 60 + HOUR_S, abs=5)


@both
def test_a_clock_that_is_set_back_while_nobody_runs_fires_nothing_again(backend: Backend) -> None:
    """D2, D8: what has fired has fired, and what is due by the clock of the next life comes then."""
    store = MemoryStore()

    async def main() -> None:
        first = Set()
        async with Runtime(store=MemoryStore(share=store), actors=[Naps], clock=first) as runtime:
            run = await runtime.start(Naps(), key="n")
            await anyio.sleep(90 * 60)
        second = Set()
        second.offset_s = -HOUR_S
        began = anyio.current_time()
        async with Runtime(store=MemoryStore(share=store), actors=[Naps], clock=second) as runtime:
            run = runtime.run(Naps, "n")
            assert await run.result() == 2
            assert [entry.kind for entry in await run.history()].count("sleep") == 2
        assert anyio.current_time() - began == pytest.approx(30 * 60 + HOUR_S, abs=5)

    virtual(backend, main)


class Naps(Workflow[int]):
    """Two hours of sleep in two naps."""

    async def run(self) -> int:
        for _ in range(2):
            await self.sleep("1h")
        return 2


# --- strobing, with crashes -----------------------------------------------------------------------------------------------


@step(retry=Retry(attempts=4, first="500ms"))
async def shaky(n: int) -> int:
    if effect() < 3:
        raise Transient("not yet")
    return n


class Busy(Workflow[list[int]]):
    """Naps shorter than the clock's error, tries again soon, and hears a message within a moment."""

    async def run(self) -> list[int]:
        done = list[int]()
        for n in range(3):
            await self.sleep("100ms")
            done.append(await shaky(n))
        heard = await self.receive(Hint, within="1h")
        unheard = await self.receive(Hint, within="150ms")
        return [*done, heard.n if heard else -1, unheard.n if unheard else -1]


async def busy(runtime: AnyRuntime, world: World) -> list[int]:
    run = await runtime.start(Busy(), key="b")
    await run.tell(Hint(7), key="hint")
    return await run.result()


@both
def test_a_strobing_clock_changes_nothing_whatever_crashes(backend: Backend) -> None:
    """D3: the same results, effects and promises as with a clock that goes well."""
    scenario = Scenario(name="strobing", actors=[Busy], script=busy, clock=Strobing)

    assert enumerate_crashes(scenario, backend, points_max=10, pairs=1) > 10
