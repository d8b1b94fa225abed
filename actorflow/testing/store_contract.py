"""What every `Store` must do, in sentences, as tests to be run against yours.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda: MyStore(tmp_path / "store")  # each one over the same data

    TestMyStoreBehavesLikeMemory = machine(lambda place: MyStore(place / "store"), backend="asyncio").TestCase

`machine` is in `actorflow.testing.store_machine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from attrs import evolve

from actorflow.errors import FenceLost, StoreStopped
from actorflow.records import (
    URGENT,
    Address,
    Chain,
    Commit,
    Consume,
    Loaded,
    Prune,
    Rejected,
    Run,
    RunQuery,
    SetAsideEntries,
    SetCursor,
    SetEnd,
    SetRound,
    SetView,
    Taken,
    Wake,
    Write,
)
from actorflow.stores import Store
from actorflow.testing.message_contract import MessageContract
from actorflow.testing.samples import Held, a_message, a_run, an_entry, waiting

T = TypeVar("T")


@pytest.mark.anyio
class StoreContract(MessageContract):
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

    async def test_an_urgent_wake_touches_paused_runs_too(self, held: Held) -> None:
        await held.commit([a_run(1), a_run(2, status="paused"), a_run(3), a_run(4, status="completed")])

        await held.commit([Wake(run, URGENT) for run in (1, 2, 4)], [waiting(3, status="paused"), Wake(3, URGENT)])

        assert [(await held.loaded(run)).run.wake_at for run in (1, 2, 3, 4)] == [URGENT, URGENT, URGENT, None]

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

    async def test_a_state_and_an_end_in_one_batch_are_both_there_in_either_order(self, held: Held) -> None:
        await held.commit([a_run(1), a_run(2)])
        one, two = (waiting(run)._replace(status="failed", wake_at=None, at=2.0) for run in (1, 2))

        await held.commit(
            [one, SetEnd(run=1, outcome=b"1", report=b"r", ended_at=3.0)],
            [SetEnd(run=2, outcome=b"old", report=b"r"), two, SetEnd(run=2, outcome=b"2")],
        )

        end: dict[str, Any] = {"status": "failed", "wake_at": None, "updated_at": 2.0, "report": b"r"}
        assert await held.store.get(1) == a_run(1, outcome=b"1", ended_at=3.0, **end)
        assert await held.store.get(2) == a_run(2, outcome=b"2", **end)

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
        tombstone = Run(id=1, kind="order", key="k1", status="completed", ended_at=3.0)
        assert loaded == Loaded(run=tombstone, entries=[], mailbox=[], cursors=[], children=[])
        assert [event.entry.run for event in await held.store.events()] == [2]
        assert await held.store.message(1, "k") is None
        assert isinstance((await held.commit([a_run(3, "k1")]))[0], Taken)

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

    async def test_several_runs_are_loaded_as_each_alone_in_the_order_asked_for(self, held: Held) -> None:
        await held.commit(
            [a_run(1), an_entry(1, "first"), an_entry(1, "second"), a_message(2, 1), a_message(1, 1)],
            [a_run(2, parent=1), an_entry(2, kind="checkpoint", name="paid"), an_entry(2, "charge", branch="/paid#0")],
            [a_run(3, round=1), an_entry(3, "old"), an_entry(3, "new", round=1), an_entry(3, kind="started", round=1)],
            [SetCursor(3, 1, "", 0, b"[]"), SetCursor(3, 0, "", 0, b"{}")],
            [SetAsideEntries(1, (1,))],
        )

        loaded = await held.store.load_many((3, 9, 1, 2))

        assert loaded == [await held.store.load(run) for run in (3, 9, 1, 2)]
        assert [each and [event.entry.name for event in each.entries] for each in loaded] == [["new"], None, ["second"], ["paid"]]

    async def test_of_several_addresses_those_that_are_in_use_are_told_tombstones_among_them(self, held: Held) -> None:
        await held.commit([a_run(1, 'a "b"/ü'), a_run(2, "k2", status="completed"), a_run(3, "k3", kind="other")])
        await held.commit([Prune(2)])
        asked = [Address("order", key) for key in ('a "b"/ü', "k2", "k3", "k4", "k4")]

        assert await held.store.taken(asked) == {Address("order", 'a "b"/ü'), Address("order", "k2")}
        assert await held.store.taken([]) == set()

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
        assert await found(actor=True) == await found(actor=True, status="paused") == []
        await held.commit([a_run(4, "ann", actor=True), a_run(5, "bob", actor=True, status="paused")])
        assert await found(actor=True) == [5, 4]
        assert await found(actor=True, status="paused") == [5]
        assert await found(actor=False, status="paused") == [2]
        assert (await held.store.find(Address("order", "ann"))) == a_run(4, "ann", actor=True)
        assert await held.store.find(Address("cart", "x%")) is not None
        assert await held.store.find(Address("order", "x%")) is None

    async def test_events_are_read_in_pages(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), *(an_entry(1 + n % 2, n=n) for n in range(6))])
        first = await held.store.events(limit=4)

        rest = await held.store.events(after=first[-1].seq)

        assert [event.entry.n for event in (*first, *rest)] == list(range(6))
        assert [event.entry.n for event in await held.store.history(2, after=first[1].seq, limit=1)] == [3]

    async def test_the_end_of_a_runs_past_is_read_backwards(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), *(an_entry(n=n, round=n // 3) for n in range(6)), an_entry(2, round=9)])

        assert [event.entry.n for event in await held.store.latest(1, limit=4)] == [2, 3, 4, 5]
        assert [event.entry.round for event in await held.store.latest(2)] == [9]
        assert await held.store.latest(3) == []

    async def test_why_a_message_was_given_up_is_found_by_its_number(self, held: Held) -> None:
        first, last = an_entry(kind="dead", n=7, outcome=b"1"), an_entry(kind="dead", n=7, outcome=b"2")
        await held.commit([a_run(), first, last, an_entry(kind="dead", n=8), an_entry(n=7), an_entry(2, kind="dead", n=7)])

        found = await held.store.death(1, 7)

        assert found is not None
        assert found.entry == last
        assert await held.store.death(1, 9) is None

    async def test_tidying_changes_nothing(self, held: Held) -> None:
        await held.commit([a_run(), an_entry()])
        before = await held.loaded()

        await held.store.tidy()

        assert await held.loaded() == before
        assert await held.commit([a_run(2)]) == [None]
