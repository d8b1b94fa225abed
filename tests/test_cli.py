"""The command line keeps its word: what it prints, what its exit codes mean, and that nothing stored is obeyed."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from actorflow import Abort, Fatal, Message, RunPaused, Runtime, SetAside, Workflow, __version__, step
from actorflow.cli import acting, main, waiting
from actorflow.cli.exits import MEANINGS, Exit, of_error
from actorflow.cli.options import Options
from actorflow.cli.printer import Printer
from actorflow.errors import ActorflowError
from actorflow.operations import LoopInfo, RunInfo

HOSTILE = "\x1b[31m[bold]boom[/bold]\r\n\x9b2J\u202e:smile:"
MARKUP_KEY = "a/[red]b[/red] :smile: \u202ec\\x"

# --- a store with runs in all states -------------------------------------------------------------------------------------


class Approve(Message[None]):
    by: str


@step
def charge(amount: int) -> str:
    return f"paid {amount}"


@step
def explode(text: str) -> str:
    raise Fatal(text)


@step(timeout="10ms", on_interrupt="ask")
async def hang() -> str:
    await anyio.sleep_forever()
    return ""


class Good(Workflow[str], kind="Good"):
    amount: int = 1

    async def run(self) -> str:
        return await charge(self.amount)


class Rejected(Workflow[None], kind="Rejected"):
    async def run(self) -> None:
        raise Abort("out of stock")


class Broken(Workflow[str], kind="Broken"):
    text: str = "no such customer"

    async def run(self) -> str:
        return await explode(self.text)


class Asks(Workflow[str], kind="Asks"):
    async def run(self) -> str:
        return await hang()


class Waits(Workflow[str], kind="Waits"):
    async def run(self) -> str:
        return (await self.receive(Approve)).by


class Sleeps(Workflow[None], kind="Sleeps"):
    async def run(self) -> None:
        await self.sleep("300d")


def even(item: int) -> None:
    if item % 2:
        raise Fatal(f"{item} is odd")


class Loops(Workflow[int], kind="Loops"):
    async def run(self) -> int:
        done = await self.each(lambda: range(10), even, key=str, on_error=SetAside(at_most=3))
        return done.done


CLASSES = [Good, Rejected, Broken, Asks, Waits, Sleeps, Loops]


async def _fill(url: str) -> None:
    async with Runtime(url, actors=CLASSES) as runtime:
        for number in range(3):
            await (await runtime.start(Good(number), key=f"g-{number}")).result()
        await (await runtime.start(Good(7), key=MARKUP_KEY)).result()
        with pytest.raises(Abort):
            await (await runtime.start(Rejected(), key="r-1")).result()
        for paused in (Broken(), Asks(), Loops()):
            with pytest.raises(RunPaused):
                await (await runtime.start(paused, key="p-1")).result()
        with pytest.raises(RunPaused):
            await (await runtime.start(Broken(HOSTILE), key="hostile")).result()
        gone = await runtime.start(Waits(), key="c-1")
        waits = [gone, await runtime.start(Waits(), key="w-1"), await runtime.start(Sleeps(), key="s-1")]
        for run in waits:
            while (await run.status()).status != "waiting":
                await anyio.lowlevel.checkpoint()
        await gone.cancel("changed my mind")
        with pytest.raises(ActorflowError):
            await gone.result()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    anyio.run(_fill, f"sqlite:///{folder / 'shop.db'}")
    return folder


@pytest.fixture
def shop(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that store, named by ACTORFLOW_DB."""
    shutil.copytree(template, tmp_path / "copy")
    path = tmp_path / "copy" / "shop.db"
    monkeypatch.setenv("ACTORFLOW_DB", str(path))
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return path


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*tokens: str) -> Result:
        code = main(tokens)
        return Result(code, *capsys.readouterr())

    return run


def child(*tokens: str, stdin: str = "", **environment: str) -> Result:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "actorflow", *tokens],
        input=stdin.encode(),
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def kinds(result: Result, run: str, command: Command) -> list[str]:
    history = command("runs", "history", run, "-o", "json").json
    return [event["kind"] for event in history]


