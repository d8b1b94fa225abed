"""Callbacks: suite 4, and suite 7, where a step hands them out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import frozen

from actorflow import Message, Retry, checkpoint, step
from tests.yardstick.ledger import began, context
from tests.yardstick.programs.program import CallbackFailed, CallbackTimedOut, Program
from tests.yardstick.programs.steps import Broken, give

# --- 4: created, and awaited later --------------------------------------------------------------------------------------


class Awaits(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input)
        return await callback


class AwaitsApproval(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback("approval")
        return await callback


class AwaitsFiveSeconds(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, within="5s")
        return await callback


class AwaitsAHeartbeat(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, heartbeat="5s")
        return await callback


class AwaitsSlowHeartbeats(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, heartbeat="10s")
        return await callback


class StepFirst(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input)
        await give("meanwhile")
        return await callback


class StepFirstInTime(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, within="5s")
        await give("meanwhile")
        return await callback


class WaitFirst(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input)
        await self.sleep("5s")
        return await callback


class WaitPastTheTimeout(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, within="3s")
        await self.sleep("6s")
        return await callback


class WaitAfter(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input)
        value = await callback
        await self.sleep("2s")
        return value


class CatchesFailure(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input)
        try:
            message = await callback
        except CallbackFailed as error:
            message = f"caught: {error}"
        await self.sleep("2s")
        return message


class CatchesTimeout(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, within="3s")
        try:
            message = await callback
        except CallbackTimedOut as error:
            message = f"caught: {error}"
        await self.sleep("2s")
        return message


@frozen
class Letter:
    """What a typed callback carries."""

    id: str
    message: str
    timestamp: datetime


class DoneWithLetter(Message[None], kind="yardstick-done-with-letter"):
    callback: str
    payload: Letter


class DoneWithNumber(Message[None], kind="yardstick-done-with-number"):
    callback: str
    payload: int


class Typed(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, of=DoneWithLetter)
        letter: Letter = await callback
        moment = int(letter.timestamp.timestamp())
        return {"received": {"id": letter.id, "message": letter.message, "timestamp": moment}}


class Counted(Program):
    async def handle(self, input: Any) -> Any:
        _, callback = self.create_callback(input, of=DoneWithNumber)
        count: int = await callback
        return {"count": count, "doubled": 2 * count}


class OneAfterTheOther(Program):
    async def handle(self, input: Any) -> Any:
        results: list[Any] = []
        for name in input:
            _, callback = self.create_callback(name)
            results.append(await callback)
        return results


class BothThenInOrder(Program):
    async def handle(self, input: Any) -> Any:
        callbacks = [self.create_callback(name)[1] for name in input]
        return [await callback for callback in callbacks]


class BothThenBackwards(Program):
    async def handle(self, input: Any) -> Any:
        callbacks = [self.create_callback(name)[1] for name in input]
        results = [await callback for callback in reversed(callbacks)]
        return results[::-1]


# --- 7: handed out by a step, and awaited -------------------------------------------------------------------------------


@step
async def submit(callback: str) -> None:
    began()


@step(name="submit", retry=Retry(attempts=2, first="1s", jitter=0, on=(Broken,)))
async def submit_in_vain(callback: str) -> None:
    began()
    raise Broken("nobody takes it")


class Hands(Program):
    """Waits for a callback that a step hands out. Its timeouts are arguments, its name is the input."""

    async def handle(self, input: Any) -> Any:
        return await self.named(self.completed(), input)

    @checkpoint
    @context("WaitForCallback")
    async def completed(self, within: float | None = None, heartbeat: float | None = None) -> Any:
        callback, outcome = self.create_callback(within=within, heartbeat=heartbeat)
        await submit(callback)
        return await outcome


class HandsApproval(Hands):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.completed(), "approval")


class HandsUnnamed(Hands):
    async def handle(self, input: Any) -> Any:
        return await self.completed()


class HandsInThreeSeconds(Hands):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.completed(within=3), input)


class HandsAndRecovers(Hands):
    async def handle(self, input: Any) -> Any:
        try:
            return await self.named(self.completed(), input)
        except CallbackFailed:
            return "recovered"


class HandsInVain(Hands):
    @checkpoint
    @context("WaitForCallback")
    async def completed(self, within: float | None = None, heartbeat: float | None = None) -> Any:
        callback, outcome = self.create_callback()
        await submit_in_vain(callback)
        return await outcome


class HandsInside(Hands):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.wrapped(input), "wrapper")

    @checkpoint
    @context("RunInChildContext")
    async def wrapped(self, name: str) -> Any:
        return await self.named(self.completed(), name)


class HandsTwice(Hands):
    async def handle(self, input: Any) -> Any:
        await self.named(self.completed(), "first")
        return await self.named(self.completed(), "second")


class HandsAfterOthers(Hands):
    async def handle(self, input: Any) -> Any:
        await self.sleep("1s")
        await give({"fixed": "data"})
        return await self.named(self.completed(), input)


@frozen
class Verdict:
    """What a typed callback carries."""

    status: str


class DoneWithVerdict(Message[None], kind="yardstick-done-with-verdict"):
    callback: str
    payload: Verdict


class HandsTyped(Hands):
    async def handle(self, input: Any) -> Any:
        return (await self.named(self.decided(), input)).status

    @checkpoint
    @context("WaitForCallback")
    async def decided(self) -> Verdict:
        callback, outcome = self.create_callback(of=DoneWithVerdict)
        await submit(callback)
        verdict: Verdict = await outcome
        return verdict


class HandsWithHeartbeat(Hands):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.completed(heartbeat=5), input)


class HandsWithSlowHeartbeats(Hands):
    async def handle(self, input: Any) -> Any:
        return await self.named(self.completed(heartbeat=10), input)


class HandsAndGivesUp(Hands):
    async def handle(self, input: Any) -> Any:
        try:
            return await self.named(self.completed(within=3), input)
        except CallbackTimedOut:
            return "timed-out-handled"


CASES: dict[str, type[Program]] = {
    "4-1": Awaits,
    "4-2": AwaitsApproval,
    "4-3": AwaitsFiveSeconds,
    "4-4": AwaitsAHeartbeat,
    "4-5": AwaitsSlowHeartbeats,
    "4-6": Awaits,
    "4-7": StepFirst,
    "4-8": StepFirstInTime,
    "4-9": WaitFirst,
    "4-10": WaitFirst,
    "4-11": WaitPastTheTimeout,
    "4-12": WaitAfter,
    "4-13": CatchesFailure,
    "4-14": CatchesTimeout,
    "4-15": Typed,
    "4-16": Counted,
    "4-17": OneAfterTheOther,
    "4-18": BothThenInOrder,
    "4-19": BothThenBackwards,
    "7-1": Hands,
    "7-2": HandsApproval,
    "7-3": HandsUnnamed,
    "7-4": Hands,
    "7-5": HandsInThreeSeconds,
    "7-6": HandsAndRecovers,
    "7-7": HandsInVain,
    "7-8": HandsInside,
    "7-9": HandsTwice,
    "7-10": HandsAfterOthers,
    "7-11": HandsTyped,
    "7-12": HandsWithHeartbeat,
    "7-13": HandsWithSlowHeartbeats,
    "7-14": HandsAndGivesUp,
    "7-15": Hands,
}
