"""What is recorded of a branch is a queue: the code must ask for its head, and for all of it."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow.errors import Divergence
from actorflow.kernel.journal import Journal, entry
from actorflow.records import Entry, Event, Identity


def recorded(kind: str, branch: str, name: str, n: int = 0, **more: Any) -> Entry:
    return entry(1, 0, kind, Identity(branch, name, n), at=0.0, **more)


def journal(*entries: Entry) -> Journal:
    return Journal([Event(seq, entry) for seq, entry in enumerate(entries, 1)])


def step(branch: str, name: str, n: int = 0, **more: Any) -> Entry:
    return recorded("step", branch, name, n, **more)


def test_a_call_claims_the_head_of_its_branch() -> None:
    first, second, other = step("", "a"), step("", "b"), step("/task#0", "a")
    book = journal(first, second, other)

    assert book.claim("step", ("a",), Identity("", "a", 0)) is first
    assert book.head("") is second
    assert book.claim("step", ("a",), Identity("/task#0", "a", 0)) is other
    assert book.head("/task#0") is None


def test_an_empty_queue_is_the_frontier() -> None:
    book = journal(step("", "a"))

    assert book.claim("step", ("a",), Identity("/task#0", "a", 0)) is None
    book.claim("step", ("a",), Identity("", "a", 0))
    assert book.claim("step", ("a",), Identity("", "a", 1)) is None


@pytest.mark.parametrize(
    ("kind", "name", "n"),
    [("step", "b", 0), ("step", "a", 1), ("sleep", "a", 0)],
    ids=["another name", "another time", "another kind"],
)
def test_anything_but_the_head_is_a_divergence(kind: str, name: str, n: int) -> None:
    book = journal(step("", "a"), step("", "b"))

    with pytest.raises(Divergence) as caught:
        book.claim(kind, (name,), Identity("", name, n))

    assert caught.value.asked == f"{kind} :{name}#{n}"
    assert caught.value.recorded == ("step :a#0", "step :b#0")
    assert book.head("") == step("", "a")


def test_an_earlier_name_claims_too() -> None:
    book = journal(step("", "old"))

    assert book.claim("step", ("new", "old"), Identity("", "new", 0)) == step("", "old")


def test_a_divergence_shows_five_entries_at_most() -> None:
    book = journal(*(step("", "a", n) for n in range(9)))

    assert len(book.divergence("b", "").recorded) == 5


def test_a_branch_may_not_end_before_all_was_asked_for() -> None:
    book = journal(step("", "a"), step("/task#0", "a"))

    with pytest.raises(Divergence, match="the end of the run"):
        book.close("")
    with pytest.raises(Divergence, match="the end of branch '/task#0'"):
        book.close("/task#0")
    book.close("/never")


def test_what_a_cancelled_branch_had_recorded_is_forgotten() -> None:
    book = journal(step("/gather#0.0", "a"), step("/gather#0.0", "b"))

    book.forget("/gather#0.0")
    book.forget("/never")

    book.close("/gather#0.0")
    assert book.head("/gather#0.0") is None


def test_only_outcomes_are_delivered_in_journal_order() -> None:
    call = Identity("", "a", 0)
    book = journal(
        recorded("patch", "", "flag", outcome=b"false"),
        recorded("now", "", "self.now", outcome=b"1.0"),
        recorded("intent", "", "a", attempt=1, status=""),
        recorded("try", "", "a", attempt=1, status="failed"),
        recorded("heartbeat", "", "a", outcome=b"1", status=""),
        recorded("heartbeat", "", "a", outcome=b"2", status=""),
        recorded("intent", "", "a", attempt=2, status=""),
        recorded("try", "", "a", attempt=2, status="failed"),
        recorded("timer", "", "self.sleep", due_at=9.0, status=""),
        recorded("set_aside", "", "self.each"),
        step("", "a"),
    )

    assert [e.kind for e in book.order] == ["now", "step"]
    assert book.patches == {"flag": False}
    assert [e.attempt for e in book.tries(call)] == [1, 2]
    assert (last := book.intent(call)) is not None
    assert last.attempt == 2
    assert book.heartbeat(call) == b"2"
    assert book.due_at(Identity("", "self.sleep", 0)) == 9.0


def test_of_a_call_that_never_began_there_is_nothing() -> None:
    book, call = journal(), Identity("", "a", 0)

    assert (list(book.tries(call)), book.intent(call), book.heartbeat(call), book.due_at(call)) == ([], None, None, None)


def test_what_is_recorded_of_an_open_call_is_known_at_once() -> None:
    book, call = journal(), Identity("", "a", 0)

    book.note(recorded("try", "", "a", attempt=1, status="failed"))

    assert [e.attempt for e in book.tries(call)] == [1]


def test_what_belongs_to_an_open_call_follows_it_to_its_new_name() -> None:
    book = journal(
        recorded("intent", "", "old", attempt=1, status=""),
        recorded("try", "", "old", attempt=1, status="failed"),
        recorded("heartbeat", "", "old", outcome=b"7", status=""),
        recorded("timer", "", "old", due_at=9.0, status=""),
    )
    renamed = Identity("", "new", 0)

    book.adopt(("older", "old"), renamed)

    assert [e.attempt for e in book.tries(renamed)] == [1]
    assert book.intent(renamed) is not None
    assert book.heartbeat(renamed) == b"7"
    assert book.due_at(renamed) == 9.0