# --- the command itself --------------------------------------------------------------------------------------------------


def test_version_and_help_are_printed(command: Command) -> None:
    assert command("--version") == (0, f"{__version__}\n", "")

    text = command("--help").out

    assert all(meaning in text for meaning in MEANINGS.values())


@pytest.mark.parametrize(
    "tokens",
    [
        ["bogus"],
        ["runs", "bogus"],
        ["runs", "list", "--bogus"],
        ["runs", "list", "--limit", "0"],
        ["runs", "list", "--limit", "x"],
        ["runs", "list", "--status", "odd"],
        ["runs", "list", "--since", "yesterday"],
        ["runs", "list", "-o", "xml"],
        ["runs", "show"],
        ["runs", "show", "Good"],
        ["runs", "show", "/x"],
        ["runs", "show", "Good/"],
        ["runs", "show", "Good/a\nb"],
        ["runs", "show", "Good/" + "x" * 513],
        ["runs", "wait", "Good/g-1", "--timeout", "soon"],
        ["runs", "wait", "Good/g-1", "--timeout", "nan"],
        ["runs", "cancel"],
        ["runs", "cancel", "Good/g-1", "--kind", "Good"],
        ["runs", "cancel", "--kind", "Waits"],
        ["runs", "skip", "Broken/p-1"],
        ["runs", "skip", "Broken/p-1", "--value", "{"],
        ["runs", "skip", "Broken/p-1", "--value", "NaN"],
        ["runs", "skip", "Broken/p-1", "--value", "[" * 100_000],
        ["runs", "decide", "Asks/p-1", ":hang#0"],
        ["runs", "decide", "Asks/p-1", ":hang#0", "--run-again", "--give-up"],
        ["runs", "fork", "Good/g-1", "a\x1bb"],
        ["runs", "list", "--db", "memory://"],
        ["runs", "list", "--db", "postgres:///shop"],
        ["runs", "list", "--db", ""],
    ],
    ids=lambda tokens: " ".join(tokens)[:40].replace("\n", " ").replace("\x1b", " "),
)
def test_wrong_usage_is_code_2_and_one_paragraph(shop: Path, command: Command, tokens: list[str]) -> None:
    result = command(*tokens)

    assert (result.code, result.out) == (Exit.USAGE, "")
    assert result.err.startswith("actorflow: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err


def test_without_a_store_the_command_says_how_to_name_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTORFLOW_DB", raising=False)

    code, _, err = command("runs", "list")

    assert code == Exit.USAGE
    assert "--db shop.db" in err


def test_every_way_to_name_the_store_leads_to_it(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.parent)
    monkeypatch.setenv("ACTORFLOW_DB", "elsewhere.db")

    for db in ("shop.db", "./shop.db", str(shop), "sqlite:///shop.db", f"sqlite:///{shop}"):
        assert command("runs", "show", "Good/g-1", "--db", db, "-o", "ids") == (0, "Good/g-1\n", ""), db


# --- list ----------------------------------------------------------------------------------------------------------------


def test_list_as_json_has_every_run_newest_first_with_the_fields_of_operations(shop: Path, command: Command) -> None:
    result = command("runs", "list", "-o", "json")

    assert result.code == 0
    runs = result.json
    assert [f"{run['kind']}/{run['key']}" for run in runs] == [
        "Sleeps/s-1", "Waits/w-1", "Waits/c-1", "Broken/hostile", "Loops/p-1", "Asks/p-1", "Broken/p-1", "Rejected/r-1",
        f"Good/{MARKUP_KEY}", "Good/g-2", "Good/g-1", "Good/g-0",
    ]  # fmt: skip
    assert [run["status"] for run in runs] == ["waiting"] * 2 + ["cancelled"] + ["paused"] * 4 + ["failed"] + ["completed"] * 4
    assert set(runs[0]) == set(RunInfo.__annotations__)
    created = datetime.fromisoformat(runs[0]["created_at"])
    assert abs((datetime.now(UTC) - created).total_seconds()) < 3_600
    assert runs[0]["created_at"].endswith("Z")
    assert runs[6]["report"]["what"] == "Fatal: no such customer"
    assert runs[6]["report"]["remedy"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--status", "paused"], ["Broken/hostile", "Loops/p-1", "Asks/p-1", "Broken/p-1"]),
        (["--reason", "failure"], ["Broken/hostile", "Broken/p-1"]),
        (["--kind", "Good", "--key-prefix", "g-"], ["Good/g-2", "Good/g-1", "Good/g-0"]),
        (["--kind", "Waits", "--status", "cancelled"], ["Waits/c-1"]),
        (["--kind", "Good", "--limit", "2"], [f"Good/{MARKUP_KEY}", "Good/g-2"]),
        (["--since", "1h", "--kind", "Waits"], ["Waits/w-1", "Waits/c-1"]),
        (["--since", "2000-01-31T12:00+01:00", "--kind", "Waits"], ["Waits/w-1", "Waits/c-1"]),
        (["--since", "2199-01-01"], []),
        (["--kind", "Nobody"], []),
    ],
)
def test_filters_and_ids(shop: Path, command: Command, filters: list[str], expected: list[str]) -> None:
    result = command("runs", "list", "-o", "ids", "-q", *filters)

    assert result == (0, "".join(f"{run}\n" for run in expected), "")


