"""Hostile names, filters and pages at the doors of a runtime over a real file."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import field

from actorflow import Actor, Message, Runtime, Workflow, handler
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.clock import Backend
from tests.harness import both

ODD: tuple[str, ...] = (
    *("'", '"', "a'; drop table run; --", "' or '1'='1", "run"),
    *("%", "_", "a%b", "a_b", "axb", "\\", "*", "?", "[a]"),
    *("\u00e9", "e\u0301", "\U0001f600"),  # One letter written in two ways is two keys.
)


class Say(Message[str]):
    word: str


class Echo(Actor):
    words: list[str] = field(factory=list[str])

    @handler
    async def say(self, m: Say) -> str:
        self.words.append(m.word)
        return m.word


class Idle(Workflow[str]):
    word: str

    async def run(self) -> str:
        return (await self.receive(Say)).word


def opened(backend: Backend, store: Any, script: Callable[[Runtime], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(30):
            async with Runtime(actors=[Echo, Idle], store=store, watchdog=None) as runtime:
                await script(runtime)

    anyio.run(main, backend=backend)


@both
def test_quotes_and_wildcards_are_values_in_every_name_and_filter(backend: Backend, tmp_path: Path) -> None:
    """S1."""
    path = tmp_path / "store.db"

    async def script(runtime: Runtime) -> None:
        for word in ODD:
            run = await runtime.start(Idle(word), key=word)
            assert await runtime.at(Echo, word).ask(Say(word), key=word) == word
            assert await runtime.at(Echo, word).ask(Say(word), key=word) == word
            assert {info.key for info in (await runtime.runs(key_prefix=word)).runs} == {
                key for key in ODD[: ODD.index(word) + 1] if key.startswith(word)
            }
            for filters in ({"kind": word}, {"status": word}, {"reason": word}):
                assert (await runtime.runs(**filters)).runs == ()
            await run.tell(Say(word), key=word)
            assert await run.result() == word
            assert (await run.status()).key == word
        assert len((await runtime.runs()).runs) == len((await runtime.actors()).runs) == len(ODD)

    opened(backend, SqliteStore(str(path)), script)

    db = sqlite3.connect(path)
    assert db.execute("select count(*) from run where status = 'completed'").fetchone() == (len(ODD),)
    db.close()


class Spied(SqliteStore):
    """Remembers how many rows it was asked for."""

    limits: list[int]

    async def runs(self, query: Any) -> Any:
        self.limits.append(query.limit)
        return await super().runs(query)

    async def history(self, run: int, *, after: int = 0, limit: int = 1_000) -> Any:
        self.limits.append(limit)
        return await super().history(run, after=after, limit=limit)

    async def latest(self, run: int, *, limit: int = 10) -> Any:
        self.limits.append(limit)
        return await super().latest(run, limit=limit)

    async def dead_letters(self, *, run: int | None = None, after: int = 0, limit: int = 100) -> Any:
        self.limits.append(limit)
        return await super().dead_letters(run=run, after=after, limit=limit)


@both
@pytest.mark.parametrize("limit", [10**30, 0, -7])
def test_no_list_is_without_a_bound(backend: Backend, tmp_path: Path, limit: int) -> None:
    """S22: whatever is asked for, a page holds something and not too much."""
    store = Spied(str(tmp_path / "store.db"))
    store.limits = []

    async def script(runtime: Runtime) -> None:
        runs = [await runtime.start(Idle(word), key=word) for word in ODD]
        await runtime.at(Echo, "e").ask(Say("x"))
        at = runs[0].address
        store.limits.clear()
        page = await runtime.runs(limit=limit)
        assert len(page.runs) == (1 if limit < 1 else len(ODD))
        assert (page.next is not None) == (limit < 1)
        assert len((await runtime.actors(limit=limit)).runs) == 1
        assert await runs[0].history(limit=limit)
        assert await runtime.operations.latest(at, limit=limit)
        assert (await runtime.dead_letters(limit=limit)).letters == ()
        assert store.limits
        assert 1 <= min(store.limits) <= max(store.limits) <= 10_000

    opened(backend, store, script)
