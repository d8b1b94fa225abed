"""Waiting for a condition: suite 6. There is no such verb: it is a loop of a step that looks and a sleep."""

from __future__ import annotations

from typing import Any

from actorflow import Retry, checkpoint, step
from tests.yardstick.history import POLL
from tests.yardstick.ledger import began, context
from tests.yardstick.programs.program import Program
from tests.yardstick.programs.steps import Broken


@step
async def count(state: int) -> int:
    began()
    return state + 1


@step
async def look(state: Any) -> Any:
    began()
    return state


@step(retry=Retry(attempts=1))
async def count_to(state: int, most: int) -> int:
    began()
    if state + 1 >= most:
        raise Broken(f"not met after {most} looks")
    return state + 1


@step(retry=Retry(attempts=1))
async def look_and_fail() -> None:
    began()
    raise Broken("nothing to be seen")


@step
async def look_at_work(status: str, attempts: int) -> dict[str, Any]:
    began()
    return {"status": "DONE" if attempts == 1 else status, "attempts": attempts + 1}


@step
async def tenfold(value: int) -> int:
    began()
    return 10 * value


class Counts(Program):
    async def handle(self, input: Any) -> Any:
        return await self.counted(0, input)

    @checkpoint
    @context(POLL)
    async def counted(self, state: int, enough: int) -> int:
        while True:
            state = await count(state)
            if state >= enough:
                return state
            await self.sleep("2s")


class MetAtOnce(Program):
    async def handle(self, input: Any) -> Any:
        return await self.looked(input)

    @checkpoint
    @context(POLL)
    async def looked(self, state: Any) -> Any:
        while True:
            state = await look(state)
            if state is None or state >= 5:
                return state
            await self.sleep("2s")


class CountsByName(Counts):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.counted(0, input), "poll-status")


class CountsFromFive(Counts):
    async def handle(self, input: Any) -> Any:
        return await self.counted(5, input)


class NeverMet(Program):
    async def handle(self, input: Any) -> Any:
        return await self.counted(input)

    @checkpoint
    @context(POLL)
    async def counted(self, state: int) -> int:
        while True:
            state = await count_to(state, 3)
            await self.sleep("1s")


class LooksInVain(Program):
    async def handle(self, input: Any) -> Any:
        return await self.looked()

    @checkpoint
    @context(POLL)
    async def looked(self) -> None:
        await look_and_fail()


class LooksAndRecovers(LooksInVain):
    async def handle(self, input: Any) -> Any:
        try:
            return await self.looked()
        except Broken:
            return "recovered"


class LooksAtWork(Program):
    async def handle(self, input: Any) -> Any:
        return await self.worked()

    @checkpoint
    @context(POLL)
    async def worked(self) -> dict[str, Any]:
        state: dict[str, Any] = {"status": "PENDING", "attempts": 0}
        while True:
            state = await look_at_work(state["status"], state["attempts"])
            if state["status"] == "DONE":
                return state
            await self.sleep("1s")


class CountsThenStep(Counts):
    async def handle(self, input: Any) -> Any:
        return await tenfold(await self.counted(0, input))


class CountsTwice(Counts):
    async def handle(self, input: Any) -> Any:
        return await self.counted(await self.counted(0, 2), 4)


CASES: dict[str, type[Program]] = {
    "6-1": Counts,
    "6-2": MetAtOnce,
    "6-3": CountsByName,
    "6-4": CountsFromFive,
    "6-5": Counts,
    "6-6": NeverMet,
    "6-7": LooksInVain,
    "6-8": LooksAndRecovers,
    "6-9": LooksAtWork,
    "6-10": MetAtOnce,
    "6-12": CountsThenStep,
    "6-13": CountsTwice,
}