def test_pages_are_followed_to_the_last_one(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """S22."""

    whole = command("runs", "list", "-o", "ids", "--all").out
    monkeypatch.setattr("actorflow.cli.looking.PAGE_MAX", 5)

    assert command("runs", "list", "-o", "ids", "--all").out == whole
    assert command("runs", "list", "-o", "ids", "--limit", "7").out == "".join(whole.splitlines(keepends=True)[:7])
    assert len(command("runs", "list", "-o", "json", "--all").json) == 12


def test_a_cut_list_says_that_there_is_more(shop: Path, command: Command) -> None:
    assert "--all" in command("runs", "list", "--limit", "2").err
    assert command("runs", "list", "--limit", "2", "--quiet").err == ""
    assert command("runs", "list", "--all").err == ""


def test_a_table_has_a_line_for_each_run_and_relative_times(shop: Path, command: Command) -> None:
    lines = command("runs", "list").out.splitlines()

    assert lines[0].split() == ["RUN", "STATUS", "STARTED", "CHANGED", "WHAT"]
    assert len(lines) == 13
    paused = next(line for line in lines if line.startswith("Broken/p-1"))
    assert re.match(
        r"Broken/p-1 +paused \(failure\) +(now|\d+ (s|min) ago) +(now|\d+ (s|min) ago) +Fatal: no such customer$", paused
    )
    assert "goes on in 299 d" in lines[1]


def test_a_table_fits_the_terminal_and_no_color_is_respected(
    shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")

    colored = command("runs", "list").out
    monkeypatch.setenv("NO_COLOR", "1")
    plain = command("runs", "list").out

    assert "\x1b[32m" in colored
    assert not re.search(r"\x1b\[3\d", plain)
    bare = re.sub(r"\x1b\[[\d;]*m", "", plain)
    assert max(len(line) for line in bare.splitlines()) <= 60


def test_counts_by_status(shop: Path, command: Command) -> None:
    expected = {"cancelled": 1, "completed": 4, "failed": 1, "paused": 4, "waiting": 2}

    assert command("runs", "count", "-o", "json").json == expected
    assert command("runs", "count").out.split() == ["STATUS", "RUNS", *(str(x) for pair in expected.items() for x in pair)]


# --- nothing stored is obeyed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "tokens",
    [
        ["runs", "list"],
        ["runs", "show", "Broken/hostile"],
        ["runs", "show", f"Good/{MARKUP_KEY}"],
        ["runs", "history", "Broken/hostile"],
        ["runs", "wait", "Broken/hostile"],
        ["runs", "wait", f"Good/{MARKUP_KEY}"],
        ["runs", "cancel", f"Good/{MARKUP_KEY}"],
        ["why", "Broken/hostile"],
        ["why", f"Good/{MARKUP_KEY}"],
        ["runs", "show", f"Nobody/{MARKUP_KEY}"],
        ["runs", "show", f"Nobody/x{HOSTILE}"],
        ["runs", "show", "x", "--db", f"no{HOSTILE}"],
        ["runs", "list", f"--bo{HOSTILE}"],
    ],
    ids=lambda tokens: ascii(" ".join(tokens[:3])),
)
def test_nothing_stored_reaches_the_terminal_but_as_text(  # noqa: PLR0917
    shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tokens: list[str], output: str, terminal: bool
) -> None:
    """S21."""

    monkeypatch.setenv("NO_COLOR", "1")
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("COLUMNS", "200")

    result = command(*tokens, "-o", output)

    written = re.sub(r"\x1b\[(?:[\d;]*m|\?25[lh]|1A|2K)", "", result.out + result.err).replace("\r", "")
    assert written.replace("\n", "").isprintable()
    assert "[31m" not in re.sub(r"(\\x1b|\\u001b)\[31m", "", written)  # escaped, so harmless
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in written
    if "boom" in written:
        assert "[bold]boom[/bold]" in written
    if output == "json" and result.out:
        assert result.json


def test_an_id_comes_out_as_it_must_go_in(shop: Path, command: Command) -> None:
    ids = command("runs", "list", "-o", "ids", "--kind", "Good", "--limit", "1").out

    assert ids == f"Good/{MARKUP_KEY}\n"
    assert command("runs", "show", ids.rstrip("\n"), "-o", "json").json["key"] == MARKUP_KEY


def test_an_output_that_cannot_have_the_letters_gets_escapes(shop: Path) -> None:
    result = child("runs", "list", "-o", "ids", "--kind", "Good", "--limit", "1", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert result == (0, "Good/a/[red]b[/red] :smile: \\u202ec\\x\n", result.err)


# --- show, history, why --------------------------------------------------------------------------------------------------


def test_show_has_report_remedy_and_last_events(shop: Path, command: Command) -> None:
    text = command("runs", "show", "Broken/p-1").out

    for part in (
        "paused (failure)",
        "Fatal: no such customer",
        ":explode#0",
        "what to do",
        "`retry` performs",
        "Last events",
        " UTC)",
    ):
        assert part in text, part


def test_show_as_json_is_the_run_and_its_last_events(shop: Path, command: Command) -> None:
    run = command("runs", "show", "Broken/p-1", "-o", "json", "--history", "2").json

    assert (run["kind"], run["key"], run["status"], run["reason"]) == ("Broken", "p-1", "paused", "failure")
    assert [event["kind"] for event in run["history"]] == ["step", "paused"]
    assert run["history"][0]["at"].endswith("Z")
    assert command("runs", "show", "Broken/p-1", "-o", "json", "--history", "0").json["history"] == []


def test_show_tells_how_far_loops_are_and_what_was_set_aside(shop: Path, command: Command) -> None:
    text = command("runs", "show", "Loops/p-1").out

    assert "Loops" in text
    assert "set aside" in text
    assert re.search(r"item 1 +1: .*1 is odd", text)


def test_history_goes_on_after_an_event(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow.cli.looking.PAGE_MAX", 2)

    whole = command("runs", "history", "Good/g-1", "-o", "json").json
    first = command("runs", "history", "Good/g-1", "-o", "json", "--limit", "1")
    rest = command("runs", "history", "Good/g-1", "-o", "json", "--after", str(whole[0]["seq"])).json

    assert [event["kind"] for event in whole] == ["started", "step", "completed"]
    assert first.json == whole[:1]
    assert f"--after {whole[0]['seq']}" in first.err
    assert rest == whole[1:]
    assert len(command("runs", "history", "Good/g-1").out.splitlines()) == 4


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("Good/g-1", r"^Good/g-1 completed at \d{4}-.* UTC\.$"),
        ("Rejected/r-1", "out of stock"),
        ("Broken/p-1", r"paused \(failure\): Fatal: no such customer"),
        ("Waits/c-1", "cancelled at"),
    ],
)
def test_why_is_one_sentence(shop: Path, command: Command, run: str, said: str) -> None:
    code, out, err = command("why", run)

    assert (code, out.count("\n"), err) == (0, 1, "")
    assert re.search(said, out)
    assert command("why", run, "-o", "json").json["why"] + "\n" == out


@pytest.mark.parametrize(
    "tokens", [["why"], ["runs", "show"], ["runs", "history"], ["runs", "wait"], ["runs", "cancel"], ["runs", "retry"]]
)
def test_a_run_that_is_not_there_is_code_5(shop: Path, command: Command, tokens: list[str]) -> None:
    code, out, err = command(*tokens, "Good/nobody")

    assert (code, out) == (Exit.NOT_FOUND, "")
    assert err.startswith("actorflow: there is no run Good/nobody.")


# --- wait ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        ("Good/g-2", Exit.OK, 'completed after 0 s: "paid 2"'),
        ("Rejected/r-1", Exit.FAILED, "failed at "),
        ("Broken/p-1", Exit.PAUSED, "is paused (failure): Fatal: no such customer"),
        ("Waits/c-1", Exit.CANCELLED, "cancelled at "),
    ],
)
def test_the_exit_code_of_wait_tells_how_it_ended(shop: Path, command: Command, run: str, code: Exit, said: str) -> None:
    result = command("runs", "wait", run)

    assert result.code == code
    assert said in result.out
    assert command("runs", "wait", run, "--quiet") == (code, "", "")
    assert command("runs", "wait", run, "-o", "json").json["status"] in result.out


