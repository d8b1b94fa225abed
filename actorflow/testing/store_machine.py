"""A Hypothesis state machine that compares a store with `MemoryStore`, the executable specification.

Random sequences of commits, reopenings and old fences go to both, and after each step everything that can be read is compared.
The domain is small on purpose: two kinds, three keys, a few runs, so that addresses and keys collide all the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorflow.errors import FenceLost
from actorflow.records import (
    URGENT,
    Address,
    Bury,
    Chain,
    Commit,
    Consume,
    Entry,
    Envelope,
    Event,
    Expire,
    Lease,
    Prune,
    Rejected,
    Revive,
    Run,
    RunQuery,
    SetAsideEntries,
    SetCursor,
    SetDead,
    SetEnd,
    SetRound,
    SetState,
    SetView,
    Wake,
    Write,
)
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore

Batch = list[tuple[tuple[Write, ...], int | None]]
"""Writes of each commit, and the number of its chain."""

_runs = st.integers(1, 5)
_moments = st.sampled_from([None, 0.0, 1.0, 2.5])
_payloads = st.binary(max_size=3)
_maybe = st.none() | _payloads
_branches = st.sampled_from(["", "/c#0", "/c#0/d#1", "/c#01", "/d#1"])
_statuses = st.sampled_from(["pending", "running", "waiting", "paused", "undoing", "completed", "failed"])
_kinds = st.sampled_from(["step", "checkpoint", "checkpoint", "patch", "try", "undo", "start", "started", "accepted"])

_new_runs = st.builds(
    Run,
    id=st.integers(1, 6),
    kind=st.sampled_from(["a", "b"]),
    key=st.sampled_from(["x", "y", "z%"]),
    status=_statuses,
    wake_at=_moments,
    parent=st.none() | _runs,
    detached=st.booleans(),
    input=_payloads,
    view=_maybe,
    report=_maybe,
)
_entries = st.builds(
    Entry,
    run=_runs,
    round=st.integers(0, 1),
    kind=_kinds,
    branch=_branches,
    name=st.sampled_from(["c", "d"]),
    n=st.integers(0, 1),
    status=st.sampled_from(["ok", "ok", "failed"]),
    attempt=st.just(1),
    at=st.just(1.0),
    due_at=_moments,
    input=_maybe,
    outcome=_maybe,
    ref=st.sampled_from([None, "m:f"]),
)
_messages = st.builds(
    Envelope,
    id=st.integers(1, 12),
    run=_runs,
    type=st.sampled_from(["t", "~t"]),
    key=st.sampled_from([None, "k", "l"]),
    body=_payloads,
    sender=st.just(""),
    sent_at=st.sampled_from([1.0, 2.0]),
    due_at=_moments,
    reply_to=st.none() | _runs,
    state=st.sampled_from(["pending", "pending", "pending", "done", "dead"]),
    answer=_maybe,
    expires_at=_moments,
)
_states = st.builds(
    SetState,
    run=_runs,
    status=_statuses,
    reason=st.none(),
    wake_at=_moments,
    crashes=st.integers(0, 2),
    at=st.just(3.0),
)
_others = st.one_of(
    _states,
    st.builds(SetView, _runs, _payloads),
    st.builds(SetRound, _runs, st.integers(0, 1), _payloads),
    st.builds(SetEnd, run=_runs, outcome=_maybe, report=_maybe, ended_at=_moments),
    st.builds(Wake, _runs, st.sampled_from([URGENT, 0.0, 1.0, 2.0])),
    st.builds(Bury, _runs),
    st.builds(SetCursor, _runs, st.integers(0, 1), _branches, st.integers(0, 1), _maybe),
    st.builds(SetAsideEntries, _runs, st.lists(st.integers(0, 20), max_size=3).map(tuple)),  # places among the events
    st.builds(Prune, _runs),
)
_fates = st.one_of(
    st.builds(Consume, st.integers(1, 12), _maybe),
    st.builds(SetDead, st.integers(1, 12), _maybe),
    st.builds(Revive, st.integers(1, 12), st.integers(1, 40)),
    st.builds(Expire, _runs, st.sampled_from([1.5, 2.5])),
)
_fates_of_one = st.lists(
    st.one_of(st.builds(Consume, st.just(1), _maybe), st.builds(SetDead, st.just(1), _maybe), st.just(Revive(1, 30))), max_size=6
).map(tuple)
_any_writes = st.lists(st.one_of(_new_runs, _entries, _messages, _others, _others, _fates), max_size=5).map(tuple)
_writes = st.one_of(_any_writes, _any_writes, _any_writes, _fates_of_one)
_batches = st.lists(st.tuples(_writes, st.none() | st.integers(0, 2)), max_size=5)


class _Side:
    """One of the two stores that are compared."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self.make = make
        self.store = make()
        self.lease: Lease
        self.chains = [Chain() for _ in range(3)]
        self.seqs: list[int] = []

    async def open(self, now: float) -> tuple[int, int, int]:
        self.store = self.make()
        self.lease = await self.store.open(now=now)
        return self.lease.run_id_last, self.lease.message_id_last, self.lease.interrupted

    async def commit(self, batch: Batch) -> list[object]:
        commits = [
            Commit(tuple(self._with_seqs(write) for write in writes), None if chain is None else self.chains[chain])
            for writes, chain in batch
        ]
        answers = await self.store.commit(commits, fence=self.lease.fence)
        return ["rejected" if isinstance(answer, Rejected) else answer for answer in answers]

    def _with_seqs(self, write: Write) -> Write:
        """Places among the events as the numbers that this store gave them: gaps mean nothing, so they may differ."""
        if isinstance(write, SetAsideEntries):
            return SetAsideEntries(write.run, tuple(self.seqs[place] for place in write.seqs if place < len(self.seqs)))
        return write

    def _places(self, events: Sequence[Event]) -> list[tuple[int, Entry]]:
        return [(self.seqs.index(seq), entry) for seq, entry in events]

    async def all_that_can_be_read(self) -> dict[str, object]:
        store = self.store
        events = await store.events()
        self.seqs = [event.seq for event in events]
        assert self.seqs == sorted(set(self.seqs))
        seen: dict[str, object] = {
            "events": [event.entry for event in events],
            "runs": await store.runs(RunQuery()),
            "paused": await store.runs(RunQuery(status="paused", key_prefix="z")),
            "actors": await store.runs(RunQuery(actor=True)),
            "children": await store.runs(RunQuery(parent=1, limit=2)),
            "counts": await store.counts(),
            "counts of actors": await store.counts(actor=True),
            "due": await store.due(after=(0.5, 0), limit=3),
            "dead": await store.dead_letters(),
            "dead, a page": await store.dead_letters(after=4, limit=2),
            "found": [await store.find(Address(kind, "x")) for kind in ("a", "b")],
            "taken": sorted(await store.taken([Address(kind, key) for kind in ("a", "b") for key in ("x", "y", "y")])),
            "chains": [chain.broken for chain in self.chains],
        }
        assert await store.load_many((5, 1, 2, 3, 4)) == [await store.load(run) for run in (5, 1, 2, 3, 4)]
        for run in range(1, 6):
            loaded = await store.load(run)
            if loaded is not None:
                seen[f"entries {run}"] = self._places(loaded.entries)
                seen[f"loaded {run}"] = evolve(loaded, entries=())
            seen[f"undoable {run}"] = self._places(await store.undoable(run, 0))
            seen[f"history {run}"] = self._places(await store.history(run, limit=4))
            seen[f"latest {run}"] = self._places(await store.latest(run, limit=3))
            death = await store.death(run, 1)
            seen[f"death {run}"] = self._places([death] if death is not None else [])
            seen[f"message {run}"] = await store.message(run, "k"), await store.dead_letters(run=run, after=1, limit=1)
        return seen


