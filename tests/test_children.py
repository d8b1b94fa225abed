"""Starting and awaiting runs from a run, where it cannot go well: the refusal is an outcome, recorded and raised on replay."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import Abort, KeyTaken, Message, Run, UnknownKind, UnknownRun, Workflow, gather
from actorflow.errors import ChildFailed, RunPruned
from actorflow.records import Envelope
from actorflow.runtime.children import Awaiting
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import both, runtime, virtual


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
