"""Tasks that a step leaves behind are cancelled and named; what it was told to leave, or awaits, is not."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actorflow import Abort, Retry, Runtime, StepTimeout, Workflow, step

tasks: list[asyncio.Task[None]] = []
groups: list[asyncio.TaskGroup | anyio.abc.TaskGroup] = []
told: list[str] = []


class _Telling(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        told.append(record.getMessage())


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    handler = _Telling(logging.WARNING)  # Another test may have turned on what the service tells beside.
    logging.getLogger("actorflow").addHandler(handler)
    for each in (tasks, groups, told):
        each.clear()
    yield
    logging.getLogger("actorflow").removeHandler(handler)


async def poll() -> None:
    await asyncio.Event().wait()


async def tick() -> None:
    await asyncio.sleep(0)


@step
async def at_once() -> None:
    tasks.append(asyncio.create_task(poll(), name="poller"))


@step
async def while_others_are_collected() -> None:
    tasks.append(asyncio.create_task(poll()))
    gc.collect()  # It finds the old tasks of `in_circles`, and there are fewer than before.


async def in_circles() -> None:
    """Leave some tasks that have ended to the collector of cycles."""
    for _ in range(5):
        circle: list[Any] = []
        circle.append(asyncio.create_task(_itself(circle)))
        await circle[0]


async def _itself(what: Any) -> Any:
    return what


@step
async def after_a_wait() -> None:
    await asyncio.gather(tick(), tick())
    tasks.append(asyncio.create_task(poll()))
    await tick()


@step
async def with_the_idiom_that_keeps_a_reference() -> None:
    task = asyncio.create_task(poll())
    tasks.append(task)
    task.add_done_callback(lambda _: None)


@step(timeout="20ms", retry=Retry(attempts=1))
async def too_long() -> None:
    tasks.append(asyncio.create_task(poll()))
    await asyncio.Event().wait()


@step
async def failing() -> None:
    tasks.append(asyncio.create_task(poll()))
    raise LookupError("no")


async def item(_: int) -> None:
    tasks.append(asyncio.create_task(poll()))


@step
async def tidy() -> None:
    await asyncio.wait_for(tick(), 5)
    async with asyncio.TaskGroup() as group:
        group.create_task(tick())
    async with anyio.create_task_group() as other:
        other.start_soon(tick)
    task = asyncio.create_task(poll())
    await tick()
    task.cancel()


@step
async def into_a_group() -> None:
    group = groups[0]
    if isinstance(group, asyncio.TaskGroup):
        tasks.append(group.create_task(poll()))
    else:
        group.start_soon(poll_noted)


async def poll_noted() -> None:
    task = asyncio.current_task()
    assert task is not None
    tasks.append(task)
    await poll()


@step
async def in_its_own_context() -> None:
    tasks.append(asyncio.create_task(poll(), context=Context()))


@step
async def awaiting_a_shared_one() -> None:
    tasks[0].add_done_callback(lambda _: None)
    await asyncio.gather(tick())


STEPS = (
    at_once, after_a_wait, with_the_idiom_that_keeps_a_reference, too_long, failing, while_others_are_collected, tidy,
    into_a_group, in_its_own_context, awaiting_a_shared_one,
)  # fmt: skip


class Shop(Workflow[None]):
    way: str

    async def run(self) -> None:
        if self.way == "each":
            await self.each([0], item, key=str)
        for each in STEPS:
            if each.__name__ == self.way:
                try:
                    await each()
                except (LookupError, StepTimeout):
                    return


@asynccontextmanager
async def runtime() -> AsyncIterator[Runtime]:
    with anyio.fail_after(20):
        async with Runtime(actors=[Shop, Undone]) as opened:
            yield opened


async def until(what: Callable[[], object]) -> None:
    while not what():
        await anyio.lowlevel.checkpoint()


@step
async def leaving_undo() -> None:
    tasks.append(asyncio.create_task(poll()))


@step(undo=leaving_undo)
async def undoable() -> None:
    """Nothing to wait for."""


class Undone(Workflow[None]):
    async def run(self) -> None:
        await undoable()
        raise Abort("no")


def test_a_task_that_an_undo_leaves_behind_is_cancelled_and_named() -> None:
    """E17."""

    async def main() -> None:
        async with runtime() as opened:
            run = await opened.start(Undone(), key="u1")
            with pytest.raises(Abort):
                await run.result()
            await until(lambda: tasks and tasks[0].cancelled())

    anyio.run(main)

    assert any("Undone/u1 in the undo of undoable has ended" in text for text in told)


LEAKING = [at_once, after_a_wait, with_the_idiom_that_keeps_a_reference, too_long, failing, while_others_are_collected]


@pytest.mark.parametrize("use_uvloop", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("way", [*(each.__name__ for each in LEAKING), "each"])
def test_a_task_left_behind_is_cancelled_and_named(way: str, use_uvloop: bool) -> None:
    """E17."""

    async def main() -> None:
        async with runtime() as opened:
            await in_circles()
            run = await opened.start(Shop(way), key="s1")
            await run.result()
            await until(lambda: tasks and all(task.done() for task in tasks))

    anyio.run(main, backend_options={"use_uvloop": use_uvloop})

    assert [task.cancelled() for task in tasks] == [True]
    name = "item, item '0'" if way == "each" else way
    left = [text for text in told if "behind" in text]
    assert len(left) == 1
    assert left[0].startswith(f"Shop/s1 in step {name} has ended and left the task poll (")
    assert way != "at_once" or "(poller)" in left[0]


async def settle() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


def test_tasks_that_a_step_awaits_or_cancels_itself_are_its_own_business() -> None:
    async def main() -> None:
        async with runtime() as opened:
            await (await opened.start(Shop("tidy"), key="s1")).result()
            await settle()

    anyio.run(main)

    assert told == []


def test_a_group_that_outlives_the_step_keeps_its_task() -> None:
    async def main() -> None:
        async with runtime() as opened, asyncio.TaskGroup() as first, anyio.create_task_group() as second:
            for key, group in (("a", first), ("b", second)):
                groups[:] = [group]
                await (await opened.start(Shop("into_a_group"), key=key)).result()
            await settle()

            assert [task.done() for task in tasks] == [False, False]
            for task in tasks:
                task.cancel()

    anyio.run(main)

    assert told == []


def test_a_task_in_a_context_of_its_own_goes_on() -> None:
    async def main() -> None:
        async with runtime() as opened:
            await (await opened.start(Shop("in_its_own_context"), key="s1")).result()
            await settle()

            assert not tasks[0].done()
            tasks[0].cancel()

    anyio.run(main)

    assert told == []


def test_a_task_of_the_service_is_left_alone_though_a_step_waits_for_its_end() -> None:
    async def main() -> None:
        async with runtime() as opened:
            tasks.append(asyncio.create_task(poll()))
            await (await opened.start(Shop("awaiting_a_shared_one"), key="s1")).result()
            await settle()

            assert not tasks[0].done()
            tasks[0].cancel()

    anyio.run(main)

    assert told == []
