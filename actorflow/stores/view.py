"""`SqliteView`: a database file that is only looked at. It takes no lock, writes nothing, and sees every commit done before."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
from attrs import frozen

from actorflow.errors import StoreBroken, StoreStopped, StoreUnavailable
from actorflow.records import Commit, Lease, Refusal
from actorflow.stores import reader, schema
from actorflow.stores.bridge import Bridge, Home
from actorflow.stores.sqlite import SqliteStore
from actorflow.stores.trouble import FAILURES, as_store_error
from actorflow.value import Value

T = TypeVar("T")


@frozen
class _Looking(Value):
    home: Home
    bridge: Bridge


class SqliteView(SqliteStore):
    """The reading half of a store, for a process that does not hold it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._looking: _Looking | None = None

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        """Open the file to read. The lease gives no right to write.

        Raises:
            StoreUnavailable: It cannot be opened, or is still to be brought to today's schema by a holder.
            StoreBroken, StoreTooNew: It is not ours, or a newer actorflow's.
        """
        async with contextlib.AsyncExitStack() as undo:
            try:
                live = Bridge.home()
                undo.push_async_callback(_shielded, live.close)
                bridge = await self._connect(undo, live, "ro")
                found = await bridge.call(schema.inspect)
                schema.check_ours(found, self._path)
            except FAILURES as error:
                raise as_store_error(error, self._path) from error
            if found.version < len(schema.MIGRATIONS):
                raise StoreUnavailable(
                    f"{self._path} has schema {found.version} of {len(schema.MIGRATIONS)}. Start the service once: it brings it "
                    f"up to date."
                )
            if found.store_id is None:
                raise StoreBroken(f"{self._path} has no row that says which store it is. Restore it from a backup.")
            undo.pop_all()
        self._looking = _Looking(live, bridge)
        return Lease(fence=0, store_id=found.store_id, run_id_last=0, message_id_last=0, interrupted=0)

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        raise StoreStopped("it was opened to read only")

    async def announce(self, **facts: Any) -> None:
        raise StoreStopped("it was opened to read only")

    async def tidy(self) -> None:
        """A reader leaves the file as it is."""

    async def close(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            await _shielded(looking.bridge.close)
            await _shielded(looking.home.close)

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._looking is None:
            raise StoreStopped("it is not open")
        return await self._asked(self._looking.bridge.call, reader.within(function))

    async def _list(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self._read(function)


async def _shielded(close: Callable[[], Any]) -> None:
    with anyio.CancelScope(shield=True), contextlib.suppress(sqlite3.Error):
        await close()
