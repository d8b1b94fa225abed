"""One heap for one clock: nothing before its moment, nothing twice, and no stall however much is due at once."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest
from attrs import define

from actorflow.runtime.loops import current_loop
from actorflow.runtime.timers import DEAD_MIN, SLICE, Timers

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@define
class Hand:
    """A clock that is set by hand."""

    at: float = 1_000.0

    def now(self) -> float:
        return self.at


@define
class Wavering(Hand):
    """A clock that says now a moment later, now a moment earlier."""

    looks: int = 0

    def now(self) -> float:
        self.looks += 1
        assert self.looks < 10_000, "it is looked at for ever"
        return self.at + (-0.1 if self.looks % 2 else 0.1)


@asynccontextmanager
async def served(clock: Hand, *, recheck_s: float = 0.001) -> AsyncIterator[Timers]:
    timers, survived = Timers(clock.now, current_loop(), recheck_s), False
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(timers.run)
            yield timers
            survived = True
            group.cancel_scope.cancel()
    assert survived


class Fired(list[str]):
    """What was called, and a way to wait for that."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = anyio.Event()

    def call(self, name: str) -> None:
        self.append(name)
        self._changed.set()

    async def until(self, count: int) -> None:
        while len(self) < count:
            self._changed = anyio.Event()
            await self._changed.wait()


async def test_moments_fire_in_their_order_and_ties_in_the_order_they_were_set() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock) as timers:
        for name, due in (("c", 1_030.0), ("a", 1_010.0), ("b1", 1_020.0), ("b2", 1_020.0)):
            timers.at(due, lambda name=name: fired.call(name))  # type: ignore[misc]
        clock.at = 1_040.0
        await fired.until(4)

    assert fired == ["a", "b1", "b2", "c"]


async def test_a_moment_that_has_passed_fires_at_once() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock, recheck_s=math.inf) as timers:
        await anyio.wait_all_tasks_blocked()
        timers.at(5.0, lambda: fired.call("late"))
        await fired.until(1)


async def test_an_earlier_moment_is_not_kept_waiting_by_a_later_one() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock, recheck_s=math.inf) as timers:
        timers.after(1e6, lambda: fired.call("later"))
        await anyio.wait_all_tasks_blocked()
        timers.after(0.0, lambda: fired.call("now"))
        await fired.until(1)

    assert fired == ["now"]


async def test_a_cancelled_moment_does_not_fire() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock) as timers:
        cancelled = timers.after(10.0, lambda: fired.call("cancelled"))
        timers.after(10.0, lambda: fired.call("kept"))
        cancelled.cancel()
        cancelled.cancel()
        clock.at += 11.0
        await fired.until(1)

    assert fired == ["kept"]


async def test_cancelled_moments_do_not_pile_up() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock) as timers:
        kept = [timers.after(n, lambda: fired.call("kept")) for n in (5.0, 40_000.0, 90_000.0)]
        for n in range(100_000):
            timers.after(30.0 + n, lambda: fired.call("cancelled")).cancel()
        assert len(timers._heap) <= 2 * (DEAD_MIN + len(kept))
        clock.at += 200_000.0
        await fired.until(3)

    assert fired == ["kept"] * 3


async def test_one_may_cancel_another_that_is_due_in_the_same_instant() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock) as timers:
        second = None

        def first() -> None:
            assert second is not None
            second.cancel()
            fired.call("first")

        timers.after(10.0, first)
        second = timers.after(10.0, lambda: fired.call("second"))
        timers.after(10.0, lambda: fired.call("third"))
        clock.at += 10.0
        await fired.until(2)

    assert fired == ["first", "third"]


async def test_ten_thousand_moments_at_one_instant_leave_the_loop_its_turns() -> None:
    """D9."""

    clock, fired, turns = Hand(), Fired(), list[int]()

    async def other() -> None:
        while True:
            turns.append(len(fired))
            await anyio.lowlevel.checkpoint()

    async with served(clock) as timers:
        for _ in range(10_000):
            timers.at(2_000.0, lambda: fired.append("x"))
        timers.at(2_000.0, lambda: fired.call("last"))
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await anyio.lowlevel.checkpoint()
            clock.at = 2_000.0
            await fired.until(10_001)
            group.cancel_scope.cancel()

    assert fired[-1] == "last"
    # trio shuffles what is ready, so the other task may come first in one turn and last in the next.
    assert max(after - before for before, after in pairwise(turns)) <= 2 * SLICE
    assert len(set(turns)) >= 10_000 // SLICE // 2


async def test_a_moment_set_by_a_moment_fires_too_and_does_not_stall_the_rest() -> None:
    clock, fired = Hand(), Fired()

    async with served(clock) as timers:

        def again() -> None:
            fired.call("again")
            timers.after(0.0, again)

        timers.after(0.0, again)
        await fired.until(3 * SLICE)

    assert set(fired) == {"again"}


async def test_a_clock_that_jumps_forward_is_noticed_at_the_next_look() -> None:
    """D1: a notebook that slept: what was due meanwhile fires without anybody setting a timer."""
    clock, fired = Hand(), Fired()

    async with served(clock, recheck_s=0.001) as timers:
        timers.after(86_400.0, lambda: fired.call("tomorrow"))
        await anyio.wait_all_tasks_blocked()
        clock.at += 86_400.0
        await fired.until(1)

    assert fired == ["tomorrow"]


async def test_a_clock_that_jumps_back_fires_nothing_twice_and_nothing_early() -> None:
    """D2."""

    clock, fired = Hand(), Fired()

    async with served(clock, recheck_s=0.001) as timers:
        timers.at(1_010.0, lambda: fired.call("first"))
        timers.at(1_020.0, lambda: fired.call("second"))
        clock.at = 1_015.0
        await fired.until(1)
        clock.at = 0.0
        looked = Fired()
        timers.at(0.0, lambda: looked.call("the heap was looked at"))
        await looked.until(1)
        assert fired == ["first"]
        clock.at = 1_019.99
        timers.at(0.0, lambda: looked.call("and again, just before"))
        await looked.until(2)
        assert fired == ["first"]
        clock.at = 1_020.0
        await fired.until(2)

    assert fired == ["first", "second"]


async def test_a_clock_that_wavers_about_a_moment_keeps_the_loop_from_nothing() -> None:
    """D3: what one look finds due is fired by that look; a second look may find that it is not."""
    fired, clock = Fired(), Wavering()

    async with served(clock) as timers:
        await anyio.wait_all_tasks_blocked()
        timers.at(1_000.0, lambda: fired.call("once"))
        await fired.until(1)

    assert fired == ["once"]


async def test_nothing_is_looked_at_while_nothing_is_set() -> None:
    looks = 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    timers = Timers(now, current_loop(), 0.0001)
    async with anyio.create_task_group() as group:
        group.start_soon(timers.run)
        await anyio.wait_all_tasks_blocked()
        before = looks
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()

    assert looks == before
