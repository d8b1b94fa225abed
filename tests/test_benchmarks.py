"""The suite of benchmarks: that its workloads run, and that what they measure is told as it was. Nothing is timed here."""

from __future__ import annotations

import fcntl
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import charts, machine, report, suite, terminal
from benchmarks.charts import NoCharts
from benchmarks.peers import install
from benchmarks.results import Results, about, goals, modules, rows, workloads
from benchmarks.suite import BARE, OURS, Contender, Goal, Metric, Sample, Sizes, Workload, ratios
from benchmarks.terminal import Estimate

CONTENDERS = "tests.benchmark_contenders"
SPEED = Metric("steps_per_s", "steps/s", "more")
MEMORY = Metric("rss_mb", "MB", "less", 1)

MADE_UP = Workload(
    id="W99",
    title="made up",
    metrics=(SPEED, MEMORY),
    contenders=(
        Contender(BARE, CONTENDERS),
        Contender(OURS, CONTENDERS),
        Contender("fails", CONTENDERS, durability="none", sizes={"steps": 5}),
    ),
    full={"steps": 1_000},
    quick={"steps": 100},
    goals=(
        Goal("0.8 of the bare ceiling", "steps_per_s", at_least=0.8, against=BARE),
        Goal("under 5 MB", "rss_mb", at_most=5),
        Goal("twice what fails", "steps_per_s", at_least=2, against="fails"),
    ),
    repeats=3,
)
POWERS_OF_TEN = b"mathdefault{10^"
MACHINE: dict[str, Any] = {"at": "2026-01-01 00:00:00 UTC", "cpus": 2, "peers": {"dbos": "3.4"}, "quick": False, "taken_s": 61}


def sample(contender: str, repeat: int, speed: float | None, *, error: str | None = None, **measured: float) -> Sample:
    found = {**measured, **({} if speed is None else {"steps_per_s": speed})}
    return Sample("W99", contender, "", repeat, {}, found, error, 0.0)


def made_up() -> Results:
    return Results(
        dict(MACHINE),
        [
            *(sample(BARE, repeat, speed, rss_mb=9.0) for repeat, speed in enumerate((1_000.0, 4_000.0, 2_000.0))),
            *(sample(OURS, repeat, speed, rss_mb=10.25) for repeat, speed in enumerate((900.0, 2_000.0, 1_600.0))),
            sample("fails", 0, None, error="no such server | <here>"),
        ],
    )


# --- the workloads ----------------------------------------------------------------------------------------------------------


def test_workloads_have_ids_and_contenders_of_their_own() -> None:
    every = workloads()

    assert len({workload.id for workload in every}) == len(every) > 1
    for workload in every:
        names = [contender.name for contender in workload.contenders]
        assert len(set(names)) == len(names)
        assert OURS in names
        assert workload.full.keys() == workload.quick.keys()


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.id)
def test_goals_name_metrics_and_contenders_that_there_are(workload: Workload) -> None:
    metrics, names = {metric.name for metric in workload.metrics}, {contender.name for contender in workload.contenders}
    theirs = {contender.name for each in workloads() for contender in each.contenders if contender.peer}

    assert len(metrics) == len(workload.metrics)
    for goal in workload.goals:
        assert goal.metric in metrics
        assert (goal.at_least is None) != (goal.at_most is None)
        assert goal.against is None or goal.against in names or goal.against not in theirs, f"{goal.against} has no {workload.id}"


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.id)
def test_a_module_says_what_its_workload_is(workload: Workload) -> None:
    assert about(workload)
    assert any((module.__doc__ or "").startswith(f"{workload.id}: ") for module in modules())


@pytest.mark.kill
@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.id)
def test_actorflow_yields_all_that_a_workload_names_at_tiny_sizes(workload: Workload) -> None:
    [ours] = [contender for contender in workload.contenders if contender.name == OURS]

    found = suite.run(workload, ours, workload.smallest(), 0, Path(sys.executable))

    assert found.error is None
    assert {metric.name for metric in workload.metrics} <= found.measured.keys()


def test_tiny_sizes_are_named_or_a_hundredth_of_what_is_large() -> None:
    assert Workload("W1", "", (), (), {}, {"rows": 20_000, "by": 10, "seconds": 1.5}).smallest() == {
        "rows": 200,
        "by": 10,
        "seconds": 1.5,
    }
    assert Workload("W1", "", (), (), {}, {"rows": 20_000}, tiny={"rows": 7}).smallest() == {"rows": 7}


# --- how contenders are run -------------------------------------------------------------------------------------------------


