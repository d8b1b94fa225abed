"""Delays grow to the cap, jitter stays in its bounds, and what is retried is what may pass by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import Abort, BadDuration, Fatal, StepTimeout, Transient
from actorflow.policies.retry import DEFAULT, NEVER, GiveUp, Retry, RetryAfter, decide, delay_s

lengths = st.floats(min_value=0, max_value=1e6)
retries = st.builds(
    Retry,
    attempts=st.integers(1, 10**6),
    first=lengths,
    cap=lengths,
    factor=st.floats(min_value=1, max_value=1e300),
    jitter=st.floats(min_value=0, max_value=1),
)
dice = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_a_bare_step_gets_three_tries_a_second_doubling() -> None:
    assert [delay_s(DEFAULT, n, die=0.0) for n in (1, 2, 3, 6, 7)] == [1.0, 2.0, 4.0, 30.0, 30.0]
    assert DEFAULT.attempts == 3
    assert NEVER.attempts == 1


@given(retries, st.integers(1, 10**9))
def test_delays_never_fall_without_jitter(retry: Retry, attempt: int) -> None:
    assert delay_s(retry, attempt, die=0.0) <= delay_s(retry, attempt + 1, die=0.0)


@given(retries, st.integers(1, 10**9), dice)
def test_a_delay_is_at_least_its_base_and_at_most_the_cap_and_jitter(retry: Retry, attempt: int, die: float) -> None:
    base, delay = delay_s(retry, attempt, die=0.0), delay_s(retry, attempt, die=die)

    assert 0.0 <= base <= float(retry.cap)  # type: ignore[arg-type]
    assert base <= delay <= base * (1 + retry.jitter)


@given(retries, dice)
def test_the_wait_after_the_first_attempt_is_the_first_delay(retry: Retry, die: float) -> None:
    first, cap = float(retry.first), float(retry.cap)  # type: ignore[arg-type]

    assert delay_s(retry, 1, die=die) == min(first, cap) * (1.0 + retry.jitter * die)


def test_the_last_failure_is_not_followed_by_a_wait() -> None:
    """X11."""

    spent = decide(Retry(attempts=2, jitter=0), 2, Transient("again"), elapsed_s=0.0, die=0.0)

    assert spent == GiveUp("all 2 attempts are spent")


@given(retries, st.integers(1, 100), dice)
def test_there_are_never_more_attempts_than_allowed(retry: Retry, attempt: int, die: float) -> None:
    decision = decide(retry, attempt, Transient("x"), elapsed_s=0.0, die=die)

    assert isinstance(decision, GiveUp) == (attempt >= retry.attempts)


@pytest.mark.parametrize(
    "error", [Transient("x"), ConnectionResetError(), TimeoutError(), StepTimeout("s", 1.0), BlockingIOError()]
)
def test_what_may_pass_by_itself_is_tried_again(error: Exception) -> None:
    assert decide(Retry(jitter=0), 1, error, elapsed_s=0.0, die=0.0) == RetryAfter(1.0)


@pytest.mark.parametrize("error", [ValueError("x"), Fatal("x"), Abort("x"), KeyboardInterrupt(), FileNotFoundError("x")])
def test_what_does_not_pass_by_itself_is_not(error: BaseException) -> None:
    assert isinstance(decide(Retry(), 1, error, elapsed_s=0.0, die=0.0), GiveUp)


def test_named_exceptions_are_tried_again_and_no_others() -> None:
    retry = Retry(on=(ValueError,), jitter=0)

    assert decide(retry, 1, ValueError("x"), elapsed_s=0.0, die=0.0) == RetryAfter(1.0)
    assert decide(retry, 1, UnicodeDecodeError("utf-8", b"", 0, 0, "x"), elapsed_s=0.0, die=0.0) == RetryAfter(1.0)
    assert isinstance(decide(retry, 1, ConnectionError(), elapsed_s=0.0, die=0.0), GiveUp)


@pytest.mark.parametrize(("elapsed_s", "again"), [(0.0, True), (9.0, True), (9.001, False), (1e9, False)])
def test_the_total_bounds_when_the_last_attempt_begins(elapsed_s: float, again: bool) -> None:
    decision = decide(Retry(total=10, jitter=0), 1, Transient("x"), elapsed_s=elapsed_s, die=0.0)

    assert decision == (RetryAfter(1.0) if again else GiveUp("the total of 10 s is spent"))


def test_after_ten_thousand_failures_the_wait_is_the_cap_or_none_if_there_never_was_one() -> None:
    assert delay_s(Retry(first=1, cap=30, jitter=0), 10_000, die=0.0) == 30.0
    assert delay_s(Retry(first=0, cap=30, jitter=0), 10_000, die=0.0) == 0.0


def test_lengths_may_be_written_in_every_way() -> None:
    retry = Retry(first="500ms", cap=timedelta(seconds=1), total="1h", jitter=0)

    assert [delay_s(retry, n, die=0.0) for n in (1, 2, 3)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"factor": 0.5}, {"jitter": -0.1}, {"jitter": 1.1}, {"factor": float("nan")}, {"jitter": float("nan")}],
)
def test_a_policy_out_of_bounds_is_refused_when_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retry(**wrong)


@pytest.mark.parametrize("name", ["first", "cap", "total"])
@pytest.mark.parametrize("length", [-1, float("nan"), "soon", True, 1e20])
def test_a_length_that_is_none_is_refused_when_it_is_written(name: str, length: Any) -> None:
    with pytest.raises(BadDuration):
        Retry(**{name: length})
