"""The interpreter of the outside yardstick, on cases made by hand: it lets pass what is right, and nothing else.

The published cases are fetched and played by `make yardstick`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from actorflow import checkpoint
from actorflow.policies import retry
from actorflow.stores.memory import MemoryStore
from tests.yardstick.__main__ import main
from tests.yardstick.cases import BadCase, Case, Placeholders, read_case, read_cases
from tests.yardstick.history import apart
from tests.yardstick.ledger import context, log
from tests.yardstick.playing import crashed, measure
from tests.yardstick.programs import branches, callbacks, contexts, steps
from tests.yardstick.programs.program import Program
from tests.yardstick.programs.table import programs
from tests.yardstick.score import as_page, judge_all, judged, misfits, read_reasons, scored

HOUSE = Path(__file__).parent
SAMPLES = HOUSE / "yardstick" / "samples"
PLAYED: dict[str, type[Program]] = {
    "s-1": steps.StepThenWait,
    "s-2": callbacks.CatchesFailure,
    "s-3": contexts.DiesInside,
    "s-4": steps.RetriesTransient,
    "s-5": branches.MapWaitsInside,
    "s-6": contexts.OnlyLogs,
}


def sample(name: str) -> Case:
    return read_case(SAMPLES / f"{name}.yaml")


@pytest.mark.parametrize("name", PLAYED)
def test_what_happens_as_expected_passes_on_both_loops_with_and_without_deaths(name: str) -> None:
    assert measure(sample(name), PLAYED[name]) == []


def test_a_case_may_be_crashed_anywhere() -> None:
    cuts, complaints = crashed(sample("s-6"), PLAYED["s-6"])

    assert cuts > 20
    assert complaints == []


@pytest.mark.parametrize(
    ("name", "event", "change", "complaint"),
    [
        ("s-1", 2, {"EventType": "WaitStarted"}, "event 2 (WaitStarted): got StepStarted"),
        ("s-1", 2, {"Name": "take"}, "event 2 (StepStarted).Name: expected 'take', got 'give'"),
        ("s-1", 3, {"Id": "${WAIT}", "StepSucceededDetails": {}}, "event 4 (WaitStarted).Id: expected ':give#0'"),
        ("s-1", 4, {"WaitStartedDetails": {"Duration": 3}}, "WaitStartedDetails.Duration: expected 3, got 2"),
        ("s-1", 4, {"WaitStartedDetails": {"Duration": "2"}}, "WaitStartedDetails.Duration: expected '2', got 2"),
        ("s-1", 3, {"StepSucceededDetails": {"Result": {"Payload": "null"}}}, "Payload: expected None, got 'computed'"),
        ("s-1", 2, {"SubType": "WaitForCondition"}, "SubType: expected 'WaitForCondition', got 'Step'"),
        ("s-1", 8, {"EventId": 9}, "event 9 (ExecutionSucceeded): there is none"),
        ("s-2", 4, {"EventType": "CallbackSucceeded"}, "event 4 (CallbackSucceeded): got CallbackFailed"),
        ("s-3", 3, {"ParentId": "${STEP}"}, "got '/DiesInside.child#0'"),
        ("s-3", 2, {"Id": "${OTHER}"}, "OTHER and CTX are both"),
        ("s-4", 3, {"StepFailedDetails": {"RetryDetails": {"CurrentAttempt": 2}}}, "CurrentAttempt: expected 2, got 1"),
        ("s-4", 3, {"StepFailedDetails": {"Error": {"Payload": {"ErrorType": "${/Broken/}"}}}}, "does not match /Broken/"),
        ("s-5", 8, {"ParentId": "${A}"}, "got '/gather#0.1/Maps.waits_for_second#0'"),
    ],
)
def test_a_wrong_event_is_found(name: str, event: int, change: dict[str, Any], complaint: str) -> None:
    case = sample(name)
    history = [{**each, **change} if each["EventId"] == event else each for each in case.history]

    complaints = measure(evolve(case, history=history), PLAYED[name])

    assert len(complaints) == 4, complaints
    assert all(complaint in line for line in complaints), complaints


def test_events_that_nobody_expected_are_found_wherever_they_stand() -> None:
    case = sample("s-1")
    in_the_middle = [*case.history[:2], *({**each, "EventId": each["EventId"] - 1} for each in case.history[3:])]
    at_the_end = case.history[:4]

    assert "event 4 (InvocationCompleted): got WaitStarted" in measure(evolve(case, history=in_the_middle), PLAYED["s-1"])[0]
    complaints = measure(evolve(case, history=at_the_end), PLAYED["s-1"])
    assert "after its last event: got WaitSucceeded, InvocationCompleted, ExecutionSucceeded" in complaints[0]


def test_a_wrong_end_a_wrong_result_and_wrong_logs_are_found() -> None:
    case = sample("s-6")

    assert "status: expected FAILED, got SUCCEEDED" in measure(evolve(case, status="FAILED"), PLAYED["s-6"])[0]
    assert "result: expected 1, got" in measure(evolve(case, result=1), PLAYED["s-6"])[0]
    logs = [{**case.logs[0], "count": 2}]
    assert "expected 2 lines, got 1" in measure(evolve(case, logs=logs), PLAYED["s-6"])[0]


class LogsOutside(Program):
    """Logs where it is replayed, and so once for each process."""

    async def handle(self, input: Any) -> Any:
        log(input)
        value = await self.child(input)
        await self.sleep("1s")
        return value

    @checkpoint
    @context("RunInChildContext")
    async def child(self, value: Any) -> Any:
        return value


def test_a_program_that_does_something_again_on_replay_is_found() -> None:
    complaints = measure(sample("s-6"), LogsOutside)

    assert [line.partition(":")[0] for line in complaints] == ["killed on asyncio", "killed on trio"]
    assert all("expected 1 lines, got 2" in line for line in complaints)


def test_a_runtime_that_waits_too_long_between_tries_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "delay_s", lambda *_, **__: 5.0)

    complaints = measure(sample("s-4"), PLAYED["s-4"])

    assert all("NextAttemptDelaySeconds: expected 1, got 5" in line for line in complaints)
    assert len(complaints) == 4


def test_a_store_that_forgets_a_finished_checkpoint_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    load = MemoryStore.load

    async def forgetful(self: MemoryStore, *args: Any) -> Any:
        loaded = await load(self, *args)
        return loaded and evolve(loaded, entries=[e for e in loaded.entries if e.entry.kind != "checkpoint"])

    monkeypatch.setattr(MemoryStore, "load", forgetful)

    complaints = measure(sample("s-6"), PLAYED["s-6"])

    assert any(line.startswith("killed on trio") for line in complaints), complaints


def test_a_run_that_waits_for_nothing_that_can_happen_is_found_and_does_not_hang() -> None:
    complaints = measure(evolve(sample("s-2"), actions=()), PLAYED["s-2"])

    assert len(complaints) == 4
    assert all("waits for nothing that will happen" in line for line in complaints)


def test_events_of_branches_are_put_together_within_a_stretch_and_never_across_a_rest() -> None:
    ids = ["/gather#0", "/gather#0.1/B#0", "/gather#0.0/A#0", "/gather#0.1/B#0:s#0", "/gather#0.0/A#0/gather#0.1:t#0"]
    ids += ["/gather#0.0/A#0/gather#0.0:t#0", "", "/gather#0.1/B#0", "/gather#0.0/A#0", "/gather#0"]
    events = [{"EventType": "X" if id else "InvocationCompleted", "Id": id} for id in ids]

    together = [event["Id"] for event in apart(events)]

    assert together[:3] == ["/gather#0", "/gather#0.0/A#0", "/gather#0.0/A#0/gather#0.0:t#0"]
    assert together[3:6] == ["/gather#0.0/A#0/gather#0.1:t#0", "/gather#0.1/B#0", "/gather#0.1/B#0:s#0"]
    assert together[6:] == ["", "/gather#0.0/A#0", "/gather#0.1/B#0", "/gather#0"]
    assert [event["EventId"] for event in apart(events)] == list(range(2, 12))


# --- the tables and the score -------------------------------------------------------------------------------------------


def test_a_case_that_is_in_no_table_has_failed_and_one_with_a_reason_does_not_apply() -> None:
    reasons = read_reasons()
    skipped = evolve(sample("s-1"), id=reasons[0].cases[0])

    results = judge_all([sample("s-1"), skipped], {}, reasons)

    assert [result.verdict for result in results] == ["failed", "does not apply"]
    assert "no program" in results[0].complaints[0]
    assert results[1].reason == reasons[0].title


def test_the_tables_agree_with_each_other_and_complain_of_cases_that_are_gone() -> None:
    reasons = read_reasons()
    known = [*programs(), *(case for reason in reasons for case in reason.cases)]

    assert misfits(programs(), reasons, known) == []
    assert misfits(programs(), reasons, [case for case in known if case != "1-1"]) == ["there is no case 1-1 (any more)"]
    doubled = [*reasons, evolve(reasons[0], cases=("1-1", "1-6"))]
    assert misfits(programs(), doubled) == ["case 1-1 is played, and has a reason not to be", "case 1-6 has 2 reasons"]


def test_the_page_tells_the_score_of_the_tables_there_are() -> None:
    page = (HOUSE / "YARDSTICK.md").read_text(encoding="utf-8")
    reasons = read_reasons()

    skipped = sum(len(reason.cases) for reason in reasons)
    assert f"**{len(programs())} of {len(programs()) + skipped} pass, 0 fail, {skipped} do not apply.**" in page
    assert all(reason.why in " ".join(page.split()) for reason in reasons)


def test_a_failure_is_on_the_page_in_its_own_words() -> None:
    results = [judged(evolve(sample("s-1"), status="FAILED"), PLAYED, []), judged(sample("s-6"), PLAYED, [])]

    page = as_page(results, [])

    assert scored(results) == {"failed": 1, "passed": 1}
    assert "## What fails\n\n- s-1: killed on asyncio: status: expected FAILED, got SUCCEEDED" in page


def test_the_command_prints_a_line_for_each_case_and_says_by_its_exit_code_if_one_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--cases", str(SAMPLES), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [case["case"] for case in told["cases"]] == list(PLAYED)
    assert told["failed"] == len(PLAYED)

    assert main(["--cases", str(SAMPLES), "--only", "s-2"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"^s-2  failed .*a refused callback is caught$", text, re.MULTILINE)
    assert "0 passed, 1 failed, 0 do not apply, of 1 cases" in text


def test_a_case_that_is_not_there_and_a_folder_without_cases_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cases", str(SAMPLES), "--only", "s-99"]) == 2
    assert "no case s-99" in capsys.readouterr().err
    assert main(["--cases", str(tmp_path)]) == 2
    assert "there is no case below" in capsys.readouterr().err


def test_a_case_that_asks_for_something_unknown_is_refused(tmp_path: Path) -> None:
    text = (SAMPLES / "s-1.yaml").read_text(encoding="utf-8")
    (tmp_path / "x-1.yaml").write_text(f"{text}\nExpectedWeather: fine\n", encoding="utf-8")

    with pytest.raises(BadCase, match="ExpectedWeather"):
        read_cases(tmp_path)


def test_a_placeholder_is_bound_once_and_asks_for_something_to_be_there() -> None:
    bound = Placeholders({"WHO": "ann"})

    assert bound.differences({"a": "${X}", "b": "by ${WHO}"}, {"a": 1, "b": "by ann"}, "event") == []
    assert bound.differences("${X}", 1, "event") == []
    assert bound.differences("${X}", 2, "event") == ["event: expected 1, got 2"]
    assert bound.differences({"a": "${Y}"}, {}, "event") == ["event.a: is missing"]
    assert bound.differences([1], [1, 2], "event") == ["event: expected [1], got [1, 2]"]
    assert bound.differences(1, True, "event") == ["event: expected 1, got True"]
