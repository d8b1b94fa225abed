"""Pools: each key has its actor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from actorflow import Actor, BadDefinition, BadKey, Message, Pool, Runtime, Workflow, handler
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from tests.harness import both


class Work(Message[str]):
    key: str


class Resizer(Actor):
    @handler
    async def work(self, m: Work) -> str:
        return self.me.key


class Quick(Actor, durable=False):
    @handler
    async def work(self, m: Work) -> str:
        return self.me.key


class Front(Actor):
    @handler
    async def work(self, m: Work) -> str:
        return await Pool(Resizer, size=4).at(m.key).ask(m)


def test_a_key_has_the_same_actor_for_ever_and_keys_are_spread() -> None:
    pool = Pool(Resizer, size=16)

    assert pool.slot("photo-7") == "5 of 16"
    counts = Counter(pool.slot(f"photo-{n}") for n in range(16_000))
    assert len(counts) == 16
    assert min(counts.values()) > 800
    assert pool == Pool(Resizer, size=16)
    assert str(pool.at("photo-7")) == "Resizer/5 of 16"


@both
def test_a_pool_is_reached_from_outside_and_from_turns(backend: Backend) -> None:
    async def scenario() -> None:
        async with Runtime(actors=[Resizer, Quick, Front], clock=LoopClock()) as runtime:
            pool = Pool(Resizer, size=4)
            assert await runtime.at(pool, "a").ask(Work("a")) == pool.slot("a")
            assert await runtime.at(Front, "f").ask(Work("a")) == pool.slot("a")
            quick = Pool(Quick, size=4)
            assert await runtime.at(quick, "b").ask(Work("b")) == quick.slot("b")

    run_virtual(scenario, backend=backend)


class Once(Workflow[int]):
    async def run(self) -> int:
        return 1


@pytest.mark.parametrize("size", [0, -1, 10_001, 1.5, True, "4"])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(BadDefinition, match="size is"):
        Pool(Resizer, size=size)


def test_what_has_no_handlers_is_refused_and_so_is_a_bad_key() -> None:
    with pytest.raises(BadDefinition, match="derived from Actor"):
        Pool(Once, size=2)
    with pytest.raises(BadDefinition, match="derived from Actor"):
        Pool(int, size=2)  # type: ignore[type-var]
    with pytest.raises(BadKey):
        Pool(Resizer, size=2).at("")
