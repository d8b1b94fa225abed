"""W6: 10,000 runs that sleep for 2 seconds each, all started at once: how late the last ones end, and in how much memory.

When the last one was due is what the journal says; `late_s` is from then until the results of all of them were there. The
clients, a task for each run, are in the same process and count as memory, too.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from actorflow import Runtime, Workflow
from benchmarks.peers import peers
from benchmarks.suite import OURS, Contender, Goal, Measured, Metric, Sizes, Watch, Workload, rss_mb, serve

WORKLOAD = Workload(
    id="W6",
    title="10,000 durable timers of 2 seconds",
    metrics=(Metric("late_s", "s late", "less", 2), Metric("rss_mb", "MB", "less"), Metric("taken_s", "s in all", "less", 1)),
    full={"timers": 10_000, "seconds": 2},
    quick={"timers": 10_000, "seconds": 2},
    contenders=(Contender(OURS, __name__), *peers("W6")),
    goals=(
        Goal("all done within 0.5 s after the last was due", "late_s", at_most=0.5),
        Goal("under 150 MB", "rss_mb", at_most=150),
    ),
)


class Sleeper(Workflow[int]):
    """Sleeps, then says its number."""

    number: int
    seconds: float

    async def run(self) -> int:
        await self.sleep(self.seconds)
        return self.number


async def sleep(url: str, timers: int, seconds: float) -> tuple[float, float]:
    """The moment at which the results of all of them were there, and how many seconds that took in all."""
    async with Runtime(url, actors=[Sleeper]) as runtime:

        async def client(number: int) -> int:
            run = await runtime.start(Sleeper(number, seconds), key=str(number))
            return await run.result()

        watch = Watch()
        results = await asyncio.gather(*(client(number) for number in range(timers)))
        done, taken_s = time.time(), watch.s()
    assert results == list(range(timers))
    return done, taken_s


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    timers = int(sizes["timers"])
    done, taken_s = asyncio.run(sleep(f"sqlite:///{folder}/a.db", timers, sizes["seconds"]))
    most_mb = rss_mb()
    db = sqlite3.connect(folder / "a.db")
    [(count, due)] = db.execute("select count(*), max(due_at) from entry where kind = 'timer'")
    [(early,)] = db.execute(
        "select count(*) from entry as woke join entry as timer using (run, name, n)"
        " where woke.kind = 'sleep' and timer.kind = 'timer' and woke.at < timer.due_at"
    )
    db.close()
    assert (count, early) == (timers, 0), f"{count} timers, of which {early} fired early"
    return {"late_s": done - due, "rss_mb": most_mb, "taken_s": taken_s}


if __name__ == "__main__":
    serve({OURS: actorflow})
