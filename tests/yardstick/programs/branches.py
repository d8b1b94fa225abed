"""Parallel operations and maps: suites 8 and 9.

All branches of a `gather` begin together. A case caps them to one at a time so that its history has one order; here the events
of each branch are compared by themselves, and the order between branches is free (`history.apart`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from actorflow import checkpoint, gather
from tests.yardstick.ledger import context, joined
from tests.yardstick.programs.program import Program
from tests.yardstick.programs.steps import Broken, give, greet

PARALLEL, MAP = "Parallel", "Map"


def tally(outcomes: Sequence[Any]) -> dict[str, Any]:
    """What a gather that waits for all (`settle=True`) came to, in the words of the cases."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    return {
        "completionReason": "ALL_COMPLETED",
        "status": "FAILED" if errors else "SUCCEEDED",
        "successCount": len(outcomes) - len(errors),
        "failureCount": len(errors),
        "totalCount": len(outcomes),
    }


class Parallel(Program):
    async def all(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return await joined(PARALLEL, lambda: gather(calls))

    async def settled(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return await joined(PARALLEL, lambda: gather(calls, settle=True))

    @checkpoint
    @context("ParallelBranch")
    async def steps(self, value: Any) -> Any:
        return await give(value)

    @checkpoint
    @context("ParallelBranch")
    async def gives(self, value: Any) -> Any:
        return value

    @checkpoint
    @context("ParallelBranch")
    async def fails(self) -> Any:
        raise Broken("this branch fails")

    @checkpoint
    @context("ParallelBranch")
    async def waits(self, value: Any) -> Any:
        await self.sleep("2s")
        return value


class TwoTasks(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.steps("task-1"), self.steps("task-2")])


class TwoValues(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.gives("alpha"), self.gives("beta")])


class TwoNamed(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.first(), self.second()])

    @checkpoint(name="first")
    @context("ParallelBranch")
    async def first(self) -> str:
        return "one"

    @checkpoint(name="second")
    @context("ParallelBranch")
    async def second(self) -> str:
        return "two"


class ThreeTypes(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.gives("hello"), self.gives(42), self.gives({"k": "v"})])


class NoBranches(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([])


class OneFails(Parallel):
    async def handle(self, input: Any) -> Any:
        return tally(await self.settled([self.gives("a"), self.fails(), self.gives("c")]))


class ThreeValues(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.gives(f"r{n}") for n in range(3)])


class OnlySteps(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([give("fa"), give("fb")])


class OneWaits(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.steps("b0"), self.waits("b1")])


class AllFail(Parallel):
    async def handle(self, input: Any) -> Any:
        return tally(await self.settled([self.fails() for _ in range(3)]))


class NoWorkers(Parallel):
    """The bound on how many items are in work belongs to `each`."""

    async def handle(self, input: Any) -> Any:
        return await self.each(lambda: iter("ab"), give, key=str, parallel=0)


class Accessors(Parallel):
    async def handle(self, input: Any) -> Any:
        outcomes = await self.settled([self.gives("a"), self.fails(), self.gives("c")])
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        counts = {"successCount": len(outcomes) - len(errors), "failureCount": len(errors), "errorCount": len(errors)}
        return {"hasFailure": bool(errors), **counts}


class NestedParallel(Parallel):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.outer()])

    @checkpoint
    @context("ParallelBranch")
    async def outer(self) -> list[Any]:
        return await self.all([self.steps("i1"), self.steps("i2")])


# --- maps ---------------------------------------------------------------------------------------------------------------


class Maps(Program):
    async def all(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return await joined(MAP, lambda: gather(calls))

    async def settled(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return await joined(MAP, lambda: gather(calls, settle=True))

    @checkpoint
    @context("MapIteration")
    async def gives(self, value: Any) -> Any:
        return value

    @checkpoint
    @context("MapIteration")
    async def greets(self, name: str) -> str:
        return await greet(name)

    @checkpoint
    @context("MapIteration")
    async def doubles(self, item: int) -> int:
        return 2 * item

    @checkpoint
    @context("MapIteration")
    async def adds(self, item: int, index: int) -> int:
        return item + index

    @checkpoint
    @context("MapIteration")
    async def shouts(self, item: str) -> str:
        return item.upper()

    @checkpoint
    @context("MapIteration")
    async def passes(self, item: str) -> str:
        if item == "fail":
            raise Broken("this item is bad")
        return item

    @checkpoint
    @context("MapIteration")
    async def waits_for_second(self, item: str, index: int) -> Any:
        if index == 1:
            await self.sleep("1s")
        return await give(item)


class MapGreets(Maps):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.greets(item) for item in input])


class MapDoubles(Maps):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.doubles(item) for item in input])


class MapWithIndex(Maps):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.adds(item, index) for index, item in enumerate(input)])


class MapTolerates(Maps):
    async def handle(self, input: Any) -> Any:
        return tally(await self.settled([self.passes(item) for item in ("ok", "fail", "ok")]))


class MapThreeValues(Maps):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.gives(f"r{n}") for n in range(3)])


class MapOnlySteps(Maps):
    async def handle(self, input: Any) -> Any:
        return await self.all([give(item) for item in ("fa", "fb")])


class MapNamed(Maps):
    """Tasks have keys, branches of a `gather` have numbers. One is begun when the one before it has ended."""

    async def handle(self, input: Any) -> Any:
        return await self.mapped(input)

    @checkpoint
    @context(MAP)
    async def mapped(self, items: list[int]) -> list[int]:
        return [await self.named(self.tenfold(item), f"item-{item}") for item in items]

    @checkpoint
    @context("MapIteration")
    async def tenfold(self, item: int) -> int:
        return 10 * item


class MapWaitsInside(Maps):
    async def handle(self, input: Any) -> Any:
        return await self.all([self.waits_for_second(item, index) for index, item in enumerate(("r0", "r1"))])


class MapMuch(Maps):
    async def handle(self, input: Any) -> Any:
        values = await self.all([self.gives(str(n) * 70_000) for n in range(4)])
        return {"successCount": sum(len(value) == 70_000 for value in values), "totalCount": len(values)}


class MapThenWait(Maps):
    async def handle(self, input: Any) -> Any:
        values = await self.all([self.shouts(item) for item in ("a", "b")])
        await self.sleep("1s")
        return values


class MapFailsThenWait(Maps):
    async def handle(self, input: Any) -> Any:
        outcomes = await self.settled([self.passes(item) for item in ("ok", "fail")])
        await self.sleep("1s")
        return tally(outcomes)


CASES: dict[str, type[Program]] = {
    "8-1": TwoTasks,
    "8-2": TwoValues,
    "8-3": TwoNamed,
    "8-4": ThreeTypes,
    "8-5": NoBranches,
    "8-9": OneFails,
    "8-11": ThreeValues,
    "8-12": OnlySteps,
    "8-14": OneWaits,
    "8-16": AllFail,
    "8-19": NoWorkers,
    "8-20": Accessors,
    "8-21": NestedParallel,
    "9-1": MapGreets,
    "9-2": MapDoubles,
    "9-3": MapWithIndex,
    "9-4": MapDoubles,
    "9-8": MapTolerates,
    "9-11": MapThreeValues,
    "9-12": MapOnlySteps,
    "9-13": MapNamed,
    "9-15": MapWaitsInside,
    "9-16": MapMuch,
    "9-17": MapThenWait,
    "9-18": MapFailsThenWait,
}
