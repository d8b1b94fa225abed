"""Steps and waits: suites 1 and 2."""

from __future__ import annotations

from typing import Any

from actorflow import Retry, Transient, step
from tests.yardstick.ledger import began, crash, log
from tests.yardstick.programs.program import Program

ONCE = Retry(attempts=1)


class Broken(Exception):
    """What fails here and is no trouble that passes."""


class TransientError(Transient):
    """Trouble that may pass."""


@step
async def greet(name: str) -> str:
    began()
    return f"Hello, {name}!"


@step(name="custom_step_name")
async def greet_by_name(name: str) -> str:
    began()
    return f"Hello, {name}!"


@step
async def greet_loudly(name: str) -> str:
    began()
    log(f"Greeting step started for: {name}")
    greeting = f"Hello, {name}!"
    log(f"Greeting step completed with: {greeting}")
    return greeting


@step
async def give(value: Any) -> Any:
    began()
    return value


@step
async def follow(first: str, then: str) -> str:
    began()
    return f"{first}_{then}"


@step
async def describe(name: str, tags: list[str]) -> dict[str, Any]:
    began()
    return {"user": {"name": name, "tags": tags}, "count": len(tags)}


@step
async def do_nothing() -> None:
    began()


@step(retry=ONCE)
async def fail() -> None:
    began()
    raise Broken("this step always fails")


@step(retry=Retry(attempts=4, first="1s", factor=1, jitter=0, on=(Broken,)))
async def fail_four_times() -> None:
    began()
    raise Broken("this step always fails")


@step(retry=Retry(attempts=3, first="1s", jitter=0, on=(Broken,)))
async def fail_first(value: str) -> str:
    if began() < 2:
        raise Broken("not yet")
    return value


@step(retry=Retry(attempts=5, first="2s", factor=3, jitter=0, on=(Broken,)))
async def fail_twice() -> str:
    if began() < 3:
        raise Broken("not yet")
    return "done"


@step(retry=Retry(attempts=3, first="1s", jitter=0, on=(TransientError,)))
async def pass_by() -> str:
    if began() < 2:
        raise TransientError("it passes")
    return "done"


@step(retry=Retry(attempts=3, on=(Broken,)))
async def pass_by_unseen() -> None:
    began()
    raise TransientError("nobody waits for this to pass")


@step(name="at_most_once_flaky_step", on_interrupt="fail")
async def die_once(text: str) -> None:
    began()
    log(text)
    crash()


class Greets(Program):
    async def handle(self, input: Any) -> Any:
        return await greet(input)


class GreetsByName(Program):
    async def handle(self, input: Any) -> Any:
        return await greet_by_name(input)


class GreetsLoudly(Program):
    async def handle(self, input: Any) -> Any:
        return await greet_loudly(input)


class TwoSteps(Program):
    async def handle(self, input: Any) -> Any:
        return await follow(await give("first"), "second")


class Describes(Program):
    async def handle(self, input: Any) -> Any:
        return await describe(input["name"], input["tags"])


class Nothing(Program):
    async def handle(self, input: Any) -> Any:
        return await do_nothing()


class StepThenWait(Program):
    async def handle(self, input: Any) -> Any:
        value = await give("computed")
        await self.sleep("2s")
        return value


class CachedStep(Program):
    async def handle(self, input: Any) -> Any:
        value = await give("cached_value")
        await self.sleep("1s")
        return value


class CachedFailure(Program):
    async def handle(self, input: Any) -> Any:
        caught = ""
        try:
            await fail()
        except Broken as error:
            caught = str(error)
        await self.sleep("1s")
        return caught


class RetriesOnce(Program):
    async def handle(self, input: Any) -> Any:
        return await fail_first("Operation succeeded")


class RetriesInVain(Program):
    async def handle(self, input: Any) -> Any:
        await fail_four_times()


class RetriesSlowly(Program):
    async def handle(self, input: Any) -> Any:
        return await fail_twice()


class RetriesTransient(Program):
    async def handle(self, input: Any) -> Any:
        return await pass_by()


class RetriesOthersOnly(Program):
    async def handle(self, input: Any) -> Any:
        await pass_by_unseen()


class DiesInStep(Program):
    async def handle(self, input: Any) -> Any:
        await die_once(input)


class Fails(Program):
    async def handle(self, input: Any) -> Any:
        await fail()


class FallsBack(Program):
    async def handle(self, input: Any) -> Any:
        try:
            await fail()
        except Broken:
            return await give("fallback_result")


class Waits(Program):
    async def handle(self, input: Any) -> Any:
        await self.sleep("2s")


class WaitsByName(Program):
    async def handle(self, input: Any) -> Any:
        await self.named(self.sleep("2s"), "custom_wait_name")


class WaitsTwice(Program):
    async def handle(self, input: Any) -> Any:
        done = 0
        for name in ("wait-1", "wait-2"):
            await self.named(self.sleep("2s"), name)
            done += 1
        return {"completedWaits": done}


class WaitsAMinute(Program):
    async def handle(self, input: Any) -> Any:
        await self.sleep("1m")


class WaitsAnHour(Program):
    async def handle(self, input: Any) -> Any:
        await self.sleep("1h")


CASES: dict[str, type[Program]] = {
    "1-1": Greets,
    "1-2": GreetsByName,
    "1-3": TwoSteps,
    "1-4": Describes,
    "1-5": Nothing,
    "1-7": GreetsLoudly,
    "1-8": StepThenWait,
    "1-9": CachedStep,
    "1-10": CachedFailure,
    "1-11": RetriesOnce,
    "1-12": RetriesInVain,
    "1-14": RetriesSlowly,
    "1-15": RetriesTransient,
    "1-16": RetriesOthersOnly,
    "1-17": DiesInStep,
    "1-19": Fails,
    "1-20": FallsBack,
    "2-1": Waits,
    "2-2": WaitsByName,
    "2-3": WaitsTwice,
    "2-4": WaitsAMinute,
    "2-5": WaitsAnHour,
}
