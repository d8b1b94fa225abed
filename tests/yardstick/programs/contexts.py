"""Child contexts: suite 3."""

from __future__ import annotations

from typing import Any

from actorflow import Retry, checkpoint, step, with_options
from tests.yardstick.ledger import began, context, crash, log
from tests.yardstick.programs.program import Program
from tests.yardstick.programs.steps import Broken, fail, fail_first, fail_four_times, give

KIND = "RunInChildContext"
TWICE = Retry(attempts=2, first="1s", jitter=0, on=(Broken,))


@step
async def give_after_a_crash(value: str) -> str:
    began()
    crash()
    return value


class OneStep(Program):
    async def handle(self, input: Any) -> Any:
        return await self.child(input)

    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        return await give(value)


class Named(OneStep):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.child(input["value"]), input["name"])


class TwoSteps(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        return await give(await give(value))


class Fails(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        await fail()


class Recovers(Fails):
    async def handle(self, input: Any) -> Any:
        try:
            return await self.child(input)
        except Broken:
            return await give(input)


class Nested(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        return await self.inner(await give(value))

    @checkpoint
    @context(KIND)
    async def inner(self, value: Any) -> Any:
        return await give(value)


class Retries(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        return await fail_first(value)


class RetriesInVain(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        await with_options(fail_four_times, retry=TWICE)()


class Cached(OneStep):
    async def handle(self, input: Any) -> Any:
        value = await self.child(input)
        await self.sleep("1s")
        return value


class StepAndWait(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        given = await give(value)
        await self.sleep("1s")
        return given


class DiesInside(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        return await give_after_a_crash(value)


class WaitsInside(OneStep):
    async def handle(self, input: Any) -> Any:
        return await give(await self.child(input))

    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        await self.sleep("1s")
        return value


class FailsByItself(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        raise Broken("no step had a part in this")


class Null(OneStep):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        return None


class OnlyLogs(Cached):
    @checkpoint
    @context(KIND)
    async def child(self, value: Any) -> Any:
        log(value)
        return value


class InsideAndAfter(StepAndWait):
    async def handle(self, input: Any) -> Any:
        value = await give(await self.child(input))
        await self.sleep("1s")
        return value


CASES: dict[str, type[Program]] = {
    "3-1": OneStep,
    "3-2": Named,
    "3-3": TwoSteps,
    "3-4": Fails,
    "3-5": Recovers,
    "3-6": Nested,
    "3-7": Retries,
    "3-8": RetriesInVain,
    "3-9": Cached,
    "3-10": StepAndWait,
    "3-12": DiesInside,
    "3-13": WaitsInside,
    "3-15": FailsByItself,
    "3-16": Null,
    "3-17": OnlyLogs,
    "3-18": InsideAndAfter,
}
