"""Senders before the door of one receiver: how many are let in at a time, in which order, and what a cancel leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actorflow import Limits
from actorflow.records import Commit, Envelope, Refusal
from actorflow.runtime.loops import current_loop
from actorflow.runtime.queueing import ALONE_S, INSIDE_MAX_ALONE, Queues
from actorflow.stores.memory import MemoryStore
from tests.harness import Log, Note, Read, runtime, virtual

pytestmark = pytest.mark.anyio
SHARED = 3


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Door:
    """Senders who stay inside until they are told to leave."""

    def __init__(self) -> None:
        self.queues = Queues(current_loop(), SHARED)
        self.now = 0.0
        self.inside: list[str] = []
        self._go: dict[str, anyio.Event] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def send(self, name: str, to: str) -> None:
        self._go[name] = anyio.Event()
        self.scopes[name] = anyio.CancelScope()
        with self.scopes[name]:
            queue = await self.queues.enter(to, self.now)
            self.inside.append(name)
            try:
                await self._go[name].wait()
            finally:
                self.inside.remove(name)
                self.queues.leave(to, queue, self.now)

    async def go(self, name: str) -> None:
        self._go[name].set()
        await settled()


async def settled() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_while_others_are_sent_to_a_few_go_to_one_receiver_in_the_order_in_which_they_came() -> None:
    async with anyio.create_task_group() as group:
        door = Door()
        group.start_soon(door.send, "other", "b")
        await settled()
        for n in range(6):
            group.start_soon(door.send, f"a{n}", "a")
            await settled()
        assert door.inside == ["other", "a0", "a1", "a2"]
        await door.go("a1")
        assert door.inside == ["other", "a0", "a2", "a3"]
        await door.go("a0")
        assert door.inside == ["other", "a2", "a3", "a4"]
        group.start_soon(door.send, "b1", "b")
        await settled()
        assert door.inside[-1] == "b1"  # Its own queue is empty: it waits for nobody.
        group.cancel_scope.cancel()


async def test_a_receiver_that_nobody_else_is_beside_may_have_all() -> None:
    async with anyio.create_task_group() as group:
        door = Door()
        for n in range(INSIDE_MAX_ALONE + 5):
            group.start_soon(door.send, f"a{n}", "a")
            await settled()
        assert len(door.inside) == INSIDE_MAX_ALONE
        group.start_soon(door.send, "b", "b")
        await settled()
        assert "b" in door.inside
        for n in range(INSIDE_MAX_ALONE - SHARED + 1):  # From here on they are let in only as far as the few are not all inside.
            await door.go(f"a{n}")
        assert len(door.inside) == SHARED + 1  # And the one of the other receiver.
        assert f"a{INSIDE_MAX_ALONE}" in door.inside
        group.cancel_scope.cancel()


async def test_after_a_second_without_others_it_counts_as_alone_again() -> None:
    async with anyio.create_task_group() as group:
        door = Door()
        group.start_soon(door.send, "b", "b")
        await settled()
        for n in range(SHARED + 2):
            group.start_soon(door.send, f"a{n}", "a")
            await settled()
        assert len(door.inside) == 1 + SHARED
        door.now = ALONE_S
        await door.go("a0")
        assert len(door.inside) == 1 + SHARED + 1  # All that had waited.
        group.cancel_scope.cancel()


@pytest.mark.parametrize("already", [False, True], ids=["waiting", "just_let_in"])
async def test_who_is_cancelled_takes_nobodys_place(*, already: bool) -> None:
    async with anyio.create_task_group() as group:
        door = Door()
        group.start_soon(door.send, "b", "b")
        await settled()
        for n in range(SHARED + 2):
            group.start_soon(door.send, f"a{n}", "a")
            await settled()
        if already:  # In the same breath: it has its place, and does not know yet.
            door._go["a0"].set()
            door.scopes[f"a{SHARED}"].cancel()
        else:
            door.scopes[f"a{SHARED}"].cancel()
            await settled()
            door._go["a0"].set()
        await settled()
        assert door.inside == ["b", "a1", "a2", f"a{SHARED + 1}"]
        for name in list(door.inside):
            await door.go(name)
        assert not door.queues._queues  # Nothing is kept of receivers that nobody sends to.


class Weighed(MemoryStore):
    """Writes down how many messages to one receiver each batch has."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        sent = Counter(write.run for commit in batch for write in commit.writes if isinstance(write, Envelope))
        self.most = max(self.most, *sent.values(), 0)
        return await super().commit(batch, fence=fence)


@pytest.mark.parametrize(("beside", "most"), [(True, 5), (False, 40)], ids=["beside_others", "alone"])
def test_a_flood_of_one_actor_makes_no_batch_large_that_others_wait_for(anyio_backend: str, *, beside: bool, most: int) -> None:
    """P9: and all of it is handled."""

    async def scenario() -> None:
        store = Weighed()
        async with runtime(Log, store=store, limits=Limits(accepted_at_once_max=5)) as opened:
            flooded = opened.at(Log, "flooded")
            await flooded.tell(Note(0))
            if beside:
                await opened.at(Log, "beside").tell(Note(0))
            await gathered([partial(flooded.tell, Note(n), key=str(n)) for n in range(1, 41)])
            assert sorted(await flooded.ask(Read())) == list(range(41))
        assert store.most == most

    virtual("trio" if anyio_backend == "trio" else "asyncio", scenario)


async def gathered(calls: Sequence[Callable[[], Coroutine[Any, Any, object]]]) -> None:
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)
