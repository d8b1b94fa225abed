"""The way to the store: from `--db` to `Operations`. The one place of the command line that knows how they are reached."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from actorflow.cli.exits import UsageError
from actorflow.errors import StoreUnavailable
from actorflow.operations import Operations
from actorflow.runtime.client import Client
from actorflow.runtime.place import Place
from actorflow.stores import Store
from actorflow.stores.view import SqliteView

PATIENCE = "10s"
"""How long a command waits for a service that starts or leaves: a person sits before it."""

Act = Callable[[Operations], Awaitable[int]]
"""What a command does once it is connected; returns its exit code."""


def perform(db: str | None, act: Act) -> int:
    """Connect, do it, disconnect."""

    async def connected() -> int:
        async with connect(store_url(db)) as operations:
            return await act(operations)

    return anyio.run(connected)


def look(db: str | None, at: Callable[[Store], Awaitable[int]]) -> int:
    """Open the file to read, whoever holds it, and look at its rows."""

    async def looking() -> int:
        store = SqliteView(Place.of(store_url(db)).path)
        await store.open(now=0.0)
        try:
            return await at(store)
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()

    return anyio.run(looking)


@asynccontextmanager
async def connect(url: str) -> AsyncGenerator[Operations]:
    """What can be done to the runs of that store."""
    async with Client(url, patience=PATIENCE) as client:
        yield client.operations


def store_url(db: str | None) -> str:
    """The URL that `--db` means; a command line makes no store, so its file must be there.

    Raises:
        UsageError: None was named, or it is none that another process could look into.
        StoreUnavailable: There is no such file.
    """
    if not db:
        raise UsageError("which store? Write --db shop.db, or set ACTORFLOW_DB.")
    scheme, separator, path = db.partition(":///")
    if not separator:
        scheme, path = "sqlite", db
    if scheme != "sqlite" or "://" in path or not path:
        raise UsageError(f"no command can look into {db!r}. Write a file (shop.db), sqlite:///shop.db or sqlite:////srv/shop.db.")
    if not Path(path).is_file():
        raise StoreUnavailable(f"there is no store {path}. See that --db (or ACTORFLOW_DB) names the file that the service uses.")
    return f"sqlite:///{path}"
