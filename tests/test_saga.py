"""What may have happened is undone once, in reverse journal order over all branches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.kernel.journal import entry
from actorflow.policies.saga import pending
from actorflow.records import EntryStatus, Event, Identity

REF = "shop:refund"


def event(seq: int, kind: str = "step", *, status: EntryStatus = "ok", ref: str | None = REF, branch: str = "") -> Event:
    return Event(seq, entry(1, 0, kind, Identity(branch, "charge", seq), at=0.0, status=status, ref=ref))


def undone(seq: int, of: int, *, status: EntryStatus = "ok") -> Event:
    return event(seq, "undo", status=status, branch=f"~undo/{of}")


def seqs(*events: Event) -> list[int]:
    return [undo.seq for undo in pending(events)]


def test_the_last_is_undone_first_whatever_its_branch() -> None:
    assert seqs(event(1), event(2, branch="/gather#0.1"), event(3, branch="/gather#0.0"), event(4)) == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("status", "todo"),
    [("ok", True), ("interrupted", True), ("timeout", True), ("cancelled", True), ("failed", False), ("", False)],
)
def test_what_may_have_landed_is_undone_and_what_failed_is_not(status: EntryStatus, todo: bool) -> None:
    assert seqs(event(1, status=status)) == ([1] if todo else [])


def test_a_step_without_undo_is_left_alone() -> None:
    assert seqs(event(1, ref=None), event(2)) == [2]


@pytest.mark.parametrize(("kind", "todo"), [("step", True), ("start", True), ("receive", False), ("tell", False), ("try", False)])
def test_only_steps_and_children_are_undone(kind: str, todo: bool) -> None:
    assert bool(seqs(event(1, kind))) is todo


def test_what_was_undone_is_not_undone_again() -> None:
    assert seqs(event(1), event(2), event(3), undone(4, 3)) == [2, 1]


def test_an_undo_that_failed_was_a_try() -> None:
    assert seqs(event(1), event(2), undone(3, 2, status="failed")) == [2, 1]


def test_an_undo_names_what_it_undoes() -> None:
    [undo] = pending([event(7)])

    assert undo.branch == "~undo/7"
    assert undo.entry.ref == REF


@given(st.lists(st.tuples(st.sampled_from(["ok", "failed", "cancelled"]), st.booleans()), max_size=12), st.data())
def test_going_on_after_any_crash_undoes_each_once_in_reverse(steps: list[tuple[Any, bool]], data: st.DataObject) -> None:
    journal = [event(seq, status=status, ref=REF if has else None) for seq, (status, has) in enumerate(steps, 1)]
    whole = seqs(*journal)
    log = list(journal)

    done = []
    while todo := pending(log):
        for undo in todo[: data.draw(st.integers(1, len(todo)))]:  # Then the process ends, and `pending` is asked again.
            log.append(undone(len(log) + 1, undo.seq))
            done.append(undo.seq)

    assert done == whole == sorted(whole, reverse=True)
