"""The class of a failure decides what follows, so every exception has exactly one, and every pause its remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow import errors
from actorflow.policies.failure import REMEDIES, FailureReport, classify, pause_reason
from actorflow.records import PauseReason


class SoldOut(errors.Abort): ...


class Declined(Exception): ...


class HttpError(Exception):
    def __init__(self, status: Any, *, nested: bool) -> None:
        super().__init__(f"status {status}")
        if nested:
            self.response = SimpleNamespace(status_code=status)
        else:
            self.status = status


class Hostile(Exception):
    @property
    def response(self) -> object:
        raise RuntimeError("no response for you")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (errors.Abort("no"), "business"),
        (SoldOut("no"), "business"),
        (Declined("no"), "business"),
        (errors.StepTimeout("charge", 1.0), "timeout"),
        (errors.StepInterrupted("charge", "x"), "interrupted"),
        (errors.GaveUp("charge"), "interrupted"),
        (errors.RunCancelled("Shop/1"), "cancelled"),
        (errors.RunTimedOut("Shop/1"), "cancelled"),
        (errors.Fatal("x"), "data"),
        (errors.NotEncodable("x", object(), "y"), "data"),
        (errors.TooLarge("x", 2, 1), "data"),
        (errors.Undecodable("x", "y"), "data"),
        (errors.Transient("x"), "transient"),
        (ConnectionError(), "transient"),
        (ExceptionGroup("x", [ConnectionError(), ExceptionGroup("y", [TimeoutError()])]), "transient"),
        (ExceptionGroup("x", [ConnectionError(), ValueError()]), "bug"),
        (ExceptionGroup("x", [errors.Abort("no")]), "bug"),
        (BrokenPipeError(), "transient"),
        (TimeoutError(), "transient"),
        (errors.AskTimeout("Shop/1", 5.0), "transient"),
        (InterruptedError(), "transient"),
        (BlockingIOError(), "transient"),
        (ValueError("x"), "bug"),
        (OSError("x"), "bug"),
        (KeyboardInterrupt(), "bug"),
        (SystemExit(1), "bug"),
        (MemoryError(), "bug"),
        (ExceptionGroup("many", [errors.Abort("x")]), "bug"),
    ],
)
def test_every_failure_has_one_class(error: BaseException, failure: str) -> None:
    assert classify(error, (Declined,)) == failure


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_is_busy_or_broken_may_recover(status: int, nested: bool) -> None:
    assert classify(HttpError(status, nested=nested)) == "transient"


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 409, 501, "503", None])
def test_a_server_that_says_no_means_it(status: Any, nested: bool) -> None:
    assert classify(HttpError(status, nested=nested)) == "bug"


def test_an_exception_that_cannot_be_looked_at_is_a_bug() -> None:
    assert classify(Hostile("x")) == "bug"


@given(st.sampled_from([e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.Control)]))
def test_control_pauses_a_run_as_diverged_or_as_a_bug(control: type[errors.Control]) -> None:
    reason = pause_reason(control.__new__(control))

    assert reason == ("diverged" if control is errors.Divergence else "bug")


def test_what_cannot_be_read_pauses_as_that() -> None:
    assert pause_reason(errors.Undecodable("outcome", "no such field")) == "undecodable"
    assert pause_reason(ValueError("x")) == "bug"


@pytest.mark.parametrize("error", [errors.NotEncodable("result.lock", object(), "x"), errors.TooLarge("result", 2, 1)])
def test_a_result_that_cannot_be_stored_pauses_as_a_failure(error: Exception) -> None:
    assert pause_reason(error) == "failure"


def test_every_reason_to_pause_has_a_remedy() -> None:
    assert REMEDIES.keys() == set(get_args(PauseReason))


def test_a_report_reads_as_what_where_and_what_to_do() -> None:
    report = FailureReport(failure="bug", reason="bug", what="ValueError: no", where=":charge#0", remedy="Fix it.")

    assert str(report) == "ValueError: no (at :charge#0). Fix it."
