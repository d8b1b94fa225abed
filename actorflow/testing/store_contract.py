"""What every `Store` must do, as tests to be run against yours.

`StoreContract` says it in sentences. `machine` makes a Hypothesis state machine that compares a store with `MemoryStore`, the
executable specification, under random sequences of commits, reopenings and old fences, looking at everything that can be read
after each step.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda: MyStore(tmp_path / "store")  # each one over the same data

    TestMyStoreBehavesLikeMemory = machine(MyStore, backend="asyncio").TestCase
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import evolve, frozen
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorflow.errors import FenceLost, StoreStopped
from actorflow.records import (
    Address,
    Bury,
    Chain,
    Commit,
    Consume,
    Duplicate,
    Entry,
    Envelope,
    Event,
    Lease,
    Loaded,
    Prune,
    Refusal,
    Rejected,
    Run,
    RunQuery,
    SetAsideEntries,
    SetCursor,
    SetEnd,
    SetRound,
    SetState,
    SetView,
    Taken,
    Wake,
    Write,
)
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore

T = TypeVar("T")


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
    return evolve(SetState(run=run, status="waiting", reason=None, wake_at=wake_at, crashes=0, at=2.0), **values)


@frozen
class Held:
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


@pytest.mark.anyio
class StoreContract:
    """Give it a fixture `make`: a function without arguments that makes a store, each time over the same data."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        raise NotImplementedError

    @pytest.fixture
    async def held(self, make: Callable[[], Store]) -> AsyncIterator[Held]:
        store = make()
        lease = await store.open(now=1.0)
        yield Held(store, lease)
        await store.close()

    # --- taking the store ---------------------------------------------------------------------------------------------

    async def test_what_was_committed_is_there_after_opening_again(self, make: Callable[[], Store]) -> None:
        first = make()
        before = await first.open(now=1.0)
        await first.commit([Commit((a_run(7), an_entry(7), a_message(9, 7)))], fence=before.fence)
        await first.close()
        second = make()

        after = await second.open(now=2.0)

        loaded = await second.load(7)
        assert loaded is not None
        assert (loaded.run, [event.entry for event in loaded.entries]) == (a_run(7), [an_entry(7)])
        assert loaded.mailbox == [a_message(9, 7)]
        assert after.fence > before.fence
        assert (after.store_id, after.run_id_last, after.message_id_last) == (before.store_id, 7, 9)
        await second.close()

    async def test_a_number_is_remembered_after_its_message_is_gone(self, make: Callable[[], Store]) -> None:
        first = make()
        lease = await first.open(now=1.0)
        await first.commit([Commit((a_run(), a_message(5)))], fence=lease.fence)
        await first.commit([Commit((Consume(5, None),))], fence=lease.fence)
        await first.close()
        second = make()

        assert (await second.open(now=2.0)).message_id_last == 5

        await second.close()

    async def test_runs_in_a_turn_count_a_crash_and_runs_that_undo_go_on(self, make: Callable[[], Store]) -> None:
        first = make()
        lease = await first.open(now=1.0)
        runs = (a_run(1, status="running", crashes=1), a_run(2, status="undoing"), a_run(3, status="paused", reason="ask"))
        await first.commit([Commit(runs)], fence=lease.fence)
        await first.close()
        second = make()

        assert (await second.open(now=9.0)).interrupted == 1

        assert await second.get(1) == evolve(runs[0], status="waiting", crashes=2, wake_at=0.0, updated_at=9.0)
        assert await second.get(2) == evolve(runs[1], wake_at=0.0, updated_at=9.0)
        assert await second.get(3) == runs[2]
        await second.close()

    async def test_another_fence_writes_nothing(self, held: Held) -> None:
        with pytest.raises(FenceLost):
            await held.store.commit([Commit((a_run(),))], fence=held.lease.fence - 1)

        assert await held.store.counts() == {}

    async def test_a_closed_store_takes_nothing_and_may_be_closed_again(self, held: Held) -> None:
        await held.store.close()
        await held.store.close()

        with pytest.raises(StoreStopped):
            await held.commit([a_run()])
        with pytest.raises(StoreStopped):
            await held.store.get(1)

    # --- commits ------------------------------------------------------------------------------------------------------

    async def test_an_empty_batch_and_an_empty_commit_are_taken(self, held: Held) -> None:
        assert (await held.commit(), await held.commit(())) == ([], [None])

    async def test_a_used_address_refuses_its_commit_and_no_other(self, held: Held) -> None:
        first = a_run(1, "same")
        await held.commit([first])

        answers = await held.commit([a_run(2)], [an_entry(3), a_run(3, "same")], [a_run(4)])

        assert answers == [None, Taken(first), None]
        assert await held.store.counts() == {"waiting": 3}
        assert await held.store.events() == []

    async def test_a_used_message_key_shows_the_message_it_was_used_for(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2)])
        await held.commit([a_message(1, key="k")])
        await held.commit([Consume(1, b'"yes"')])

        answers = await held.commit([a_message(2, key="k", body=b"2")], [a_message(3, 2, key="k")])

        assert answers == [Duplicate(a_message(1, key="k", state="done", answer=b'"yes"')), None]
        assert (await held.loaded()).mailbox == []

    async def test_the_second_of_two_in_one_batch_is_refused(self, held: Held) -> None:
        answers = await held.commit([a_run(1, "same")], [a_run(2, "same")])

        assert answers == [None, Taken(a_run(1, "same"))]

    async def test_a_refused_commit_takes_what_follows_from_it_along(self, held: Held) -> None:
        await held.commit([a_run(1, "same")])
        chain, other = Chain(), Chain()
        batch = [
            Commit((an_entry(name="before"),), chain),
            Commit((a_run(2, "same"),), chain),
            Commit((an_entry(name="after"),), chain),
            Commit((an_entry(name="other"),), other),
        ]

        answers = await held.commit(*batch)
        late = await held.commit(Commit((an_entry(name="late"),), chain))

        assert [type(answer) for answer in answers] == [type(None), Taken, Rejected, type(None)]
        assert isinstance(late[0], Rejected)
        assert (chain.broken, other.broken) == (True, False)
        assert [event.entry.name for event in await held.store.events()] == ["before", "other"]

    async def test_a_value_that_cannot_be_stored_refuses_its_commit_alone_or_round_trips(self, held: Held) -> None:
        odd = [a_run(1, "\ud800"), a_run(2, seed=2**63), a_run(3, "nul\0nul"), a_run(4, "plain")]

        answers = await held.commit(*([run] for run in odd))

        for run, answer in zip(odd, answers, strict=True):
            if answer is None:
                assert await held.store.get(run.id) == run
            else:
                assert isinstance(answer, Rejected)
                assert await held.store.get(run.id) is None
        assert answers[-1] is None

    async def test_many_rows_in_one_batch_keep_their_order(self, held: Held) -> None:
        await held.commit([a_run()], *([an_entry(n=n)] for n in range(700)))

        events = await held.store.events(limit=701)

        assert [event.entry.n for event in events] == list(range(700))
        assert [event.seq for event in events] == sorted({event.seq for event in events})

    # --- states -------------------------------------------------------------------------------------------------------

    async def test_wake_touches_only_waiting_runs_and_only_earlier(self, held: Held) -> None:
        await held.commit([a_run(1), a_run(2, wake_at=5.0), a_run(3, status="paused"), a_run(4, wake_at=1.0)])

        await held.commit([Wake(run, 3.0) for run in (1, 2, 3, 4)])

        assert [(await held.loaded(run)).run.wake_at for run in (1, 2, 3, 4)] == [3.0, 3.0, None, 1.0]
        assert await held.store.due(after=(-1.0, 0), limit=2) == [(1.0, 4), (3.0, 1)]

    async def test_a_later_state_overwrites_a_wake_and_a_later_wake_adds_to_a_state(self, held: Held) -> None:
        await held.commit([a_run(1), a_run(2), a_run(3)])

        await held.commit(
            [Wake(1, 1.0), waiting(1, wake_at=4.0)],
            [waiting(2, wake_at=4.0), Wake(2, 1.0)],
            [waiting(3, status="paused", reason="ask"), Wake(3, 1.0)],
        )

        assert [(await held.loaded(run)).run.wake_at for run in (1, 2, 3)] == [4.0, 1.0, None]

    async def test_an_end_changes_what_it_names_and_keeps_the_rest(self, held: Held) -> None:
        await held.commit([a_run(view=b"old")])

        await held.commit([SetEnd(run=1, outcome=b"1", report=b"r")], [SetEnd(run=1, ended_at=3.0), SetView(1, b"new")])

        assert await held.store.get(1) == a_run(outcome=b"1", report=b"r", ended_at=3.0, view=b"new")

    async def test_a_new_round_hides_the_entries_and_cursors_of_earlier_ones(self, held: Held) -> None:
        await held.commit([a_run(), an_entry(), SetCursor(1, 0, "", 0, b"{}")])

        await held.commit([SetRound(1, 1, b"f"), an_entry(name="new", round=1), SetCursor(1, 1, "", 0, b"[]")])

        loaded = await held.loaded()
        assert (loaded.run.round, loaded.run.fields) == (1, b"f")
        assert [event.entry.name for event in loaded.entries] == ["new"]
        assert loaded.cursors == [SetCursor(1, 1, "", 0, b"[]")]
        assert [event.entry.round for event in await held.store.history(1)] == [0, 1]

    async def test_a_pruned_run_leaves_a_tombstone_if_it_has_ended(self, held: Held) -> None:
        everything: list[Write] = [an_entry(), a_message(key="k"), SetCursor(1, 0, "", 0, b"{}")]
        await held.commit([a_run(1, status="completed", ended_at=3.0), a_run(2), an_entry(2), *everything])

        await held.commit([Prune(1), Prune(2)])

        loaded = await held.loaded()
        assert loaded == Loaded(run=Run(id=1, kind="order", key="k1", status="completed", ended_at=3.0), entries=[], mailbox=[], cursors=[], children=[])  # fmt: skip
        assert [event.entry.run for event in await held.store.events()] == [2]
        assert await held.store.message(1, "k") is None
        assert isinstance((await held.commit([a_run(3, "k1")]))[0], Taken)

    # --- messages -----------------------------------------------------------------------------------------------------

    async def test_a_consumed_message_is_kept_only_if_somebody_may_ask_again(self, held: Held) -> None:
        await held.commit([a_run(), a_message(1), a_message(2, key="k"), a_message(3, reply_to=1), a_message(4)])

        await held.commit([Consume(1, None), Consume(2, b"1"), Consume(3, None), Consume(2, None), Consume(77, b"")])

        assert (await held.loaded()).mailbox == [a_message(4)]
        assert await held.store.message(1, "k") == a_message(2, key="k", state="done", answer=b"1")

    async def test_messages_of_an_ended_run_are_dead_letters_but_for_the_systems(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), a_message(1), a_message(2, type="~cancel"), a_message(3, 2)])

        await held.commit([Bury(1), a_message(4)])

        assert await held.store.dead_letters() == [a_message(1, state="dead"), a_message(4, state="dead")]
        assert await held.store.dead_letters(run=2) == []
        assert (await held.loaded()).mailbox == []
        assert (await held.loaded(2)).mailbox == [a_message(3, 2)]

    # --- what replay sees -----------------------------------------------------------------------------------------------

    async def test_what_is_inside_a_finished_checkpoint_is_folded(self, held: Held) -> None:
        scope = "/pay#0"
        inside = [an_entry(name="in", branch=scope), an_entry(name="deep", branch=f"{scope}/more#2")]
        kept = [
            an_entry(name="flag", branch=scope, kind="patch"),
            an_entry(name="beside", branch="/pay#01"),
            an_entry(name="pay", kind="checkpoint"),
            an_entry(name="open", branch="/pay#1"),
            an_entry(name="pay", n=1, kind="checkpoint", status="failed"),
        ]
        await held.commit([a_run(), *inside, *kept])

        entries = (await held.loaded()).entries

        assert [event.entry for event in entries] == kept
        assert len(await held.store.history(1)) == len(inside) + len(kept)

    async def test_what_was_set_aside_is_history(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), *(an_entry(n=n, ref="m:f") for n in range(3)), an_entry(2)])
        seqs = [event.seq for event in await held.store.events()]

        await held.commit([SetAsideEntries(1, (seqs[1], seqs[3]))])  # The last is another run's.

        assert [event.entry.n for event in (await held.loaded()).entries] == [0, 2]
        assert [event.entry.n for event in await held.store.undoable(1, 0)] == [0, 2]
        assert len((await held.loaded(2)).entries) == 1
        assert len(await held.store.history(1)) == 3

    async def test_a_set_aside_checkpoint_folds_nothing(self, held: Held) -> None:
        await held.commit([a_run(), an_entry(branch="/pay#0"), an_entry(name="pay", kind="checkpoint")])

        await held.commit([SetAsideEntries(1, ((await held.store.events())[1].seq,))])

        assert [event.entry.branch for event in (await held.loaded()).entries] == ["/pay#0"]

    async def test_events_of_a_runs_life_are_for_the_log_alone(self, held: Held) -> None:
        await held.commit([a_run(), an_entry(kind="started"), an_entry(), an_entry(kind="accepted")])

        assert [event.entry.kind for event in (await held.loaded()).entries] == ["step"]
        assert [event.entry.kind for event in await held.store.events()] == ["started", "step", "accepted"]

    async def test_what_may_be_undone_is_found_in_folds_too(self, held: Held) -> None:
        wanted = [
            an_entry(branch="/pay#0", ref="m:f"),
            an_entry(kind="start", ref="m:f"),
            an_entry(kind="undo", status="failed"),
        ]
        await held.commit([a_run(), *wanted, an_entry(), an_entry(kind="tell", ref="k"), an_entry(round=1, ref="m:f")])
        await held.commit([an_entry(name="pay", kind="checkpoint")])

        assert [event.entry for event in await held.store.undoable(1, 0)] == wanted

    async def test_children_are_those_that_go_on_and_belong_to_the_run(self, held: Held) -> None:
        child = a_run(2, parent=1)
        await held.commit([a_run(), child, a_run(3, parent=1, detached=True), a_run(4, parent=1, status="failed"), a_run(5)])

        assert (await held.loaded()).children == [evolve(child, input=b"")]

    # --- lists --------------------------------------------------------------------------------------------------------

    async def test_runs_are_listed_newest_first_and_without_payloads(self, held: Held) -> None:
        payloads: dict[str, Any] = {"fields": b"f", "view": b"v", "outcome": b"o", "report": b"r"}
        await held.commit([a_run(1, **payloads), a_run(2, status="paused", reason="bug"), a_run(3, "x%", kind="cart", parent=1)])

        async def found(**query: Any) -> list[int]:
            return [run.id for run in await held.store.runs(RunQuery(**query))]

        assert (await held.store.runs(RunQuery()))[-1] == a_run(1, input=b"", report=b"r")
        assert await found() == [3, 2, 1]
        assert await found(limit=2) == [3, 2]
        assert await found(before_id=3, limit=1) == [2]
        assert await found(kind="cart") == await found(key_prefix="x%") == await found(parent=1) == [3]
        assert await found(status="paused") == await found(reason="bug") == await found(status="paused", kind="order") == [2]
        assert await found(key_prefix="k_") == await found(parent=1, status="paused") == await found(created_after=0.0) == []
        assert await held.store.find(Address("cart", "x%")) is not None
        assert await held.store.find(Address("order", "x%")) is None

    async def test_events_are_read_in_pages(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), *(an_entry(1 + n % 2, n=n) for n in range(6))])
        first = await held.store.events(limit=4)

        rest = await held.store.events(after=first[-1].seq)

        assert [event.entry.n for event in (*first, *rest)] == list(range(6))
        assert [event.entry.n for event in await held.store.history(2, after=first[1].seq, limit=1)] == [3]

    async def test_tidying_changes_nothing(self, held: Held) -> None:
        await held.commit([a_run(), an_entry()])
        before = await held.loaded()

        await held.store.tidy()

        assert await held.loaded() == before
        assert await held.commit([a_run(2)]) == [None]


