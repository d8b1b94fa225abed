"""`why` names what a run waits for, and until when; in memory and as a row."""

from __future__ import annotations

import anyio
import pytest

from actorflow import Abort, Limits, Message, Retry, Runtime, Transient, Workflow, step
from actorflow.testing.clock import Backend
from tests.harness import both, runtime, virtual


class Go(Message[int]): ...


@step
async def long() -> None:
    await anyio.sleep_forever()


@step(retry=Retry(attempts=3, first="1h", cap="1h", jitter=0.0))
async def shaky() -> None:
    raise Transient("not yet")


class Deaf(Workflow[None]):
    async def run(self) -> None:
        await self.sleep("10d")


class Job(Workflow[None]):
    what: str

    async def run(self) -> None:
        match self.what:
            case "sleep":
                await self.sleep("1d")
            case "receive":
                await self.receive(Go, within="2d")
            case "ask":
                await Deaf.at("deaf").ask(Go(), within="3d")
            case "child":
                await (await self.start(Deaf(), key="child")).result()
            case "step":
                await long()
            case "retry":
                await shaky()
            case _:
                raise Abort("nobody knows")


SAID = {
    "sleep": "Job/k sleeps until 2023-11-15 22:13:20 UTC (sleep :self.sleep#0).",
    "receive": "Job/k waits for a message Go until 2023-11-16 22:13:20 UTC (receive :self.receive#0).",
    "ask": "Job/k waits for the reply of Deaf/deaf until 2023-11-17 22:13:20 UTC (ask :at.ask#0).",
    "child": "Job/k waits for the end of Deaf/child (result :run.result#0).",
    "step": "Job/k runs step :long#0, attempt 1.",
    "retry": "Job/k waits until 2023-11-14 23:13:20 UTC before the next attempt of step :shaky#0.",
    "abort": "Job/k failed at 2023-11-14 22:13:20 UTC: Abort: nobody knows.",
}


@both
@pytest.mark.parametrize("what", list(SAID))
def test_why_says_what_a_run_waits_for(backend: Backend, what: str) -> None:
    async def main() -> str:
        async with runtime(Job, Deaf, limits=Limits(drain_s=0.0)) as opened:
            return await _why(opened, what)

    assert virtual(backend, main) == SAID[what]


@both
@pytest.mark.parametrize("what", ["sleep", "receive", "child", "retry"])
def test_of_one_that_is_not_in_memory_it_says_the_same(backend: Backend, what: str) -> None:
    async def main() -> str:
        async with runtime(Job, Deaf, limits=Limits(passivate_after_s=0.1)) as opened:
            await _why(opened, what)
            await anyio.sleep(10.0)
            assert opened._running().resident == {}
            return await opened.run(Job, "k").why()

    assert virtual(backend, main) == SAID[what]


async def _why(opened: Runtime, what: str) -> str:
    await opened.start(Deaf(), key="deaf")
    run = await opened.start(Job(what), key="k")
    await anyio.sleep(0.5)
    return await run.why()