@pytest.mark.kill
@pytest.mark.parametrize(("name", "said"), [("fails", "RuntimeError: no such server | <here>"), ("hangs", "TimeoutExpired")])
def test_a_contender_that_fails_or_never_ends_is_told_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    file = tmp_path / "child"
    monkeypatch.setenv("CHILD_FILE", str(file))

    found = suite.run(MADE_UP, Contender(name, CONTENDERS, timeout_s=5.0), {"steps": 1}, 0, Path(sys.executable))

    assert found.measured == {}
    assert (found.error or "").startswith(said)
    with file.open() as child:
        fcntl.flock(child, fcntl.LOCK_EX)  # Free as soon as it is dead.
        assert child.read() == "begun\n"


@pytest.mark.kill
def test_what_a_contender_measured_is_its_last_line() -> None:
    found = suite.run(MADE_UP, MADE_UP.contenders[1], {"steps": 21}, 2, Path(sys.executable))

    assert found.error is None
    assert (found.measured, found.repeat, found.sizes) == ({"steps_per_s": 42.0, "rss_mb": 10.0}, 2, {"steps": 21})


def test_who_is_not_installed_says_how_to_install_it() -> None:
    found = suite.run(MADE_UP, MADE_UP.contenders[0], {}, 0, None)

    assert "--install-peers" in (found.error or "")


def test_every_other_round_is_run_backwards_and_slow_ones_take_part_less_often() -> None:
    slow = Contender("slow", CONTENDERS, repeats=1, quick=False)
    workload = Workload("W99", "", (SPEED,), (Contender(BARE, CONTENDERS), Contender(OURS, CONTENDERS), slow), {}, {}, repeats=2)

    def order(*, quick: bool = False, repeats: int | None = None, only: set[str] | None = None) -> list[tuple[str, int]]:
        return [(each.name, repeat) for each, repeat in suite.rounds(workload, quick=quick, repeats=repeats, only=only)]

    assert order() == [(BARE, 0), (OURS, 0), ("slow", 0), (OURS, 1), (BARE, 1)]
    assert order(quick=True) == [(BARE, 0), (OURS, 0)]
    assert order(repeats=1, only={OURS}) == [(OURS, 0)]


# --- what is made of the samples --------------------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round() -> None:
    samples = [sample(BARE, 0, 100.0), sample(OURS, 0, 50.0), sample(OURS, 1, 80.0), sample(BARE, 2, 10.0), sample(OURS, 2, 20.0)]

    assert ratios(MADE_UP, SPEED, samples, BARE) == [0.5, 2.0]  # The second round has no pair.


def test_less_of_what_should_be_less_is_better() -> None:
    samples = [sample(BARE, 0, None, rss_mb=10.0), sample(OURS, 0, None, rss_mb=40.0)]

    assert ratios(MADE_UP, MEMORY, samples, BARE) == [0.25]


def test_a_row_has_the_median_and_the_spread_and_a_failure_its_reason() -> None:
    bare, ours, failed = rows(MADE_UP, made_up())

    assert bare.cells == ("2,000 (1,000 to 4,000)", "9.0 (9.0 to 9.0)")
    assert bare.ratio == "0.80 (0.50 to 0.90)"
    assert (ours.ratio, ours.medians) == ("", ("1,600", "10.2"))
    assert (failed.cells, failed.sizes, failed.errors) == (("", ""), "steps 5", ("no such server | <here>",))


def test_goals_are_met_not_met_or_not_measured() -> None:
    told = [(each.reached, each.verdict) for each in goals(MADE_UP, made_up())]

    assert told == [("0.80", "met"), ("10", "not met"), ("", "not measured")]


def test_results_come_back_from_their_lines(tmp_path: Path) -> None:
    results = made_up()

    results.write(tmp_path / "results.jsonl")

    assert Results.read(tmp_path / "results.jsonl") == results


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", '{"machine": {}}\n{"workload": "W1"}\n', "no JSON\n"])
def test_what_is_no_file_of_results_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.jsonl").write_text(text)

    with pytest.raises(ValueError, match=r"results\.jsonl holds no results of benchmarks"):
        Results.read(tmp_path / "results.jsonl")


def test_the_time_left_is_what_each_took_before_and_for_others_the_average() -> None:
    planned = [(MADE_UP, contender, 0) for contender in MADE_UP.contenders]
    estimate = Estimate()
    assert estimate.left_s(planned) is None

    estimate.learn("W99", OURS, 4.0)
    estimate.learn("W99", BARE, 2.0)

    assert estimate.left_s(planned) == 2.0 + 4.0 + 3.0
    assert estimate.left_s(planned[1:2]) == 4.0
    assert estimate.left_s([]) == 0


