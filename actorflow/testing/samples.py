"""Small records to fill a store with, and a short way to commit them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen

from actorflow.records import Commit, Entry, Envelope, Lease, Loaded, Refusal, Run, SetState, Write
from actorflow.stores import Store
from actorflow.value import Value


def a_run(id: int = 1, key: str | None = None, **values: Any) -> Run:
    """A run to start with."""
    return evolve(Run(id=id, kind="order", key=key or f"k{id}", status="waiting", input=b'{"n":1}'), **values)


def an_entry(run: int = 1, name: str = "charge", **values: Any) -> Entry:
    """An entry: a step that went well in the trunk, unless said otherwise."""
    plain = Entry(run, 0, "step", "", name, 0, "ok", 1, 1.0, None, b"[]", b"1", None)
    return plain._replace(**values)


def a_message(id: int = 1, run: int = 1, **values: Any) -> Envelope:
    """A message without a key from a client, unless said otherwise."""
    return Envelope(id, run, "paid", None, b"{}", "", 1.0, None, None)._replace(**values)


def waiting(run: int = 1, wake_at: float | None = None, **values: Any) -> SetState:
    """The run waits."""
    return SetState(run=run, status="waiting", reason=None, wake_at=wake_at, crashes=0, at=2.0)._replace(**values)


@frozen
class Held(Value):
    """An open store and its lease, with a short way to commit."""

    store: Store
    lease: Lease

    async def commit(self, *commits: Sequence[Write] | Commit) -> list[Refusal | None]:
        """Commit a batch; plain sequences of writes have no chain."""
        batch = [commit if isinstance(commit, Commit) else Commit(tuple(commit)) for commit in commits]
        return await self.store.commit(batch, fence=self.lease.fence)

    async def loaded(self, run: int = 1) -> Loaded:
        """What resuming a run needs; it must be there."""
        loaded = await self.store.load(run)
        assert loaded is not None
        return loaded
