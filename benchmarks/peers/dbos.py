"""DBOS on SQLite, as its documentation recommends: async workflows of async steps."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from benchmarks.suite import Contender, Measured, Sizes, Watch, rss_mb, serve

AS_SHIPPED = "SQLite, rollback journal, synchronous=FULL (as shipped)"
WAL = "SQLite, WAL, synchronous=FULL (switched by us)"

CONTENDERS = {
    "W1": (
        Contender("dbos", __name__, AS_SHIPPED, peer=True, repeats=3),
        Contender("dbos, WAL", __name__, WAL, peer=True, repeats=3, quick=False),
    ),
    "W2": (
        Contender("dbos", __name__, AS_SHIPPED, peer=True, sizes={"runs": 200}, repeats=3),
        Contender("dbos, WAL", __name__, WAL, peer=True, sizes={"runs": 200}, repeats=3, quick=False),
    ),
}


async def line(folder: Path, sizes: Sizes) -> Measured:
    """W1 and W2: so many workflows of so many steps."""
    from dbos import DBOS  # type: ignore[import-not-found]  # noqa: PLC0415

    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    config: Any = {"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos.db", "log_level": "ERROR"}
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

    watch = Watch()
    await asyncio.gather(*(client() for _ in range(min(runs, 50))))
    done = runs * steps
    return {"steps_per_s": done / watch.s(), "cpu_us_per_step": watch.cpu_s() / done * 1e6, "rss_mb": rss_mb()}


def shipped(folder: Path, sizes: Sizes) -> Measured:
    return asyncio.run(line(folder, sizes))


def wal(folder: Path, sizes: Sizes) -> Measured:
    db = sqlite3.connect(folder / "dbos.db")
    db.execute("pragma journal_mode=wal")
    db.close()
    return asyncio.run(line(folder, sizes))


if __name__ == "__main__":
    serve({"dbos": shipped, "dbos, WAL": wal})