def machine(make: Callable[[Path], Store], *, backend: str) -> type[RuleBasedStateMachine]:
    """A state machine that drives the store that *make* builds in an empty directory, and a `MemoryStore`, side by side.

    Args:
        make: Called again for the same directory, it must build a store over the same data.
        backend: "asyncio" or "trio".
    """

    class EveryStoreBehavesLikeMemory(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.stack = ExitStack()
            self.portal = self.stack.enter_context(start_blocking_portal(backend))
            place = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
            memory = MemoryStore()
            self.sides = _Side(lambda: make(place)), _Side(lambda: MemoryStore(share=memory))
            self.now = 1.0
            self.both(lambda side: side.open(self.now))

        def both(self, act: Callable[[_Side], Awaitable[object]]) -> None:
            """Do the same on both sides, and see the same."""
            tried, specified = (self.portal.call(partial(act, side)) for side in self.sides)
            assert tried == specified

        @rule(batch=_batches)
        def commit(self, batch: Batch) -> None:
            self.both(lambda side: side.commit(batch))

        @rule()
        def new_chains(self) -> None:
            for side in self.sides:
                side.chains = [Chain() for _ in range(3)]

        @rule()
        def reopen(self) -> None:
            self.now += 1.0

            async def again(side: _Side) -> object:
                await side.store.close()
                return await side.open(self.now)

            self.both(again)

        @rule(batch=_batches)
        def commit_with_an_old_fence(self, batch: Batch) -> None:
            async def late(side: _Side) -> object:
                with pytest.raises(FenceLost):
                    await side.store.commit([Commit(writes) for writes, _ in batch], fence=side.lease.fence - 1)
                return None

            self.both(late)

        @rule()
        def tidy(self) -> None:
            self.both(lambda side: side.store.tidy())

        @invariant()
        def all_that_can_be_read_is_the_same(self) -> None:
            self.both(lambda side: side.all_that_can_be_read())

        def teardown(self) -> None:
            for side in self.sides:
                self.portal.call(side.store.close)
            self.stack.close()

    return EveryStoreBehavesLikeMemory
