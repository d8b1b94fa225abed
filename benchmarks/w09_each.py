"""W9: `each` over a million rows, killed with SIGKILL halfway and resumed by another process.

Each row that is done is marked in a file that is mapped into memory, which a killed process leaves as it was: so rows are
counted from outside, and so are those that were done twice. The process kills itself when it begins the row in the middle. The
seconds that count for rows/s are those in which rows were done: from the first row to the kill, and from the first new row to
the end.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiosqlite

from actorflow import Runtime, Workflow, step
from benchmarks import life
from benchmarks.peers import peers
from benchmarks.suite import BARE, OURS, Body, Contender, Measured, Metric, Sizes, Watch, Workload, serve

MODULE = "benchmarks.w09_each"
BATCH, PARALLEL = 500, 20
POLL_S = 0.001

WORKLOAD = Workload(
    id="W9",
    title="each over 1,000,000 rows, killed halfway and resumed",
    metrics=(
        Metric("rows_per_s", "rows/s", "more"),
        Metric("resume_s", "s from the restart to the first new row", "less", 2),
        Metric("repeated", "rows done twice", "less"),
        Metric("cpu_us_per_row", "µs of CPU a row", "less", 1),
    ),
    full={"rows": 1_000_000},
    quick={"rows": 20_000},
    contenders=(Contender(BARE, __name__, quick=False), Contender(OURS, __name__), *peers("W9")),
    repeats=3,
)

marks: mmap.mmap
dies_at: int


class Row(NamedTuple):
    """A line of a file."""

    id: int
    account: str
    cents: int


def read(rows: int) -> Iterator[Row]:
    """All rows, one after another."""
    for number in range(rows):
        yield Row(number, "a-1", 100)


@step
async def load(row: Row) -> None:
    """Trivial, as it is the loop that is measured."""
    if row.id == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    marks[row.id] += 1


class Import(Workflow[int]):
    """Load every row."""

    rows: int

    async def run(self) -> int:
        done = await self.each(partial(read, self.rows), load, key=lambda row: row.id, batch=BATCH, parallel=PARALLEL)
        return done.done


def marked(folder: Path) -> mmap.mmap:
    """The marks of all rows, a byte each."""
    with (folder / "marks").open("rb+") as file:
        return mmap.mmap(file.fileno(), 0)


def child(folder: Path, sizes: Sizes) -> Measured:
    """A process that imports until it is done, or has come to the row that kills it."""
    global marks, dies_at
    marks, rows, dies_at = marked(folder), int(sizes["rows"]), int(sizes["dies_at"])

    async def work() -> None:
        async with Runtime(f"sqlite:///{folder}/a.db", actors=[Import]) as runtime:
            run = await runtime.start(Import(rows), key="one")
            assert await run.result() == rows

    watch = Watch()
    asyncio.run(work())
    return {"cpu_s": watch.cpu_s()}


def bare_child(folder: Path, sizes: Sizes) -> Measured:
    """The same by hand: a loop, one row at a time, that writes down how far it is."""
    marks, rows, dies_at = marked(folder), int(sizes["rows"]), int(sizes["dies_at"])

    async def load_one(row: Row) -> None:
        if row.id == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        marks[row.id] += 1

    async def work() -> None:
        async with aiosqlite.connect(folder / "bare.db", isolation_level=None) as db:
            await db.execute("pragma journal_mode=wal")
            await db.execute("pragma synchronous=full")
            await db.execute("create table if not exists cursor (one integer primary key, done integer not null)")
            await db.execute("insert or ignore into cursor values (1, 0)")
            [(done,)] = await db.execute_fetchall("select done from cursor")
            for row in read(rows):
                if row.id < done:
                    continue
                await load_one(row)
                if (row.id + 1) % BATCH == 0:
                    await db.execute("update cursor set done = ?", (row.id + 1,))

    watch = Watch()
    asyncio.run(work())
    return {"cpu_s": watch.cpu_s()}


def await_row(process: life.Process, marks: mmap.mmap, row: int) -> float:
    """When that row was seen done."""
    while not marks[row]:
        assert process.poll() is None or marks[row], "it ended and had not done that row"
        time.sleep(POLL_S)
    return time.perf_counter()


def measure(name: str, folder: Path, sizes: Sizes) -> Measured:
    """Begin, kill halfway, resume, and count."""
    rows = int(sizes["rows"])
    (folder / "marks").write_bytes(bytes(rows))
    with closing(marked(folder)) as marks:
        process = life.begin(MODULE, name, {**sizes, "dies_at": rows // 2}, folder)
        begun = await_row(process, marks, 0)
        process.communicate()
        first_life_s, before = time.perf_counter() - begun, bytes(marks)
        assert process.returncode == -signal.SIGKILL
        restarted = time.perf_counter()
        process = life.begin(MODULE, name, {**sizes, "dies_at": -1}, folder)
        resumed = await_row(process, marks, before.index(0))
        second = life.finish(process)
        second_life_s = time.perf_counter() - resumed
        after = bytes(marks)
    new, twice = before.count(0), sum(after) - rows
    assert after.count(0) == 0, f"{after.count(0)} rows were never done"
    assert twice <= 2 * BATCH + PARALLEL, f"{twice} rows were done twice"
    return {
        "rows_per_s": rows / (first_life_s + second_life_s),
        "resume_s": resumed - restarted,
        "repeated": twice,
        "cpu_us_per_row": second["cpu_s"] / new * 1e6,
    }


BODIES: dict[str, Body] = {
    OURS: partial(measure, "child"),
    BARE: partial(measure, "bare child"),
    "child": child,
    "bare child": bare_child,
}

if __name__ == "__main__":
    serve(BODIES)
