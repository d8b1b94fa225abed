"""The cursor of a loop says what is finished, no more and no less, in whatever order the items were finished."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import BadDefinition
from actorflow.policies.cursor import (
    ABOVE_MAX,
    BAD_ITEMS_KEPT_MAX,
    JUDGED_FROM,
    BadItem,
    Cursor,
    SetAside,
    advance,
    finished,
    forgive,
    over_budget,
    progress,
    room,
)


def bad(index: int) -> BadItem:
    return BadItem(index=index, key=f"k{index}", error="ValueError: x")


@st.composite
def orders(draw: st.DrawFn) -> list[list[tuple[int, bool]]]:
    """Items 0..n finished in any order, in any batches; some of them are bad."""
    items = draw(st.permutations(range(draw(st.integers(0, 30)))))
    cut = draw(st.integers(0, len(items)))
    batches: list[list[tuple[int, bool]]] = [[]]
    for item in items[:cut]:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append((item, draw(st.booleans())))
    return batches


def play(batches: list[list[tuple[int, bool]]]) -> tuple[list[Cursor], set[int]]:
    cursors, model = [Cursor()], set[int]()
    for batch in batches:
        model |= {index for index, _ in batch}
        set_aside = tuple(bad(index) for index, is_bad in batch if is_bad)
        cursors.append(advance(cursors[-1], {index: f"k{index}" for index, _ in batch}, bad=set_aside))
    return cursors, model


@given(orders())
def test_the_cursor_equals_the_set_of_finished_items(batches: list[list[tuple[int, bool]]]) -> None:
    cursors, model = play(batches)

    assert {index for index in range(40) if finished(cursors[-1], index)} == model
    assert cursors[-1].done + cursors[-1].set_aside == len(model)


@given(orders())
def test_the_low_water_mark_never_passes_an_unfinished_item_and_never_falls(batches: list[list[tuple[int, bool]]]) -> None:
    cursors, model = play(batches)

    lows = [cursor.low for cursor in cursors]
    assert lows == sorted(lows)
    assert set(range(cursors[-1].low)) <= model
    assert cursors[-1].low not in model


@given(orders())
def test_the_row_knows_the_key_just_below_the_mark_and_those_above_it(batches: list[list[tuple[int, bool]]]) -> None:
    cursors, model = play(batches)
    last = cursors[-1]

    assert last.last_key == (f"k{last.low - 1}" if last.low else None)
    assert last.above == tuple((index, f"k{index}") for index in sorted(model) if index > last.low)


def test_a_batch_counts_what_was_done_and_what_was_set_aside() -> None:
    cursor = advance(Cursor(), {0: "a", 1: "b", 2: "c"}, bad=(bad(1),), started=5)

    assert (cursor.done, cursor.set_aside, cursor.started, cursor.low) == (2, 1, 5, 3)
    assert advance(cursor, {}, started=3).started == 5


def test_only_the_last_bad_items_are_kept_in_the_row() -> None:
    many = tuple(bad(n) for n in range(BAD_ITEMS_KEPT_MAX + 10))

    cursor = advance(Cursor(), {n: f"k{n}" for n in range(len(many))}, bad=many)

    assert cursor.set_aside == len(many)
    assert cursor.bad == many[10:]


@pytest.mark.parametrize(
    ("set_aside", "done", "at_most", "ended", "over"),
    [
        (0, 0, None, True, False),
        (1, 10**6, None, False, True),
        (0, 0, 0, True, False),
        (1, 0, 0, False, True),
        (3, 0, 3, True, False),
        (4, 10**6, 3, False, True),
        (1, 998, 0.001, False, False),  # 999 judged: too few to say anything
        (1, 999, 0.001, False, False),  # exactly one in a thousand
        (2, 998, 0.001, False, True),
        (2, 998, 0.001, True, True),
        (1, 998, 0.001, True, True),  # at the end the ratio is judged however few there were
        (0, 0, 0.001, True, False),
        (1, 0, 0.999, True, True),
        (1, 10**6, 0.0, False, True),
    ],
)
def test_the_budget_at_its_edges(set_aside: int, done: int, at_most: Any, ended: bool, over: bool) -> None:
    budget = None if at_most is None else SetAside(at_most=at_most)

    assert over_budget(Cursor(done=done, set_aside=set_aside), budget, ended=ended) is over


@given(
    st.integers(0, 5_000), st.integers(0, 5_000), st.one_of(st.integers(0, 100), st.floats(0, 1, exclude_max=True)), st.booleans()
)
def test_a_new_budget_is_not_spent(done: int, set_aside: int, at_most: float, ended: bool) -> None:
    cursor = forgive(Cursor(done=done, set_aside=set_aside))

    assert not over_budget(cursor, SetAside(at_most=at_most), ended=ended)
    assert (cursor.done, cursor.set_aside) == (done, set_aside)


def test_after_a_new_budget_only_what_comes_is_judged() -> None:
    cursor = forgive(Cursor(done=5_000, set_aside=500))
    more = advance(cursor, dict.fromkeys(range(JUDGED_FROM), "k"), bad=(bad(0), bad(1)))

    assert over_budget(more, SetAside(at_most=0.001), ended=False)
    assert not over_budget(more, SetAside(at_most=0.002), ended=False)
    assert over_budget(more, SetAside(at_most=1), ended=False)
    assert not over_budget(more, SetAside(at_most=2), ended=False)


@pytest.mark.parametrize("at_most", [True, 1.0, 1.5, float("inf")])
def test_a_budget_is_a_count_or_a_ratio_below_one(at_most: Any) -> None:
    with pytest.raises(BadDefinition, match="a count"):
        SetAside(at_most=at_most)


@pytest.mark.parametrize("at_most", [-1, -0.1, float("nan")])
def test_a_negative_budget_is_refused(at_most: Any) -> None:
    with pytest.raises(ValueError, match="at_most"):
        SetAside(at_most=at_most)


def test_progress_is_measured_over_this_life() -> None:
    cursor = Cursor(done=150, set_aside=50, total=400)

    seen = progress(cursor, now=110.0, since=100.0, finished_before=100)

    assert (seen.done, seen.set_aside, seen.total, seen.rate_per_s, seen.eta_s) == (150, 50, 400, 10.0, 20.0)


def test_no_rate_no_estimate() -> None:
    assert progress(Cursor(total=10), now=1.0, since=0.0, finished_before=0).eta_s is None
    assert progress(Cursor(done=1), now=1.0, since=0.0, finished_before=0).eta_s is None
    assert progress(Cursor(done=1, total=2), now=0.0, since=0.0, finished_before=0).eta_s == 0.001  # No time has passed.


@pytest.mark.parametrize(("open_", "more"), [(0, True), (11, True), (12, False), (13, False)])
def test_a_crash_repeats_no_more_than_a_batch_and_what_is_in_flight(open_: int, more: bool) -> None:
    assert room(Cursor(), open_=open_, batch=10, parallel=3) is more


@pytest.mark.parametrize(("above", "more"), [(ABOVE_MAX - 1, True), (ABOVE_MAX, False)])
def test_a_slow_item_makes_the_row_no_longer_than_its_bound(above: int, more: bool) -> None:
    cursor = Cursor(above=tuple((index, "") for index in range(1, above + 1)))

    assert room(cursor, open_=0, batch=10, parallel=3) is more
