"""Starting and awaiting runs from a run, where it cannot go well: the refusal is an outcome, recorded and raised on replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from actorflow import Abort, KeyTaken, Message, Run, RunPaused, StoreUnavailable, UnknownKind, UnknownRun, Workflow, gather
from actorflow.errors import ChildFailed, RunPruned
from actorflow.records import Address, Commit, Entry, Envelope, Refusal, Write
from actorflow.runtime.children import Awaiting
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import because, both, runtime, virtual


class Leaf(Workflow[int]):
    n: int = 0
    for_s: float = 0.0

    async def run(self) -> int:
        await self.sleep(self.for_s)
        if self.n < 0:
            raise Abort("negative")
        return self.n


class Elsewhere(Workflow[int]):
    async def run(self) -> int:
        return 1


class Parent(Workflow[str]):
    what: str

    async def run(self) -> str:
        try:
            said = await self.tried()
        except Exception as error:
            said = f"{type(error).__name__} {type(error.__cause__).__name__}"
        await self.sleep("1h")  # It is loaded again, and replays.
        return str(said)

    async def tried(self) -> Any:
        match self.what:
            case "unknown kind":
                await self.start(Elsewhere(), key="e")
            case "other input":
                await self.start(Leaf(2), key="taken")
            case "same input":
                return await (await self.start(Leaf(1), key="taken")).result()
            case "pruned":
                await self.start(Leaf(3), key="pruned")
            case "nobody":
                return await Run(Leaf, "nobody").result()
            case "ended":
                return await Run(Leaf, "taken").result()
            case "somebody else's":
                return await Run(Leaf, "slow").result()
            case "detached":
                return await (await self.start(Leaf(5, 2.0), key="detached", detached=True)).result()
            case "failed":
                return await (await self.start(Leaf(-1), key="failed")).result()
        raise AssertionError(self.what)


SAID = {
    "unknown kind": f"{UnknownKind.__name__} NoneType",
    "other input": f"{KeyTaken.__name__} NoneType",
    "same input": "1",
    "pruned": f"{RunPruned.__name__} NoneType",
    "nobody": f"{UnknownRun.__name__} NoneType",
    "ended": "1",
    "somebody else's": "4",
    "detached": "5",
    "failed": f"{ChildFailed.__name__} StepFailed",
}


@both
@pytest.mark.parametrize("what", list(SAID))
def test_what_a_parent_is_told_is_the_same_after_a_restart(backend: Backend, what: str) -> None:
    async def main() -> str:
        memory = MemoryStore()
        async with runtime(Parent, Leaf, store=memory) as opened:
            await (await opened.start(Leaf(1), key="taken")).result()
            pruned = await opened.start(Leaf(3), key="pruned")
            await pruned.result()
            await pruned.prune()
            await opened.start(Leaf(4, 5.0), key="slow")
            await opened.start(Parent(what), key="p")
            await anyio.sleep(10.0)
        async with runtime(Parent, Leaf, store=MemoryStore(share=memory)) as opened:
            return await opened.run(Parent, "p").result()

    assert virtual(backend, main) == SAID[what]


class Family(Workflow[int]):
    """So many children at a time, and a message that comes in between."""

    children: int

    async def run(self) -> int:
        return sum(await gather([self.called(), *(self.one(n) for n in range(self.children))]))

    async def called(self) -> int:
        return (await self.receive(Call)).n

    async def one(self, n: int) -> int:
        return await (await self.start(Leaf(n, for_s=1.0 + n % 7), key=f"{self.me.key}/{n}")).result()


class Call(Message[None]):
    n: int


@both
def test_the_end_of_a_child_is_offered_to_who_waits_for_it_and_to_nobody_else(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a family of hundreds looks at each of its members whenever one of them ends."""
    offered: list[str] = []
    offer = Awaiting.offer

    def noted(call: Awaiting, envelope: Envelope) -> Any:
        offered.append(envelope.sender)
        return offer(call, envelope)

    monkeypatch.setattr(Awaiting, "offer", noted)

    async def scenario() -> None:
        async with runtime(Family, Leaf) as opened:
            run = await opened.start(Family(60), key="f")
            await anyio.sleep(3)
            await run.tell(Call(1000))
            assert await run.result() == sum(range(60)) + 1000
            host = opened._running()
            assert not host.resident

    virtual(backend, scenario)
    assert sorted(offered) == sorted(f"Leaf/f/{n}" for n in range(60))


