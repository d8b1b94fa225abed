"""A run that cannot be loaded: now, or with today's classes, or for a reason that nobody thought of. The others go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from actorflow import Actor, Limits, Message, RunPaused, StoreUnavailable, Workflow, handler, query
from actorflow.clock import moment
from actorflow.errors import Undecodable, UnknownKind
from actorflow.records import Loaded
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault, FaultStore
from tests.harness import because, both, runtime, virtual


class Go(Message[None]): ...


class Waiter(Workflow[str]):
    n: int = 1

    async def run(self) -> str:
        await self.receive(Go)
        return f"went {self.n}"

    @query
    def number(self) -> int:
        return self.n


class Failing(MemoryStore):
    """Cannot load the first run, as often as it is told to."""

    errors: tuple[Exception, ...] = ()
    loads = 0
    together: tuple[int, ...] = ()  #: how many were asked for at a time

    async def load_many(self, runs: Sequence[int]) -> list[Loaded | None]:
        self.together += (len(runs),)
        return await super().load_many(runs)

    async def load(self, run: int) -> Loaded | None:
        if run == 1:
            self.loads += 1
            if self.errors:
                error, self.errors = self.errors[0], self.errors[1:]
                raise error
        return await super().load(run)


async def _two(store: Failing, *errors: Exception) -> Any:
    """Two runs that left memory and are told to go on; what the second came to, and the handle of the first."""
    async with runtime(Waiter, store=store, limits=Limits(passivate_after_s=0.1)) as opened:
        first, second = [await opened.start(Waiter(n), key=f"w-{n}") for n in (1, 2)]
        await anyio.sleep(10.0)
        assert opened._running().resident == {}
        store.errors = errors
        for run in (first, second):
            await run.tell(Go())
        assert await second.result() == "went 2"
        try:
            return await first.result()
        except RunPaused as paused:
            return paused


@both
def test_one_that_cannot_be_loaded_now_is_loaded_a_moment_later(backend: Backend) -> None:
    store = Failing()

    assert virtual(backend, lambda: _two(store, *[StoreUnavailable("the disk is away")] * 3)) == "went 1"
    assert store.loads == 4


@both
def test_one_whose_rows_nobody_can_read_is_set_aside_and_says_so(backend: Backend) -> None:
    paused = virtual(backend, lambda: _two(Failing(), Undecodable("the row", "it is torn")))

    because(paused, "undecodable")
    assert "it is torn" in str(paused)


@both
def test_a_failure_that_nobody_thought_of_is_logged_and_who_waits_for_the_run_has_it_tried_again(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> str:
        store = Failing()
        async with runtime(Waiter, store=store, limits=Limits(passivate_after_s=0.1)) as opened:
            run = await opened.start(Waiter(), key="w")
            await anyio.sleep(10.0)
            store.errors = (LookupError("no such thing"),)
            await run.tell(Go())
            return await run.result()

    assert virtual(backend, main) == "went 1"
    assert "run 1 could not be loaded" in caplog.text


async def _many(store: Failing, *errors: Exception) -> list[Any]:
    """Twenty runs that left memory and whose moment has come at the same time; what each came to."""
    async with runtime(Sleeper, store=store, limits=Limits(passivate_after_s=0.1, recoveries_max=8)) as opened:
        runs = [await opened.start(Sleeper(n), key=f"s-{n}") for n in range(1, 21)]
        await anyio.sleep(10.0)
        assert opened._running().resident == {}
        store.errors = errors
        ended: list[Any] = [await run.result() for run in runs[1:]]
        try:
            return [await runs[0].result(), *ended]
        except RunPaused as paused:
            return [paused, *ended]


class Sleeper(Workflow[int]):
    n: int

    async def run(self) -> int:
        await self.sleep_until(moment(1_700_000_100.0))
        return self.n


@both
def test_those_whose_moment_comes_together_are_read_together_a_few_at_a_time(backend: Backend) -> None:
    store = Failing()

    assert virtual(backend, lambda: _many(store)) == list(range(1, 21))
    assert store.together == (8, 8, 4)
    assert store.loads == 1


@both
def test_one_that_nobody_can_read_is_set_aside_and_those_that_were_read_with_it_go_on(backend: Backend) -> None:
    torn = Undecodable("the row", "it is torn")

    paused, *ended = virtual(backend, lambda: _many(Failing(), torn, torn))

    because(paused, "undecodable")
    assert ended == list(range(2, 21))


@both
def test_when_reading_several_fails_for_a_reason_that_nobody_thought_of_each_is_read_by_itself(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    assert virtual(backend, lambda: _many(Failing(), LookupError("no such thing"))) == list(range(1, 21))
    assert "runs 1, 2, 3, 4, 5, 6, 7, 8 could not be loaded together" in caplog.text


class Tally(Actor):
    total: int = 0

    @handler
    async def go(self, m: Go) -> None:
        self.total += 1

    @query
    def seen(self) -> int:
        return self.total


@both
def test_a_reset_that_cannot_be_written_changes_nothing_and_the_actor_goes_on(backend: Backend) -> None:
    async def main() -> tuple[int, int]:
        store = FaultStore(MemoryStore())
        async with runtime(Tally, store=store) as opened:
            tally = opened.at(Tally, "t")
            await tally.ask(Go())
            await anyio.sleep(1.0)
            store.faults = [Fault(store.commits + 1, "unavailable")]
            with pytest.raises(StoreUnavailable):
                await tally.reset()
            await anyio.sleep(1.0)  # Until then the store counts as away.
            await tally.ask(Go())
            before = await tally.query(Tally.seen)
            await tally.reset()
            return before, await tally.query(Tally.seen)

    assert virtual(backend, main) == (2, 0)


@both
def test_a_question_to_a_run_whose_class_is_gone_is_refused(backend: Backend) -> None:
    async def main() -> None:
        memory = MemoryStore()
        async with runtime(Waiter, Tally, store=memory) as opened:
            run = await opened.start(Waiter(), key="w")
            assert await run.query(Waiter.number) == 1
        async with runtime(Tally, store=MemoryStore(share=memory)) as opened:
            with pytest.raises(UnknownKind):
                await opened.run(Waiter, "w").query(Waiter.number)

    virtual(backend, main)
