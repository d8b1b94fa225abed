"""Sync steps run in so many threads at a time; the others stand in line, and their time does not count yet."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel
import pytest

from actorflow import Limits, Retry, Runtime, Workflow, gather, step

begun: list[int] = []
go = threading.Event()


@step(timeout="10s", retry=Retry(attempts=1))
def held(n: int) -> int:
    begun.append(n)
    assert go.wait(20)
    return n


class Job(Workflow[tuple[int, ...]]):
    async def run(self) -> tuple[int, ...]:
        return tuple(await gather(*(held(n) for n in range(3))))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_step_for_which_there_is_no_thread_begins_when_another_one_has_ended(backend: str) -> None:
    begun.clear()
    go.clear()

    async def main() -> tuple[int, ...]:
        with anyio.fail_after(60):
            async with Runtime("memory://", actors=[Job], limits=Limits(threads_max=1)) as runtime:
                run = await runtime.start(Job(), key="k")
                while not begun:  # noqa: ASYNC110  (a thread tells)
                    await anyio.sleep(0.001)
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
                assert begun == [0]
                go.set()
                return await run.result()

    assert anyio.run(main, backend=backend) == (0, 1, 2)
    assert begun == [0, 1, 2]