def test_an_earlier_run_says_how_long_this_one_takes() -> None:
    at = [Sample("W99", name, "", 0, {}, {}, None, moment) for name, moment in ((BARE, 100.0), (OURS, 103.0), ("fails", 110.0))]

    assert Estimate(Results({}, at)).left_s([(MADE_UP, MADE_UP.contenders[1], 0)]) == 3.0


# --- what is shown ------------------------------------------------------------------------------------------------------------


def shown(chosen: list[Workload], results: Results) -> str:
    out = io.StringIO()
    terminal.show(chosen, results, Console(file=out, width=100))
    return out.getvalue()


def test_the_table_says_what_is_durable_what_is_smaller_and_what_failed() -> None:
    text = shown([MADE_UP], made_up())

    assert "2,000 (1,000 to 4,000)" in text
    assert "SQLite, WAL, synchronous=FULL: bare, actorflow" in text
    assert "other sizes: fails with steps 5" in text
    assert "failed: fails: no such server | <here>" in text
    assert "not measured" in text


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.id)
def test_every_table_fits_into_100_columns(workload: Workload) -> None:
    values = {metric.name: 1_234.567 for metric in workload.metrics}
    samples = [
        Sample(workload.id, contender.name, "", repeat, {}, values, None, 0.0)
        for contender in workload.contenders
        for repeat in range(2)
    ]

    lines = shown([workload], Results(dict(MACHINE), samples)).splitlines()

    assert max(map(len, lines)) <= 100
    for row in rows(workload, Results({}, samples)):
        [line] = [line for line in lines if line.startswith(f"{row.who} ")]
        assert all(f" {middle} " in f"{line} " for middle in row.medians), "something is cut"


def test_a_report_has_all_of_a_run_and_the_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = tmp_path / "findings.md"
    findings.write_text("## What was changed\n\nNothing | yet.\n")
    monkeypatch.setattr(report, "FINDINGS", findings)
    monkeypatch.setattr(report, "workloads", lambda: [*workloads(), MADE_UP])

    path = report.write(made_up(), tmp_path)

    text = path.read_text()
    assert "One run of 2026-01-01 00:00:00 UTC: 1 workload, 7 measurements in 1 min 1 s." in text
    assert "| W99: twice what fails |  | not measured |\n" in text
    assert "![steps/s](charts/w99.svg)" in text
    assert "| bare | 2,000 (1,000 to 4,000) | 9.0 (9.0 to 9.0) | 0.80 (0.50 to 0.90) |\n" in text
    assert "- failed: fails: no such server \\| &lt;here>\n" in text
    assert "| peers | dbos 3.4 |\n" in text
    assert text.endswith("## What was changed\n\nNothing | yet.\n")
    for workload in workloads():
        assert workload.title not in text  # It was not run.


