"""One writer: in order, each told once, callers refused at the door while the store takes nothing, and nobody left waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actorflow.errors import FenceLost, StoreBroken, StoreError, StoreStopped, StoreUnavailable
from actorflow.records import Address, Chain, Commit, Duplicate, Envelope, Refusal, Rejected, Run, Taken
from actorflow.stores import committer as committers
from actorflow.stores.committer import Committer
from actorflow.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

Answer = Refusal | StoreError | None


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committers, "WAIT_S_FIRST", 0.001)
    monkeypatch.setattr(committers, "WAIT_S_MAX", 0.002)


class Moody(MemoryStore):
    """A memory store that does what it is told first, and can be held in the middle of a commit."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.trouble: list[Exception] = []
        self.sizes: list[int] = []
        self.gate: anyio.Event | None = None
        self.down = False

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        self.sizes.append(len(batch))
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise StoreUnavailable("the disk is full")
        if self.trouble:
            raise self.trouble.pop(0)
        return await super().commit(batch, fence=fence)


class Desk:
    """A committer over such a store, and what everybody was told, in order."""

    def __init__(self, store: Moody, committer: Committer) -> None:
        self.store, self.committer = store, committer
        self.told: list[tuple[str, Answer]] = []
        self.stopped: list[StoreError] = []
        self._changed = anyio.Event()

    def submit(
        self, name: str, commit: Commit | None = None, *, door: bool = False, then: Callable[[], object] | None = None
    ) -> None:
        def told(answer: Answer) -> None:
            self.told.append((name, answer))
            self._changed.set()
            if then is not None:
                then()

        self.committer.submit(commit or starting(name), told, door=door)

    async def until(self, count: int) -> None:
        while len(self.told) < count:
            self._changed = anyio.Event()
            await self._changed.wait()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


runs = iter(range(1, 1_000_000))


def starting(key: str, chain: Chain | None = None) -> Commit:
    return Commit((Run(id=next(runs), kind="Shop", key=key, status="waiting", input=b"{}"),), chain)


@asynccontextmanager
async def desk(*, batch_max: int = 100) -> AsyncIterator[Desk]:
    store, survived = Moody(), False
    lease = await store.open(now=0.0)
    stopped: list[StoreError] = []
    at = Desk(store, Committer(store, lease.fence, batch_max, stopped.append))
    at.stopped = stopped
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(at.committer.run)
            yield at
            survived = True
            group.cancel_scope.cancel()
    assert survived


async def test_each_is_told_once_in_the_order_of_submission_when_it_is_durable() -> None:
    names, durable = [f"k{n}" for n in range(250)], list[bool]()

    async with desk() as at:

        def there(name: str) -> Callable[[], object]:
            return lambda: durable.append(at.store._memory.find(Address("Shop", name)) is not None)

        for name in names:
            at.submit(name, then=there(name))
        await at.until(250)

        assert at.told == [(name, None) for name in names]
        assert durable == [True] * 250
        assert at.store.sizes == [100, 100, 50]
        found = [await at.store.find(Address("Shop", name)) for name in names]
        ids = [run.id for run in found if run is not None]
        assert len(ids) == 250
        assert ids == sorted(ids)


async def test_others_get_a_turn_while_many_are_told_and_a_cancel_leaves_nobody_untold() -> None:
    store = Moody()
    committer = Committer(store, (await store.open(now=0.0)).fence, 1_000, lambda _: None)
    names, told, turns = [f"k{n}" for n in range(3 * committers.SLICE + 1)], list[tuple[str, Answer]](), list[int]()
    for name in names:
        committer.submit(starting(name), lambda answer, name=name: told.append((name, answer)))  # type: ignore[misc]

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(committer.run)
            while len(told) < len(names):
                turns.append(len(told))
                if turns[-1] >= committers.SLICE:
                    group.cancel_scope.cancel()  # In the middle: all of it is durable.
                await anyio.lowlevel.cancel_shielded_checkpoint()

    assert told == [(name, None) for name in names]
    assert committers.SLICE in turns or 2 * committers.SLICE in turns  # Trio takes its tasks in any order.
    assert committer.stopped is not None


async def test_while_a_batch_is_written_the_next_one_gathers() -> None:
    async with desk() as at:
        at.store.gate = anyio.Event()
        at.submit("first")
        await anyio.wait_all_tasks_blocked()
        for name in ("a", "b", "c"):
            at.submit(name)
        assert at.told == []
        at.store.gate.set()
        await at.until(4)

        assert at.store.sizes == [1, 3]
        assert at.committer.batches == 2


async def test_what_is_submitted_by_who_is_told_goes_out_next() -> None:
    async with desk() as at:
        at.submit("a", then=lambda: at.submit("a2"))
        at.submit("b")
        await at.until(3)

    assert at.names == ["a", "b", "a2"]


async def test_a_refused_commit_is_told_why_and_takes_no_other_along() -> None:
    async with desk() as at:
        at.submit("a")
        at.submit("again", starting("a"))
        at.submit("b")
        await at.until(3)

        taken = at.told[1][1]
        assert isinstance(taken, Taken)
        assert taken.run.key == "a"
        assert [at.told[0][1], at.told[2][1]] == [None, None]


async def test_a_refused_commit_breaks_its_chain_also_in_later_batches() -> None:
    chain = Chain()

    async with desk(batch_max=2) as at:
        at.submit("a")
        for name, key in (("first", "a"), ("second", "x"), ("third", "y")):
            at.submit(name, starting(key, chain))
        at.submit("other", starting("z"))
        await at.until(5)

        answers = dict(at.told)
        assert isinstance(answers["first"], Taken)
        assert isinstance(answers["second"], Rejected)
        assert isinstance(answers["third"], Rejected)
        assert answers["other"] is None
        assert await at.store.find(Address("Shop", "x")) is None


