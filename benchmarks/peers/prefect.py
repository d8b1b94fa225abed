"""Prefect: flows of tasks whose results it keeps, with the temporary server that it starts itself where none is configured.

That server is a process of its own, and its processors and memory count. Its start does not: one flow is run before the clock
starts. Two flows at a time were as fast as any number.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.suite import Contender, Measured, Sizes, serve

DURABILITY = "a file for each result, not synced; states in SQLite, WAL, synchronous=NORMAL, a moment later (as shipped)"
CLIENTS = 2

CONTENDERS = {
    "W2": (Contender("prefect", __name__, DURABILITY, peer=True, sizes={"runs": 10}, repeats=1, quick=False),),
}


def at_home(folder: Path) -> None:
    """Have all that Prefect writes in that folder, and nothing of it on the network."""
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(
        PREFECT_HOME=str(folder),
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
        PREFECT_RESULTS_PERSIST_BY_DEFAULT="true",
        PREFECT_LOGGING_LEVEL="ERROR",
    )


def costs() -> tuple[float, float]:
    """Of this process and the server, which are a process group: seconds of the processors, and the most memory in megabytes."""
    ticks, kilobytes = 0, 0
    for process in Path("/proc").glob("[0-9]*"):
        # One may end while it is looked at.
        with suppress(OSError):
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == os.getpgrp():
                ticks += int(fields[11]) + int(fields[12])
                status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
                kilobytes += int(status["VmHWM"].split()[0])
    return ticks / os.sysconf("SC_CLK_TCK"), kilobytes / 1024


async def lines(folder: Path, sizes: Sizes) -> Measured:
    """W2: so many flows of so many tasks."""
    at_home(folder)
    from prefect import flow, task  # type: ignore[import-not-found]  # noqa: PLC0415
    from prefect.server.api.server import SubprocessASGIServer  # type: ignore[import-not-found]  # noqa: PLC0415

    runs, steps = int(sizes["runs"]), int(sizes["steps"])

    @task  # type: ignore[untyped-decorator]
    async def add(value: int) -> int:
        return value + 1

    @flow  # type: ignore[untyped-decorator]
    async def line(length: int) -> int:
        value = 0
        for _ in range(length):
            value = await add(value)
        return value

    numbers = iter(range(runs))

    async def client() -> None:
        for _ in numbers:
            assert await line(steps) == steps

    assert await line(1) == 1
    before_s, _ = costs()
    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    taken_s = time.perf_counter() - begun
    after_s, most_mb = costs()
    # The one that Prefect has started; it would do so itself at a normal end of the interpreter.
    SubprocessASGIServer().stop()
    done = runs * steps
    kept = sum(1 for path in (folder / "storage").rglob("*") if path.is_file())
    assert kept >= done, f"{kept} results were kept, of {done}"
    return {"steps_per_s": done / taken_s, "cpu_us_per_step": (after_s - before_s) / done * 1e6, "rss_mb": most_mb}


def body(folder: Path, sizes: Sizes) -> Measured:
    return asyncio.run(lines(folder, sizes))


if __name__ == "__main__":
    serve({"prefect": body})
