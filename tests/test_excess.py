"""Far too much of something harms nobody but who asked for it."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from actorflow import Client, Limits, Message, Retry, RunPaused, Runtime, TooLarge, Workflow, step
from actorflow.testing.clock import Backend
from tests.harness import both

DEPTH = 10_000
PAYLOAD_BYTES = 100_000_000


def down(left: int) -> int:
    return 1 + down(left - 1) if left else 0


async def down_awaiting(left: int) -> int:
    return 1 + await down_awaiting(left - 1) if left else 0


@step(retry=Retry(attempts=1))
async def deep(depth: int) -> int:
    return await down_awaiting(depth)


@step(retry=Retry(attempts=1))
def deep_in_a_thread(depth: int) -> int:
    return down(depth)


@step(retry=Retry(attempts=1))
async def large(size: int) -> str:
    return "x" * size


_holding, _let_go = threading.Semaphore(0), threading.Event()


@step(retry=Retry(attempts=1))
def holding_a_thread() -> int:
    _holding.release()
    _let_go.wait()
    return 1


class Hint(Message[None], kind="excess-hint"):
    text: str


class Excessive(Workflow[int]):
    what: str

    async def run(self) -> int:
        match self.what:
            case "run":
                return down(DEPTH)
            case "awaits":
                return await down_awaiting(DEPTH)
            case "step":
                return await deep(DEPTH)
            case "thread":
                return await deep_in_a_thread(DEPTH)
            case "held":
                return await holding_a_thread()
            case "result":
                return len(await large(PAYLOAD_BYTES))
            case _:
                return await deep(3) + len(await large(3))


@both
@pytest.mark.parametrize("what", ["run", "awaits", "step", "thread"])
def test_code_that_calls_itself_ten_thousand_times_fails_alone(backend: Backend, what: str) -> None:
    """E9: whether it does so in durable code or in a step; the run before and the run after it end well."""

    async def main() -> None:
        with anyio.fail_after(60):
            async with Runtime(actors=[Excessive]) as runtime:
                before = await runtime.start(Excessive(""), key="before")
                run = await runtime.start(Excessive(what), key="deep")
                with pytest.raises((RecursionError, RunPaused), match="recursion depth exceeded"):
                    await run.result()
                assert await before.result() == 6
                assert await (await runtime.start(Excessive(""), key="after")).result() == 6

    anyio.run(main, backend=backend)


@both
def test_steps_that_hold_all_threads_keep_nothing_from_being_stored(backend: Backend, tmp_path: Path) -> None:
    """C13: the store has threads of its own."""

    async def main() -> None:
        with anyio.fail_after(60):
            limits = Limits(threads_max=2)
            async with Runtime(f"sqlite:///{tmp_path}/jobs.db", actors=[Excessive], limits=limits) as runtime:
                _let_go.clear()
                held = [await runtime.start(Excessive("held"), key=f"held-{n}") for n in range(4)]
                await anyio.to_thread.run_sync(_holding.acquire)
                await anyio.to_thread.run_sync(_holding.acquire)
                try:
                    assert [await (await runtime.start(Excessive(""), key=str(n))).result() for n in range(3)] == [6] * 3
                finally:
                    _let_go.set()
                assert [await run.result() for run in held] == [1] * 4

    anyio.run(main, backend=backend)


def test_a_hundred_megabytes_are_refused_at_every_door_and_nobody_else_notices(tmp_path: Path) -> None:
    """E8: as an input, as a message, through a socket, and as the outcome of a step."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    much = "x" * PAYLOAD_BYTES

    async def main() -> None:
        with anyio.fail_after(60):
            async with Runtime(url, actors=[Excessive]) as runtime, Client(url, actors=[Excessive]) as client:
                other = await runtime.start(Excessive(""), key="other")
                with pytest.raises(TooLarge):
                    await runtime.start(Excessive(much), key="input")
                with pytest.raises(TooLarge):
                    await runtime.run(Excessive, "other").tell(Hint(much))
                with pytest.raises(TooLarge):
                    await client.start(Excessive(much), key="socket")
                run = await runtime.start(Excessive("result"), key="result")
                with pytest.raises(RunPaused, match="over the limit"):
                    await run.result()
                assert await other.result() == 6
                assert await client.run(Excessive, "other").result() == 6
                assert await runtime.counts() == {"completed": 1, "paused": 1}

    anyio.run(main)