class Watched(MemoryStore):
    """Counts what it is asked, and what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []  #: how many addresses at a time
        self.found = 0  #: addresses one by one
        self.errors: tuple[Exception, ...] = ()
        self.commits: list[list[str]] = []  #: the kinds of entries of each

    async def taken(self, addresses: Sequence[Address]) -> set[Address]:
        self.asked.append(len(addresses))
        if self.errors:
            error, self.errors = self.errors[0], self.errors[1:]
            raise error
        return await super().taken(addresses)

    async def find(self, address: Address) -> Any:
        self.found += 1
        return await super().find(address)

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        self.commits.extend([write.kind for write in commit.writes if isinstance(write, Entry)] for commit in batch)
        return await super().commit(batch, fence=fence)


class Crowd(Workflow[list[int]]):
    """As many children at a time as it is told, all of one second."""

    keys: list[str]

    async def run(self) -> list[int]:
        return await gather(self.one(key) for key in self.keys)

    async def one(self, key: str) -> int:
        return await (await self.start(Leaf(1, for_s=1.0), key=key)).result()


async def _crowd(store: Watched, keys: list[str]) -> list[int]:
    async with runtime(Crowd, Leaf, store=store) as opened:
        await (await opened.start(Leaf(1, for_s=1.0), key="there")).result()
        store.asked, store.found, store.commits = [], 0, []
        return await (await opened.start(Crowd(keys), key="c")).result()


@both
def test_hundreds_of_children_are_looked_up_at_once_and_their_starts_and_ends_share_commits(backend: Backend) -> None:
    store = Watched()

    assert virtual(backend, lambda: _crowd(store, [str(n) for n in range(300)])) == [1] * 300
    assert (store.asked, store.found) == ([300], 0)
    for kind in ("start", "result"):
        together = [kinds.count(kind) for kinds in store.commits if kind in kinds]
        assert sum(together) == 300
        assert len(together) <= 75
        assert max(together) == (4 if kind == "start" else 32)


@both
def test_of_many_children_those_that_are_there_already_are_joined_and_the_others_started(backend: Backend) -> None:
    store = Watched()

    assert virtual(backend, lambda: _crowd(store, ["a", "there", "b"])) == [1, 1, 1]
    assert [kinds for kinds in store.commits if "started" in kinds and "start" in kinds] == [["started", "start"] * 2]


@both
def test_two_branches_that_start_one_child_at_once_have_one_child(backend: Backend) -> None:
    store = Watched()

    assert virtual(backend, lambda: _crowd(store, ["a", "b", "a"])) == [1, 1, 1]
    assert sorted(run.key for run in store._memory.runs.values()) == ["a", "b", "c", "there"]


@both
@pytest.mark.parametrize("error", [StoreUnavailable("the disk is away"), LookupError("no such thing")])
def test_when_many_cannot_be_looked_up_at_once_each_is_looked_up_by_itself(backend: Backend, error: Exception) -> None:
    store = Watched()
    store.errors = (error,)

    assert virtual(backend, lambda: _crowd(store, ["a", "there", "b"])) == [1, 1, 1]
    assert store.found >= 3


def _fails(message: Call) -> bool:
    raise LookupError("no such thing")


class Picky(Workflow[int]):
    """Its `where` fails at a message that was there before it looked, or that comes when its time is over."""

    within_s: float

    async def run(self) -> int:
        await self.sleep(1.0)
        await self.start(Leaf(7), key="leaf")
        call = await self.receive(Call, where=_fails, within=self.within_s)
        return 0 if call is None else call.n


@both
@pytest.mark.parametrize("after", [None, 3.0])
def test_a_where_that_fails_pauses_the_run_and_keeps_what_was_recorded_before(backend: Backend, after: float | None) -> None:
    async def main() -> None:
        async with runtime(Picky, Leaf) as opened:
            run = await opened.start(Picky(2.0), key="p")
            await run.tell(Call(1), after=after)
            await anyio.sleep(10.0)
            assert (await run.status()).status == "paused"
            with pytest.raises(RunPaused) as caught:
                await run.result()
            because(caught.value, "bug")
            kinds = [each.kind for each in await run.history()]
            assert "receive" not in kinds
            assert kinds[-1] == "paused"
            assert kinds.count("start") == 1

    virtual(backend, main)


@both
def test_a_run_does_not_rest_before_it_was_shown_the_end_of_its_child(backend: Backend) -> None:
    """The ends of several are shown together. A crash in between, or leaving memory, must not forget the first of them."""

    async def main() -> list[int]:
        async with runtime(Crowd, Leaf) as opened:
            run = await opened.start(Crowd(["a", "b"]), key="c")
            await anyio.sleep(0.5)
            host = opened._running()
            parent = host.by_address[Address("Crowd", "c")]
            assert parent.idle
            end = b'{"of":"Leaf/a","status":"completed","outcome":"5"}'
            parent.arrived(host.envelope(parent.run.id, "~child", end, sender="Leaf/a"))

            writes: list[Write] = []
            parent.place(writes)  # As when something else is recorded of it.

            assert parent.wake_at == 0.0
            assert not parent.idle
            return await run.result()

    assert virtual(backend, main) == [5, 1]


class Torn(Workflow[int]):
    """A gather that fails as soon as its first child is started, beside one that goes on."""

    async def run(self) -> int:
        return sum(await gather(self.failing(), self.good()))

    async def failing(self) -> int:
        try:
            await gather(self.stops(), *(self.one(f"lost {n}") for n in range(12)))
        except LookupError:
            return 100
        return 0

    async def stops(self) -> int:
        await self.start(Leaf(1, for_s=1.0), key="first")
        raise LookupError("that was all")

    async def good(self) -> int:
        return sum(await gather(self.one(f"kept {n}") for n in range(12)))

    async def one(self, key: str) -> int:
        return await (await self.start(Leaf(1, for_s=1.0), key=key)).result()


@both
def test_children_whose_branch_is_gone_are_not_started_and_those_behind_them_are(backend: Backend) -> None:
    store = Watched()

    async def main() -> int | None:
        async with runtime(Torn, Leaf, store=store) as opened:
            run = await opened.start(Torn(), key="t")
            with anyio.move_on_after(60.0):
                return await run.result()
            return None

    assert virtual(backend, main) == 112
    assert sorted(run.key for run in store._memory.runs.values()) == sorted(["first", "t", *(f"kept {n}" for n in range(12))])
