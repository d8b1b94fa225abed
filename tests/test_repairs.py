"""After a failure in one of several branches a run can be repaired: what failed is performed again, what finished is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from actorflow import RunPaused, Runtime, Workflow, gather, step

pytestmark = pytest.mark.anyio

world = {"broken": True}
performed: list[str] = []


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    world["broken"] = True
    performed.clear()
    return str(request.param)


@step
async def pack() -> str:
    performed.append("pack")
    return "parcel"


@step
async def charge() -> str:
    performed.append("charge")
    if world["broken"]:
        raise ValueError("no such card")
    return "paid"


class FailingStep(Workflow[tuple[str, ...]]):
    async def run(self) -> tuple[str, ...]:
        first = await pack()
        return first, *(await gather(charge(), self.patient()))

    async def patient(self) -> str:
        await self.sleep("1d")
        return "never"


class FailingLine(Workflow[tuple[str, ...]]):
    async def run(self) -> tuple[str, ...]:
        return await gather(self.line(), pack())

    async def line(self) -> str:
        await pack()
        if world["broken"]:
            raise KeyError("a bug of the line itself")
        return await pack()


@asynccontextmanager
async def runtime() -> AsyncIterator[Runtime]:
    with anyio.fail_after(10):
        async with Runtime(actors=[FailingStep, FailingLine]) as opened:
            yield opened


async def test_retry_performs_the_step_again_that_closed_a_gather() -> None:
    """Rule 26: the report names the step and not the gather, so that it is the step that is set aside."""
    async with runtime() as at:
        run = await at.start(FailingStep(), key="k")
        with pytest.raises(RunPaused) as caught:
            await run.result()
        assert caught.value.report.where == "/gather#0.0:charge#0"

        await run.retry()
        with pytest.raises(RunPaused):
            await run.result()
        assert performed == ["pack", "charge", "charge"]

        world["broken"] = False
        await run.retry()
        while performed.count("charge") < 3:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert (await run.status()).status == "waiting"
        await run.cancel()

    assert performed == ["pack", "charge", "charge", "charge"]


async def test_a_mended_line_goes_on_where_its_bug_had_closed_a_gather() -> None:
    """Rule 25: an error of the code itself is never journaled, so the code may be mended and the run resumed."""
    async with runtime() as at:
        run = await at.start(FailingLine(), key="k")
        with pytest.raises(RunPaused) as caught:
            await run.result()
        assert caught.value.reason == "bug"

        world["broken"] = False
        await run.resume()

        assert await run.result() == ("parcel", "parcel")