async def test_a_duplicate_message_is_told_the_first_one() -> None:
    def message(run: Run, id: int) -> Commit:
        return Commit((Envelope(id, run.id, "note", "key", b"null", "", 0.0, None, None),))

    async with desk() as at:
        commit = starting("a")
        run = commit.writes[0]
        assert isinstance(run, Run)
        at.submit("run", commit)
        at.submit("one", message(run, 1))
        at.submit("two", message(run, 2))
        await at.until(3)

        duplicate = at.told[2][1]
        assert isinstance(duplicate, Duplicate)
        assert duplicate.envelope.id == 1


async def test_while_the_store_takes_nothing_callers_are_refused_and_the_rest_is_kept_in_order() -> None:
    """B4: a full disk loses nothing that was accepted."""
    async with desk() as at:
        at.store.gate, at.store.down = anyio.Event(), True
        at.submit("k0")
        await anyio.wait_all_tasks_blocked()
        at.submit("k1")
        at.submit("door1", door=True)
        at.submit("k2")
        at.store.gate.set()
        await at.until(1)
        assert at.names == ["door1"]
        assert isinstance(at.told[0][1], StoreUnavailable)

        at.submit("door2", door=True)
        assert at.names == ["door1", "door2"]
        at.submit("k3")
        assert at.names == ["door1", "door2"]

        at.store.down = False
        await at.until(6)
        assert at.told[2:] == [(f"k{n}", None) for n in range(4)]
        at.submit("door3", door=True)
        await at.until(7)
        assert at.told[-1] == ("door3", None)


async def test_a_store_that_comes_back_is_found_by_the_next_caller_though_nobody_else_waits() -> None:
    """B4: it resumes alone, also when only callers at the door wanted to write."""
    async with desk() as at:
        at.store.trouble = [StoreUnavailable("the disk is full")]
        at.submit("refused", door=True)
        await at.until(1)
        assert isinstance(at.told[0][1], StoreUnavailable)

        while at.committer.unavailable is not None:
            await anyio.lowlevel.checkpoint()
        at.submit("taken", door=True)
        await at.until(2)

    assert at.told[1] == ("taken", None)


async def test_what_gathered_while_the_store_was_down_goes_out_in_bounded_batches() -> None:
    async with desk(batch_max=3) as at:
        at.store.gate, at.store.down = anyio.Event(), True
        for n in range(10):
            at.submit(f"k{n}")
        await anyio.wait_all_tasks_blocked()
        at.store.gate.set()
        while len(at.store.sizes) < 3:
            await anyio.lowlevel.checkpoint()
        at.store.down = False
        await at.until(10)

    assert at.names == [f"k{n}" for n in range(10)]
    assert max(at.store.sizes) == 3


async def test_a_commit_submitted_by_a_caller_who_is_refused_is_not_lost() -> None:
    async with desk() as at:
        at.store.trouble = [StoreUnavailable("the disk is full")]
        at.submit("kept")
        at.submit("door", door=True, then=lambda: at.submit("from the door"))
        await at.until(3)

    assert at.names == ["door", "kept", "from the door"]
    assert [answer for _, answer in at.told[1:]] == [None, None]


@pytest.mark.parametrize("error", [FenceLost(1), StoreBroken("damaged")], ids=["fence lost", "broken"])
async def test_a_store_that_is_lost_stops_everything_and_says_so_to_all(error: StoreError) -> None:
    """X39, R14."""
    async with desk() as at:
        at.store.gate, at.store.trouble = anyio.Event(), [error]
        at.submit("a")
        await anyio.wait_all_tasks_blocked()
        at.submit("b")
        at.submit("door", door=True)
        at.store.gate.set()
        await at.until(3)
        at.submit("later")

        assert at.told == [("a", error), ("b", error), ("door", error), ("later", error)]
        assert at.stopped == [error]
        assert at.committer.stopped is error
        assert at.store.sizes == [1]


async def test_a_real_fence_is_lost_to_the_next_holder() -> None:
    """I8."""

    async with desk() as at:
        at.submit("mine")
        await at.until(1)
        other = MemoryStore(share=at.store)
        await other.open(now=1.0)
        at.submit("not mine")
        await at.until(2)

        assert isinstance(at.told[1][1], FenceLost)
        assert await other.find(Address("Shop", "not mine")) is None


async def test_to_stop_tells_all_who_wait_once() -> None:
    async with desk() as at:
        at.store.gate = anyio.Event()
        at.submit("being written")
        await anyio.wait_all_tasks_blocked()
        at.submit("waiting")
        stopped = StoreStopped("the runtime has shut down")
        at.committer.stop(stopped)
        at.committer.stop(StoreStopped("again"))

        assert at.told == [("waiting", stopped)]
        assert at.stopped == [stopped]
        at.store.gate.set()
        await at.until(2)
        assert at.told[1] == ("being written", None)


async def test_to_drain_is_to_wait_for_all_that_was_submitted() -> None:
    async with desk(batch_max=1) as at:
        await at.committer.drain()
        for name in "abc":
            at.submit(name)
        await at.committer.drain()

        assert at.names == ["a", "b", "c"]


async def test_to_drain_a_store_that_stops_ends() -> None:
    async with desk() as at:
        at.store.gate, at.store.trouble = anyio.Event(), [FenceLost(1)]
        at.submit("a")
        async with anyio.create_task_group() as group:
            group.start_soon(at.committer.drain)
            await anyio.wait_all_tasks_blocked()
            at.store.gate.set()

        assert at.committer.stopped is not None


async def test_to_drain_is_bounded() -> None:
    async with desk() as at:
        at.store.gate = anyio.Event()
        at.submit("a")

        await at.committer.drain(within_s=0.001)

        assert at.told == []
