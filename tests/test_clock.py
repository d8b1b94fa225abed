"""A duration is a length of time that a person could mean; everything else is refused, by name. Chance repeats from its seed."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.clock import DURATION_S_MAX, Chance, SystemClock, moment, seconds
from actorflow.errors import BadDuration, Refused


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        (0, 0.0),
        (2, 2.0),
        (1.5, 1.5),
        (timedelta(minutes=2), 120.0),
        (timedelta(0), 0.0),
        ("0s", 0.0),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("1.5h", 5_400.0),
        ("2m", 120.0),
        ("3d", 259_200.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("  7 s  ", 7.0),
        ("36525d", DURATION_S_MAX),
        (DURATION_S_MAX, DURATION_S_MAX),
    ],
)
def test_a_duration_is_its_length_in_seconds(duration: Any, length: float) -> None:
    assert seconds(duration) == length


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "5", "5 parsecs", "5 S", "5sm", "-5s", "+5s", "1e3s", "1_000s", "0x5s", "1.2.3s", ".s", ". 5s", "5 .s", "٣s",
     "5m 3s", "5s\0", "nans", "infs", "5\N{MICRO SIGN}s"],
)  # fmt: skip
def test_a_text_that_is_no_number_and_unit_is_refused(text: str) -> None:
    with pytest.raises(BadDuration) as caught:
        seconds(text)

    assert caught.value.value == text
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [-1, -0.001, -1e300, -math.inf, math.nan, timedelta(microseconds=-1)])
def test_what_is_negative_or_no_number_is_refused_as_that(value: Any) -> None:
    with pytest.raises(BadDuration, match="negative or not a number"):
        seconds(value)


@pytest.mark.parametrize("value", [math.inf, 1e20, 10**400, DURATION_S_MAX + 1, timedelta.max, "36526d", "9" * 400 + "s"])
def test_over_a_hundred_years_is_refused(value: Any) -> None:
    with pytest.raises(BadDuration, match="over 100 years"):
        seconds(value)


def test_a_number_too_long_to_be_printed_is_refused_like_any_other() -> None:
    with pytest.raises(BadDuration, match="over 100 years"):
        seconds(10**5_000)


@pytest.mark.parametrize("value", [True, False, None, b"5s", [5], 5j, object()])
def test_another_type_is_refused(value: Any) -> None:
    with pytest.raises(BadDuration):
        seconds(value)


def test_a_bad_duration_is_a_value_error_and_a_refusal() -> None:
    assert issubclass(BadDuration, ValueError)
    assert issubclass(BadDuration, Refused)


@given(st.one_of(st.integers(), st.floats(), st.text(alphabet="0123456789.+-_ msdhe\0٣x", max_size=8), st.timedeltas()))
def test_every_duration_is_within_bounds_or_refused(duration: Any) -> None:
    """D6."""

    try:
        length = seconds(duration)
    except BadDuration:
        return

    assert 0.0 <= length <= DURATION_S_MAX


@given(st.floats(min_value=0, max_value=DURATION_S_MAX))
def test_a_number_of_seconds_is_itself(value: float) -> None:
    assert seconds(value) == value


def test_a_moment_is_aware_and_in_utc() -> None:
    assert moment(0.0) == datetime(1970, 1, 1, tzinfo=UTC)


def test_the_system_clock_goes_on() -> None:
    clock = SystemClock()
    wall, monotonic = clock.wall(), clock.monotonic()

    assert clock.wall() > 1e9
    assert clock.monotonic() >= monotonic
    assert wall > 1e9


@given(st.integers())
def test_the_same_seed_gives_the_same_chance(seed: int) -> None:
    one, other = Chance(seed), Chance(seed)

    assert [one.jitter(), one.seed(), one.id()] == [other.jitter(), other.seed(), other.id()]


def test_chance_keeps_its_bounds() -> None:
    chance = Chance(1)

    assert all(0.0 <= chance.jitter() < 1.0 for _ in range(100))
    assert all(0 <= chance.seed() < 1 << 63 for _ in range(100))
    ids = [chance.id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(UUID(hex=id).version == 4 for id in ids)
