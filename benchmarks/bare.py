"""The ceiling: a bare asyncio loop that writes the same rows by group commit through aiosqlite, and nothing else.

Each "workflow" is a task that appends a row, waits until that is durable, and appends the next: a start, the steps, an end.
One future a row, one transaction for all rows that are ready, full durability. No journal, no replay, no identity: what any
durable runtime on SQLite would have to be compared with.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

import aiosqlite

INSERT = """insert into entry(run, round, kind, branch, name, n, status, attempt, at, due_at, input, outcome, ref)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
SCHEMA = """create table entry(seq integer primary key, run, round, kind, branch, name, n, status, attempt, at, due_at, input,
outcome, ref); create index entry_run on entry(run, round);"""


class Bare:
    """Group commit over one table."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self.db = db
        self.rows: list[tuple[Any, ...]] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.wake = asyncio.Event()

    async def append(self, row: tuple[Any, ...]) -> None:
        """Durable on return."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rows.append(row)
        self.waiting.append(future)
        self.wake.set()
        await future

    async def write(self) -> None:
        """Write for ever."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.rows:
                rows, waiting = self.rows, self.waiting
                self.rows, self.waiting = [], []
                await self.db.execute("begin immediate")
                await self.db.executemany(INSERT, rows)
                await self.db.commit()
                for future in waiting:
                    future.set_result(None)


async def run(path: str, runs: int, steps: int, *, durability: str) -> float:
    """Seconds for so many workflows of so many steps, all at a time."""
    async with aiosqlite.connect(path, isolation_level=None) as db:
        await db.execute("pragma journal_mode=wal")
        await db.execute(f"pragma synchronous={durability}")
        await db.execute("pragma wal_autocheckpoint=4000")
        await db.executescript(SCHEMA)
        bare = Bare(db)
        writer = asyncio.create_task(bare.write())

        async def workflow(number: int) -> None:
            await bare.append((number, 0, "started", "", "Line", 0, "", 0, time.time(), None, b'{"n":1}', None, None))
            for n in range(steps):
                await bare.append((number, 0, "step", "", "add", n, "ok", 1, time.time(), None, b'{"value":1}', b"2", None))
            await bare.append((number, 0, "completed", "", "", 0, "ok", 0, time.time(), None, None, b"5", None))

        begun = time.perf_counter()
        await asyncio.gather(*(workflow(number) for number in range(runs)))
        taken = time.perf_counter() - begun
        writer.cancel()
        return taken


SQLITE = sqlite3.sqlite_version
