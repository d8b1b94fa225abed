"""W8: a million sleeping runs in one file: how long a start takes, how much memory they cost, and how late they wake.

The file is made once (see `benchmarks.stores`) and a copy of it is measured. All of it happens in a time of its own: the runs
fell asleep at `AT`, for `LENGTH_S` and a little longer each, and the clock of the runtime that is measured begins shortly
before the first of them is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from actorflow import Runtime, Workflow, step
from actorflow.clock import SystemClock
from benchmarks import life, stores
from benchmarks.peers import peers
from benchmarks.suite import OURS, Body, Contender, Goal, Measured, Metric, Sizes, Workload, quantile, rss_mb, serve

MODULE = "benchmarks.w08_sleeping"
AT, LENGTH_S, APART_S = 1_700_000_000.0, 30 * 86_400.0, 0.005
SETTLED_S = 0.5
"""Wake-ups count from so long after the start on."""

WORKLOAD = Workload(
    id="W8",
    title="1,000,000 sleeping runs in one file",
    metrics=(
        Metric("start_s", "s to start", "less", 3),
        Metric("rss_mb", "MB", "less"),
        Metric("wake_p99_ms", "ms late, p99", "less", 1),
        Metric("wake_max_ms", "ms late, most", "less", 1),
        Metric("start_cold_s", "s to start, file not in memory", "less", 3),
    ),
    full={"runs": 1_000_000, "wakes": 1_200, "ahead_s": 3},
    quick={"runs": 20_000, "wakes": 200, "ahead_s": 1.5},
    contenders=(Contender(OURS, __name__, timeout_s=900.0), *peers("W8")),
    goals=(
        Goal("start under 2 s", "start_s", at_most=2),
        Goal("memory under 300 MB", "rss_mb", at_most=300),
        Goal("wake-up p99 under 100 ms", "wake_p99_ms", at_most=100),
    ),
    repeats=3,
)

late: dict[int, float] = {}
"""How late each run woke, in seconds, by its number."""
on_wake: list[Callable[[], None]] = []


class Shifted(SystemClock):
    """The machine's clock, with another time of day."""

    def __init__(self, now: float) -> None:
        shift = now - time.time()
        self.wall = staticmethod(lambda: time.time() + shift)


clock = Shifted(AT)


@step
async def woke(number: int) -> None:
    """Note it."""
    late[number] = clock.wall() - (AT + LENGTH_S + (number - 1) * APART_S)
    for told in on_wake:
        told()


class Sleeper(Workflow[None]):
    """Sleeps, then says how late it was."""

    async def run(self) -> None:
        await self.sleep(LENGTH_S)
        await woke(int(self.me.key))


def template(path: Path) -> None:
    """A store with one that sleeps."""

    async def make() -> None:
        # Its time stands still, so that it falls asleep at `AT` to the moment.
        still = SystemClock()
        still.wall = staticmethod(lambda: AT)
        async with Runtime(f"sqlite:///{path}", actors=[Sleeper], clock=still) as runtime:
            run = await runtime.start(Sleeper(), key="1")
            while (await run.status()).status != "waiting":  # noqa: ASYNC110  (nothing tells)
                await asyncio.sleep(0.01)

    asyncio.run(make())


async def live(path: Path, runs: int, wakes: int, ahead_s: float) -> Measured:
    """Start, and wait until so many have woken; none is waited for if none is asked for."""
    global clock  # noqa: PLW0603  (steps ask it)
    clock = Shifted(AT + LENGTH_S - ahead_s)
    enough = asyncio.Event()
    begun = time.perf_counter()
    async with Runtime(f"sqlite:///{path}", actors=[Sleeper], clock=clock) as runtime:
        started_s = time.perf_counter() - begun
        if not wakes:
            return {"start_cold_s": started_s}
        first = 1 + max(0, int((clock.wall() + SETTLED_S - AT - LENGTH_S) / APART_S))
        assert first + wakes <= runs, "it took so long to start that too few are left to wake"
        on_wake.append(lambda: enough.set() if len(late) >= first + wakes else None)
        await enough.wait()
        assert (await runtime.run(Sleeper, "1").status()).status == "completed"
    counted = [late[number] for number in range(first, first + wakes)]
    assert min(counted) >= 0, "it woke too early"
    return {
        "start_s": started_s,
        "rss_mb": rss_mb(),
        "wake_p99_ms": quantile(counted, 99) * 1e3,
        "wake_p50_ms": quantile(counted, 50) * 1e3,
        "wake_max_ms": max(counted) * 1e3,
    }


def measure(folder: Path, sizes: Sizes) -> Measured:
    """In a process that did not make the file."""
    [path] = folder.glob("*.db")
    return asyncio.run(live(path, int(sizes["runs"]), int(sizes["wakes"]), sizes["ahead_s"]))


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """Start with a file that the system does not have in memory (as after a reboot), then with one that it has."""
    path = stores.stored("sleeping", int(sizes["runs"]), template, key=stores.NUMBERED, apart_s=APART_S)
    copy = stores.copied(path, folder)
    cold: Measured = {}
    if stores.forgotten(copy):
        cold = life.run(MODULE, "measure", {**sizes, "wakes": 0}, folder)
    return {**life.run(MODULE, "measure", sizes, folder), **cold, "file_mb": path.stat().st_size / 1e6}


BODIES: dict[str, Body] = {OURS: actorflow, "measure": measure}

if __name__ == "__main__":
    serve(BODIES)
