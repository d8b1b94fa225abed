"""The service that W4 kills and starts again. Who counts its steps is a file beside the store, a line for each time one ran.

It is entered as `python -c`, with the moment of its first line in hand, and imports nothing that it does not need: what a
restart costs begins there.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from actorflow import Message, Runtime, Workflow, resource, step
from actorflow.records import RunQuery
from actorflow.runtime.operators import Operators

STEPS = 3


class Ledger:
    """Lines that no crash of the process takes back."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "ledger.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, line: str) -> None:
        """One line more, in one write."""
        os.write(self._file, f"{line}\n".encode())


@step
async def noted(run: str, number: int, *, ledger: Ledger = resource()) -> int:
    """A step that says that it ran."""
    ledger.note(f"{run} {number}")
    return number


class Go(Message[None]):
    """On with it."""


class Patient(Workflow[int]):
    """Some steps, then it waits for a message."""

    async def run(self) -> int:
        total = sum([await noted(self.me.key, number) for number in range(STEPS)])
        await self.receive(Go)
        return total


def service(folder: Path) -> Runtime:
    """The same in both lives."""
    return Runtime(f"sqlite:///{folder}/a.db", actors=[Patient], resources=[Ledger(folder)])


async def _until_all_wait(folder: Path, runs: int) -> None:
    async with service(folder) as runtime:
        async with asyncio.TaskGroup() as group:
            for number in range(runs):
                group.create_task(runtime.start(Patient(), key=str(number)))
        while (await runtime.counts()).get("waiting", 0) < runs:  # noqa: ASYNC110  (the store alone says who waits durably)
            await asyncio.sleep(0.01)
        print("all wait", flush=True)
        await asyncio.Event().wait()


def first(folder: str, runs: int) -> None:
    """Start the runs, say when all of them wait, and live until killed."""
    asyncio.run(_until_all_wait(Path(folder), runs))


async def load(runtime: Runtime, runs: int) -> None:
    """Have all of them in memory, at their `receive`: loaded one by one, as a message to each would load it."""
    operators = runtime.operations
    assert isinstance(operators, Operators)
    host = operators.host
    waiting = await host.store.runs(RunQuery(status="waiting", limit=runs))
    await asyncio.gather(*(host.loading.load(run.id) for run in waiting))
    asked = [call.asked.request.kind for live in host.resident.values() for call in live.calls.values()]
    assert asked == ["receive"] * runs


async def _go_on(begun: float, folder: Path, runs: int) -> None:
    async with service(folder) as runtime:
        up_s = time.perf_counter() - begun
        await load(runtime, runs)
        live_s = time.perf_counter() - begun

        async def client(number: int) -> None:
            run = runtime.run(Patient, str(number))
            await run.tell(Go())
            assert await run.result() == sum(range(STEPS))

        told = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(runs):
                group.create_task(client(number))
        done_s = time.perf_counter() - told
    print(json.dumps({"live_s": live_s, "done_s": done_s, "up_s": up_s}))


def second(begun: float, folder: str, runs: int) -> None:
    """Go on after the kill, to the end of all runs, and print what that took.

    Args:
        begun: When the first line of this process ran, by `time.perf_counter`.
        folder: Where the store is.
        runs: How many of them there are.
    """
    asyncio.run(_go_on(begun, Path(folder), runs))
