"""The ceiling: a bare asyncio loop that writes the same rows by group commit through aiosqlite, and nothing else.

Each "workflow" is a task that writes what actorflow writes for it, in actorflow's own tables: a new run and its first entry,
an entry for each step, and at the end an entry and the run's outcome. It waits until each of these is durable before it
writes the next. One future a write, one transaction for all that is ready. No journal, no replay, no identity, no checks:
what is left is the disk, SQLite, the driver and the loop.
"""

from __future__ import annotations

import asyncio
import time
from importlib.resources import files
from typing import Any

import aiosqlite

from benchmarks.suite import Watch

RUN = """insert into run(id, kind, key, actor,
status, round, crashes, seed, wake_at, detached, created_at, updated_at, input, input_crc)
values (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
ENTRY = """insert into entry(run, round, kind, branch, name, n, status, attempt, at, due_at, input, outcome, ref, crc)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
END = "update run set status = ?, wake_at = null, updated_at = ?, outcome = ?, outcome_crc = ?, ended_at = ? where id = ?"
SCHEMA = files("actorflow.stores").joinpath("migrations/0001_start.sql").read_text("utf-8")

FIRST, FIRST_STEPS = 20, 5
"""Workflows before those that are measured, and how long they are."""

Row = tuple[Any, ...]


class Bare:
    """Group commit over actorflow's tables."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self.db = db
        self.runs: list[Row] = []
        self.entries: list[Row] = []
        self.ends: list[Row] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.wake = asyncio.Event()

    async def durable(self) -> None:
        """What was put into the lists is durable on return."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.wake.set()
        await future

    async def write(self) -> None:
        """Write for ever."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.waiting:
                batch, waiting = (self.runs, self.entries, self.ends), self.waiting
                self.runs, self.entries, self.ends, self.waiting = [], [], [], []
                await self.db.execute("begin immediate")
                for sql, rows in zip((RUN, ENTRY, END), batch, strict=True):
                    if rows:
                        await self.db.executemany(sql, rows)
                await self.db.commit()
                for future in waiting:
                    future.set_result(None)


async def run(path: str, runs: int, steps: int, *, durability: str) -> tuple[float, float]:
    """Seconds, and seconds of the processors, for so many workflows of so many steps, all at a time."""
    async with aiosqlite.connect(path, isolation_level=None) as db:
        await db.execute("pragma journal_mode=wal")
        await db.execute(f"pragma synchronous={durability}")
        await db.execute("pragma wal_autocheckpoint=4000")
        await db.executescript(SCHEMA)
        bare = Bare(db)
        writer = asyncio.create_task(bare.write())

        async def workflow(number: int, steps: int) -> None:
            at = time.time()
            bare.runs.append((number, "Line", str(number), "running", 0, 0, number, 0.0, 0, at, at, b'{"length":5}', 1))
            bare.entries.append((number, 0, "started", "", "Line", 0, "", 0, at, None, None, None, None, 1))
            await bare.durable()
            for n in range(steps):
                bare.entries.append((number, 0, "step", "", "add", n, "ok", 1, time.time(), None, b'{"value":1}', b"2", None, 1))
                await bare.durable()
            at = time.time()
            bare.entries.append((number, 0, "completed", "", "", 0, "ok", 0, at, None, None, b"5", None, 1))
            bare.ends.append(("completed", at, b"5", 1, at, number))
            await bare.durable()

        await asyncio.gather(*(workflow(number, FIRST_STEPS) for number in range(1, FIRST + 1)))
        watch = Watch()
        await asyncio.gather(*(workflow(number, steps) for number in range(FIRST + 1, FIRST + runs + 1)))
        taken = watch.s(), watch.cpu_s()
        writer.cancel()
        return taken
