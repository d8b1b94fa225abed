"""Every example runs as it says, and a second time without doing anything twice."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from actorflow import RunPaused, Runtime
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from tests.harness import both

EXAMPLES = Path(__file__).parent.parent / "examples"
Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports an example; its messages and steps are found by module name while the test runs."""

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def said(capsys: pytest.CaptureFixture[str], main: Callable[[], Any]) -> list[str]:
    anyio.run(main)
    return capsys.readouterr().out.splitlines()


def test_an_order_is_approved_and_another_one_rejected_and_undone(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = partial(load("order_with_approval").main, tmp_path)

    first, second = said(capsys, main), said(capsys, main)

    assert first == [
        "o-1 waits for approval of 4200 cents",
        "o-1 is done: parcel-o-1, approved by ann, paid with Checkout/o-1/0//charge/0",
        "o-2 waits for approval of 4200 cents",
        "o-2 failed: bob rejected it: too expensive",
        "o-1: charge 4200",
        "o-1: ship",
        "o-2: charge 4200",
        "o-2: refund 4200 (Checkout/o-2/0//charge/0)",
    ]
    assert second == [line for line in first if "waits" not in line]


def test_an_agent_uses_its_tools_is_steered_and_forgets_nothing(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = partial(load("agent_loop").main, tmp_path)

    first, second = said(capsys, main), said(capsys, main)

    assert first == second
    assert first[0] == " user  Which is the densest city, Oslo or Rome?"
    assert " user  And Bern?" in first
    assert [line for line in first if line.startswith(" tool")] == [
        " tool  population of Oslo: 709,000",
        " tool  area of Oslo: 454",
        " tool  population of Rome: 2,750,000",
        " tool  area of Rome: 1,285",
        " tool  population of Bern: 134,000",
        " tool  area of Bern: 52",
    ]
    assert first[-2] == "model  Of Oslo, Rome, Bern, Bern is the densest."


def test_an_import_reports_its_bad_rows(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = partial(load("nightly_import").main, tmp_path, 250)

    first, second = said(capsys, main), said(capsys, main)

    assert first == second
    assert first == [
        "248 rows loaded, 2 set aside, 31,075 cents in all",
        "  \"99:100: Fatal: line 100: 'n/a' is no amount\"",
        "  \"199:200: Fatal: line 200: 'n/a' is no amount\"",
    ]


def test_a_file_with_too_many_bad_rows_pauses_the_import(load: Load, tmp_path: Path) -> None:
    example = load("nightly_import")
    (tmp_path / "bookings.csv").write_text("a,1\na,x\na,y\n", encoding="utf-8")

    with pytest.raises(RunPaused, match="2 of 3 items were set aside, over the budget"):
        anyio.run(example.main, tmp_path, 3)


def test_a_bank_moves_money_once_and_loses_none(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = partial(load("bank").main, tmp_path, 5, 60)

    first, second = said(capsys, main), said(capsys, main)

    assert first == second
    assert first[1] == "500.00 in 5 accounts; 500.00 were brought in"
    counted = [part.split() for part in first[0].removeprefix("60 transfers: ").split(", ")]
    assert {how for _, how in counted} <= {"paid", "TooLittle", "TooMuch"}
    assert sum(int(count) for count, _ in counted) == 60


def test_a_chat_room_remembers_and_tells_those_who_are_there(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = partial(load("chat").main, tmp_path)

    first, second = said(capsys, main), said(capsys, main)

    assert first == [
        "eve comes, and is shown 2 lines",
        "bob goes: bob is not in tea",
        "ann has seen",
        "    1 ann: Is there milk?",
        "    2 bob: The last drop.",
        "    3 eve: I take mine black.",
        "bob has seen",
        "    1 ann: Is there milk?",
        "    2 bob: The last drop.",
        "eve has seen",
        "    (1 ann: Is there milk?)",
        "    (2 bob: The last drop.)",
        "    3 eve: I take mine black.",
    ]
    bob = second[second.index("bob has seen") : second.index("eve has seen")]
    assert bob[3:] == [
        "    (1 ann: Is there milk?)",
        "    (2 bob: The last drop.)",
        "    (3 eve: I take mine black.)",
        "    4 ann: Is there milk?",
        "    5 bob: The last drop.",
    ]


@both
def test_devices_that_are_silent_are_marked_offline_by_their_own_timers(
    load: Load, capsys: pytest.CaptureFixture[str], backend: Backend
) -> None:
    fleet = load("fleet")
    in_memory: list[int] = []

    async def scenario() -> None:
        runtime: Any
        store, clock = MemoryStore(), LoopClock()
        async with Runtime(store=store, actors=[fleet.Device], tree=[fleet.TREE], limits=fleet.LIMITS, clock=clock) as runtime:
            await fleet.demo(runtime, 40)
            in_memory.append(len(runtime._host.resident))
            await anyio.sleep(60)
            in_memory.append(len(runtime._host.resident))

    run_virtual(scenario, backend=backend)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("40 heartbeats answered")
    assert lines[1] == "online: {'north': 10, 'east': 10, 'south': 10, 'west': 10}"
    assert lines[-1] == "online: {'north': 0, 'east': 10, 'south': 10, 'west': 10}"
    assert in_memory == [44, 4]  # Only those that are always there.


@both
def test_a_feed_crashes_and_what_depends_on_it_is_restarted_with_it(
    load: Load, capsys: pytest.CaptureFixture[str], backend: Backend
) -> None:
    feed = load("feed")
    exchange = feed.Exchange()

    async def scenario() -> None:
        store, clock = MemoryStore(), LoopClock()
        async with Runtime(store=store, actors=[], tree=[feed.TREE], resources=[exchange], clock=clock) as runtime:
            await feed.demo(runtime, exchange)

    run_virtual(scenario, backend=backend)

    text = capsys.readouterr().out
    before, hung_up, connected, nonsense, after, count = [part.splitlines() for part in text.strip().split("\n\n")]
    assert [" ".join(line.split()[:2]) for line in before[1:]] == [
        "prices running,",
        "Feed/main running,",
        "Normalizer/main running,",
        "Publisher/main running,",
    ]
    assert [line.split()[1] for line in hung_up[2:]] == ["restarting,", "down,", "down,"]
    assert hung_up[2].endswith("HungUp: no session, so no EURUSD")
    assert [line.split()[1:3] for line in connected[2:]] == [["running,", "1"]] * 3
    assert [line.split()[1] for line in nonsense[2:]] == ["running,", "restarting,", "down,"]
    assert [line.split()[1:3] for line in after[2:]] == [["running,", "1"], ["running,", "2"], ["running,", "2"]]
    sent = exchange.sent
    assert count == [f"{sent} lines were sent, one of them nonsense, and {sent - 1} prices published."]


@pytest.mark.kill
def test_a_killed_import_goes_on(load: Load, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "nightly_import.py"), "--out", str(tmp_path), "--rows", "600"]

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while loaded(tmp_path) < 250:
            assert child.poll() is None
        child.kill()
    before = loaded(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert before < 594
    assert done.stdout.splitlines()[0] == "594 rows loaded, 6 set aside, 178,200 cents in all"


def loaded(folder: Path) -> int:
    """Rows in the database; 0 before there is one."""
    url = f"{(folder / 'bookings.db').as_uri()}?mode=ro"
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(url, uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM bookings").fetchone()[0])
    return 0


@pytest.mark.kill
def test_the_tests_of_an_order_pass_and_find_a_bank_that_is_given_no_key(tmp_path: Path) -> None:
    text = (EXAMPLES / "test_order.py").read_text(encoding="utf-8")
    spoilt = text.replace(
        '"shop", order.cents, key=current_step().key',
        '"shop", order.cents, key=str(id(current_step()))',
    )

    done = {name: said_by_pytest(tmp_path, name, of) for name, of in (("test_order", text), ("test_spoilt", spoilt))}

    assert done["test_order"].returncode == 0, done["test_order"].stdout
    assert "3 passed" in done["test_order"].stdout
    assert "the step `charge` changed `bank.accounts` 2 times" in done["test_spoilt"].stdout


def said_by_pytest(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    """What pytest says of a file, with the plugin."""
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    plugin = ["-p", "no:actorflow", "-p", "actorflow.testing.plugin", "-p", "no:cacheprovider", "-W", "error"]
    command = [sys.executable, "-m", "pytest", *plugin, f"{name}.py"]
    env = os.environ | {"PYTHONPATH": str(EXAMPLES.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_every_example_has_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_example*.py"))

    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in tests] == []
