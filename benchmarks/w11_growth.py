"""W11: growth. What a step costs in a store with few and with many rows, and beside few and beside many live actors.

The rows are those of runs that have ended, under keys without an order, as orders and users have them; the files are made once
(see `benchmarks.stores`) and copied for each measurement. The live actors are durable ones that were asked once and stay in
memory. Each point is measured in a process of its own, several times in turn with the others; each time several passes of the
same load (workflows of trivial steps), of which the median counts. The medians of these are compared.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import uuid
from pathlib import Path

import anyio

from actorflow import Actor, Limits, Message, Runtime, handler
from benchmarks import life, stores
from benchmarks.peers import peers
from benchmarks.steps import Line
from benchmarks.suite import OURS, Body, Contender, Goal, Measured, Metric, Sizes, Watch, Workload, serve

MODULE = "benchmarks.w11_growth"
STEPS = 5
ROWS_OF_A_RUN = STEPS + 3
"""The run, its first and its last entry, and a step each."""
CLIENTS = 200

WORKLOAD = Workload(
    id="W11",
    title="growth: the cost of a step with 1,000 to 10,000,000 rows, and with 10 to 100,000 live actors",
    metrics=(
        Metric("rows_growth", "times, over the rows", "less", 2),
        Metric("actors_growth", "times, over the actors", "less", 2),
        Metric("us_fewest_rows", "µs a step, fewest rows", "less", 1),
        Metric("us_most_rows", "µs a step, most rows", "less", 1),
        Metric("us_fewest_actors", "µs a step, fewest actors", "less", 1),
        Metric("us_most_actors", "µs a step, most actors", "less", 1),
        Metric("rows_growth_cpu", "times, over the rows, CPU", "less", 2),
        Metric("actors_growth_cpu", "times, over the actors, CPU", "less", 2),
    ),
    full={"rows": 10_000_000, "actors": 100_000, "runs": 500, "passes": 5, "rounds": 3, "by": 10},
    quick={"rows": 100_000, "actors": 1_000, "runs": 200, "passes": 3, "rounds": 1, "by": 100},
    contenders=(Contender(OURS, __name__, timeout_s=1_200.0), *peers("W11")),
    goals=(
        Goal("at most 1.3 times over all rows", "rows_growth", at_most=1.3),
        Goal("at most 1.3 times over all actors", "actors_growth", at_most=1.3),
    ),
    repeats=1,
)

FEWEST_ROWS, FEWEST_ACTORS = 1_000, 10


class Add(Message[int]):
    """One more."""

    n: int


class Neighbour(Actor):
    """Stays in memory, and does nothing."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total


def template(path: Path) -> None:
    """A store with one run that has ended."""

    async def make() -> None:
        async with Runtime(f"sqlite:///{path}", actors=[Line]) as runtime:
            run = await runtime.start(Line(STEPS), key="first")
            assert await run.result() == STEPS

    asyncio.run(make())
    assert stores.rows(path) == ROWS_OF_A_RUN


async def load(runtime: Runtime, runs: int) -> tuple[float, float]:
    """Microseconds a step, of the clock and of the processors."""
    keys = iter([uuid.uuid4().hex for _ in range(runs)])

    async def client() -> None:
        for key in keys:
            run = await runtime.start(Line(STEPS), key=key)
            assert await run.result() == STEPS

    watch = Watch()
    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(client)
    return watch.s() / runs / STEPS * 1e6, watch.cpu_s() / runs / STEPS * 1e6


def cost(folder: Path, sizes: Sizes) -> Measured:
    """One point: what a step costs in the store of that folder (a new one, if it has none), beside so many actors."""
    path = next(folder.glob("*.db"), folder / "new.db")
    actors, runs = int(sizes["actors"]), int(sizes["runs"])
    # All of them stay: none is idle for long enough to leave, and there is room for each.
    limits = Limits(resident_max=actors + 10_000, passivate_after_s=3_600.0)

    async def measure() -> Measured:
        async with Runtime(f"sqlite:///{path}", actors=[Line, Neighbour], limits=limits) as runtime:
            numbers = iter(range(actors))

            async def client() -> None:
                for number in numbers:
                    assert await runtime.at(Neighbour, str(number)).ask(Add(1), within="60s") == 1

            async with anyio.create_task_group() as group:
                for _ in range(CLIENTS):
                    group.start_soon(client)
            await load(runtime, runs)  # So that all code has run once.
            passes = [await load(runtime, runs) for _ in range(int(sizes["passes"]))]
        wall, cpu = zip(*passes, strict=True)
        return {"us": statistics.median(wall), "cpu_us": statistics.median(cpu)}

    return asyncio.run(measure())


def spread(fewest: int, most: int, by: int) -> list[int]:
    """From the fewest to the most, each so many times the one before.

    >>> spread(1_000, 100_000, 10)
    [1000, 10000, 100000]
    """
    found = [fewest]
    while found[-1] * by <= most:
        found.append(found[-1] * by)
    return found


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """All points, in turn, and again."""
    by = int(sizes["by"])
    rows, actors = spread(FEWEST_ROWS, int(sizes["rows"]), by), spread(FEWEST_ACTORS, int(sizes["actors"]), 100)
    points = [("rows", count) for count in rows] + [("actors", count) for count in actors]
    found: dict[tuple[str, int], list[Measured]] = {point: [] for point in points}
    files = {count: stores.stored("ended", count // ROWS_OF_A_RUN, template, key=stores.RANDOM) for count in rows}
    for round_ in range(int(sizes["rounds"])):
        for what, count in points if round_ % 2 == 0 else reversed(points):
            with tempfile.TemporaryDirectory(dir=folder) as home:
                if what == "rows":
                    stores.copied(files[count], Path(home))
                asked = {**sizes, "actors": count if what == "actors" else 0}
                found[what, count].append(life.run(MODULE, "cost", asked, Path(home)))
    measured: dict[str, float] = {}
    for what, counts in (("rows", rows), ("actors", actors)):
        for metric, suffix in (("us", ""), ("cpu_us", "_cpu")):
            costs = {count: statistics.median(each[metric] for each in found[what, count]) for count in counts}
            measured |= {f"{metric}_{count}_{what}": value for count, value in costs.items()}
            measured |= {f"{metric}_fewest_{what}": costs[counts[0]], f"{metric}_most_{what}": costs[counts[-1]]}
            measured[f"{what}_growth{suffix}"] = costs[counts[-1]] / costs[counts[0]]
    return measured


BODIES: dict[str, Body] = {OURS: actorflow, "cost": cost}

if __name__ == "__main__":
    serve(BODIES)
