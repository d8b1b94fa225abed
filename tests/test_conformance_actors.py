"""Actors that fail, hang, crowd and come at a bad moment: each harms itself, within bounds, and the others do not notice."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import anyio
import pytest

from actorflow import (
    Actor,
    ActorPaused,
    Limits,
    Message,
    Runtime,
    StoreUnavailable,
    Workflow,
    handler,
    step,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import Log, Note, Read, both, did, runtime, virtual, world


@step
async def work(n: int, seconds: float) -> int:
    did.append(n)
    await anyio.sleep(seconds)
    return n


class Do(Message[int]):
    n: int
    seconds: float = 0.0


class Worker(Actor):
    total: int = 0

    @handler(timeout="1h")
    async def do(self, m: Do) -> int:
        self.total += await work(m.n, m.seconds)
        return self.total

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [self.total]


# --- stopping --------------------------------------------------------------------------------------------------------------


@both
def test_dynamic_actors_are_stopped_together_with_one_deadline(backend: Backend) -> None:
    """O10: first nothing new begins and what runs may end; then it is cut, all at the same time."""

    async def scenario() -> float:
        began = 0.0
        async with runtime(Worker, limits=Limits(drain_s=10.0, cancel_grace_s=1.0)) as opened:
            for n in range(20):
                await opened.at(Worker, str(n)).tell(Do(n, 4.0 if n < 5 else 1_000.0))
            await anyio.sleep(1)
            began = anyio.current_time()
        took_s = anyio.current_time() - began
        assert opened.drained is not None
        assert len(opened.drained.cut) == 15
        return took_s

    assert 10.0 <= virtual(backend, scenario) <= 15.0


class BadEnd(Actor):
    how: str = ""

    @handler
    async def do(self, m: Note) -> None:
        did.append(m.n)

    async def on_stop(self) -> None:
        did.append(f"stops {self.me.key}")
        if self.me.key == "raises":
            raise ValueError("not now")
        if self.me.key == "hangs":
            await work(0, 100_000.0)


@both
def test_an_on_stop_that_raises_or_hangs_keeps_nothing_from_closing(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """G4: it is logged, and the next holder finds all in order."""
    store = MemoryStore()

    async def scenario() -> float:
        async with runtime(BadEnd, store=store, limits=Limits(drain_s=10.0)) as opened:
            for key in ("raises", "hangs", "fine"):
                await opened.at(BadEnd, key).tell(Note(1))
            await anyio.sleep(1)
            began = anyio.current_time()
        took_s = anyio.current_time() - began
        async with runtime(BadEnd, store=store) as opened:
            for key in ("raises", "hangs", "fine"):
                await opened.at(BadEnd, key).tell(Note(2))
                await anyio.sleep(1)
                assert (await opened.at(BadEnd, key).status()).status == "idle"
        return took_s

    assert virtual(backend, scenario) < 60.0
    assert {"stops raises", "stops hangs", "stops fine"} <= set(did)
    assert "not now" in caplog.text


# --- failing ---------------------------------------------------------------------------------------------------------------


class NeverUp(Actor):
    async def on_start(self) -> None:
        did.append(round(anyio.current_time(), 2))
        if not world.get("mended"):
            raise ValueError("cannot start")

    @handler
    async def do(self, m: Do) -> int:
        did.append(f"does {m.n}")
        return m.n


@both
def test_an_actor_that_fails_at_every_start_is_set_aside_without_spinning(backend: Backend) -> None:
    """G1: its mail waits, and `resume` after the fix gives a new budget."""

    async def scenario() -> None:
        async with runtime(NeverUp, Worker) as opened:
            actor = opened.at(NeverUp, "n")
            await actor.tell(Do(1), key="a")
            assert await opened.at(Worker, "w").ask(Do(1)) == 1
            await anyio.sleep(10_000)
            tries = [at for at in did if isinstance(at, float)]
            assert len(tries) == 4  # Once, and three restarts, each later than the one before.
            waits = [later - earlier for earlier, later in pairwise(tries)]
            assert waits == sorted(waits)
            assert waits[0] > 0
            with pytest.raises(ActorPaused, match="cannot start"):
                await actor.ask(Do(2))
            world["mended"] = True
            await actor.resume()
            assert await actor.ask(Do(3)) == 3
            assert [what for what in did if isinstance(what, str)] == ["does 1", "does 3"]

    virtual(backend, scenario)


@both
def test_a_store_that_is_away_fails_nobody_and_all_is_handled_once_when_it_is_back(backend: Backend) -> None:
    """G2."""
    actors = 300

    class Away(MemoryStore):
        batches: list[int] = []  # noqa: RUF012  (of this test)

        async def commit(self, batch: Any, *, fence: int) -> Any:
            if 1.0 <= anyio.current_time() < 31.0:
                raise StoreUnavailable("away")
            self.batches.append(len(batch))
            return await super().commit(batch, fence=fence)

    async def one(opened: Runtime, n: int) -> None:
        actor = opened.at(Worker, str(n))
        while True:
            try:
                world[str(n)] = await actor.ask(Do(n, 5.0), key="a", within="1h")
            except StoreUnavailable:
                await anyio.sleep(1.0)
            else:
                return

    async def scenario() -> None:
        async with runtime(Worker, store=Away(), limits=Limits(batch_max=100)) as opened:
            async with anyio.create_task_group() as group:
                for n in range(actors):
                    group.start_soon(one, opened, n)
                await anyio.sleep(10)
                for n in range(actors, actors + 50):  # They come while it is away.
                    group.start_soon(one, opened, n)
            assert {name: value for name, value in world.items() if name != str(value)} == {}
            infos = (await opened.actors(limit=1_000)).runs
            assert {(info.status, info.crashes) for info in infos} == {("idle", 0)}
        assert max(Away.batches) <= 100

    virtual(backend, scenario)

    assert Counter(did) == dict.fromkeys(range(actors + 50), 1)


# --- beside each other -------------------------------------------------------------------------------------------------------

here: ContextVar[str] = ContextVar("here", default="nothing")


class Says(Message[str]):
    word: str


class Leaves(Actor):
    @handler
    async def says(self, m: Says) -> str:
        found = here.get()
        here.set(m.word)
        assert await in_a_step() == m.word
        return found


class Job(Workflow[str]):
    async def run(self) -> str:
        here.set("job")
        return await in_a_step()


@step
async def in_a_step() -> str:
    found = here.get()
    here.set("step")
    return found


@both
def test_context_variables_that_one_actor_sets_are_not_seen_by_another(backend: Backend) -> None:
    """E20: nor by the service, nor by a run."""

    async def scenario() -> None:
        async with runtime(Leaves, Job) as opened:
            assert await opened.at(Leaves, "a").ask(Says("a")) == "nothing"
            assert await opened.at(Leaves, "b").ask(Says("b")) == "nothing"
            assert await (await opened.start(Job(), key="k")).result() == "job"
            assert here.get() == "nothing"
            assert await opened.at(Leaves, "c").ask(Says("c")) == "nothing"

    virtual(backend, scenario)


@both
def test_a_slow_turn_holds_up_nobody_elses_acknowledgement(backend: Backend) -> None:
    """G11."""

    async def scenario() -> None:
        async with runtime(Worker) as opened:
            await opened.at(Worker, "slow").tell(Do(1, 600.0))
            await anyio.sleep(1)
            began = anyio.current_time()
            for n in range(50):
                assert await opened.at(Worker, str(n)).ask(Do(n)) == n
                await opened.at(Worker, "slow").tell(Do(2))  # Accepted at once, too.
            assert anyio.current_time() - began < 1.0
            await anyio.sleep(700)
            assert await opened.at(Worker, "slow").ask(Read()) == [101]

    virtual(backend, scenario)


class Brief(Actor, passivate_after="1s"):
    got: int = 0

    @handler
    async def note(self, m: Note) -> None:
        self.got += 1
        did.append(m.n)


@both
def test_a_message_that_meets_an_actor_on_its_way_out_is_handled_once(backend: Backend) -> None:
    """G9: at the very moment at which it leaves memory, and some turns of the loop before and after."""

    async def scenario() -> None:
        async with runtime(Brief) as opened:
            for n in range(40):
                brief = opened.at(Brief, str(n % 5))
                await brief.tell(Note(100 + n), key=f"first {n}")
                await anyio.sleep(1.0 if n % 2 else 0.999)
                for _ in range(n // 2):
                    await anyio.lowlevel.checkpoint()
                await brief.tell(Note(n), key=str(n))
            await anyio.sleep(10)
            assert not opened._running().resident

    virtual(backend, scenario)

    assert Counter(did) == dict.fromkeys([*range(40), *range(100, 140)], 1)


class Sleeper(Workflow[int]):
    n: int

    async def run(self) -> int:
        await self.sleep("100s")
        return self.n


@both
def test_many_sleepers_of_one_moment_are_woken_in_portions_and_others_get_their_turn(backend: Backend) -> None:
    """D9."""
    sleepers, portion = 600, 20

    class Counting(MemoryStore):
        loading, most, loaded = 0, 0, 0

        async def load(self, run: int) -> Any:
            Counting.loading += 1
            Counting.most = max(Counting.most, Counting.loading)
            await anyio.sleep(0.1)
            Counting.loading -= 1
            Counting.loaded += 1
            return await super().load(run)

    memory = MemoryStore()

    async def scenario() -> None:
        limits = Limits(recoveries_max=portion, timers_ahead_max=50)
        async with runtime(Sleeper, Log, store=memory, limits=limits) as opened:
            for n in range(sleepers):
                await opened.start(Sleeper(n), key=str(n))
            await anyio.sleep(1)
        await anyio.sleep(1_000)
        async with runtime(Sleeper, Log, store=Counting(share=memory), limits=limits) as opened:
            await anyio.sleep(1)
            await opened.at(Log, "l").tell(Note(1))
            while await opened.at(Log, "l").ask(Read()) != [1]:  # noqa: ASYNC110  (as a client would)
                await anyio.sleep(0.05)
            assert Counting.loaded < sleepers // 2
            results = [await opened.run(Sleeper, str(n)).result() for n in range(sleepers)]
            assert results == list(range(sleepers))
            assert Counting.most <= portion
            log = await opened._running().store.events(limit=10_000)
            ends = [event.entry.run for event in log if event.entry.kind == "completed"]
            assert len(ends) == len(set(ends)) == sleepers

    virtual(backend, scenario)
