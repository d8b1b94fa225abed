"""DBOS on SQLite, as its documentation recommends: async workflows of async steps. Run it where `dbos` is installed.

`python benchmarks/peer_dbos.py DATABASE RUNS STEPS [wal]`; prints steps per second. SQLite as DBOS ships it is a rollback
journal with full sync; with `wal` the file is switched to a write-ahead log first, which is kinder to it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from typing import Any


async def main(path: str, runs: int, steps: int) -> float:
    """Seconds for so many workflows of so many steps."""
    from dbos import DBOS  # type: ignore[import-not-found]  # noqa: PLC0415  (a peer, not a dependency)

    config: Any = {"name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"}
    DBOS(config=config)

    @DBOS.step()  # type: ignore[untyped-decorator]
    async def add(value: int) -> int:
        return value + 1

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    async def line(length: int) -> int:
        value = 0
        for _ in range(length):
            value = await add(value)
        return value

    DBOS.launch()
    numbers = iter(range(runs))

    async def client() -> None:
        for _ in numbers:
            handle = await DBOS.start_workflow_async(line, steps)
            assert await handle.get_result() == steps

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(min(runs, 50))))
    taken = time.perf_counter() - begun
    DBOS.destroy()
    return taken


if __name__ == "__main__":
    path, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if sys.argv[4:] == ["wal"]:
        db = sqlite3.connect(path)
        db.execute("pragma journal_mode=wal")
        db.close()
    seconds = asyncio.run(main(path, runs, steps))
    print(f"{runs * steps / seconds:.0f}")