def test_wait_as_json_has_the_result(shop: Path, command: Command) -> None:
    assert command("runs", "wait", "Good/g-2", "-o", "json").json["result"] == "paid 2"
    assert command("runs", "wait", "Broken/p-1", "-o", "json").json["result"] is None


def test_wait_gives_up_in_time(shop: Path, command: Command) -> None:
    code, out, err = command("runs", "wait", "Sleeps/s-1", "--timeout", "0")

    assert (code, out) == (Exit.TIMED_OUT, "")
    assert "not done after 0 s" in err


def test_a_watcher_sees_a_bar_for_each_loop_while_it_lasts() -> None:
    loop = LoopInfo(branch="", n=0, done=40, set_aside=2, repeated=0, total=100, rate_per_s=10.0, eta_s=6.0)
    printer = Printer(Options())
    bars: dict[tuple[str, int], Any] = {}
    drawn = printer.waiting()

    waiting.draw(drawn, bars, (loop,))
    task = drawn.tasks[0]
    assert (task.completed, task.total, task.fields["left"]) == (42, 100, "6 s left")

    waiting.draw(drawn, bars, ())
    assert not drawn.tasks
    assert not bars


# --- acts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "run", "event"),
    [
        (["retry"], "Broken/p-1", "retried"),
        (["resume"], "Broken/p-1", "resumed"),
        (["skip", "--value", '"mended"'], "Broken/p-1", "skipped"),
        (["decide", ":hang#0", "--landed", '"ok"'], "Asks/p-1", "decided"),
        (["decide", ":hang#0", "--run-again"], "Asks/p-1", "decided"),
        (["decide", ":hang#0", "--give-up"], "Asks/p-1", "decided"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
@pytest.mark.parametrize("output", ["table", "json", "ids"])
def test_an_act_is_in_the_history_of_the_run(  # noqa: PLR0917
    shop: Path, command: Command, tokens: list[str], run: str, event: str, output: str
) -> None:
    result = command("runs", tokens[0], run, *tokens[1:], "-o", output)

    assert (result.code, result.err) == (0, "")
    assert event in kinds(result, run, command)
    match output:
        case "ids":
            assert result.out == f"{run}\n"
        case "json":
            done = result.json if isinstance(result.json, dict) else result.json[0]
            assert done == {"kind": run[:-4], "key": "p-1", "act": tokens[0], "done": True, "error": None}
        case _:
            assert result.out.startswith(f"{run}: ")


def test_a_verb_that_does_not_fit_is_code_2_and_says_what_fits(shop: Path, command: Command) -> None:
    code, _, err = command("runs", "retry", "Good/g-1")

    assert code == Exit.USAGE
    assert err.startswith("actorflow: cannot retry Good/g-1: it is completed.")


def test_one_that_is_refused_does_not_stop_the_others(shop: Path, command: Command) -> None:
    result = command("runs", "retry", "Good/g-1", "Broken/nobody", "Broken/p-1", "-o", "json")

    assert result.code == Exit.USAGE
    assert [done["done"] for done in result.json] == [False, False, True]
    assert "no run Broken/nobody" in result.json[1]["error"]
    assert result.err.count("actorflow: ") == 2


def test_cancel_leaves_alone_what_has_ended(shop: Path, command: Command) -> None:
    assert command("runs", "cancel", "Good/g-1") == (0, "Good/g-1: had ended\n", "")
    assert command("runs", "cancel", "Good/g-1", "-o", "json").json[0]["done"] is False


def test_fork_prints_the_new_run_for_the_next_command(shop: Path, command: Command) -> None:
    seq = command("runs", "history", "Good/g-1", "-o", "json").json[1]["seq"]

    result = command("runs", "fork", "Good/g-1", "again/1", "--at", str(seq), "-o", "ids")

    assert result == (0, "Good/again/1\n", "")
    assert command("runs", "show", "Good/again/1", "-o", "json").json["history"][0]["kind"] == "started"
    taken = command("runs", "fork", "Good/g-1", "again/1")
    assert (taken.code, taken.out) == (Exit.USAGE, "")


def test_prune_deletes_all_but_the_key(shop: Path, command: Command) -> None:
    assert command("runs", "prune", "Good/g-0", "Good/g-1") == (0, "Good/g-0: pruned\nGood/g-1: pruned\n", "")
    assert command("runs", "prune", "Broken/p-1").code == Exit.USAGE
    assert command("runs", "show", "Good/g-0").code == Exit.NOT_FOUND


def test_acts_on_many_by_filter_need_a_yes(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    nobody = command("runs", "retry", "--kind", "Broken")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    no = command("runs", "retry", "--kind", "Broken")
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    yes = command("runs", "retry", "--kind", "Broken")

    assert nobody.code == no.code == Exit.USAGE
    assert "--yes" in nobody.err
    assert "retry 2 runs, from Broken/p-1 to Broken/hostile?" in no.err
    assert yes.out == "Broken/hostile: retried\nBroken/p-1: retried\n"


@pytest.mark.parametrize(
    ("tokens", "done"),
    [
        (["resume", "--reason", "failure"], ["Broken/hostile", "Broken/p-1"]),
        (["retry", "--status", "paused", "--key-prefix", "h"], ["Broken/hostile"]),
        (["cancel", "--kind", "Broken"], ["Broken/hostile", "Broken/p-1"]),
        (["cancel", "--kind", "Good"], []),
        (["resume", "--kind", "Nobody"], []),
    ],
    ids=lambda value: " ".join(value[:3]),
)
def test_filters_choose_what_the_verb_applies_to(shop: Path, command: Command, tokens: list[str], done: list[str]) -> None:
    assert command("runs", *tokens, "--yes", "-o", "ids") == (0, "".join(f"{run}\n" for run in done), "")


def test_a_bar_is_drawn_for_many_only_if_somebody_watches(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")

    assert "resume runs" in command("runs", "resume", "--reason", "failure", "--yes").err
    assert command("runs", "resume", "Broken/p-1", "Asks/p-1", "--quiet").err == ""


# --- between processes ---------------------------------------------------------------------------------------------------


def test_ids_pipe_into_the_next_command(shop: Path) -> None:
    paused = child("runs", "list", "--reason", "failure", "-o", "ids")

    retried = child("runs", "retry", "--stdin", "-o", "ids", stdin=f"{paused.out}\n{paused.out}")

    assert retried == (0, paused.out, "")
    assert child("runs", "retry", "--stdin") == (0, "", "No runs match.\n")


def test_the_exit_code_reaches_the_shell(shop: Path) -> None:
    assert child("runs", "wait", "Rejected/r-1", "-q").code == Exit.FAILED
    assert child("runs", "show", "Good/nobody").code == Exit.NOT_FOUND


def test_a_reader_that_goes_away_is_no_error(shop: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-W", "error", "-m", "actorflow", "runs", "list", "-o", "json"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writes)

    assert (done.returncode, done.stderr) == (Exit.CLOSED, b"")


# --- trouble with the store ----------------------------------------------------------------------------------------------


def test_no_runs_at_all(tmp_path: Path, command: Command) -> None:
    async def nothing() -> None:
        async with Runtime(f"sqlite:///{tmp_path / 'empty.db'}", actors=[]):
            pass

    anyio.run(nothing)
    store = ("--db", str(tmp_path / "empty.db"))

    assert command("runs", "list", *store) == (0, "", "There are no runs.\n")
    assert command("runs", "list", *store, "-o", "json") == (0, "[]\n", "")
    assert command("runs", "list", *store, "-o", "ids") == (0, "", "")
    assert command("runs", "count", *store) == (0, "", "There are no runs.\n")
    assert command("runs", "count", *store, "-o", "json").json == {}
    assert command("runs", "show", "Good/g-1", *store).code == Exit.NOT_FOUND


def test_a_missing_store_is_code_7_and_is_not_made(tmp_path: Path, command: Command) -> None:
    for db in (tmp_path / "typo.db", tmp_path / "no" / "where.db", tmp_path):
        code, out, err = command("runs", "list", "--db", str(db))

        assert (code, out) == (Exit.STORE, "")
        assert err.startswith(f"actorflow: there is no store {db}.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_what_is_no_store_is_code_7_and_left_as_it_is(tmp_path: Path, command: Command, content: bytes) -> None:
    path = tmp_path / "letter.db"
    path.write_bytes(content)

    code, out, err = command("runs", "list", "--db", str(path))

    assert (code, out) == (Exit.STORE, "")
    assert err.startswith("actorflow: ")
    assert "Traceback" not in err
    assert path.read_bytes() == content


@pytest.fixture
def held(shop: Path) -> Iterator[Path]:
    """The store, locked by somebody who does not answer."""
    with Path(f"{shop}.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shop


def test_a_busy_store_is_code_7_and_names_its_holder(held: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow.cli.connect.PATIENCE", 0)

    code, out, err = command("runs", "cancel", "Broken/p-1", "Broken/hostile")

    assert (code, out) == (Exit.STORE, "")
    assert re.search(r"is held by process \d+", err)


def test_debug_shows_the_traceback(shop: Path, command: Command) -> None:
    err = command("runs", "show", "Good/nobody", "--debug").err

    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("actorflow: there is no run")


def test_a_bug_says_so(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("1/0")

    monkeypatch.setattr(acting, "perform", broken)
    code, _, err = command("runs", "pause", "Good/g-1")

    assert code == Exit.BUG
    assert "bug of actorflow" in err


def test_an_interrupt_is_no_traceback(shop: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(acting, "perform", interrupted)

    assert command("runs", "pause", "Good/g-1") == (Exit.INTERRUPTED, "", "actorflow: interrupted\n")


def test_several_errors_at_once_are_told_as_what_they_are() -> None:
    assert of_error(ExceptionGroup("two", [ValueError(), KeyError()])) == Exit.BUG


# --- with a service that runs --------------------------------------------------------------------------------------------


async def _in_time(serve: Callable[[], Awaitable[Any]]) -> Any:
    """What never comes is a failure, not a test that hangs."""
    with anyio.fail_after(60):
        return await serve()


async def in_child(*tokens: str) -> Result:
    """The command in a process of its own, while this one serves the store."""
    done = await anyio.run_process([sys.executable, "-W", "error", "-m", "actorflow", *tokens], check=False)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_service_need_not_be_stopped(shop: Path) -> None:
    async def serve() -> None:
        async with Runtime(f"sqlite:///{shop}", actors=CLASSES) as runtime:
            waits = runtime.run(Waits, "w-1")
            shown = await in_child("why", "Waits/w-1")
            assert "Waits/w-1 waits" in shown.out, shown
            gave_up = await in_child("runs", "wait", "Waits/w-1", "--timeout", "10ms")
            assert gave_up.code == Exit.TIMED_OUT, gave_up
            assert (await in_child("runs", "pause", "Waits/w-1")) == (0, "Waits/w-1: paused\n", "")
            assert (await waits.status()).status == "paused"
            assert (await in_child("runs", "wait", "Waits/w-1", "-q")).code == Exit.PAUSED
            assert (await in_child("runs", "resume", "Waits/w-1", "-q")).code == 0
            async with anyio.create_task_group() as group:
                group.start_soon(_approve_when_waited_for, runtime)
                ended = await in_child("runs", "wait", "Waits/w-1", "-o", "json")
            assert (ended.code, ended.json["status"], ended.json["result"]) == (0, "completed", "ann"), ended

    anyio.run(_in_time, serve)


async def _approve_when_waited_for(runtime: Runtime) -> None:
    await runtime.run(Waits, "w-1").tell(Approve("ann"))


def test_somebody_who_watches_sees_what_a_run_waits_for(shop: Path) -> None:
    async def serve() -> str:
        async with Runtime(f"sqlite:///{shop}", actors=CLASSES) as runtime:
            command = [sys.executable, "-W", "error", "-m", "actorflow", "runs", "wait", "Waits/w-1"]
            environment = {**os.environ, "TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": "200"}
            seen = ""
            async with await anyio.open_process(command, env=environment) as process:
                assert process.stderr is not None
                async for chunk in process.stderr:
                    seen += chunk.decode()
                    if "Waits/w-1 waits" in seen:
                        await runtime.run(Waits, "w-1").tell(Approve("bob"))
                        break
                assert await process.wait() == 0
                assert process.stdout is not None
                assert b"completed after" in await process.stdout.receive()
            return seen

    assert "Waits/w-1 waits" in anyio.run(_in_time, serve)


def test_what_was_cancelled_while_nobody_ran_it_is_cancelled_by_the_next_service(shop: Path, command: Command) -> None:
    async def serve() -> list[str]:
        async with Runtime(f"sqlite:///{shop}", actors=CLASSES) as runtime:
            for run in (runtime.run(Broken, "p-1"), runtime.run(Waits, "w-1")):
                with pytest.raises(ActorflowError, match="too late"):
                    await run.result()
            return [(await run.status()).status for run in (runtime.run(Broken, "p-1"), runtime.run(Waits, "w-1"))]

    assert command("runs", "cancel", "Broken/p-1", "Waits/w-1", "--why", "too late").code == 0

    assert anyio.run(_in_time, serve) == ["cancelled", "cancelled"]


def test_acts_done_while_nobody_ran_it_are_carried_on_by_the_next_service(shop: Path, command: Command) -> None:
    async def serve() -> list[str]:
        async with Runtime(f"sqlite:///{shop}", actors=CLASSES) as runtime:
            return [await runtime.run(Broken, "p-1").result(), await runtime.run(Asks, "p-1").result()]

    assert command("runs", "skip", "Broken/p-1", "--value", '"mended"').code == 0
    assert command("runs", "decide", "Asks/p-1", ":hang#0", "--landed", '"done"').code == 0

    assert anyio.run(_in_time, serve) == ["mended", "done"]


def test_the_readme_says_what_the_exit_codes_mean() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")

    missing = [code for code, meaning in MEANINGS.items() if code < Exit.BUG and f"| {int(code)} | {meaning} |" not in readme]

    assert not missing