def test_a_chart_is_text_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = (charts.write([MADE_UP], made_up(), tmp_path / name) for name in "ab")

    assert first == second == {"W99": ["w99.svg"]}
    drawn = (tmp_path / "a" / "w99.svg").read_bytes()
    assert drawn == (tmp_path / "b" / "w99.svg").read_bytes()
    texts = {element.text for element in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")}
    assert {"bare", "actorflow", "2,000", "1,600", "steps/s (more is better)"} <= texts
    assert "fails" not in texts
    assert b"<dc:date>" not in drawn
    assert len(drawn) < 30_000


def test_a_span_of_more_than_30_times_has_a_logarithmic_axis(tmp_path: Path) -> None:
    near = Results({}, [sample(OURS, 0, 30.0), sample(BARE, 0, 1.0)])
    far = Results({}, [sample(OURS, 0, 31.0), sample(BARE, 0, 1.0)])

    def drawn(results: Results) -> bytes:
        charts.write([MADE_UP], results, tmp_path)
        return (tmp_path / "w99.svg").read_bytes()

    assert POWERS_OF_TEN not in drawn(near)
    assert POWERS_OF_TEN in drawn(far)


def test_growth_is_drawn_where_it_was_measured_in_points(tmp_path: Path) -> None:
    points = {"us_1000_rows": 40.0, "us_100000_rows": 44.0, "us_10_actors": 50.0}

    drawn = charts.write([MADE_UP], Results({}, [sample(OURS, n, 1.0, error=None, **points) for n in range(2)]), tmp_path)

    assert drawn == {"W99": ["w99_rows.svg"]}, "who is alone has no bars"
    assert b"rows in the store" in (tmp_path / "w99_rows.svg").read_bytes()


def test_without_matplotlib_the_error_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(NoCharts, match=r"pip install 'actorflow\[bench\]'"):
        report.write(made_up(), tmp_path)

    assert not list(tmp_path.iterdir())


# --- the command --------------------------------------------------------------------------------------------------------------

Run = Callable[[Workload, Contender, Sizes, int, Path | None], Sample]


@pytest.fixture
def suite_of_one(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Only the workload that is made up, on no particular machine, run by that function."""
    for module in (command, report):
        monkeypatch.setattr(module, "workloads", lambda: [MADE_UP])
    monkeypatch.setattr(machine, "describe", lambda: dict(MACHINE))
    monkeypatch.setattr(install, "python", lambda: None)
    return lambda run: monkeypatch.setattr(suite, "run", run)


def failing(*names: str) -> Run:
    """What runs nobody, and has those fail."""

    def run(workload: Workload, contender: Contender, sizes: Sizes, repeat: int, python: Path | None) -> Sample:
        if contender.name in names:
            return sample(contender.name, repeat, None, error="it fell over")
        return sample(contender.name, repeat, sizes["steps"] * (repeat + 1.0))

    return run


def test_a_run_leaves_samples_charts_and_a_report(
    suite_of_one: Callable[[Run], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite_of_one(failing("fails"))

    code = command.main(["--quick", "--out", str(tmp_path)])

    out, err = capsys.readouterr()
    assert code == 0, "only a failure of actorflow's is one of the command"
    assert "W99 fails: it fell over" in err
    assert "failed: fails: it fell over" in out
    results = Results.read(tmp_path / "results.jsonl")
    assert results.machine["quick"] is True
    assert [(each.contender, each.measured) for each in results.samples][:2] == [
        (BARE, {"steps_per_s": 100.0}),
        (OURS, {"steps_per_s": 100.0}),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", "REPORT.md", "charts"}


def test_a_failure_of_ours_is_one_of_the_command(suite_of_one: Callable[[Run], None], tmp_path: Path) -> None:
    suite_of_one(failing(OURS))

    assert command.main(["--quick", "--out", str(tmp_path)]) == 1


def test_json_lines_are_printed_as_they_come(
    suite_of_one: Callable[[Run], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[int] = []
    inner = failing()

    def run(*arguments: Any) -> Sample:
        printed.append(len((tmp_path / "results.jsonl").read_text().splitlines()))
        printed.append(len(capsys.readouterr().out.splitlines()))
        return inner(*arguments)

    suite_of_one(run)

    command.main(["--quick", "--json", "--out", str(tmp_path)])

    assert printed == [1, 1, 2, 1, 3, 1], "the machine first, then each sample before the next is taken"
    assert json.loads(capsys.readouterr().out)["contender"] == "fails"


def test_what_was_measured_before_an_interrupt_is_kept_and_shown(
    suite_of_one: Callable[[Run], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(workload: Workload, contender: Contender, sizes: Sizes, repeat: int, python: Path | None) -> Sample:
        if repeat == 1:
            raise KeyboardInterrupt
        return sample(contender.name, repeat, 7.0)

    suite_of_one(run)

    code = command.main(["--out", str(tmp_path)])

    assert code == 130
    assert len(Results.read(tmp_path / "results.jsonl").samples) == 3
    assert "W99: made up" in capsys.readouterr().out
    assert "It was interrupted" in (tmp_path / "REPORT.md").read_text()


def test_a_report_is_made_again_from_its_folder(
    suite_of_one: Callable[[Run], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite_of_one(failing())
    made_up().write(tmp_path / "results.jsonl")

    assert command.main(["--report", str(tmp_path)]) == 0

    assert "made up" in (tmp_path / "REPORT.md").read_text()
    assert command.main(["--report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_report_that_cannot_be_drawn_says_why(
    suite_of_one: Callable[[Run], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite_of_one(failing())
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert command.main(["--out", str(tmp_path)]) == 0, "all was measured"
    assert command.main(["--report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("no report: charts are drawn by matplotlib") == 2


def test_the_list_names_all_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0

    out = capsys.readouterr().out
    for workload in workloads():
        assert f"{workload.id}  {workload.title}: " in out


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--only", "W98"], "no workload W98"), (["--against", "Dbos"], "no contender Dbos")]
)
def test_a_name_that_is_none_is_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2

    assert said in capsys.readouterr().err
