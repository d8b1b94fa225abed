"""`MemoryStore`: the executable specification of `Store`. What it holds and how writes change it is in `tables`.

Every other store must agree with it under any sequence of calls (`actorflow.testing.store_contract`). It is also what fast
tests run on: the data may outlive a "crash", because opening again makes a new holder over the same data and leaves the
old one with a fence that is worth nothing.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import anyio.lowlevel
from attrs import evolve

from actorflow.errors import FenceLost, StoreStopped
from actorflow.records import (
    ENDED,
    LOG_ONLY,
    Address,
    Bury,
    Commit,
    Entry,
    Envelope,
    Event,
    Lease,
    Loaded,
    Refusal,
    Run,
    RunQuery,
)
from actorflow.stores.tables import Tables, apply, bury, by_id, insert


class MemoryStore:
    """A store that is lost with the process.

    Args:
        share: Another one, whose data this one works on too: a second holder, as after a crash.
        store_id: What the store calls itself; by default something new.

    >>> first = MemoryStore()
    >>> second = MemoryStore(share=first)
    >>> lease = anyio.run(lambda: first.open(now=0.0))
    >>> lease.fence, anyio.run(lambda: second.open(now=0.0)).fence
    (1, 2)
    >>> anyio.run(lambda: first.commit([], fence=lease.fence))
    Traceback (most recent call last):
        ...
    actorflow.errors.FenceLost: the lease with fence 1 is lost: another process owns the store now. Nothing was written.
    """

    url = "memory://"

    def __init__(self, *, share: MemoryStore | None = None, store_id: str | None = None) -> None:
        self._memory: Tables = share._memory if share else Tables(store_id or uuid.uuid4().hex)  # noqa: SLF001  (its own class)
        self._opened = False

    @property
    def _data(self) -> Tables:
        if not self._opened:
            raise StoreStopped("it is not open")
        return self._memory

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        """A new holder, whoever held it before: there is no other process to be afraid of, so `standby` waits for nothing."""
        self._opened, data = True, self._memory
        data.fence += 1
        interrupted = 0
        for run in list(data.runs.values()):
            if run.status == "running":
                interrupted += 1
                data.runs[run.id] = evolve(run, status="waiting", crashes=run.crashes + 1, wake_at=0.0, updated_at=now)
            elif run.status == "undoing":
                data.runs[run.id] = evolve(run, wake_at=0.0, updated_at=now)
        return Lease(
            fence=data.fence,
            store_id=data.store_id,
            run_id_last=data.run_id_last,
            message_id_last=data.message_id_last,
            interrupted=interrupted,
        )

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        """See `Store.commit`. Leaves the loop one tick, as every store does, so that a busy writer starves nobody."""
        data = self._data
        if fence != data.fence:
            raise FenceLost(fence)
        answers = [insert(data, commit) for commit in batch]
        changes = [write for commit, refusal in zip(batch, answers, strict=True) if not refusal for write in commit.writes]
        for write in changes:
            apply(data, write)
        for write in changes:
            if isinstance(write, Bury):
                bury(data, write.run)
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return answers

    async def load(self, run: int) -> Loaded | None:
        data = self._data
        if run not in data.runs:
            return None
        found = data.runs[run]
        return Loaded(
            run=found,
            entries=_replayed(data, found),
            mailbox=data.mailbox(run),
            cursors=[data.cursors[key] for key in sorted(data.cursors) if key[:2] == (run, found.round)],
            children=[
                _light(child)
                for child in by_id(data.runs)
                if child.parent == run and child.status not in ENDED and not child.detached
            ],
        )

    async def load_many(self, runs: Sequence[int]) -> list[Loaded | None]:
        return [await self.load(run) for run in runs]

    async def find(self, address: Address) -> Run | None:
        return self._data.find(address)

    async def taken(self, addresses: Sequence[Address]) -> set[Address]:
        return {address for address in addresses if address in self._data.by_address}

    async def get(self, run: int) -> Run | None:
        return self._data.runs.get(run)

    async def message(self, run: int, key: str) -> Envelope | None:
        return self._data.message(run, key)

    async def due(self, *, after: tuple[float, int], limit: int) -> list[tuple[float, int]]:
        waiting = ((run.wake_at, run.id) for run in self._data.runs.values() if run.wake_at is not None)
        return sorted(moment for moment in waiting if moment > after)[:limit]

    async def runs(self, query: RunQuery) -> list[Run]:
        found = [_light(run) for run in reversed(by_id(self._data.runs)) if _matches(run, query)]
        return found[: query.limit]

    async def counts(self, *, actor: bool | None = None) -> dict[str, int]:
        return dict(Counter(run.status for run in self._data.runs.values() if actor in (None, run.actor)))

    async def history(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        return _journal(self._data, run, lambda seq, _: seq > after)[:limit]

    async def latest(self, run: int, *, limit: int = 10) -> list[Event]:
        events = sorted(_journal(self._data, run, lambda _, __: True), key=lambda event: (event.entry.round, event.seq))
        return events[-limit:] if limit else []

    async def death(self, run: int, message: int) -> Event | None:
        found = _journal(self._data, run, lambda _, entry: entry.kind == "dead" and entry.n == message)
        return found[-1] if found else None

    async def events(self, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        return _events(self._data, lambda seq, _: seq > after)[:limit]

    async def undoable(self, run: int, round: int) -> list[Event]:
        data = self._data

        def wanted(seq: int, entry: Entry) -> bool:
            of_step = entry.kind in ("step", "start") and entry.ref is not None
            return entry.round == round and seq not in data.aside and (of_step or entry.kind == "undo")

        return _journal(data, run, wanted)

    async def dead_letters(self, *, run: int | None = None, after: int = 0, limit: int = 100) -> list[Envelope]:
        later = [message for message in by_id(self._data.messages) if message.id > after]
        return [message for message in later if message.state == "dead" and run in (None, message.run)][:limit]

    async def tidy(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        self._opened = False


# --- what is read ---------------------------------------------------------------------------------------------------


def _replayed(data: Tables, run: Run) -> list[Event]:
    """Entries of the current round that replay sees: no log, not set aside, and not inside a finished checkpoint.

    A `checkpoint` entry closes the scope `<branch>/<name>#<n>`. What lies in there is folded, a patch excepted: its answer
    holds for the whole round.
    """

    def current(seq: int, entry: Entry) -> bool:
        return entry.round == run.round and entry.kind not in LOG_ONLY and seq not in data.aside

    events = _journal(data, run.id, current)
    closed = [
        f"{entry.branch}/{entry.name}#{entry.n}" for _, entry in events if entry.kind == "checkpoint" and entry.status == "ok"
    ]

    def folded(entry: Entry) -> bool:
        inside = any(entry.branch == scope or entry.branch.startswith(scope + "/") for scope in closed)
        return inside and entry.kind != "patch"

    return [event for event in events if not folded(event.entry)]


def _events(data: Tables, wanted: Callable[[int, Entry], bool]) -> list[Event]:
    return [Event(seq, entry) for seq, entry in data.entries.items() if wanted(seq, entry)]


def _journal(data: Tables, run: int, wanted: Callable[[int, Entry], bool]) -> list[Event]:
    return [Event(seq, data.entries[seq]) for seq in data.journals.get(run, ()) if wanted(seq, data.entries[seq])]


def _light(run: Run) -> Run:
    return evolve(run, input=b"", fields=None, view=None, outcome=None)


def _matches(run: Run, query: RunQuery) -> bool:
    wants = ((name, getattr(query, name)) for name in ("kind", "status", "reason", "parent", "actor"))
    equal = all(wanted is None or wanted == getattr(run, name) for name, wanted in wants)
    return (
        equal
        and (query.key_prefix is None or run.key.startswith(query.key_prefix))
        and (query.created_after is None or run.created_at > query.created_after)
        and (query.created_before is None or run.created_at < query.created_before)
        and (query.before_id is None or run.id < query.before_id)
    )
