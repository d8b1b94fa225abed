"""The `Store` protocol: what keeps runs, journals and mailboxes. Small, and free of any database's shape.

Every store must behave like `MemoryStore` under any sequence of calls; `actorflow.testing.store_contract` checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from actorflow.records import Address, Commit, Envelope, Event, Lease, Loaded, Refusal, Run, RunQuery

Durability = Literal["full", "normal"]
"""full: every batch is on the disk before anybody is told (survives a power cut). normal: survives the process, not the power."""


class Store(Protocol):
    """Where everything durable is. One holder at a time; every commit carries its fence.

    All methods may be called from any task of the loop that opened the store; none blocks that loop.
    """

    @property
    def url(self) -> str:
        """What it was opened with."""
        ...

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        """Take the store for writing. On return the lease is durable and every earlier fence is worth nothing.

        Runs that were in a turn ("running") get `crashes + 1` and become "waiting" with `wake_at` 0; those "undoing" get
        `wake_at` 0.

        Args:
            now: Wall-clock moment, for `updated_at`.
            standby: Wait until the present holder is gone, instead of raising `StoreBusy`.
        """
        ...

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        """Make a batch durable, in order; on return it is. One answer a commit: None, or why it alone was refused.

        Writes of one commit are taken together or not at all. A commit whose chain is broken is `Rejected`; a refused
        commit breaks its chain. The rows of the batch are inserted first (runs, entries, envelopes, each in order), then
        all other writes are applied in order, a `Bury` last.

        Raises:
            FenceLost: Another holder owns the store. Nothing was written.
            StoreUnavailable: Nothing was written (no space, read-only); the call may be repeated later.
            StoreBroken: Nothing was acknowledged, and the store takes no more writes.
        """
        ...

    async def load(self, run: int) -> Loaded | None:
        """What resuming a run needs, or None if there is no such run."""
        ...

    async def load_many(self, runs: Sequence[int]) -> list[Loaded | None]:
        """The same for several runs, in their order. What cannot be read of one of them is raised; `load` tells of which."""
        ...

    async def find(self, address: Address) -> Run | None:
        """The run under that address."""
        ...

    async def taken(self, addresses: Sequence[Address]) -> set[Address]:
        """Those of the addresses under which there is a run, or what is left of a pruned one."""
        ...

    async def get(self, run: int) -> Run | None:
        """The run with that number."""
        ...

    async def message(self, run: int, key: str) -> Envelope | None:
        """The message that was accepted by that run under that key, whatever became of it."""
        ...

    async def due(self, *, after: tuple[float, int], limit: int) -> list[tuple[float, int]]:
        """(wake_at, run) of all runs with a `wake_at` and `(wake_at, run) > after`, in that order: a page of a sorted list."""
        ...

    async def runs(self, query: RunQuery) -> list[Run]:
        """Runs that match, newest (largest id) first, without their payloads (`input`, `fields`, `view`, `outcome` are empty;
        `report` is kept)."""
        ...

    async def counts(self, *, actor: bool | None = None) -> dict[str, int]:
        """How many runs there are in each status; of actors only, or of all but them."""
        ...

    async def history(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        """The whole past of a run with `seq > after`, all rounds, folded and set aside ones too, in order."""
        ...

    async def latest(self, run: int, *, limit: int = 10) -> list[Event]:
        """The last events of a run, by round and number, oldest first."""
        ...

    async def death(self, run: int, message: int) -> Event | None:
        """The last entry of kind "dead" of that run with that `n`: why it gave the message up."""
        ...

    async def events(self, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        """The store's log with `seq > after`, in order."""
        ...

    async def undoable(self, run: int, round: int) -> list[Event]:
        """Entries of that round with a `ref`, kind step or start, and every entry of kind undo (with their `undo` tries),
        folded ones too, set-aside ones not; in order."""
        ...

    async def dead_letters(self, *, run: int | None = None, after: int = 0, limit: int = 100) -> list[Envelope]:
        """Messages that were never handled, with `id > after`, oldest first: a page of a list by id."""
        ...

    async def tidy(self) -> None:
        """Housekeeping while nothing else is to do (a WAL checkpoint). Never needed for durability."""
        ...

    async def close(self) -> None:
        """Give the store up at once. Idempotent."""
        ...


def open_store(url: str, *, durability: Durability = "full") -> Store:
    """The store behind a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `memory://` (lost with the process).

    Nothing is opened before `Store.open`.

    Raises:
        ValueError: No store is known for that URL, or the durability is unknown.
    """
    if durability not in ("full", "normal"):
        raise ValueError(f'durability is "full" or "normal", not {durability!r}')
    scheme, _, path = url.partition("://")
    match scheme:
        case "memory":
            from actorflow.stores.memory import MemoryStore  # noqa: PLC0415  (a store that is not used is not imported)

            return MemoryStore()
        case "sqlite" if path.startswith("/") and len(path) > 1:
            from actorflow.stores.sqlite import SqliteStore  # noqa: PLC0415

            return SqliteStore(path[1:], durability=durability)
        case _:
            raise ValueError(f"no store for {url!r}: write sqlite:///file.db, sqlite:////absolute/file.db or memory://")