# --- the comparison with memory ---------------------------------------------------------------------------------------

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
    sent_at=st.just(1.0),
    due_at=_moments,
    reply_to=st.none() | _runs,
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
    st.builds(Wake, _runs, st.sampled_from([0.0, 1.0, 2.0])),
    st.builds(Consume, st.integers(1, 12), _maybe),
    st.builds(Bury, _runs),
    st.builds(SetCursor, _runs, st.integers(0, 1), _branches, st.integers(0, 1), _maybe),
    st.builds(SetAsideEntries, _runs, st.lists(st.integers(0, 20), max_size=3).map(tuple)),  # places among the events
    st.builds(Prune, _runs),
)
_writes = st.lists(st.one_of(_new_runs, _entries, _messages, _others, _others), max_size=5).map(tuple)
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

    async def commit(self, batch: list[tuple[tuple[Write, ...], int | None]]) -> list[object]:
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
            "children": await store.runs(RunQuery(parent=1, limit=2)),
            "counts": await store.counts(),
            "due": await store.due(after=(0.5, 0), limit=3),
            "dead": await store.dead_letters(),
            "found": [await store.find(Address(kind, "x")) for kind in ("a", "b")],
            "chains": [chain.broken for chain in self.chains],
        }
        for run in range(1, 6):
            loaded = await store.load(run)
            if loaded is not None:
                seen[f"entries {run}"] = self._places(loaded.entries)
                seen[f"loaded {run}"] = evolve(loaded, entries=())
            seen[f"undoable {run}"] = self._places(await store.undoable(run, 0))
            seen[f"history {run}"] = self._places(await store.history(run, limit=4))
            seen[f"message {run}"] = await store.message(run, "k"), await store.dead_letters(run=run, limit=1)
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
        def commit(self, batch: list[tuple[tuple[Write, ...], int | None]]) -> None:
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
        def commit_with_an_old_fence(self, batch: list[tuple[tuple[Write, ...], int | None]]) -> None:
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
