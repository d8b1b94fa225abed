"""W1 and W2: sequential steps of one workflow, and many short workflows at a time."""

from __future__ import annotations

import asyncio
import time

import anyio

from actorflow import Runtime, Workflow, step


@step
async def add(value: int) -> int:
    """The smallest step there is: all that is measured is the runtime."""
    return value + 1


class Line(Workflow[int]):
    """So many steps, one after another."""

    length: int

    async def run(self) -> int:
        value = 0
        for _ in range(self.length):
            value = await add(value)
        return value


async def run(url: str, runs: int, steps: int, *, durability: str, clients: int = 2_000) -> float:
    """Seconds for so many workflows of so many steps, with so many clients at a time."""
    async with Runtime(url, actors=[Line], durability=durability) as runtime:  # type: ignore[arg-type]
        numbers = iter(range(runs))

        async def client() -> None:
            for number in numbers:
                started = await runtime.start(Line(steps), key=str(number))
                assert await started.result() == steps

        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(min(clients, runs)):
                group.start_soon(client)
        return time.perf_counter() - begun


def alone(url: str, runs: int, steps: int, durability: str) -> float:
    """The same, in an event loop of its own."""
    return asyncio.run(run(url, runs, steps, durability=durability))
