"""A handler that fails answers, is tried again, or gives its message up; and what of its turn is asked anew."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow.errors import Abort, Fatal, ForeignAwait, HandlerTimeout, Transient
from actorflow.kernel.journal import entry
from actorflow.policies.handling import TRIES, Answer, GiveUp, TryAgain, after_failure, failed_at
from actorflow.records import Event, Identity


class Refused(Exception): ...


@pytest.mark.parametrize("tries", [1, 3, 9])
def test_a_business_failure_is_the_answer_however_often_it_was_tried(tries: int) -> None:
    assert after_failure(Abort("no"), tries, die=0.0) == Answer()
    assert after_failure(Refused("no"), tries, die=0.0, fails=(Refused,)) == Answer()


@pytest.mark.parametrize("error", [Fatal("no"), ForeignAwait("here", "sleep")])
def test_what_would_fail_again_is_given_up_at_once_and_its_actor_is_not_at_fault(error: BaseException) -> None:
    assert after_failure(error, 1, die=0.0) == GiveUp(restart=False)


@pytest.mark.parametrize("error", [ValueError("x"), Transient("x"), HandlerTimeout("add", 1.0)])
def test_all_else_gets_three_tries_and_waits_between_them(error: Exception) -> None:
    waits = [after_failure(error, tries, die=0.0) for tries in (1, 2)]

    assert TRIES.attempts == 3
    assert [round(wait.delay_s, 6) for wait in waits if isinstance(wait, TryAgain)] == [0.1, 0.4]
    assert isinstance(after_failure(error, 3, die=0.0), GiveUp)


@pytest.mark.parametrize(
    ("error", "restart"), [(ValueError("x"), True), (HandlerTimeout("add", 1.0), True), (Transient("x"), False)]
)
def test_a_bug_or_a_handler_that_hangs_costs_a_restart_and_an_outage_elsewhere_does_not(error: Exception, restart: bool) -> None:
    assert after_failure(error, 3, die=0.0) == GiveUp(restart=restart)


def turn(*calls: tuple[str, int, Any]) -> list[Event]:
    """Events of a turn: kind, which call, status."""
    made = (entry(1, 0, kind, Identity("", "charge", n), at=0.0, status=status) for kind, n, status in calls)
    return [Event(seq, each) for seq, each in enumerate(made, 1)]


@pytest.mark.parametrize(
    ("events", "forgotten"),
    [
        ([("turn", 0, ""), ("step", 0, "ok"), ("step", 1, "failed")], {3}),
        ([("turn", 0, ""), ("step", 0, "failed"), ("step", 1, "ok")], set()),
        ([("turn", 0, ""), ("step", 0, "failed")], {2}),
        ([("step", 0, "failed"), ("step", 1, "ok"), ("step", 2, "failed"), ("ask", 3, "timeout")], {3, 4}),
        ([("step", 0, "ok"), ("try", 1, "failed"), ("heartbeat", 1, ""), ("step", 1, "failed")], {2, 3, 4}),
        ([("step", 0, "ok"), ("intent", 1, ""), ("ask", 1, "failed")], {2, 3}),
        ([("intent", 0, ""), ("step", 0, "failed")], set()),
        ([("intent", 0, ""), ("step", 0, "failed"), ("step", 1, "failed")], set()),
        ([("intent", 0, ""), ("step", 0, "ok"), ("step", 1, "failed")], {3}),
        ([("try", 0, "failed"), ("step", 0, "failed"), ("step", 1, "ok"), ("step", 2, "failed")], {4}),
        ([], set()),
    ],
)
def test_calls_that_failed_and_that_nothing_came_after_are_asked_anew_unless_one_may_run_only_once(
    events: list[Any], forgotten: set[int]
) -> None:
    assert failed_at(turn(*events)) == forgotten
