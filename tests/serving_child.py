"""The service of tests/test_serving.py, in a child of its own: serves until it is told to end, and prints what it left.

Usage: serving_child.py DATABASE DRAIN_S STEP_S BACKEND
"""

from __future__ import annotations

import signal
import sys

import anyio
import anyio.lowlevel

from actorflow import Limits, Runtime, Workflow, step


@step
async def work(for_s: float) -> str:
    print("working", flush=True)
    await anyio.sleep(for_s)
    return "done"


@step
def after(said: str) -> str:
    return said


class Job(Workflow[str]):
    for_s: float

    async def run(self) -> str:
        said = await work(self.for_s)
        await self.sleep("1ms")
        return await after(said)


async def say_when_it_listens() -> None:
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler or signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        await anyio.lowlevel.checkpoint()
    print("serving", flush=True)


async def main(database: str, drain_s: float, step_s: float) -> None:
    async with Runtime(f"sqlite:///{database}", actors=[Job], limits=Limits(drain_s=drain_s)) as runtime:
        await runtime.start(Job(step_s), key="j")
        async with anyio.create_task_group() as group:
            group.start_soon(say_when_it_listens)
            drained = await runtime.serve()
        # The store is free before the block ends.
        nobody_waits = Limits(drain_s=1, cancel_grace_s=1)
        async with Runtime(f"sqlite:///{database}", actors=[Job], limits=nobody_waits) as another:
            run = another.run(Job, "j")
            steps = [entry.call for entry in await run.history() if entry.kind == "step"]
            print("left", drained.cut, drained.under_way, len(steps), (await run.status()).crashes, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), backend=sys.argv[4])
