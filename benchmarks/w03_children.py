"""W3: one run starts 500 others, each of one step, waits for all of them at a time, and adds up what they return."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actorflow import Runtime, Workflow, gather
from benchmarks import bare
from benchmarks.peers import peers
from benchmarks.steps import add
from benchmarks.suite import BARE, OURS, Contender, Goal, Measured, Metric, Sizes, Watch, Workload, serve

WORKLOAD = Workload(
    id="W3",
    title="one run starts 500 children and gathers their results",
    metrics=(Metric("taken_s", "s", "less", 3),),
    full={"children": 500},
    quick={"children": 500},
    contenders=(
        Contender(BARE, __name__),
        Contender(OURS, __name__),
        *peers("W3"),
    ),
    goals=(
        Goal("10 times Restate", "taken_s", at_least=10, against="restate"),
        Goal("100 times DBOS on SQLite", "taken_s", at_least=100, against="dbos"),
    ),
)


class Child(Workflow[int]):
    """One step."""

    value: int

    async def run(self) -> int:
        return await add(self.value)


class Parent(Workflow[int]):
    """So many children at a time."""

    children: int

    async def run(self) -> int:
        return sum(await gather(self.child(number) for number in range(self.children)))

    async def child(self, number: int) -> int:
        """Start one, and wait for its end."""
        started = await self.start(Child(number), key=f"{self.me.key}/{number}")
        return await started.result()


def expected(children: int) -> int:
    """What the parent returns."""
    return children * (children + 1) // 2


async def run(url: str, children: int) -> float:
    """Seconds until the parent's result is there."""
    async with Runtime(url, actors=[Parent, Child]) as runtime:
        watch = Watch()
        parent = await runtime.start(Parent(children), key="parent")
        assert await parent.result() == expected(children)
        return watch.s()


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    return {"taken_s": asyncio.run(run(f"sqlite:///{folder}/a.db", int(sizes["children"])))}


def floor(folder: Path, sizes: Sizes) -> Measured:
    """The rows of the children alone, in a bare loop; what the parent records of them is left out."""
    taken_s, _ = asyncio.run(bare.run(f"{folder}/bare.db", int(sizes["children"]), 1, durability="full"))
    return {"taken_s": taken_s}


if __name__ == "__main__":
    serve({OURS: actorflow, BARE: floor})
