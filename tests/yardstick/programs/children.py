"""Invoked functions: suite 5."""

from __future__ import annotations

from typing import Any

from actorflow import Abort, ChildFailed, Workflow, checkpoint
from tests.yardstick.ledger import context
from tests.yardstick.programs.program import Program
from tests.yardstick.programs.steps import follow, give


class Echo(Workflow[Any]):
    """Takes its time, so that whoever waits for it is suspended."""

    input: Any = None

    async def run(self) -> Any:
        await self.sleep("1s")
        return self.input


class Refuses(Workflow[Any]):
    input: Any = None

    async def run(self) -> Any:
        await self.sleep("1s")
        raise Abort("the target says no")


class Invokes(Program):
    beside = (Echo, Refuses)

    async def handle(self, input: Any) -> Any:
        return await self.invoke(Echo(input))

    async def invoke(self, target: Workflow[Any], key: str = "target") -> Any:
        run = await self.start(target, key=key)
        return await run.result()


class InvokesByName(Invokes):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.invoke(Echo(input["payload"])), input["name"])


class InvokesInVain(Invokes):
    async def handle(self, input: Any) -> Any:
        return await self.invoke(Refuses(input))


class InvokesAndCatches(Invokes):
    async def handle(self, input: Any) -> Any:
        try:
            return await self.invoke(Refuses(input))
        except ChildFailed:
            return "fallback"


class InvokesWithMuch(Invokes):
    async def handle(self, input: Any) -> Any:
        much = "x" * 900_000  # The bound on a payload is a megabyte.
        return len(await self.invoke(Echo(much)))


class InvokesThenWaits(Invokes):
    async def handle(self, input: Any) -> Any:
        value = await self.invoke(Echo("once"))
        await self.sleep("1s")
        return value


class CatchesThenWaits(Invokes):
    async def handle(self, input: Any) -> Any:
        try:
            caught = await self.invoke(Refuses(input))
        except ChildFailed as error:
            caught = error.why
        await self.sleep("1s")
        return caught


class StepThenInvokes(Invokes):
    async def handle(self, input: Any) -> Any:
        return await self.invoke(Echo(await give("of the step")))


class InvokesThenStep(Invokes):
    async def handle(self, input: Any) -> Any:
        return await follow(await self.invoke(Echo("of the target")), "and a step")


class InvokesInside(Invokes):
    async def handle(self, input: Any) -> Any:
        return await self.child()

    @checkpoint
    @context("RunInChildContext")
    async def child(self) -> Any:
        return await self.invoke(Echo("of the target"))


class InvokesTwice(Invokes):
    async def handle(self, input: Any) -> Any:
        return [await self.invoke(Echo(n), key=f"target-{n}") for n in (1, 2)]


CASES: dict[str, type[Program]] = {
    "5-1": Invokes,
    "5-2": InvokesByName,
    "5-3": Invokes,
    "5-4": Invokes,
    "5-5": InvokesInVain,
    "5-6": InvokesAndCatches,
    "5-7": InvokesWithMuch,
    "5-9": InvokesThenWaits,
    "5-10": CatchesThenWaits,
    "5-11": StepThenInvokes,
    "5-12": InvokesThenStep,
    "5-13": InvokesInside,
    "5-14": InvokesTwice,
}
