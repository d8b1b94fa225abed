"""The policy of supervisors keeps OTP's rules: one by one, and compared with a naive OTP over random histories."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings

from actorflow.errors import BadDefinition
from actorflow.policies.restarts import Backoff, Budget, resume, spend
from actorflow.policies.supervision import decide, decision_on, supervisor
from actorflow.policies.tree import (
    Action,
    After,
    Boot,
    ChildSpec,
    Event,
    Exit,
    Exited,
    Failed,
    Keep,
    Ready,
    Report,
    RestartDue,
    Start,
    StartChild,
    Started,
    Stop,
    StopChild,
    StopRequested,
    SupervisorSpec,
    SupervisorState,
    Why,
)
from tests.supervision_model import FakeTree, History, NaiveTree, histories, random_history

HISTORIES = int(os.environ.get("ACTORFLOW_HISTORIES", "1000"))
CHUNKS = 8
BUG = Failed(ValueError("x"))
OUTAGE = Failed(ConnectionResetError())


@frozen
class Live:
    """A supervisor under test: events go in, actions come out; starts succeed and stops are obeyed unless said otherwise."""

    states: list[SupervisorState]
    log: list[Action] = field(factory=list)
    now: list[float] = field(factory=lambda: [0.0])

    @property
    def state(self) -> SupervisorState:
        return self.states[-1]

    def on(self, event: Event) -> list[Action]:
        state, actions = decide(self.state, event, now=self.now[0], die=0.0)
        self.states.append(state)
        self.log.extend(actions)
        return list(actions)

    def ends(self, child: str, why: Why = BUG) -> list[Action]:
        return self.on(Exited(child, self.generation(child), why))

    def up(self, child: str) -> list[Action]:
        return self.on(Started(child, self.generation(child)))

    def due(self, child: str) -> list[Action]:
        return self.on(RestartDue(child, self.generation(child)))

    def generation(self, child: str) -> int:
        state = self.state.child(child)
        assert state is not None, child
        return state.generation

    def status(self, child: str) -> str | None:
        state = self.state.child(child)
        return None if state is None else state.status

    def settle(self, actions: list[Action]) -> list[str]:
        """Obey all that follows: every start succeeds, every stop is obeyed, every delay passes. What was done, in short."""
        done, todo = [], list(actions)
        while todo:
            match todo.pop(0):
                case Start(child):
                    done.append(f"+{child}")
                    todo += self.up(child)
                case Stop(child):
                    done.append(f"-{child}")
                    todo += self.ends(child, "shutdown")
                case After(_, event):
                    todo += self.on(event)
                case Exit(why):
                    done.append(f"exit {type(why.error).__name__ if isinstance(why, Failed) else why}")
                case Ready():
                    done.append("ready")
                case _:
                    pass
        return done


def made(*children: str | ChildSpec, **rules: Any) -> Live:
    specs = tuple(child if isinstance(child, ChildSpec) else ChildSpec(id=child) for child in children)
    options = {"backoff": Backoff("1s", "30s", jitter=0.0), **rules}
    return Live([supervisor(SupervisorSpec(name="sup", children=specs, **options))])


def booted(*children: str | ChildSpec, **rules: Any) -> Live:
    live = made(*children, **rules)
    live.settle(live.on(Boot()))
    assert live.state.phase == "running"
    return live


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions if not isinstance(action, Report)]


# --- boot and shutdown -------------------------------------------------------------------------------------------------


def test_children_start_in_order_each_after_the_one_before_is_up() -> None:
    live = made("a", "b")

    assert live.on(Boot()) == [Start("a", 1)]
    assert live.up("a") == [Start("b", 1)]
    assert live.up("b") == [Ready()]


def test_a_supervisor_without_children_is_ready_at_once() -> None:
    assert made().on(Boot()) == [Ready()]


def test_at_boot_the_first_failed_start_stops_those_already_up_in_reverse_and_fails_without_a_retry() -> None:
    """O5."""

    live = made("a", "b", "c", "d")
    live.on(Boot())
    live.up("a")
    live.up("b")

    actions = live.ends("c", BUG)

    assert actions == [Report("c", "not_started", BUG), Stop("b", 1, 5.0)]
    assert live.ends("b", "shutdown") == [Stop("a", 1, 5.0)]
    assert live.ends("a", "shutdown") == [Exit(BUG)]
    assert live.state.budget.spent == ()


def test_what_ends_during_boot_waits_until_all_are_up() -> None:
    live = made("a", "b")
    live.on(Boot())
    live.up("a")

    assert live.ends("a") == []
    assert kinds(live.up("b")) == ["Ready", "After"]


def test_a_supervisor_stops_its_children_in_reverse_order_one_after_the_other() -> None:
    """O6."""

    live = booted("a", "b")

    assert live.on(StopRequested()) == [Stop("b", 1, 5.0)]
    assert live.ends("b", "shutdown") == [Stop("a", 1, 5.0)]
    assert live.ends("a", "shutdown") == [Exit("shutdown")]
    assert live.state.phase == "ended"


def test_a_request_to_stop_before_the_boot_ends_at_once() -> None:
    assert made("a").on(StopRequested()) == [Exit("shutdown")]


def test_each_child_has_its_own_time_to_stop_and_a_nested_supervisor_has_no_limit() -> None:
    """O6."""

    live = booted(ChildSpec(id="sup2", nested=True, stop_s=None), ChildSpec(id="a", stop_s=0.5))

    assert live.on(StopRequested()) == [Stop("a", 1, 0.5)]
    assert live.ends("a", "shutdown") == [Stop("sup2", 1, None)]


def test_an_unexpected_end_of_a_stop_is_reported_not_raised() -> None:
    """O6."""

    live = booted("a", ChildSpec(id="b", restart="transient"), "c")
    live.on(StopRequested())

    assert live.ends("c", "killed") == [Report("c", "stop_failed", "killed"), Stop("b", 1, 5.0)]
    assert live.ends("b", "normal") == [Stop("a", 1, 5.0)]
    assert live.ends("a", "normal") == [Report("a", "stop_failed", "normal"), Exit("shutdown")]


def test_a_child_that_starts_when_the_supervisor_stops_is_stopped_in_its_turn() -> None:
    live = made("a", "b")
    live.on(Boot())
    live.up("a")

    assert live.on(StopRequested()) == [Stop("b", 1, 5.0)]
    assert live.settle([Stop("b", 1, 5.0)]) == ["-b", "-a", "exit shutdown"]


def test_an_ended_supervisor_takes_no_more_events() -> None:
    live = booted("a")
    live.settle(live.on(StopRequested()))

    for event in (Boot(), Started("a", 1), Exited("a", 1, BUG), StopRequested(), StartChild("a"), RestartDue("a", 1)):
        assert live.on(event) == []


# --- intensity ---------------------------------------------------------------------------------------------------------


def test_restarts_up_to_the_intensity_are_allowed_and_one_more_stops_the_rest_in_reverse_and_exits_shutdown() -> None:
    """O1, O2."""

    live = booted("a", "b", "c", restarts=2, within_s=60.0)

    assert live.settle(live.ends("b")) == ["+b"]
    assert live.settle(live.ends("b")) == ["+b"]
    assert live.settle(live.ends("b")) == ["-c", "-a", "exit shutdown"]
    assert Report("b", "too_many_restarts", BUG) in live.log


def test_a_restart_exactly_one_period_ago_still_counts_and_an_older_one_does_not() -> None:
    """O1."""

    for later, allowed in ((60.0, False), (60.001, True)):
        live = booted("a", restarts=1, within_s=60.0)
        live.settle(live.ends("a"))
        live.now[0] = later

        assert live.settle(live.ends("a")) == (["+a"] if allowed else ["exit shutdown"])


def test_an_intensity_of_zero_never_restarts() -> None:
    """O1."""

    live = booted("a", "b", restarts=0)

    assert live.settle(live.ends("a")) == ["-b", "exit shutdown"]


def test_the_intensity_is_the_supervisors_whoever_fails() -> None:
    """O1."""

    live = booted("a", "b", restarts=1)
    live.settle(live.ends("a"))

    assert live.settle(live.ends("b")) == ["-a", "exit shutdown"]


def test_a_group_restart_counts_once() -> None:
    """O1."""

    live = booted("a", "b", "c", strategy="one_for_all", restarts=1)

    live.settle(live.ends("b"))

    assert len(live.state.budget.spent) == 1
    assert live.state.phase == "running"


def test_every_failed_start_counts_again_and_a_request_to_stop_can_cut_in_between() -> None:
    """O1."""

    live = booted("a", restarts=2)
    live.ends("a")
    live.due("a")

    assert kinds(live.ends("a")) == ["After"]
    assert len(live.state.budget.spent) == 2
    assert live.on(StopRequested()) == [Exit("shutdown")]


@pytest.mark.parametrize("why", ["normal", "shutdown", "killed", BUG], ids=str)
def test_a_failed_start_is_tried_again_whatever_it_ended_with(why: Why) -> None:
    live = booted(ChildSpec(id="a", restart="transient"))
    live.ends("a")
    live.due("a")

    assert live.settle(live.ends("a", why)) == ["+a"]


def test_a_start_that_fails_too_often_exhausts_the_intensity() -> None:
    live = booted("a", "b", restarts=2)
    live.ends("a")
    live.due("a")
    live.ends("a")
    live.due("a")

    assert live.settle(live.ends("a")) == ["-b", "exit shutdown"]


def test_the_memory_of_restarts_is_bounded() -> None:
    budget = Budget(3, 60.0)
    for n in range(100):
        budget, _ = spend(budget, now=float(n))
    assert len(budget.spent) == 4


# --- who is restarted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["normal", "shutdown", "killed", BUG], ids=str)
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_permanent_ones_are_always_restarted_transient_ones_when_abnormal_temporary_ones_never(restart: Any, why: Why) -> None:
    """O3."""

    live = booted(ChildSpec(id="a", restart=restart))

    done = live.settle(live.ends("a", why))

    abnormal = why == "killed" or why is BUG
    assert done == (["+a"] if restart == "permanent" or (restart == "transient" and abnormal) else [])
    assert live.status("a") == ("running" if done else None if restart == "temporary" else "down")


def test_a_supervisor_that_gave_up_is_not_restarted_by_its_parent_if_it_is_transient_but_is_if_permanent() -> None:
    """O2."""

    inner = booted("x", restarts=0)
    ends = next(action for action in inner.ends("x") if isinstance(action, Exit))
    transient = booted(ChildSpec(id="inner", nested=True, restart="transient"))
    permanent = booted(ChildSpec(id="inner", nested=True))

    assert transient.settle(transient.ends("inner", ends.why)) == []
    assert permanent.settle(permanent.ends("inner", ends.why)) == ["+inner"]


def test_depth_multiplies_restarts() -> None:
    """O2."""

    total = 0
    outer = booted(ChildSpec(id="inner", nested=True), restarts=3)
    while outer.state.phase == "running":
        inner = booted("x", restarts=3)
        while inner.state.phase == "running":
            inner.settle(inner.ends("x"))
            total += inner.state.phase == "running"
        outer.settle(outer.ends("inner", "shutdown"))
    assert total == 3 * 4  # The first life of the inner one, and its three restarts.


def test_one_for_one_touches_nobody_else() -> None:
    live = booted("a", "b", "c")

    assert live.settle(live.ends("b")) == ["+b"]


def test_rest_for_one_stops_the_later_ones_in_reverse_and_starts_the_victim_and_them_in_order() -> None:
    """O4."""

    live = booted("a", "b", "c", "d", strategy="rest_for_one")

    assert live.settle(live.ends("b")) == ["-d", "-c", "+b", "+c", "+d"]


def test_one_for_all_stops_all_others_in_reverse_and_starts_all_in_order() -> None:
    """O4."""

    live = booted("a", "b", "c", strategy="one_for_all")

    assert live.settle(live.ends("b")) == ["-c", "-a", "+a", "+b", "+c"]


def test_in_a_group_a_start_begins_when_the_one_before_is_up() -> None:
    live = booted("a", "b", strategy="one_for_all")
    live.ends("a")
    live.ends("b", "shutdown")

    assert live.due("a") == [Start("a", 2)]
    assert live.up("a") == [Start("b", 2)]
    assert live.up("b") == []


def test_temporary_members_killed_in_a_group_restart_are_removed() -> None:
    """O4."""

    live = booted("a", ChildSpec(id="b", restart="temporary"), "c", strategy="one_for_all")

    assert live.settle(live.ends("a")) == ["-c", "-b", "+a", "+c"]
    assert live.status("b") is None


def test_a_transient_member_that_had_finished_is_started_again_with_its_group() -> None:
    live = booted("a", ChildSpec(id="b", restart="transient"), strategy="one_for_all")
    live.ends("b", "normal")

    assert live.settle(live.ends("a")) == ["+a", "+b"]


def test_if_start_k_of_rest_for_one_fails_the_later_ones_stay_down_and_the_retry_resumes_from_k() -> None:
    """O4."""

    live = booted("a", "b", "c", "d", strategy="rest_for_one", restarts=5)
    live.ends("b")
    live.ends("d", "shutdown")
    live.ends("c", "shutdown")
    live.due("b")
    live.up("b")

    assert kinds(live.ends("c")) == ["After"]
    assert (live.status("b"), live.status("c"), live.status("d")) == ("running", "restarting", "down")
    assert live.settle(live.due("c")) == ["+c", "+d"]


def test_if_start_k_of_one_for_all_fails_those_before_are_stopped_again_and_all_start() -> None:
    """O4."""

    live = booted("a", "b", "c", strategy="one_for_all", restarts=5)
    live.ends("a")
    live.ends("c", "shutdown")
    live.ends("b", "shutdown")
    live.due("a")
    live.up("a")

    assert live.settle(live.ends("b")) == ["-a", "+a", "+b", "+c"]


def test_one_that_ends_while_its_group_is_stopped_is_not_stopped_again_nor_counted() -> None:
    live = booted("a", "b", "c", strategy="one_for_all")
    live.ends("a")

    assert live.ends("b") == []
    assert live.ends("c", "shutdown") == [Report("b", "stop_failed", BUG)]
    assert len(live.state.budget.spent) == 1


def test_two_that_fail_at_once_are_handled_one_after_the_other() -> None:
    live = booted("a", "b", strategy="one_for_one")
    live.ends("a")
    live.due("a")

    assert live.ends("b") == []
    assert kinds(live.up("a")) == ["After"]


def test_an_earlier_one_that_fails_takes_over_the_restart_of_a_later_one() -> None:
    live = booted("a", "b", "c", strategy="rest_for_one", restarts=5)
    for child in ("c", "b", "a"):
        live.ends(child)

    assert [live.status(child) for child in ("a", "b", "c")] == ["restarting", "down", "down"]
    assert live.due("b") == []
    assert live.settle(live.due("a")) == ["+a", "+b", "+c"]


# --- backoff -----------------------------------------------------------------------------------------------------------


def delays(live: Live, child: str, times: int) -> list[float]:
    found = []
    for _ in range(times):
        actions = live.ends(child)
        found += [action.delay_s for action in actions if isinstance(action, After)]
        live.settle(actions)
    return found


def test_restarts_wait_longer_after_each_failure_in_a_row_up_to_the_cap() -> None:
    live = booted("a", restarts=9, backoff=Backoff("1s", "5s", jitter=0.0))

    assert delays(live, "a", 5) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_each_child_has_its_own_row_of_failures_and_one_that_ran_for_a_period_begins_a_new_one() -> None:
    live = booted("a", "b", restarts=9, within_s=60.0)
    assert delays(live, "a", 2) == [1.0, 2.0]

    assert delays(live, "b", 1) == [1.0]
    live.now[0] = 61.0
    assert delays(live, "a", 1) == [1.0]


def test_jitter_lengthens_the_delay_by_at_most_its_share() -> None:
    backoff = Backoff("1s", "30s", jitter=0.5)

    assert [backoff.delay_s(1, die=die) for die in (0.0, 0.5)] == [1.0, 1.25]
    assert backoff.delay_s(10_000, die=0.999) < 45.0


def test_the_group_is_stopped_before_the_delay_and_the_supervisor_is_free_during_it() -> None:
    live = booted("a", "b", "c", strategy="rest_for_one")

    assert kinds(live.ends("b")) == ["After", "Stop"]
    live.ends("c", "shutdown")
    assert live.settle(live.ends("a")) == ["+a", "+b", "+c"]


def test_a_delay_that_ends_while_the_group_is_still_stopping_waits_for_it() -> None:
    live = booted("a", "b", strategy="one_for_all")
    live.ends("a")

    assert live.due("a") == []
    assert live.ends("b", "shutdown") == [Start("a", 2)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Backoff("2s", "1s"),
        lambda: Backoff("soon"),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(jitter=1.5),
        lambda: Backoff(factor=float("nan")),
        lambda: Backoff(jitter="much"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_backoff_is_refused(wrong: Any) -> None:
    with pytest.raises(BadDefinition, match="Backoff"):
        wrong()


def test_a_backoff_may_be_constant_and_may_have_all_the_jitter_there_is() -> None:
    assert [Backoff("1s", "1s", factor=1.0, jitter=1.0).delay_s(n, die=0.5) for n in (1, 9)] == [1.5, 1.5]
    assert Backoff("1s", "1s", factor=1, jitter=0).delay_s(2, die=0.5) == 1.0


# --- old news ----------------------------------------------------------------------------------------------------------


def test_news_of_an_earlier_generation_or_of_a_child_that_left_is_ignored() -> None:
    live = booted("a", ChildSpec(id="t", restart="temporary"))
    live.settle(live.ends("a"))
    live.ends("t")

    for event in (Exited("a", 1, BUG), Started("a", 1), RestartDue("a", 1), Exited("t", 1, BUG), StartChild("t"), StopChild("?")):
        before = live.state
        assert live.on(event) == []
        assert live.state == before


def test_an_old_start_or_delay_does_not_stand_for_the_one_that_is_awaited() -> None:
    live = booted("a")
    live.ends("a")
    live.due("a")
    assert live.on(Started("a", 1)) == []
    assert live.status("a") == "starting"

    live.ends("a")
    assert live.on(RestartDue("a", 1)) == []
    assert live.due("a") == [Start("a", 3)]


# --- significance ------------------------------------------------------------------------------------------------------


def significant(*, auto: str) -> Live:
    one, two = (ChildSpec(id=id, restart="transient", significant=True) for id in ("one", "two"))
    return booted("a", one, two, auto_shutdown=auto)


def test_any_significant_child_that_ends_by_itself_ends_the_supervisor() -> None:
    """O7."""

    live = significant(auto="any_significant")

    assert live.settle(live.ends("one", "normal")) == ["-two", "-a", "exit shutdown"]


def test_with_all_significant_only_the_last_one_of_them_does() -> None:
    """O7."""

    live = significant(auto="all_significant")

    assert live.settle(live.ends("one", "normal")) == []
    assert live.settle(live.ends("two", "normal")) == ["-a", "exit shutdown"]


def test_a_significant_child_that_waits_for_its_restart_has_not_ended() -> None:
    live = significant(auto="all_significant")
    live.ends("one", BUG)

    assert live.settle(live.ends("two", "normal")) == []


def test_a_significant_child_that_is_restarted_ends_nothing() -> None:
    live = significant(auto="any_significant")

    assert live.settle(live.ends("one", BUG)) == ["+one"]


def test_a_child_that_is_not_significant_never_ends_the_supervisor() -> None:
    live = booted(ChildSpec(id="a", restart="temporary"), auto_shutdown="any_significant")

    assert live.settle(live.ends("a", "normal")) == []


def test_group_kills_and_manual_stops_never_trigger_auto_shutdown() -> None:
    """O7."""

    temporary = ChildSpec(id="t", restart="temporary", significant=True)
    live = booted("a", temporary, strategy="one_for_all", auto_shutdown="any_significant")
    assert live.settle(live.ends("a")) == ["-t", "+a"]

    live = significant(auto="any_significant")
    assert live.settle(live.on(StopChild("one"))) == ["-one"]
    assert live.state.phase == "running"


# --- decisions by exception class --------------------------------------------------------------------------------------


def test_the_nearest_class_of_the_mro_decides_whatever_the_order_of_the_table() -> None:
    table: Any = ((Exception, "stop"), (OSError, "escalate"), (ConnectionError, "keep"))

    assert decision_on(table, ConnectionResetError()) == "keep"
    assert decision_on(table, FileNotFoundError()) == "escalate"
    assert decision_on(table, ValueError()) == "stop"
    assert decision_on((), ValueError()) == "restart"
    assert decision_on(table, KeyboardInterrupt()) == "restart"


def test_keep_lets_the_child_go_on_and_counts_nothing_even_while_others_restart() -> None:
    live = booted("a", "b", on=((ConnectionError, "keep"),))
    live.ends("b")
    live.due("b")

    assert live.ends("a", OUTAGE) == [Report("a", "kept", OUTAGE), Keep("a", 1)]
    assert live.status("a") == "running"
    assert len(live.state.budget.spent) == 1


def test_a_nested_supervisor_that_failed_cannot_be_kept_and_is_restarted() -> None:
    live = booted(ChildSpec(id="inner", nested=True), on=((ConnectionError, "keep"),))

    assert live.settle(live.ends("inner", OUTAGE)) == ["+inner"]


def test_stop_leaves_a_permanent_child_down() -> None:
    live = booted("a", "b", on=((ConnectionError, "stop"),))

    assert live.settle(live.ends("a", OUTAGE)) == []
    assert live.status("a") == "down"


def test_escalate_stops_the_rest_in_reverse_and_fails_the_supervisor_with_the_same_exception() -> None:
    """G3."""

    live = booted("a", "b", "c", on=((ConnectionError, "escalate"),))

    assert live.settle(live.ends("b", OUTAGE)) == ["-c", "-a", "exit ConnectionResetError"]
    assert live.state.why == OUTAGE
    assert live.state.budget.spent == ()


def test_an_escalated_failure_restarts_a_transient_supervisor_since_it_is_abnormal() -> None:
    live = booted(ChildSpec(id="inner", nested=True, restart="transient"))

    assert live.settle(live.ends("inner", OUTAGE)) == ["+inner"]


def test_a_failed_start_of_a_restart_is_decided_by_its_exception_too() -> None:
    for decision, after in (("escalate", ["-b", "exit ConnectionResetError"]), ("stop", []), ("keep", ["+a"])):
        live = booted("a", "b", on=((ConnectionError, decision),))
        live.ends("a", BUG)
        live.due("a")

        assert live.settle(live.ends("a", OUTAGE)) == after


def test_a_group_goes_on_when_a_member_that_fails_to_start_is_to_stay_down() -> None:
    live = booted("a", "b", "c", strategy="rest_for_one", on=((ConnectionError, "stop"),))
    live.ends("a")
    live.ends("c", "shutdown")
    live.ends("b", "shutdown")
    live.due("a")
    live.up("a")

    assert live.settle(live.ends("b", OUTAGE)) == ["+c"]
    assert live.status("b") == "down"


# --- operators ---------------------------------------------------------------------------------------------------------


def test_a_child_stopped_by_an_operator_stays_down_until_it_is_started_or_its_group_restarts() -> None:
    live = booted("a", "b", strategy="one_for_all")
    assert live.settle(live.on(StopChild("b"))) == ["-b"]
    assert live.status("b") == "down"
    assert live.settle(live.on(StartChild("b"))) == ["+b"]

    live.settle(live.on(StopChild("b")))
    assert live.settle(live.ends("a")) == ["+a", "+b"]


def test_stopping_a_child_that_waits_for_its_restart_cancels_that() -> None:
    live = booted("a")
    live.ends("a")

    assert live.on(StopChild("a")) == []
    assert live.status("a") == "down"
    assert live.due("a") == []


def test_a_start_by_an_operator_that_fails_leaves_the_child_down_and_counts_nothing() -> None:
    live = booted("a")
    live.settle(live.on(StopChild("a")))
    live.on(StartChild("a"))

    assert live.ends("a", BUG) == [Report("a", "not_started", BUG)]
    assert (live.status("a"), live.state.budget.spent) == ("down", ())


def test_wishes_wait_while_something_is_under_way_and_the_later_one_for_a_child_counts() -> None:
    live = booted("a", "b")
    live.ends("a")
    live.due("a")

    assert live.on(StopChild("b")) == live.on(StartChild("b")) == live.on(StopChild("b")) == []
    assert len(live.state.backlog) == 1
    assert live.up("a") == [Stop("b", 1, 5.0)]


def test_a_wish_before_the_boot_is_nobodys() -> None:
    live = made("a")

    assert live.on(StopChild("a")) == live.on(StartChild("a")) == []
    assert live.state.backlog == ()
    assert live.settle(live.on(Boot())) == ["+a", "ready"]


# --- dynamic children --------------------------------------------------------------------------------------------------


def test_dynamic_children_have_a_budget_each_and_are_quarantined_when_it_is_spent() -> None:
    """O9."""

    bad, good = Budget(2, 60.0), Budget(2, 60.0)

    verdicts = []
    for now in (0.0, 1.0, 2.0):
        bad, verdict = spend(bad, now=now)
        verdicts.append(verdict)

    assert verdicts == ["restart", "restart", "quarantine"]
    assert spend(good, now=2.0)[1] == "restart"


def test_resume_gives_a_new_budget() -> None:
    budget, _ = spend(Budget(0, 60.0), now=0.0)

    assert resume(budget) == Budget(0, 60.0)
    assert spend(resume(Budget(1, 60.0, (5.0, 5.0))), now=6.0)[1] == "restart"


# --- all of it ---------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_any_history_goes_as_in_otp(history: History) -> None:
    """O1."""

    assert FakeTree(history).live() == NaiveTree(history).live()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_histories_go_as_in_otp(chunk: int) -> None:
    """`ACTORFLOW_HISTORIES` says how many; a failure names its seed."""
    for seed in range(chunk, HISTORIES, CHUNKS):
        history = random_history(Random(seed))
        assert FakeTree(history).live() == NaiveTree(history).live(), f"seed {seed}"
