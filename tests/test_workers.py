"""Who performs steps: a blocked one holds up nobody, whatever one raises is its own outcome, and the pool outlives them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from actorflow.runtime.loops import current_loop
from actorflow.runtime.workers import SLICE, Job, NotBegun, Workers

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Outcome = tuple[Any, BaseException | None]


def task_here() -> object:
    """The task itself, kept alive: a number would be given to another one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return trio.lowlevel.current_task()


class Pool:
    """A pool and what its jobs told."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.told: dict[Job, Outcome] = {}
        self._changed = anyio.Event()

    def _tell(self, job: Job, value: Any, error: BaseException | None) -> None:
        assert job not in self.told, "an outcome is told once"
        self.told[job] = (value, error)
        self._changed.set()

    def perform(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Job:
        job = Job(call, copy_context(), self._tell)
        self.workers.perform(job)
        return job

    async def outcome(self, job: Job) -> Outcome:
        while job not in self.told:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self.told[job]

    async def of(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Outcome:
        return await self.outcome(self.perform(call))

    async def lives(self) -> bool:
        """True if it still performs: inline, blocking, and several at a time."""
        jobs = [self.perform(call) for call in (give, blocking, give, blocking, give)]
        return [await self.outcome(job) for job in jobs] == [(1, None)] * 5


async def give() -> int:
    return 1


async def blocking() -> int:
    await anyio.lowlevel.checkpoint()
    return 1


async def for_ever() -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def pool(**more: Any) -> AsyncIterator[Pool]:
    survived = False
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            yield Pool(Workers(group, current_loop(), **more))
            survived = True
            group.cancel_scope.cancel()
    assert survived, "the group was cancelled by what ran in it"


async def test_a_job_tells_its_value() -> None:
    async with pool() as work:
        assert await work.of(give) == (1, None)
        assert await work.of(blocking) == (1, None)


async def test_a_blocked_job_holds_up_nobody() -> None:
    async with pool() as work:
        stuck = [work.perform(for_ever) for _ in range(5)]

        assert await work.of(give) == (1, None)
        assert await work.of(blocking) == (1, None)
        assert not any(job in work.told for job in stuck)


async def test_jobs_begin_in_the_order_they_were_given() -> None:
    begun: list[int] = []

    def noting(n: int) -> Callable[[], Coroutine[Any, Any, Any]]:
        async def note() -> None:
            begun.append(n)
            if n % 3 == 0:
                await anyio.lowlevel.checkpoint()

        return note

    async with pool() as work:
        for job in [work.perform(noting(n)) for n in range(50)]:
            await work.outcome(job)

    assert begun == list(range(50))


async def test_many_jobs_that_never_block_leave_the_loop_its_turns() -> None:
    done, turns = 0, list[int]()

    async def quick() -> None:
        nonlocal done
        done += 1

    async def other() -> None:
        while True:
            turns.append(done)
            await anyio.lowlevel.checkpoint()

    async with pool() as work:
        work.workers.group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        last = [work.perform(quick) for _ in range(20 * SLICE)][-1]
        await work.outcome(last)

    # trio shuffles what is ready, so the other task may come first in one turn and last in the next.
    assert max(after - before for before, after in pairwise(turns)) <= 2 * SLICE


async def test_a_job_runs_in_its_own_context() -> None:
    name: ContextVar[str] = ContextVar("name", default="")

    async def seeing() -> str:
        name.set(name.get() + "!")
        await anyio.lowlevel.checkpoint()
        return name.get()

    async with pool() as work:
        name.set("a")
        first = work.perform(seeing)
        name.set("b")
        second = work.perform(seeing)

        assert (await work.outcome(first), await work.outcome(second)) == (("a!", None), ("b!", None))
        assert name.get() == "b"


def raising(error: BaseException, *, blocked: bool) -> Callable[[], Coroutine[Any, Any, Any]]:
    async def fail() -> None:
        if blocked:
            await anyio.lowlevel.checkpoint()
        raise error

    return fail


@pytest.mark.parametrize("blocked", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError(), StopAsyncIteration()], ids=repr
)
async def test_whatever_a_step_raises_is_its_outcome_and_the_pool_lives(error: BaseException, blocked: bool) -> None:
    """E13."""
    async with pool() as work:
        assert await work.of(raising(error, blocked=blocked)) == (None, error)
        assert await work.lives()


@pytest.mark.parametrize("blocked", [False, True], ids=["at once", "after a wait"])
async def test_a_cancel_that_a_step_raises_itself_is_a_failure(blocked: bool) -> None:
    """E10."""
    cancelled = anyio.get_cancelled_exc_class()
    error = cancelled("mine") if cancelled is asyncio.CancelledError else cancelled._create()  # type: ignore[attr-defined]

    async with pool() as work:
        value, failure = await work.of(raising(error, blocked=blocked))

        assert value is None
        assert isinstance(failure, Exception)
        assert type(error).__name__ in str(failure)
        assert await work.lives()


async def test_a_call_that_fails_before_it_is_a_coroutine_is_a_failure() -> None:
    def broken() -> Coroutine[Any, Any, Any]:
        raise TypeError("no such argument")

    async with pool() as work:
        value, failure = await work.of(broken)

        assert value is None
        assert isinstance(failure, TypeError)
        assert await work.lives()


async def test_a_blocked_job_is_cancelled_and_tells_so() -> None:
    async with pool() as work:
        job = work.perform(for_ever)
        await anyio.wait_all_tasks_blocked()

        work.workers.cancel(job)
        _, error = await work.outcome(job)

        assert isinstance(error, anyio.get_cancelled_exc_class())
        assert job.cancelled
        assert await work.lives()


async def test_a_job_that_has_not_begun_is_cancelled_without_beginning() -> None:
    begun: list[str] = []

    async def noting() -> None:
        begun.append("x")

    async with pool() as work:
        job = work.perform(noting)
        work.workers.cancel(job)

        _, error = await work.outcome(job)
        assert isinstance(error, NotBegun)
        assert job.ended_by_cancel(error)
        assert await work.lives()

    assert begun == []


async def test_cleaning_up_after_a_cancel_may_wait_in_a_shield_and_its_value_counts() -> None:
    """E12: an outcome in time is an outcome."""

    async def careful() -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
        return "cleaned up"

    async with pool() as work:
        job = work.perform(careful)
        await anyio.wait_all_tasks_blocked()
        work.workers.cancel(job)

        assert await work.outcome(job) == ("cleaned up", None)
        assert await work.lives()


async def test_a_step_that_swallows_cancellation_is_asked_again_and_again() -> None:
    """E11."""
    swallowed = 0

    async def stubborn() -> str:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                swallowed += 1
        return "at last"

    async with pool() as work:
        job = work.perform(stubborn)
        await anyio.wait_all_tasks_blocked()
        work.workers.cancel(job)

        assert await work.outcome(job) == ("at last", None)
        assert await work.lives()

    assert swallowed == 3


async def test_a_worker_that_was_cancelled_is_not_used_again() -> None:
    """A cancel that came too late for its step must not reach the next one."""

    async def innocent() -> object:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        return task_here()

    async with pool() as work:
        first, _ = await work.of(innocent)
        await anyio.wait_all_tasks_blocked()
        reused, _ = await work.of(innocent)
        await anyio.wait_all_tasks_blocked()
        assert first is reused

        async def ending() -> object:
            await released.wait()
            return task_here()

        released = anyio.Event()
        job = work.perform(ending)
        await anyio.wait_all_tasks_blocked()
        released.set()
        work.workers.cancel(job)
        await work.outcome(job)

        others = [await work.of(innocent) for _ in range(5)]
        assert all(error is None and task is not first for task, error in others)


async def test_a_job_cancelled_by_itself_before_it_blocks_is_cancelled_when_it_does() -> None:
    async with pool() as work:
        jobs: list[Job] = []

        async def suicidal() -> None:
            work.workers.cancel(jobs[0])
            await anyio.sleep_forever()

        jobs.append(work.perform(suicidal))
        _, error = await work.outcome(jobs[0])

        assert isinstance(error, anyio.get_cancelled_exc_class())
        assert await work.lives()


async def test_after_it_was_abandoned_a_job_tells_nobody() -> None:
    """E11, E16."""

    async with pool() as work:
        job = work.perform(for_ever)
        await anyio.wait_all_tasks_blocked()
        job.tell = None
        work.workers.cancel(job)

        assert await work.lives()
        assert job not in work.told


async def test_a_step_may_open_scopes_and_groups_of_its_own() -> None:
    async def scoped() -> str:
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.lowlevel.checkpoint)
        return "done"

    async with pool() as work:
        assert await work.of(scoped) == ("done", None)
        assert await work.lives()


@pytest.mark.parametrize("blocked", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_step_that_cancels_its_own_task_ends_neither_the_pool_nor_another_step(blocked: bool) -> None:
    """asyncio lets anybody cancel a task; the worker's may not take the runtime along."""

    async def suicidal() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if blocked:
            await asyncio.sleep(0)
        return "survived"

    async with pool() as work:
        value, error = await work.of(suicidal)

        assert (value == "survived") is not blocked
        assert (error is None) is not blocked
        for _ in range(3):
            assert await work.lives()


async def test_idle_workers_are_bounded() -> None:
    async with pool(idle_max=2) as work:
        gate = anyio.Event()
        jobs = [work.perform(gate.wait) for _ in range(10)]
        await anyio.wait_all_tasks_blocked()
        gate.set()
        for job in jobs:
            await work.outcome(job)
        await anyio.wait_all_tasks_blocked()

        assert len(work.workers._idle) <= 2
        assert not work.workers.busy
        assert await work.lives()


async def test_the_end_of_the_runtime_is_told_as_a_cancel_and_ends_all() -> None:
    told: list[BaseException | None] = []

    async with anyio.create_task_group() as group:
        workers = Workers(group, current_loop())
        for _ in range(3):
            workers.perform(Job(for_ever, copy_context(), lambda _job, _value, error: told.append(error)))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()

    assert [isinstance(error, (asyncio.CancelledError, trio.Cancelled)) for error in told] == [True] * 3
