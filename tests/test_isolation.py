"""What one run does badly takes down that run and nobody else: on both loops, the others come to their ends meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actorflow import Abort, Limits, MailboxFull, Message, Retry, Run, Runtime, StepTimeout, Workflow, query, step
from tests.harness import both

errors: list[BaseException] = []  #: what the bad run raises


class Boom(BaseException):
    """No error of Python's own."""


def cancelled() -> BaseException:
    cancel: Any = anyio.get_cancelled_exc_class()
    return cancel("mine") if cancel is asyncio.CancelledError else cancel._create()


ERRORS: dict[str, Callable[[], BaseException]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "cancelled": cancelled,
    "Boom": Boom,
    "MemoryError": MemoryError,
}
once = Retry(attempts=1)


def burst() -> None:
    raise errors[0]


@step(retry=once)
async def at_once() -> None:
    burst()


@step(retry=once)
async def after_a_wait() -> None:
    await anyio.lowlevel.checkpoint()
    burst()


@step(retry=once)
def in_a_thread() -> None:
    burst()


@step(retry=once)
async def undone() -> None:
    burst()


@step(undo=undone)
async def undoable() -> None:
    """Nothing to wait for."""


@step(retry=once)
async def in_a_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_burst_later)


async def _burst_later() -> None:
    await anyio.lowlevel.checkpoint()
    burst()


async def item(_: int) -> None:
    burst()


def key(_: int) -> str:
    burst()
    return ""


class Word(Message[None]):
    n: int


def source() -> Iterator[int]:
    yield 0
    burst()


async def async_source() -> AsyncIterator[int]:
    yield 0
    burst()


async def taken(_: int) -> None:
    """Nothing to wait for."""


def where(_: Word) -> bool:
    burst()
    return True


class Bad(Workflow[None]):
    way: str

    async def run(self) -> None:
        match self.way:
            case "at once":
                await at_once()
            case "after a wait":
                await after_a_wait()
            case "in a thread":
                await in_a_thread()
            case "in a group":
                await in_a_group()
            case "in durable code":
                burst()
            case "in durable code later":
                await self.sleep(0.001)
                burst()
            case "in an undo":
                await undoable()
                burst_business()
            case "in an item":
                await self.each([0], item, key=str)
            case "in a key":
                await self.each([0], str, key=key)
            case "in a source":
                await self.each(source, taken, key=str)
            case "in an async source":
                await self.each(async_source, taken, key=str)
            case "in a where":
                await self.receive(Word, where=where)
            case _:
                pass

    @query
    def asked(self) -> None:
        burst()


def burst_business() -> None:
    raise Abort("no")


@step
async def nap() -> int:
    await anyio.sleep(0.001)
    return 1


class Good(Workflow[int]):
    async def run(self) -> int:
        total = 0
        for _ in range(3):
            total += await nap()
        return total


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    errors.clear()
    yield
    errors.clear()


@asynccontextmanager
async def runtime(*actors: type[Workflow[Any]], **options: Any) -> AsyncIterator[Runtime]:
    with anyio.fail_after(30):
        async with Runtime(actors=(Good, *actors), **options) as opened:
            yield opened


async def others_end(opened: Runtime, prefix: str) -> None:
    runs = [await opened.start(Good(), key=f"{prefix}{n}") for n in range(5)]
    assert [await run.result() for run in runs] == [3] * 5


async def down(run: Run[Any]) -> str:
    """How the run is stopped, once it is."""
    while (status := (await run.status()).status) in ("running", "waiting", "undoing"):
        await anyio.lowlevel.checkpoint()
    return status


WAYS = (
    "at once", "after a wait", "in a thread", "in a group", "in durable code", "in durable code later", "in an undo",
    "in an item", "in a key", "in a source", "in an async source", "in a where",
)  # fmt: skip


@both
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("way", WAYS)
def test_whatever_user_code_raises_stops_its_own_run_alone(way: str, error: str, backend: str) -> None:
    """E13, E10."""
    if way == "in a group" and backend == "asyncio" and error in ("KeyboardInterrupt", "SystemExit"):
        pytest.skip("asyncio itself raises these out of the loop when a task of the user's own does")
    if way == "in an async source" and error in ("GeneratorExit", "cancelled"):
        pytest.skip("nobody can tell these from the end of the reading")
    # A group ends well if a task of its own is cancelled.
    expected = ("completed",) if (way, error) == ("in a group", "cancelled") else ("failed", "paused")

    async def main() -> str:
        errors.append(ERRORS[error]())
        async with runtime(Bad) as opened:
            before = await opened.start(Good(), key="before")
            bad = await opened.start(Bad(way), key="b")
            if way == "in a where":
                await bad.tell(Word(1))
            status = await down(bad)
            await others_end(opened, "after")
            assert await before.result() == 3
            return status

    assert anyio.run(main, backend=backend) in expected


@both
@pytest.mark.parametrize("error", ERRORS)
def test_whatever_a_query_raises_is_an_error_of_who_asks(error: str, backend: str) -> None:
    async def main() -> None:
        errors.append(ERRORS[error]())
        async with runtime(Bad) as opened:
            run = await opened.start(Bad(""), key="b")
            await run.result()
            with pytest.raises((RuntimeError, MemoryError)):
                await run.query(Bad.asked)

    anyio.run(main, backend=backend)


# --- runs that hold, hang and flood -------------------------------------------------------------------------------------


@step
async def blocking() -> None:
    time.sleep(0.2)  # noqa: ASYNC251  (the fault itself)


@step(timeout="50ms", retry=once)
async def hanging() -> None:
    await anyio.sleep_forever()


class Blocking(Workflow[None]):
    async def run(self) -> None:
        await blocking()


class Hanging(Workflow[str]):
    async def run(self) -> str:
        try:
            await hanging()
        except StepTimeout:
            return "too late"
        return "?"


class Full(Workflow[int]):
    """Never looks into its mailbox before it is told to."""

    async def run(self) -> int:
        await self.receive(Open)
        return len([await self.receive(Word) for _ in range(3)])


class Open(Message[None]): ...


@both
def test_others_end_while_one_run_holds_the_loop_one_hangs_and_one_is_flooded(backend: str) -> None:
    """G10."""

    async def main() -> None:
        async with runtime(Blocking, Hanging, Full, limits=Limits(mailbox_depth_max=4)) as opened:
            holds = await opened.start(Blocking(), key="1")
            hangs = await opened.start(Hanging(), key="1")
            flooded = await opened.start(Full(), key="1")
            refused = 0

            async def flood() -> None:
                nonlocal refused
                for n in range(50):
                    try:
                        await flooded.tell(Word(n))
                    except MailboxFull:
                        refused += 1

            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(flood)
                group.start_soon(others_end, opened, "beside")

            assert refused == 200 - 4
            await others_end(opened, "after")
            await holds.result()
            assert await hangs.result() == "too late"
            assert (await flooded.status()).status == "waiting"

    anyio.run(main, backend=backend)
