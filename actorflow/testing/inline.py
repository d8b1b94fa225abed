"""`SqliteStore` without threads, so that it fits virtual time: the same statements on the same file, one after the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

import anyio.lowlevel

from actorflow.errors import StoreStopped
from actorflow.records import Commit, Refusal
from actorflow.stores.bridge import Bridge, Home
from actorflow.stores.sqlite import SqliteStore
from actorflow.stores.statements import CACHED_STATEMENTS_MAX

T = TypeVar("T")


class _Nowhere:
    """No loop is needed."""

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await coroutine

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        raise AssertionError("nothing is started here")

    async def close(self) -> None:
        """Nothing to do."""


class InlineBridge(Bridge):
    """A connection on the thread of its caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @staticmethod
    def home() -> Home:
        return _Nowhere()

    @classmethod
    async def open(cls, home: Home, database: str, *, timeout_s: float) -> Self:  # noqa: ARG003  (nobody lives there)
        connection = sqlite3.connect(
            database, uri=True, isolation_level=None, timeout=timeout_s, cached_statements=CACHED_STATEMENTS_MAX
        )
        return cls(connection)

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return function(self.connection)
        except sqlite3.ProgrammingError as error:
            raise StoreStopped("it was closed") from error

    read = call

    def send(self, function: Callable[[sqlite3.Connection], None]) -> None:
        function(self.connection)

    async def close(self) -> None:
        self.connection.close()


class InlineSqliteStore(SqliteStore):
    """A `SqliteStore` that never leaves its caller's thread. It blocks the loop: for tests in virtual time.

    What reads does not let anybody else go on, so that several reads see the same.
    """

    _bridge = InlineBridge

    @property
    def is_open(self) -> bool:
        return self._held is not None

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        answers = await super().commit(batch, fence=fence)
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return answers

    def drop(self) -> None:
        """Let go of the file as a killed process does: nothing is finished, nothing is written."""
        held, self._held = self._held, None
        if held is not None:
            for bridge in (held.lister, held.reader, held.writer):
                assert isinstance(bridge, InlineBridge)
                bridge.connection.close()
        self._lock.release()
