"""W8: many sleeping runs in one file: how long a start takes, how much memory they cost, and how late a due one wakes."""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import anyio

from actorflow import Limits, Runtime, Workflow, step
from actorflow.records import Commit, Entry, Run
from actorflow.stores import open_store

CHUNK = 10_000


@step
async def woke() -> float:
    """When it woke."""
    return time.time()


class Sleeper(Workflow[float]):
    """Sleeps, then says how late it was."""

    seconds: float

    async def run(self) -> float:
        await self.sleep(self.seconds)
        return await woke()


async def build(url: str, runs: int) -> None:
    """A file with so many runs that sleep for a year, as the runtime would have written them."""
    store = open_store(url, durability="normal")
    lease = await store.open(now=time.time())
    kind = Sleeper.__kind_info__()
    at, year = time.time(), 365 * 86_400.0
    fields = kind.encode(Sleeper(year))
    for first in range(0, runs, CHUNK):
        batch = []
        for number in range(first + 1, min(first + CHUNK, runs) + 1):
            due = at + year + number / 1_000
            run = Run(
                id=number,
                kind=kind.name,
                key=str(number),
                status="waiting",
                wake_at=due,
                created_at=at,
                updated_at=at,
                input=fields,
            )
            started = Entry(number, 0, "started", "", kind.name, 0, "", 0, at, None, None, None, None)
            timer = Entry(number, 0, "timer", "", "self.sleep", 0, "", 0, at, due, None, None, None)
            batch.append(Commit((run, started, timer)))
        await store.commit(batch, fence=lease.fence)
    await store.close()


async def measure(url: str) -> tuple[float, float, list[float]]:
    """Seconds to start, megabytes, and how late (in seconds) each of 20 short sleeps woke."""
    begun = time.perf_counter()
    # Nothing that waits stays in memory: each wake-up finds its row among all others and loads it.
    async with Runtime(url, actors=[Sleeper], limits=Limits(passivate_after_s=0.0)) as runtime:
        started = time.perf_counter() - begun
        late: list[float] = []

        async def one(number: int) -> None:
            length = 0.5 + number * 0.05
            run = await runtime.start(Sleeper(length), key=f"short-{time.time()}-{number}")
            accepted = (await run.status()).created_at
            late.append(await run.result() - accepted - length)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, number)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return started, peak_mb, late


def main() -> None:
    """Build such a file, or measure with one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sleeping", description=__doc__)
    parser.add_argument("act", choices=("build", "measure"))
    parser.add_argument("path", type=Path, help="the file")
    parser.add_argument("runs", type=int, nargs="?", default=1_000_000, help="how many to build")
    arguments = parser.parse_args()
    url = f"sqlite:///{arguments.path}"
    if arguments.act == "build":
        anyio.run(build, url, arguments.runs)
        print(f"{arguments.path.stat().st_size / 1e6:.0f} MB")
    else:
        started, peak_mb, late = anyio.run(measure, url)
        print(f"start {started:.3f} s, peak {peak_mb:.0f} MB, latest wake-up {max(late) * 1000:.1f} ms late")


if __name__ == "__main__":
    main()
