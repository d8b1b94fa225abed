"""Workflows of trivial steps, on actorflow and in a bare loop: what W1 and W2 run."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from actorflow import Runtime, Workflow, step
from benchmarks import bare
from benchmarks.suite import BARE, OURS, Body, Measured, Metric, Sizes, Watch, rss_mb

METRICS = (
    Metric("steps_per_s", "steps/s", "more"),
    Metric("cpu_us_per_step", "µs of CPU a step", "less"),
    Metric("rss_mb", "MB", "less"),
)


@step
async def add(value: int) -> int:
    """The smallest step there is: all that is measured is the runtime."""
    return value + 1


class Line(Workflow[int]):
    """So many steps, one after another."""

    length: int

    async def run(self) -> int:
        value = 0
        for _ in range(self.length):
            value = await add(value)
        return value


async def run(url: str, runs: int, steps: int, *, durability: str = "full") -> tuple[float, float]:
    """Seconds, and seconds of the processors, for so many workflows of so many steps, all at a time.

    A few were run before, so that all that is done once in a process is done (W7 measures that).
    """
    async with Runtime(url, actors=[Line], durability=durability) as runtime:  # type: ignore[arg-type]

        async def client(number: int, length: int) -> None:
            started = await runtime.start(Line(length), key=str(number))
            assert await started.result() == length

        await asyncio.gather(*(client(-number, bare.FIRST_STEPS) for number in range(1, bare.FIRST + 1)))
        watch = Watch()
        await asyncio.gather(*(client(number, steps) for number in range(1, runs + 1)))
        return watch.s(), watch.cpu_s()


def measured(steps: float, taken_s: float, cpu_s: float) -> Measured:
    """What is told of so many steps in that time."""
    return {"steps_per_s": steps / taken_s, "cpu_us_per_step": cpu_s / steps * 1e6, "rss_mb": rss_mb()}


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """Full durability."""
    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    return measured(runs * steps, *asyncio.run(run(f"sqlite:///{folder}/a.db", runs, steps)))


def actorflow_normal(folder: Path, sizes: Sizes) -> Measured:
    """What a power cut may take the end of."""
    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    return measured(runs * steps, *asyncio.run(run(f"sqlite:///{folder}/a.db", runs, steps, durability="normal")))


def actorflow_tuned(folder: Path, sizes: Sizes) -> Measured:
    """Full durability, with the collector of cycles told what a service knows: what is there after the start stays.

    CPython looks through all objects whenever a quarter more of them have come: often, while thousands of runs come to life.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    return actorflow(folder, sizes)


def actorflow_uvloop(folder: Path, sizes: Sizes) -> Measured:
    """Full durability, on another event loop."""
    import uvloop  # noqa: PLC0415  (an extra)

    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    return measured(runs * steps, *uvloop.run(run(f"sqlite:///{folder}/a.db", runs, steps)))


def ceiling(folder: Path, sizes: Sizes) -> Measured:
    """The bare loop."""
    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    return measured(runs * steps, *asyncio.run(bare.run(f"{folder}/bare.db", runs, steps, durability="full")))


BODIES: dict[str, Body] = {
    OURS: actorflow,
    BARE: ceiling,
    "actorflow, normal": actorflow_normal,
    "actorflow, uvloop": actorflow_uvloop,
    "actorflow, tuned gc": actorflow_tuned,
}
