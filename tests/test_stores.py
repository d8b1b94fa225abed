"""Every store keeps the contract and behaves like memory, on asyncio and on trio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from actorflow.stores import Store, open_store
from actorflow.stores.memory import MemoryStore
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.store_contract import StoreContract
from actorflow.testing.store_machine import machine

FEW = settings(max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        first = MemoryStore()
        return lambda: MemoryStore(share=first)


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SqliteStore(str(tmp_path / "store.db"), durability="normal")


def _sqlite(place: Path) -> Store:
    return SqliteStore(str(place / "store.db"), durability="normal")


TestSqliteBehavesLikeMemoryOnAsyncio = machine(_sqlite, backend="asyncio").TestCase
TestSqliteBehavesLikeMemoryOnAsyncio.settings = FEW
TestSqliteBehavesLikeMemoryOnTrio = machine(_sqlite, backend="trio").TestCase
TestSqliteBehavesLikeMemoryOnTrio.settings = FEW


def test_a_url_names_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    assert open_store(f"sqlite:///{tmp_path}/a.db").url == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///", "postgres://x"])
def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no store for"):
        open_store(url)
