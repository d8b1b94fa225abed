"""Reads of one connection: many at a time share their hops, and each still has its own answer."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actorflow.errors import StoreStopped
from actorflow.stores.bridge import READS_MAX, Bridge

pytestmark = pytest.mark.anyio

READS = 3 * READS_MAX


class Counted(Bridge):
    """Counts its hops."""

    hops = 0

    async def _hop(self, *calls: Any) -> None:
        self.hops += 1
        await super()._hop(*calls)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Counted]:
    home = Counted.home()
    opened = await Counted.open(home, f"file:{tmp_path}/a.db", timeout_s=1.0)
    yield opened
    await opened.close()
    await home.close()


class Gate:
    """A read that holds the connection's thread until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.left = threading.Event()

    def __call__(self, _: sqlite3.Connection) -> str:
        self.entered.set()
        assert self.left.wait(10)
        return "gate"

    async def closed(self) -> None:
        """Wait until the thread is held."""
        await anyio.to_thread.run_sync(self.entered.wait)


def number(db: sqlite3.Connection, of: int) -> int:
    return int(db.execute("select ?", (of,)).fetchone()[0])


async def test_reads_that_are_asked_for_at_a_time_are_answered_in_few_hops(bridge: Counted) -> None:
    gate, answers = Gate(), dict[int, int]()

    async def ask(of: int) -> None:
        answers[of] = await bridge.read(lambda db: number(db, of))

    async with anyio.create_task_group() as group:
        group.start_soon(bridge.read, gate)
        await gate.closed()
        for of in range(READS):
            group.start_soon(ask, of)
        await anyio.wait_all_tasks_blocked()
        gate.left.set()

    assert answers == {of: of for of in range(READS)}
    assert bridge.hops == 1 + READS // READS_MAX


async def test_reads_are_answered_in_the_order_in_which_they_were_asked_for(bridge: Counted) -> None:
    gate, order = Gate(), list[int]()

    async with anyio.create_task_group() as group:
        group.start_soon(bridge.read, gate)
        await gate.closed()
        for of in range(READS):
            group.start_soon(bridge.read, lambda _, of=of: order.append(of))
            await anyio.wait_all_tasks_blocked()
        gate.left.set()

    assert order == sorted(order)
    assert len(order) == READS


async def test_a_read_that_fails_fails_alone(bridge: Counted) -> None:
    outcomes: dict[int, object] = {}

    async def ask(of: int) -> None:
        try:
            outcomes[of] = await bridge.read(lambda db: number(db, of) if of % 2 else db.execute("no statement").fetchone()[0])
        except sqlite3.OperationalError as error:
            outcomes[of] = str(error)

    async with anyio.create_task_group() as group:
        for of in range(8):
            group.start_soon(ask, of)

    assert [outcomes[of] for of in (1, 3, 5, 7)] == [1, 3, 5, 7]
    assert all("syntax error" in str(outcomes[of]) for of in (0, 2, 4, 6))


@pytest.mark.parametrize("cancelled", ["the first", "one that gathered"])
async def test_a_read_that_is_cancelled_leaves_the_others_their_answers(bridge: Counted, cancelled: str) -> None:
    gate, answers = Gate(), list[int]()
    scopes = {"the first": anyio.CancelScope(), "one that gathered": anyio.CancelScope()}

    async def first() -> None:
        with scopes["the first"]:
            await bridge.read(gate)

    async def gathered() -> None:
        with scopes["one that gathered"]:
            answers.append(await bridge.read(lambda db: number(db, 1)))

    async def other() -> None:
        answers.append(await bridge.read(lambda db: number(db, 2)))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await gate.closed()
            for each in (gathered, other):
                group.start_soon(each)
                await anyio.wait_all_tasks_blocked()
            scopes[cancelled].cancel()
            gate.left.set()

    assert 2 in answers
    assert (await bridge.read(lambda db: number(db, 3))) == 3


async def test_what_was_asked_for_before_the_end_is_answered(tmp_path: Path) -> None:
    home = Counted.home()
    bridge = await Counted.open(home, f"file:{tmp_path}/a.db", timeout_s=1.0)
    gate, answers = Gate(), list[int]()

    async def ask(of: int) -> None:
        answers.append(await bridge.read(lambda db: number(db, of)))

    async with anyio.create_task_group() as group:
        group.start_soon(bridge.read, gate)
        await gate.closed()
        for of in range(READS):
            group.start_soon(ask, of)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(bridge.close)
        await anyio.wait_all_tasks_blocked()
        gate.left.set()
    await home.close()

    assert sorted(answers) == list(range(READS))
    with pytest.raises(StoreStopped):
        await bridge.read(gate)
