"""`each` with the power cut before and after each commit, on both loops: nothing is left out, and little is repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from actorflow import Retry, RunPaused, Runtime, SetAside, Transient, Workflow, current_step, step
from actorflow.testing.clock import Backend
from actorflow.testing.scenario import Scenario, World, enumerate_crashes, world
from tests.harness import because, both

SEED = 4


ITEMS = 23
BATCH = 5


async def numbers(after: str | None = None) -> AsyncIterator[int]:
    first = 0 if after is None else int(after) + 1
    for n in range(first, ITEMS):
        await anyio.sleep(0.01)
        yield n


async def all_numbers() -> AsyncIterator[int]:
    for n in range(ITEMS):
        yield n


async def load(n: int) -> None:
    here, info = world(), current_step()
    here.effects[info.key.partition("/")[2]] += 1
    await anyio.sleep(0.05 + 0.03 * (n % 3))


class Loop(Workflow[list[int]]):
    parallel: int
    resumable: bool

    async def run(self) -> list[int]:
        source = numbers if self.resumable else all_numbers
        done = await self.each(source, load, key=lambda n: n, batch=BATCH, flush="1s", parallel=self.parallel)
        again = await self.each(source, load, key=lambda n: n, batch=BATCH, flush="1s", parallel=self.parallel)
        return [done.done, done.set_aside, again.done]


def repeats_at_most(parallel: int) -> Any:
    def expect(world: World, rows: Any) -> None:
        assert len(world.effects) == 2 * ITEMS
        repeated = sum(world.effects.values()) - 2 * ITEMS
        assert repeated <= world.crashes * (BATCH + parallel), f"{repeated} repeats in {world.crashes} crashes"

    return expect


@both
@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("resumable", [True, False])
def test_a_killed_loop_goes_on_at_its_cursor(backend: Backend, parallel: int, resumable: bool) -> None:
    """P1, rule 24a: each item at least once; a crash repeats at most one batch and what was in hand."""

    async def script(runtime: Runtime, _: World) -> Any:
        return await (await runtime.start(Loop(parallel, resumable), key="k")).result()

    scenario = Scenario(name=f"Loop {parallel} {resumable}", actors=[Loop], script=script, expect=repeats_at_most(parallel))
    assert enumerate_crashes(scenario, backend, seed=SEED) > 0


@step(retry=Retry(attempts=3, first="1s", jitter=0.0))
async def picky(n: int) -> None:
    await load(n)
    if n % 7 == 3:
        raise ValueError(n)
    if n % 7 == 4 and current_step().attempt < 2:
        raise Transient(str(n))


class Picky(Workflow[list[int]]):
    at_most: int

    async def run(self) -> list[int]:
        done = await self.each(
            all_numbers, picky, key=lambda n: n, batch=BATCH, parallel=2, on_error=SetAside(at_most=self.at_most)
        )
        return [done.done, done.set_aside]


@both
@pytest.mark.parametrize("at_most", [10, 1])
def test_bad_items_are_set_aside_until_the_budget_is_spent(backend: Backend, at_most: int) -> None:
    """Rule 24a: then the run pauses, and `resume` gives a new budget."""

    async def script(runtime: Runtime, _: World) -> Any:
        run = await runtime.start(Picky(at_most), key="k")
        while True:
            try:
                return await run.result()
            except RunPaused as paused:
                because(paused, "budget")
                await run.resume()

    assert enumerate_crashes(Scenario(name=f"Picky {at_most}", actors=[Picky], script=script), backend, seed=SEED) > 0
