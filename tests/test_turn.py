"""The driver: outcomes go in one at a time in journal order, and code that does not fit its journal starts nothing new."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from actorflow.checkpoints import checkpoint
from actorflow.errors import (
    AgainMisplaced,
    Divergence,
    FieldWriteInBranch,
    Leaving,
    NotEncodable,
    OutsideTurn,
    StepNameTaken,
    Undecodable,
)
from actorflow.kernel.branches import Branch, driven, driver
from actorflow.kernel.journal import entry as new_entry
from actorflow.kernel.requests import Again, Asked, Broken, Closing, Finished, Gather, Join, Request, Stretch
from actorflow.kernel.turn import Turn
from actorflow.kind import Fields
from actorflow.records import Entry, Event
from actorflow.steps import plain, step
from actorflow.workflow import Workflow, gather


class Boom(Exception): ...


@frozen
class Call(Request):
    """The smallest thing that durable code can ask for: a name and a number, answered by a number."""

    name: str
    given: int = 0
    was: tuple[str, ...] = ()
    kind = "step"

    def input(self) -> bytes:
        return b"%d" % self.given

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        outcome = int(entry.outcome or b"0")
        return (outcome, None) if entry.status == "ok" else (None, Boom(outcome))


async def ask(name: str, given: int = 0, was: tuple[str, ...] = ()) -> int:
    return await Call(name, given, was)


async def both(*codes: Coroutine[Any, Any, Any], settle: bool = False) -> Any:
    return await Gather(codes, settle)


async def line(*names: str) -> list[int]:
    return [await ask(name) for name in names]


def task(code: Coroutine[Any, Any, Any], key: str | None = None) -> Branch:
    return driver("task").task(code, key)


async def join(branch: Branch) -> Any:
    return await Join(branch)


class Live:
    """A run as the shell leads it: every outcome is recorded, then handed over; what the code noted rides along."""

    def __init__(self, code: Coroutine[Any, Any, Any], recorded: Iterable[Entry] = (), **more: Any) -> None:
        self.log = list(recorded)
        events = [Event(seq, entry) for seq, entry in enumerate(self.log, 1)]
        self.turn = Turn(code, copy_context(), events, **more)
        self.end: Any = None
        self._take(self.turn.begin())

    def _take(self, stretch: Stretch) -> None:
        self.log.extend(new_entry(1, 0, note.kind, note.identity, at=0.0, outcome=note.outcome) for note in stretch.notes)
        self.end = stretch.end

    @property
    def asks(self) -> list[str]:
        """What it waits for that is not recorded."""
        return [str(asked) for asked in self.turn.waiting()] if self.end is None else []

    def asked(self, call: str) -> Asked:
        return next(asked for asked in self.turn.waiting() if str(asked) == call)

    def answer(self, call: str | Asked, outcome: int = 1, *, failed: bool = False) -> Live:
        asked = self.asked(call) if isinstance(call, str) else call
        request, status = asked.request, "failed" if failed else "ok"
        payload = request.outcome() if isinstance(request, Closing) else b"%d" % outcome
        entry = new_entry(
            1,
            0,
            request.kind,
            asked.identity,
            at=0.0,
            status=status,  # type: ignore[arg-type]
            input=request.input(),
            outcome=payload,
        )
        self.log.append(entry)
        self._take(self.turn.deliver(entry))
        return self


def recorded(branch: str, name: str, n: int = 0, outcome: int = 1, *, given: int = 0, status: Any = "ok") -> Entry:
    identity = (branch, name, n)
    return new_entry(1, 0, "step", identity, at=0.0, status=status, input=b"%d" % given, outcome=b"%d" % outcome)  # type: ignore[arg-type]


def diverged(code: Coroutine[Any, Any, Any], entries: Sequence[Entry]) -> Divergence:
    live = Live(code, entries)
    assert isinstance(live.end, Broken)
    assert isinstance(live.end.reason, Divergence), live.end.reason
    assert live.log == list(entries)  # Nothing new was noted.
    return live.end.reason


# --- order and identity ------------------------------------------------------------------------------------------------


def test_code_runs_to_its_first_wait_and_from_there_with_each_outcome() -> None:
    live = Live(line("a", "b"))

    assert live.asks == [":a#0"]
    assert live.answer(":a#0", 3).asks == [":b#0"]
    assert live.answer(":b#0", 4).end == Finished([3, 4], None, None, ())


def test_code_that_waits_for_nothing_is_finished_at_once() -> None:
    assert Live(line()).end == Finished([], None, None, ())


def test_replay_hands_back_what_was_recorded_and_asks_for_the_rest() -> None:
    assert Live(line("a", "b"), [recorded("", "a")]).asks == [":b#0"]
    assert Live(line("a", "b"), [recorded("", "a", outcome=5), recorded("", "b", outcome=6)]).end.value == [5, 6]


def test_the_same_call_again_is_another_call() -> None:
    """R12: a step in a loop is recorded apart each time."""
    live = Live(line("a", "a", "a"), [recorded("", "a", 0, 7), recorded("", "a", 1, 8)])

    assert live.asks == [":a#2"]
    assert live.answer(":a#2", 9).end.value == [7, 8, 9]


def test_identity_is_taken_when_and_where_a_call_is_awaited() -> None:
    async def code() -> None:
        first, second = ask("a"), ask("a")
        await both(line("b"), second)
        await first

    live = Live(code())

    assert live.asks == ["/gather#0.0:b#0", "/gather#0.1:a#0"]
    assert live.answer("/gather#0.0:b#0").answer("/gather#0.1:a#0").asks == [":a#0"]


def test_branches_wake_in_the_order_of_the_journal() -> None:
    def code(seen: list[str]) -> Coroutine[Any, Any, Any]:
        async def walk(name: str) -> None:
            for _ in range(2):
                await ask("a")
                seen.append(name)

        return both(walk("x"), walk("y"))

    seen: list[str] = []
    entries = [recorded(f"/gather#0.{i}", "a", n) for i, n in ((1, 0), (1, 1), (0, 0), (0, 1))]

    assert isinstance(Live(code(seen), entries).end, Finished)
    assert seen == ["y", "y", "x", "x"]


def test_while_a_recorded_outcome_is_undelivered_nothing_new_is_asked() -> None:
    """Rule 6: what branch 0 asks next comes only after all that was recorded went in."""
    live = Live(both(line("a", "b"), line("a", "c")), [recorded("/gather#0.0", "a"), recorded("/gather#0.1", "a")])

    assert live.asks == ["/gather#0.0:b#0", "/gather#0.1:c#0"]


def test_a_branch_has_a_copy_of_its_parents_context() -> None:
    name: ContextVar[str] = ContextVar("name", default="none")
    seen: list[str] = []

    async def child() -> None:
        seen.append(name.get())
        name.set("child")
        await ask("a")
        seen.append(name.get())

    async def code() -> None:
        name.set("parent")
        await both(child(), child())
        seen.append(name.get())

    live = Live(code())
    live.answer("/gather#0.0:a#0").answer("/gather#0.1:a#0")

    assert seen == ["parent", "parent", "child", "child", "parent"]
    assert name.get() == "none"


# --- names -------------------------------------------------------------------------------------------------------------


def test_a_renamed_call_is_found_under_its_old_name() -> None:
    async def code() -> list[int]:
        return [await ask("new", was=("older", "old")) for _ in range(3)]

    live = Live(code(), [recorded("", "old", 0, 5), recorded("", "older", 1, 6)])

    assert live.asks == [":new#2"]
    assert live.answer(":new#2", 7).end.value == [5, 6, 7]
    assert Live(code(), live.log).end.value == [5, 6, 7]


def test_an_open_call_keeps_its_tries_when_it_is_renamed() -> None:
    attempt = new_entry(1, 0, "try", recorded("", "old").identity, at=0.0, status="failed", attempt=1, outcome=b"null")

    live = Live(ask("new", was=("old",)), [attempt])

    assert live.asks == [":new#0"]
    assert list(live.turn.journal.tries(live.asked(":new#0").identity)) == [attempt]


def test_one_name_belongs_to_one_function_within_a_run() -> None:
    @step(name="same")
    async def one() -> int:
        return 1

    @step(name="same")
    async def other() -> int:
        return 2

    async def code() -> None:
        await one()
        await other()

    live = Live(code())
    live.answer(":same#0")

    assert isinstance(live.end, Broken)
    assert isinstance(live.end.reason, StepNameTaken)
    assert "give one of them `name=`" in str(live.end.reason)


# --- divergence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "entries"),
    [
        (lambda: line("b", "a"), [("", "a"), ("", "b")]),
        (lambda: line("z", "b"), [("", "a"), ("", "b")]),
        (lambda: line("b"), [("", "a")]),
        (lambda: line("b"), [("", "a"), ("", "b")]),
        (lambda: line("a"), [("", "a"), ("", "b")]),
        (line, [("", "a")]),
        (lambda: line("a", "new", "b"), [("", "a"), ("", "b")]),
        (lambda: line("new", "a"), [("", "a")]),
        (lambda: both(line("a")), [("/gather#0.0", "a"), ("/gather#0.1", "b")]),
        (lambda: both(line("a"), line("a")), [("/gather#0.0", "a"), ("/gather#0.1", "b")]),
        (lambda: both(line("b"), line("a")), [("/gather#0.0", "a"), ("/gather#0.1", "b")]),
        (lambda: line("a"), [("/gather#0.0", "a")]),
        (lambda: both(line("a")), [("", "a")]),
    ],
    ids=[
        "swapped", "renamed", "replaced", "first removed", "last removed", "all removed", "inserted between", "inserted before",
        "branch removed", "branch changed", "branches swapped", "gather removed", "gather added",
    ],
)  # fmt: skip
def test_code_that_does_not_ask_for_what_was_recorded_starts_nothing(
    code: Callable[[], Coroutine[Any, Any, Any]], entries: list[tuple[str, str]]
) -> None:
    """X15, E1, rule 8."""
    error = diverged(code(), [recorded(*entry) for entry in entries])

    assert error.recorded
    assert "self.patched" in str(error)


def test_a_divergence_names_what_is_asked_and_what_is_recorded() -> None:
    """X15."""

    error = diverged(line("b", "a"), [recorded("", "a"), recorded("", "b")])

    assert error.asked == "step :b#0"
    assert error.recorded == ("step :a#0", "step :b#0")


def test_another_input_is_a_divergence_that_shows_both() -> None:
    error = diverged(ask("a", 2), [recorded("", "a", given=1)])

    assert error.asked == "step :a#0 with 2"
    assert error.recorded == ("the same call with 1",)


def test_a_branch_more_is_ahead_of_the_frontier() -> None:
    live = Live(both(line("a"), line("b")), [recorded("/gather#0.0", "a")])

    assert live.asks == ["/gather#0.1:b#0"]


def test_code_ahead_of_the_frontier_changes_freely() -> None:
    assert Live(line("a", "b"), [recorded("", "a")]).asks == [":b#0"]
    assert Live(line("a", "c", "d"), [recorded("", "a")]).asks == [":c#0"]


def test_a_trunk_that_ends_before_what_a_branch_recorded_is_a_divergence() -> None:
    async def code() -> None:
        await ask("a")

    error = diverged(code(), [recorded("", "a"), recorded("/task#0", "b")])

    assert error.asked == "the end of the run"


def test_a_failure_of_new_code_is_shown_beside_the_divergence_that_it_causes() -> None:
    async def code() -> None:
        await ask("a")
        raise Boom("typing error")

    error = diverged(code(), [recorded("", "a"), recorded("", "b")])

    assert isinstance(error.__cause__, Boom)


def test_nothing_may_be_asked_behind_what_was_recorded_of_the_branch() -> None:
    """Rule 8: the rest of the branch is unclaimed, so a new call in it is refused, however plausible."""
    error = diverged(line("a", "b", "b"), [recorded("", "a"), recorded("", "b"), recorded("", "c")])

    assert error.asked == "step :b#1"


def test_an_entry_that_todays_code_cannot_read_breaks_the_run_and_not_the_driver() -> None:
    class Unreadable(Call):
        def answer(self, entry: Entry) -> Any:
            raise Undecodable("outcome", "no such field")

    async def code() -> None:
        await Unreadable("a")

    end = Live(code(), [recorded("", "a")]).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, Undecodable)


# --- failures ----------------------------------------------------------------------------------------------------------


def test_a_recorded_failure_is_raised_where_it_was_asked_for_live_as_on_replay() -> None:
    """R3: the same `except` catches it."""

    async def code() -> str:
        try:
            await ask("a")
        except Boom as error:
            return f"caught {error}"
        return "went well"

    live = Live(code()).answer(":a#0", 7, failed=True)

    assert live.end.value == "caught 7"
    assert Live(code(), live.log).end.value == "caught 7"


def test_the_end_knows_which_entry_its_error_came_from() -> None:
    async def code() -> None:
        await ask("a")

    live = Live(code()).answer(":a#0", 7, failed=True)

    assert isinstance(live.end.error, Boom)
    assert live.end.recorded == live.log[0]


def test_an_error_of_the_code_itself_came_from_no_entry() -> None:
    async def code() -> None:
        try:
            await ask("a")
        except Boom as error:
            raise ValueError("worse") from error

    end = Live(code()).answer(":a#0", failed=True).end

    assert isinstance(end.error, ValueError)
    assert end.recorded is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), Boom(), StopAsyncIteration()])
def test_whatever_durable_code_raises_ends_the_run_and_not_the_driver(error: BaseException) -> None:
    """E13: a KeyboardInterrupt of the code itself is a bug of it."""

    async def code() -> None:
        await ask("a")
        raise error

    end = Live(code()).answer(":a#0").end

    assert isinstance(end, Finished)
    assert end.error is error


# --- gather ------------------------------------------------------------------------------------------------------------


def test_gather_gives_values_in_the_order_of_its_arguments() -> None:
    """E24."""

    live = Live(both(ask("a"), ask("b"), ask("c")))

    live.answer("/gather#0.2:c#0", 3).answer("/gather#0.0:a#0", 1).answer("/gather#0.1:b#0", 2)

    assert live.end.value == (1, 2, 3)


def test_an_empty_gather_gives_nothing_at_once() -> None:
    async def code() -> tuple[Any, int]:
        return await both(), await ask("a")

    assert Live(code()).answer(":a#0", 5).end.value == ((), 5)


def test_gathers_nest() -> None:
    live = Live(both(both(ask("a"), ask("b")), both(both(ask("c")), ask("d"))))

    for call in live.asks:
        live.answer(call, ord(call[-3]))

    assert [entry.branch for entry in live.log] == [
        "/gather#0.0/gather#0.0",
        "/gather#0.0/gather#0.1",
        "/gather#0.1/gather#0.1",
        "/gather#0.1/gather#0.0/gather#0.0",
    ]
    assert live.end.value == ((97, 98), ((99,), 100))
    assert Live(both(both(ask("a"), ask("b")), both(both(ask("c")), ask("d"))), live.log).end.value == live.end.value


def test_the_first_failure_closes_a_gather_with_what_it_cancels() -> None:
    live = Live(both(ask("a"), ask("b"), ask("c")))
    others = [live.asked("/gather#0.0:a#0"), live.asked("/gather#0.2:c#0")]

    live.answer("/gather#0.1:b#0", 9, failed=True)

    assert live.asks == [":gather#0"]
    closing = live.asked(":gather#0").request
    assert isinstance(closing, Closing)
    assert list(closing.dropped) == others
    assert not any(live.turn.wants(asked) for asked in others)
    assert isinstance(live.answer(":gather#0").end.error, Boom)
    assert live.end.recorded == live.log[0]  # The failing step, not the closing entry.


def test_a_closed_gather_is_replayed_without_its_other_branches() -> None:
    async def code() -> str:
        try:
            await both(line("a", "x"), line("b"), line("c", "y"))
        except Boom:
            return f"then {await ask('d')}"
        return "no"

    live = Live(code()).answer("/gather#0.0:a#0").answer("/gather#0.1:b#0", failed=True).answer(":gather#0").answer(":d#0", 4)
    replayed = Live(code(), live.log[:-1])

    assert live.end.value == "then 4"
    assert replayed.asks == [":d#0"]
    assert replayed.answer(":d#0", 4).end.value == "then 4"


def test_entries_of_cancelled_calls_are_history() -> None:
    """Rule 13: the commit that closes a gather records what it cancelled; replay asks nobody for it."""

    async def code() -> int:
        try:
            await both(ask("a"), both(ask("b"), ask("c")))
        except Boom:
            return await ask("d")
        return 0

    live = Live(code()).answer("/gather#0.0:a#0", failed=True)
    cancelled = [recorded(f"/gather#0.1/gather#0.{i}", name, status="cancelled") for i, name in ((0, "b"), (1, "c"))]
    live.log.extend(cancelled)
    live.answer(":gather#0")

    replayed = Live(code(), live.log)

    assert replayed.asks == [":d#0"]


def test_an_outcome_that_its_branch_no_longer_wants_is_not_wanted() -> None:
    live = Live(both(ask("a"), ask("b")))
    late = live.asked("/gather#0.1:b#0")

    live.answer("/gather#0.0:a#0", failed=True)

    assert not live.turn.wants(late)
    assert live.turn.wants(live.asked(":gather#0"))


def test_the_first_failure_is_that_of_the_journal_and_not_of_the_arguments() -> None:
    live = Live(both(ask("a"), ask("b")))

    live.answer("/gather#0.1:b#0", 2, failed=True).answer(":gather#0")

    assert live.end.error.args == (2,)


def test_code_in_a_cancelled_branch_may_not_go_on() -> None:
    seen: list[str] = []

    async def careful() -> None:
        try:
            await ask("a")
        finally:
            try:
                await plain_or_step()
            except Leaving:
                seen.append("leaving")

    live = Live(both(careful(), ask("b")))
    live.answer("/gather#0.1:b#0", failed=True)

    assert seen == ["leaving"]
    assert live.asks == [":gather#0"]


def test_settle_waits_for_all_and_gives_failures_as_values() -> None:
    live = Live(both(ask("a"), ask("b"), ask("c"), settle=True))

    live.answer("/gather#0.1:b#0", 2, failed=True)
    assert live.asks == ["/gather#0.0:a#0", "/gather#0.2:c#0"]
    live.answer("/gather#0.2:c#0", 3).answer("/gather#0.0:a#0", 1)

    first, second, third = live.end.value
    assert (first, third) == (1, 3)
    assert isinstance(second, Boom)


def test_settle_does_not_hold_what_is_no_exception() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    live = Live(both(ask("a"), interrupted(), settle=True))

    assert isinstance(live.end.error, KeyboardInterrupt)


def test_a_failure_caught_inside_its_branch_closes_nothing() -> None:
    async def careful() -> str:
        try:
            await ask("a")
        except Boom:
            return "caught"
        return "fine"

    live = Live(both(careful(), ask("b"))).answer("/gather#0.0:a#0", failed=True)

    assert live.asks == ["/gather#0.1:b#0"]
    assert live.answer("/gather#0.1:b#0").end.value == ("caught", 1)


def test_a_second_gather_is_another_scope() -> None:
    async def code() -> list[Any]:
        return [await both(ask("a")), await both(ask("a"))]

    live = Live(code()).answer("/gather#0.0:a#0", 1)

    assert live.asks == ["/gather#1.0:a#0"]
    assert live.answer("/gather#1.0:a#0", 2).end.value == [(1,), (2,)]


# --- tasks -------------------------------------------------------------------------------------------------------------


def test_a_task_runs_beside_the_line_that_started_it_and_is_joined() -> None:
    async def code() -> list[int]:
        side = task(ask("a"))
        return [await ask("b"), await join(side)]

    live = Live(code())

    assert live.asks == [":b#0", "/task#0:a#0"]
    assert live.answer("/task#0:a#0", 1).answer(":b#0", 2).end.value == [2, 1]
    assert Live(code()).answer(":b#0", 2).answer("/task#0:a#0", 1).end.value == [2, 1]


def test_a_key_names_a_task() -> None:
    async def code() -> None:
        for key in ("x/y", "a~b"):
            task(ask("a"), key)
        await ask("b")

    assert Live(code()).asks == [":b#0", "/task:x~1y:a#0", "/task:a~0b:a#0"]


def test_a_key_used_twice_in_a_branch_is_refused() -> None:
    unused = ask("a")

    async def code() -> None:
        task(ask("a"), "k")
        task(unused, "k")

    live = Live(code())
    unused.close()

    assert isinstance(live.end.error, ValueError)
    assert "'k'" in str(live.end.error)


def test_a_failed_task_raises_at_its_join_and_nowhere_else() -> None:
    async def code() -> str:
        side = task(ask("a"))
        first = await ask("b")
        try:
            await join(side)
        except Boom as error:
            return f"{first} {error}"
        return "no"

    assert Live(code()).answer("/task#0:a#0", 7, failed=True).answer(":b#0", 2).end.value == "2 7"


def test_a_task_may_be_joined_by_many_and_again() -> None:
    async def code() -> list[Any]:
        side = task(ask("a"))
        return [await both(join(side), join(side)), await join(side)]

    assert Live(code()).answer("/task#0:a#0", 5).end.value == [(5, 5), 5]


def test_tasks_left_open_are_cancelled_with_the_run() -> None:
    async def code() -> str:
        task(both(ask("a"), ask("b")))
        await ask("c")
        return "done"

    live = Live(code())
    open_calls = [live.asked("/task#0/gather#0.0:a#0"), live.asked("/task#0/gather#0.1:b#0")]
    live.answer(":c#0")

    assert live.end == Finished("done", None, None, tuple(open_calls))
    assert not any(live.turn.wants(asked) for asked in open_calls)


def test_what_a_task_recorded_after_its_trunk_failed_is_history() -> None:
    """A failed trunk pauses, and what still ran beside it is recorded: `resume` must find the same failure again."""

    async def code() -> None:
        task(ask("a"))
        await ask("b")

    live = Live(code()).answer(":b#0", 7, failed=True)
    resumed = Live(code(), [*live.log, recorded("/task#0", "a")])

    assert isinstance(resumed.end, Finished)
    assert resumed.end.recorded == live.log[0]


def test_a_task_that_awaits_itself_is_a_deadlock_and_named_as_one() -> None:
    async def code() -> None:
        handles: list[Branch] = []

        async def selfish() -> None:
            await join(handles[0])

        handles.append(task(selfish()))
        await join(handles[0])

    end = Live(code()).end

    assert isinstance(end, Broken)
    assert "wait for each other" in str(end.reason)


def test_two_tasks_that_await_one_another_are_a_deadlock_once_nothing_else_goes_on() -> None:
    async def code() -> None:
        handles: list[Branch] = []

        async def waiting(on: int) -> None:
            await join(handles[on])

        handles.append(task(waiting(1)))
        handles.append(task(waiting(0)))
        await ask("a")
        await join(handles[0])

    live = Live(code())
    assert live.asks == [":a#0"]
    live.answer(":a#0")

    assert isinstance(live.end, Broken)


# --- on the spot -------------------------------------------------------------------------------------------------------


async def spots(clock: list[int], *, pause: bool = True) -> list[bytes | None]:
    turn = driver("spots")
    first = turn.spot("now", "now", lambda: b"%d" % clock.pop(0))
    if pause:
        await ask("a")
    return [first, turn.spot("now", "now", lambda: b"%d" % clock.pop(0))]


def test_an_answer_on_the_spot_is_noted_and_repeated() -> None:
    live = Live(spots([1, 2])).answer(":a#0")

    assert live.end.value == [b"1", b"2"]
    assert [(entry.kind, str(entry.identity)) for entry in live.log] == [("now", ":now#0"), ("step", ":a#0"), ("now", ":now#1")]
    assert Live(spots([]), live.log).end.value == [b"1", b"2"]
    assert Live(spots([7]), live.log[:2]).end.value == [b"1", b"7"]


def test_an_answer_on_the_spot_that_is_not_asked_for_is_a_divergence() -> None:
    live = Live(spots([1, 2])).answer(":a#0")

    assert diverged(ask("a"), live.log).asked == "step :a#0"
    assert diverged(spots([], pause=False), live.log).asked == "now :now#1"


def test_a_flag_is_false_in_a_run_that_was_under_way_and_true_in_a_new_one() -> None:
    """E2: old runs take the old path, new runs the new one, and the answer lasts."""

    async def old() -> list[int]:
        return await line("a", "b")

    async def new() -> list[int]:
        if driver("patched").patched("vat"):
            return await line("new", "b")
        return await line("a", "b")

    under_way = Live(old()).answer(":a#0")
    assert Live(new(), under_way.log).asks == [":b#0"]

    fresh = Live(new())
    assert fresh.asks == [":new#0"]
    assert fresh.log[0].kind == "patch"
    assert Live(new(), fresh.log).asks == [":new#0"]
    assert Live(new(), fresh.answer(":new#0").log).asks == [":b#0"]


def test_a_flag_first_asked_at_the_frontier_is_true_and_stays_so() -> None:
    async def code() -> bool:
        await ask("a")
        return driver("patched").patched("vat")

    live = Live(code(), [recorded("", "a")])

    assert live.end.value is True
    assert [entry.kind for entry in live.log] == ["step", "patch"]
    assert Live(code(), live.log).end.value is True


def test_all_branches_and_calls_get_one_answer_for_a_flag() -> None:
    async def asking(name: str) -> tuple[bool, bool]:
        before = driver("patched").patched("vat")
        await ask(name)
        return before, driver("patched").patched("vat")

    live = Live(both(asking("a"), asking("b")), [recorded("/gather#0.1", "b")])
    live.answer("/gather#0.0:a#0")

    assert live.end.value == ((False, False), (False, False))
    assert [entry.kind for entry in live.log].count("patch") == 1


# --- leaving -----------------------------------------------------------------------------------------------------------

performed: list[str] = []


@step
async def plain_or_step() -> None:
    performed.append("performed")


async def careful(seen: list[str]) -> None:
    try:
        await ask("a")
    finally:
        for verb in (driven, lambda: driver("x"), lambda: plain_or_step().send(None), lambda: gather([]).send(None)):
            try:
                verb()
                seen.append("did something")
            except Leaving:
                seen.append("leaving")


@pytest.fixture(autouse=True)
def nothing_was_performed() -> Any:
    performed.clear()
    yield
    assert performed == []


def test_a_dropped_turn_closes_its_code_and_refuses_its_verbs() -> None:
    seen: list[str] = []
    turn = Turn(careful(seen), copy_context())
    turn.begin()

    turn.drop()
    turn.drop()

    assert seen == ["leaving"] * 4
    assert turn.waiting() == []
    assert not driven()


def test_a_turn_that_is_let_go_of_closes_its_code() -> None:
    seen: list[str] = []
    turn = Turn(careful(seen), copy_context())
    turn.begin()

    del turn

    assert seen == ["leaving"] * 4


def test_a_turn_in_a_cycle_is_left_by_the_garbage_collector_in_the_same_way() -> None:
    """Whichever object the collector comes to first, no verb runs as if the code were live."""
    seen: list[str] = []
    cycle: list[Any] = [Turn(careful(seen), copy_context())]
    cycle.append(cycle)
    cycle[0].begin()

    del cycle
    gc.collect()

    assert seen == ["leaving"] * 4


def test_the_collector_may_come_while_another_turn_is_driven() -> None:
    seen: list[str] = []

    async def collecting() -> bytes | None:
        cycle: list[Any] = [abandoned.pop()]
        cycle.append(cycle)
        del cycle
        gc.collect()
        return driver("now").spot("now", "now", lambda: b"1")

    abandoned = [Turn(careful(seen), copy_context())]
    abandoned[0].begin()
    live = Live(collecting())

    assert seen == ["leaving"] * 4
    assert [str(entry.identity) for entry in live.log] == [":now#0"]
    assert live.end.value == b"1"


def test_code_that_was_never_begun_is_dropped_without_a_word() -> None:
    Turn(ask("a"), copy_context()).drop()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there it is kept until `drop`, which the runtime always calls")
def test_an_exception_kept_in_a_variable_does_not_keep_its_turn() -> None:
    seen: list[str] = []

    async def keeping() -> None:
        failures = await both(ask("a"), settle=True)
        await careful(seen)
        del failures

    live = Live(keeping()).answer("/gather#0.0:a#0", failed=True)
    del live
    gc.collect()

    assert seen == ["leaving"] * 4


def test_nothing_is_driven_outside_of_a_stretch() -> None:
    live = Live(line("a"))

    assert not driven()
    with pytest.raises(OutsideTurn, match="gather"):
        gather([]).send(None)
    assert live.asks == [":a#0"]


# --- fields, checkpoints and rounds -------------------------------------------------------------------------------------


@step
async def price(sku: str) -> int:
    return len(sku)


@step
async def pack(sku: str) -> str:
    return sku


class Cart(Workflow[list[str]]):
    """Its `run` is a plan that the test gives."""

    skus: list[str] = field(factory=list)
    total: int = 0
    label: str = ""

    async def run(self) -> list[str]:
        return self.skus

    @checkpoint
    async def priced(self, sku: str) -> int:
        cost = await price(sku)
        self.total += cost
        self.skus.append(sku)
        return cost

    @checkpoint
    async def all_priced(self, *skus: str) -> int:
        for sku in skus:
            await self.priced(sku)
        self.label = f"{len(skus)} items"
        return self.total

    @checkpoint
    async def picky(self, sku: str) -> str:
        self.label = sku
        if await price(sku) > 3:
            raise ValueError("too dear")
        return await pack(sku)

    @checkpoint
    async def odd(self) -> Any:
        return object()

    @checkpoint
    async def with_side_line(self) -> int:
        self.task(price("side"))
        return await price("main")


Plan = Callable[[Cart], Coroutine[Any, Any, Any]]


class CartRun(Live):
    """A live run of a real workflow class; outcomes are what its steps return."""

    def __init__(self, plan: Plan, recorded: Iterable[Entry] = ()) -> None:
        kind = Cart.__kind_info__()
        self.cart = Cart()
        super().__init__(plan(self.cart), recorded, state=Fields(kind, self.cart), instance=self.cart, seed="7/0")

    def go(self, *calls: str) -> CartRun:
        for call in calls:
            self.perform(self.asked(call))
        return self

    def perform(self, asked: Asked) -> None:
        request: Any = asked.request
        if isinstance(request, Closing):
            outcome = request.outcome()
        else:
            coro = plain({"price": price, "pack": pack}[request.name])(*request.arguments.values())
            with pytest.raises(StopIteration) as stop:
                coro.send(None)
            outcome = request.step.outcome.encode(stop.value.value, "outcome")
        entry = new_entry(1, 0, request.kind, asked.identity, at=0.0, input=request.input(), outcome=outcome)
        self.log.append(entry)
        self._take(self.turn.deliver(entry))

    def to_the_end(self) -> CartRun:
        while self.end is None:
            self.perform(self.turn.waiting()[0])
        return self

    @property
    def fields(self) -> tuple[list[str], int, str]:
        return self.cart.skus, self.cart.total, self.cart.label


def folded(log: list[Entry]) -> list[Entry]:
    """What `Store.load` gives: nothing from inside of a finished checkpoint."""
    scopes = [f"{entry.branch}/{entry.name}#{entry.n}" for entry in log if entry.kind == "checkpoint"]
    return [entry for entry in log if not any(entry.branch == s or entry.branch.startswith(f"{s}/") for s in scopes)]


def test_a_finished_checkpoint_is_not_entered_again_and_restores_what_it_changed() -> None:
    async def plan(cart: Cart) -> int:
        cost = await cart.priced("book")
        return cost + await price("tail")

    live = CartRun(plan).go("/Cart.priced#0:price#0", ":Cart.priced#0")
    replayed = CartRun(plan, folded(live.log))

    assert [entry.kind for entry in folded(live.log)] == ["checkpoint"]
    assert live.asks == replayed.asks == [":price#0"]
    assert live.fields == replayed.fields == (["book"], 4, "")
    assert live.to_the_end().end.value == replayed.to_the_end().end.value == 8


def test_after_a_checkpoint_its_changed_fields_are_the_decoded_copies_live_too() -> None:
    async def plan(cart: Cart) -> bool:
        before = cart.skus
        await cart.priced("book")
        return cart.skus is before

    assert CartRun(plan).to_the_end().end.value is False


def test_a_checkpoint_keeps_only_the_fields_that_it_changed() -> None:
    async def plan(cart: Cart) -> None:
        cart.label = "mine"
        await cart.priced("book")

    live = CartRun(plan).to_the_end()

    closing = next(entry for entry in live.log if entry.kind == "checkpoint")
    assert b"label" not in (closing.outcome or b"")
    assert b"total" in (closing.outcome or b"")


def test_an_unfinished_checkpoint_is_entered_again_over_its_finished_steps() -> None:
    async def plan(cart: Cart) -> int:
        return await cart.all_priced("a", "bb", "ccc")

    live = CartRun(plan).go("/Cart.all_priced#0/Cart.priced#0:price#0", "/Cart.all_priced#0:Cart.priced#0")
    live.go("/Cart.all_priced#0/Cart.priced#1:price#0")
    replayed = CartRun(plan, folded(live.log))

    assert replayed.asks == ["/Cart.all_priced#0:Cart.priced#1"]
    assert replayed.fields == live.fields == (["a", "bb"], 3, "")
    assert replayed.to_the_end().end.value == 6


def test_nested_checkpoints_fold_into_the_outer_one() -> None:
    async def plan(cart: Cart) -> int:
        return await cart.all_priced("a", "bb")

    live = CartRun(plan).to_the_end()
    replayed = CartRun(plan, folded(live.log))

    assert [str(entry.identity) for entry in folded(live.log)] == [":Cart.all_priced#0"]
    assert replayed.end.value == live.end.value == 3
    assert replayed.fields == live.fields == (["a", "bb"], 3, "2 items")


def test_a_checkpoint_may_be_called_again_and_again() -> None:
    async def plan(cart: Cart) -> list[int]:
        return [await cart.priced(sku) for sku in ("a", "bb", "ccc")]

    live = CartRun(plan).to_the_end()

    assert live.end.value == [1, 2, 3]
    assert CartRun(plan, folded(live.log)).end.value == [1, 2, 3]


def test_a_checkpoint_that_raises_records_nothing_and_is_entered_again() -> None:
    async def plan(cart: Cart) -> str:
        for sku in ("expensive", "pin"):
            try:
                return await cart.picky(sku)
            except ValueError as error:
                cart.label += f" {error}"
        return ""

    live = CartRun(plan).go("/Cart.picky#0:price#0")

    assert live.asks == ["/Cart.picky#1:price#0"]
    assert [entry.kind for entry in live.log] == ["step"]
    replayed = CartRun(plan, folded(live.log))
    assert replayed.asks == live.asks
    assert replayed.to_the_end().end.value == "pin"


def test_in_a_branch_a_checkpoint_keeps_its_outcome_only() -> None:
    class Shelf(Cart):
        @checkpoint
        async def measured(self, sku: str) -> int:
            return await price(sku)

    async def plan(cart: Cart) -> tuple[int, int]:
        shelf = Shelf()
        return await gather(shelf.measured("a"), shelf.measured("bb"))

    live = CartRun(plan).to_the_end()

    assert live.end.value == (1, 2)
    assert all(b'"~fields":{}' in (entry.outcome or b"") for entry in live.log if entry.kind == "checkpoint")
    assert CartRun(plan, folded(live.log)).end.value == (1, 2)


def test_a_checkpoint_cancels_the_tasks_that_it_leaves_open() -> None:
    async def plan(cart: Cart) -> int:
        return await cart.with_side_line()

    live = CartRun(plan)
    side = live.asked("/Cart.with_side_line#0/task#0:price#0")
    live.go("/Cart.with_side_line#0:price#0")

    closing = live.asked(":Cart.with_side_line#0").request
    assert isinstance(closing, Closing)
    assert closing.dropped == (side,)
    assert not live.turn.wants(side)
    assert live.to_the_end().end.value == 4


def test_another_argument_of_a_finished_checkpoint_is_a_divergence() -> None:
    async def plan(cart: Cart, sku: str = "book") -> int:
        return await cart.priced(sku)

    live = CartRun(plan).to_the_end()
    end = CartRun(lambda cart: plan(cart, "film"), folded(live.log)).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, Divergence)
    assert "film" in str(end.reason)


def test_inside_a_finished_checkpoint_code_changes_freely() -> None:
    class Changed(Cart):
        @checkpoint(name="Cart.priced")
        async def priced(self, sku: str) -> int:
            raise AssertionError("never entered")

    async def plan(cart: Cart) -> int:
        return await cart.priced("book")

    live = CartRun(plan).to_the_end()

    assert CartRun(lambda _: plan(Changed()), folded(live.log)).end.value == 4


@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_a_checkpoint_renamed_by_was_goes_on_wherever_it_was(finished: int) -> None:
    class Renamed(Cart):
        @checkpoint(was=("Cart.all_priced",), name="Cart.everything_priced")
        async def everything(self, *skus: str) -> int:
            return await plain_all(self, *skus)

    async def plain_all(cart: Cart, *skus: str) -> int:
        for sku in skus:
            cart.total += await price(sku)
        return cart.total

    class Before(Cart):
        @checkpoint(name="Cart.all_priced")
        async def all_priced(self, *skus: str) -> int:
            return await plain_all(self, *skus)

    live = CartRun(lambda _: Before().all_priced("a", "bb"))
    for _ in range(finished):
        live.perform(live.turn.waiting()[0])

    renamed = CartRun(lambda _: Renamed().everything("a", "bb"), folded(live.log)).to_the_end()

    assert isinstance(renamed.end, Finished)
    assert renamed.end.value == 3
    assert [entry.kind for entry in folded(renamed.log)] == ["checkpoint"]
    assert CartRun(lambda _: Renamed().everything("a", "bb"), folded(renamed.log)).end.value == 3


def test_an_outcome_of_a_checkpoint_that_cannot_be_stored_breaks_the_run_with_its_path() -> None:
    async def plan(cart: Cart) -> object:
        return await cart.odd()

    end = CartRun(plan).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, NotEncodable)
    assert "Cart.odd" in str(end.reason)


def test_an_assignment_in_a_branch_is_refused() -> None:
    async def writing(cart: Cart) -> None:
        await price("a")
        cart.total = 1

    async def plan(cart: Cart) -> None:
        await gather(writing(cart), price("bb"))

    live = CartRun(plan).go("/gather#0.0:price#0")

    assert isinstance(live.end, Broken)
    assert isinstance(live.end.reason, FieldWriteInBranch)
    assert live.end.reason.field == "total"
    assert live.end.reason.branch == "/gather#0.0"
    assert live.cart.total == 0


def test_an_assignment_in_a_task_or_in_a_checkpoint_of_a_branch_is_refused_too() -> None:
    async def in_a_task(cart: Cart) -> None:
        async def writing() -> None:
            cart.label = "x"

        cart.task(writing())
        await price("a")

    async def in_a_checkpoint(cart: Cart) -> None:
        await gather(cart.picky("a"))

    for plan in (in_a_task, in_a_checkpoint):
        end = CartRun(plan).end
        assert isinstance(end, Broken)
        assert isinstance(end.reason, FieldWriteInBranch)
        assert end.reason.field == "label"


def test_a_value_changed_in_place_in_a_branch_is_found_at_the_join() -> None:
    async def appending(cart: Cart) -> int:
        cart.skus.append("x")
        return await price("a")

    async def plan(cart: Cart) -> None:
        await gather(appending(cart), price("bb"))

    live = CartRun(plan).go("/gather#0.0:price#0", "/gather#0.1:price#0")

    assert isinstance(live.end, Broken)
    assert isinstance(live.end.reason, FieldWriteInBranch)
    assert live.end.reason.field == "skus"


def test_the_trunk_writes_its_fields_before_and_after_a_gather() -> None:
    async def plan(cart: Cart) -> int:
        cart.skus.append("x")
        one, two = await gather(price("a"), price("bb"))
        cart.total = one + two
        cart.skus.append("y")
        return cart.total

    live = CartRun(plan).to_the_end()

    assert live.end.value == 3
    assert live.fields == (["x", "y"], 3, "")


def test_another_instance_may_be_written_anywhere() -> None:
    async def writing() -> int:
        Cart().total = 7
        return 7

    async def plan(cart: Cart) -> Any:
        return await gather(writing(), writing())

    assert CartRun(plan).end.value == (7, 7)


def test_again_ends_the_round_in_the_trunk() -> None:
    async def plan(cart: Cart) -> None:
        cart.total = 9
        await price("a")
        cart.again()

    live = CartRun(plan).go(":price#0")

    assert live.end == Again()
    assert live.cart.total == 9


async def again_in_branch(cart: Cart) -> None:
    async def inner() -> None:
        cart.again()

    await gather(inner(), price("a"))


async def again_in_checkpoint(cart: Cart) -> None:
    class Inner(Cart):
        @checkpoint
        async def over(self) -> None:
            self.again()

    await Inner().over()


async def again_with_open_task(cart: Cart) -> None:
    cart.task(price("a"))
    cart.again()


@pytest.mark.parametrize(
    ("plan", "why"),
    [(again_in_branch, "branch /gather#0.0"), (again_in_checkpoint, "checkpoint /"), (again_with_open_task, "open are /task#0")],
)
def test_again_elsewhere_is_refused_and_says_why(plan: Plan, why: str) -> None:
    end = CartRun(plan).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, AgainMisplaced)
    assert why in str(end.reason)


def test_control_is_not_swallowed_by_except_exception() -> None:
    """R9: neither a broken rule nor the end of a round is an `Exception`."""

    async def plan(cart: Cart) -> None:
        try:
            cart.again()
        except Exception:
            cart.label = "swallowed"

    assert CartRun(plan).end == Again()


def test_chance_is_the_same_on_every_replay_and_differs_between_calls_and_branches() -> None:
    """D11."""

    async def chances(cart: Cart) -> list[Any]:
        first = [cart.random(), cart.uuid(), cart.random()]
        await price("a")
        return [*first, cart.uuid()]

    async def plan(cart: Cart) -> Any:
        return await gather(chances(cart), chances(cart))

    one, two = CartRun(plan).to_the_end(), CartRun(plan).to_the_end()

    assert one.end.value == two.end.value
    values = [value for branch in one.end.value for value in branch]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 1 for value in values if isinstance(value, float))


def test_time_is_recorded_and_repeated() -> None:
    """D11."""

    async def plan(cart: Cart) -> Any:
        before = cart.now()
        await price("a")
        return before

    live = CartRun(plan).to_the_end()

    assert CartRun(plan, live.log).end.value == live.end.value
    assert live.log[0].kind == "now"


# --- a property: whatever the program and the order of its outcomes ------------------------------------------------------


@frozen
class Do:
    name: str


@frozen
class Spot:
    pass


@frozen
class Many:
    lines: tuple[Any, ...]
    settle: bool
    caught: bool


@frozen
class Side:
    line: Any
    joined: bool


def programs() -> st.SearchStrategy[Any]:
    leaf = st.one_of(st.builds(Do, st.sampled_from("abc")), st.just(Spot()))

    def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        lines = st.lists(inner, max_size=3).map(tuple)
        many = st.builds(Many, st.lists(lines, max_size=3).map(tuple), st.booleans(), st.booleans())
        return st.one_of(leaf, many, st.builds(Side, lines, st.booleans()))

    return st.lists(st.recursive(leaf, wider, max_leaves=8), max_size=4).map(tuple)


async def interpret(program: Any, clock: list[int], trace: list[str]) -> list[Any]:
    values: list[Any] = []
    open_tasks: list[Branch] = []
    turn = driver("interpret")
    where = turn.branch.path
    for op in program:
        match op:
            case Do(name):
                values.append(await ask(name))
            case Spot():
                clock[0] += 1
                values.append(turn.spot("now", "now", lambda: b"%d" % clock[0]))
            case Many(lines, settle, caught):
                try:
                    values.append(await both(*(interpret(inner, clock, trace) for inner in lines), settle=settle))
                except Boom as error:
                    if not caught:
                        raise
                    values.append(f"caught {error}")
            case Side(inner, joined):
                side = task(interpret(inner, clock, trace))
                if joined:
                    open_tasks.append(side)
        trace.append(f"{where}:{values[-1:]}")
    return values + [await join(side) for side in open_tasks]


def shown(end: Any) -> str:
    match end:
        case Finished(value, error):
            return f"{value!r} {error!r} {end.recorded and end.recorded.identity} {[str(asked) for asked in end.dropped]}"
        case other:
            return repr(other)


@settings(max_examples=150, deadline=None)
@given(programs(), st.data())
def test_replay_at_every_cut_asks_for_the_same_and_comes_to_the_same_end(program: Any, data: st.DataObject) -> None:
    """X16, X17, E24: live in any order of outcomes, replay from every commit on."""
    trace: list[str] = []
    live = Live(interpret(program, [0], trace))
    at_cut = {0: live.asks, len(live.log): live.asks}
    for count in range(40):
        if live.end is not None:
            break
        asked = data.draw(st.sampled_from(live.turn.waiting()))
        failed = asked.request.kind == "step" and data.draw(st.integers(0, 4)) == 0
        live.answer(asked, count, failed=failed)
        at_cut[len(live.log)] = live.asks

    for cut, asks in at_cut.items():
        again_trace: list[str] = []
        replayed = Live(interpret(program, [1_000], again_trace), live.log[:cut])
        if cut == len(live.log):
            assert shown(replayed.end) == shown(live.end)
            assert again_trace == trace
            assert replayed.log == live.log
        else:
            assert (replayed.end is None) == bool(asks)
            assert trace[: len(again_trace)] == again_trace or cut == 0
        assert replayed.asks == asks


def test_twenty_five_replays_of_branches_that_finished_in_any_order_are_one() -> None:
    """X16, X17, E24."""

    def code() -> Coroutine[Any, Any, Any]:
        return both(line("a", "b"), line("a", "b"), both(ask("a"), line("b", "a")))

    live, count = Live(code()), 0
    while live.end is None:
        count += 1
        live.answer(live.asks[count % len(live.asks)], count)

    assert len(live.log) == 7
    ends = {repr(Live(code(), live.log).end.value) for _ in range(25)}
    assert ends == {repr(live.end.value)}
