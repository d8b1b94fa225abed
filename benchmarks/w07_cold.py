"""W7: a fresh interpreter, with all files in the cache: how long the import takes, and how long it is to a first durable step.

Both are taken from the first line of a script; what the interpreter itself takes to start is not in it. Each script is run once
unmeasured, so that what it imports is compiled and cached, then several times, and the median counts. The ceiling imports
asyncio and the driver and writes one row to a new file.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import peers
from benchmarks.suite import BARE, OURS, Contender, Goal, Measured, Metric, Sizes, Workload, cold, serve

WORKLOAD = Workload(
    id="W7",
    title="import, and a first durable step, from cold",
    metrics=(Metric("import_ms", "ms to import", "less"), Metric("first_step_ms", "ms to the first step", "less")),
    full={"starts": 7},
    quick={"starts": 3},
    contenders=(
        Contender(BARE, __name__),
        Contender(OURS, __name__),
        *peers("W7"),
    ),
    goals=(
        Goal("import within 150 ms", "import_ms", at_most=150),
        Goal("a first durable step within 250 ms", "first_step_ms", at_most=250),
    ),
)

FIRST_STEP = """
import time
begun = time.perf_counter()
import asyncio
import sys

from actorflow import Runtime, Workflow, step

@step
async def add(value: int) -> int:
    return value + 1

class One(Workflow[int]):
    value: int

    async def run(self) -> int:
        return await add(self.value)

async def main():
    async with Runtime(f"sqlite:///{sys.argv[1]}", actors=[One]) as runtime:
        run = await runtime.start(One(1), key="one")
        assert await run.result() == 2
        print((time.perf_counter() - begun) * 1e3)

asyncio.run(main())
"""

FIRST_ROW = """
import time
begun = time.perf_counter()
import asyncio
import sys

import aiosqlite

async def main():
    async with aiosqlite.connect(sys.argv[1], isolation_level=None) as db:
        await db.execute("pragma journal_mode=wal")
        await db.execute("pragma synchronous=full")
        await db.execute("create table entry (run integer, outcome blob)")
        await db.execute("insert into entry values (1, x'32')")
        print((time.perf_counter() - begun) * 1e3)

asyncio.run(main())
"""


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    return cold(folder, sizes, "from actorflow import Runtime, Workflow, step", FIRST_STEP)


def floor(folder: Path, sizes: Sizes) -> Measured:
    return cold(folder, sizes, "import asyncio, aiosqlite", FIRST_ROW)


if __name__ == "__main__":
    serve({OURS: actorflow, BARE: floor})
