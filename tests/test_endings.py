"""Undos at their edges: of children, of steps whose outcome nobody knows, undos that hang, a store that cannot be read."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import Abort, Retry, RunPaused, StoreUnavailable, Workflow, step
from actorflow.records import Event
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import because, both, runtime, virtual

done: list[Any] = []


@pytest.fixture(autouse=True)
def _anew() -> None:
    done.clear()


@step
async def close(key: str) -> None:
    done.append(("close", key))


class Leaf(Workflow[int]):
    async def run(self) -> int:
        done.append("leaf")
        return 7


class Opens(Workflow[None]):
    async def run(self) -> None:
        await (await self.start(Leaf(), key="leaf-1", undo=close)).result()
        await self.start(Leaf(), key="leaf-2")
        raise Abort("no")


@both
def test_a_child_is_undone_with_its_key_by_the_undo_of_its_start_and_only_then(backend: Backend) -> None:
    """Rule 23."""

    async def main() -> None:
        async with runtime(Opens, Leaf) as opened:
            with pytest.raises(Abort):
                await (await opened.start(Opens(), key="k")).result()

    virtual(backend, main)

    assert [each for each in done if each != "leaf"] == [("close", "leaf-1")]


async def needs(n: int, outcome: str) -> None:
    done.append(("needs", n, outcome))


async def takes_none(n: int, outcome: str | None) -> None:
    done.append(("takes none", n, outcome))


@step(undo=needs, timeout="5s", retry=Retry(attempts=1))
async def first(n: int) -> str:
    await anyio.sleep(n)
    return f"first {n}"


@step(undo=takes_none, timeout="5s", retry=Retry(attempts=1))
async def second(n: int) -> str:
    await anyio.sleep(n)
    return f"second {n}"


class Unknown(Workflow[None]):
    async def run(self) -> None:
        for n in (1, 60):
            for performed in (first, second):
                try:
                    await performed(n)
                except TimeoutError:
                    done.append(("timed out", n))
        raise Abort("no")


@both
def test_an_effect_that_nobody_knows_of_is_undone_if_the_undo_takes_none_and_else_listed(backend: Backend) -> None:
    """Rule 23."""

    async def main() -> tuple[str, ...]:
        async with runtime(Unknown) as opened:
            run = await opened.start(Unknown(), key="k")
            with pytest.raises(Abort):
                await run.result()
            report = (await run.status()).report
            assert report is not None
            return report.not_undone

    not_undone = virtual(backend, main)

    assert not_undone == ("first (timeout): its undo does not take an unknown outcome",)
    undone = [each for each in done if each[0] != "timed out"]
    assert undone == [("takes none", 60, None), ("takes none", 1, "second 1"), ("needs", 1, "first 1")]


@step(timeout="5s", retry=Retry(attempts=2, first="1s", jitter=0.0))
async def hangs(n: int) -> None:
    done.append(("hangs", n))
    await anyio.sleep_forever()


@step(undo=hangs)
async def quick(n: int) -> int:
    return n


class Stuck(Workflow[None]):
    async def run(self) -> None:
        await quick(1)
        raise Abort("no")


@both
def test_an_undo_has_the_timeout_and_the_tries_of_its_step_and_then_the_run_pauses(backend: Backend) -> None:
    async def main() -> float:
        async with runtime(Stuck) as opened:
            began = anyio.current_time()
            run = await opened.start(Stuck(), key="k")
            await anyio.sleep(1.0)
            assert await run.why() == "Stuck/k is undoing what it did; then it ends."
            with pytest.raises(RunPaused) as caught:
                await run.result()
            because(caught.value, "undo")
            return anyio.current_time() - began

    took_s = virtual(backend, main)

    assert took_s == pytest.approx(11.0)
    assert done == [("hangs", 1), ("hangs", 1)]


class Blind(MemoryStore):
    """Cannot tell what is to be undone, twice."""

    times = 2

    async def undoable(self, run: int, round: int) -> list[Event]:
        if self.times:
            self.times -= 1
            raise StoreUnavailable("the disk is away")
        return await super().undoable(run, round)


class Books(Workflow[None]):
    async def run(self) -> None:
        await second(1)
        raise Abort("no")


@both
def test_what_is_to_be_undone_is_asked_again_until_the_store_can_tell(backend: Backend) -> None:
    async def main() -> None:
        async with runtime(Books, store=Blind()) as opened:
            with pytest.raises(Abort):
                await (await opened.start(Books(), key="k")).result()

    virtual(backend, main)

    assert done == [("takes none", 1, "second 1")]
