"""The main example, `examples/index_stdlib.py`, and `actorflow demo`, which kills it."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
import threading
import warnings
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actorflow.cli.demo import PATIENCE_S, DemoError, Verdict, demo, example_file, run_demo

SCRIPT = Path(__file__).parent.parent / "examples" / "index_stdlib.py"


def load_example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("index_stdlib", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "index_stdlib", module)
        spec.loader.exec_module(module)
    return module


example = load_example()


def facts(data: bytes) -> tuple[int, int, int, int, int]:
    found = example.analyse("x.py", data)
    return found.lines, found.classes, found.functions, found.docstrings, found.imports


# --- one file ----------------------------------------------------------------------------------------------------------


def test_nested_classes_functions_and_imports_are_counted() -> None:
    source = b'''"""Module."""
import os, re
from . import x
class A:
    """Class."""
    class B:
        async def f(self):
            "Function."
            import sys
            def g(): return lambda: 0
'''

    assert facts(source) == (10, 2, 2, 3, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", (0, 0, 0, 0, 0), id="empty"),
        pytest.param(b"# nothing", (1, 0, 0, 0, 0), id="only a comment, no newline"),
        pytest.param(b"\xef\xbb\xbfdef f(): pass\n", (1, 0, 1, 0, 0), id="byte order mark"),
        pytest.param(b"# coding: latin-1\nx = '\xe9'\n", (2, 0, 0, 0, 0), id="latin-1"),
        pytest.param("# coding: koi8-r\nclass Привет: 'Да'\n".encode("koi8-r"), (2, 1, 0, 1, 0), id="koi8-r"),
        pytest.param(b"def f():\r\n    pass\r\n", (2, 0, 1, 0, 0), id="CRLF"),
        pytest.param(b"x = 1\n\x0cdef f(): pass\n", (2, 0, 1, 0, 0), id="form feed"),
        pytest.param(b"f'{1}'\n", (1, 0, 0, 0, 0), id="an f-string is no docstring"),
    ],
)
def test_odd_files_are_read(data: bytes, expected: tuple[int, ...]) -> None:
    assert facts(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"print 'hello'\n", id="Python 2"),
        pytest.param(b"x = 1\0\n", id="null byte"),
        pytest.param(b"# coding: uft-8\n", id="unknown encoding"),
        pytest.param(b"x = '\xf6'\n", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf# coding: latin-1\n", id="byte order mark and another encoding"),
        pytest.param(b"def f(:\n", id="syntax error"),
    ],
)
def test_what_is_no_python_is_refused_with_errors_that_can_be_set_aside(data: bytes) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        example.analyse("x.py", data)


def test_warnings_of_the_parser_are_silent_in_every_thread_and_the_filters_stay() -> None:
    before = list(warnings.filters)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                example.analyse("x.py", b"x = '\\d'\nassert (x, 'always true')\ny = x is 1\nz = 1or 2\n")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert list(warnings.filters) == before


# --- many files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Three good files, one that is no Python, and what is not part of a library."""
    root = tmp_path / "library"
    files = {
        "os.py": "import sys\ndef f(): ...\ndef g(): ...\n",
        "json/__init__.py": '"""JSON."""\nclass Encoder:\n    def encode(self): ...\n',
        "json/tool.py": "",
        "broken.py": "print 1",
        "README.txt": "no module",
        "site-packages/pip.py": "x = 1",
        "json/__pycache__/tool.py": "x = 1",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "modules.db")
    example.create_tables(path, total=4)
    return path


def index_all(library: Path, database: str) -> None:
    for path in ("json/__init__.py", "json/tool.py", "os.py"):
        example.index_file(str(library), database, path)


def test_modules_come_in_one_order_without_what_is_installed(library: Path) -> None:
    assert example.modules(str(library)) == ["broken.py", "json/__init__.py", "json/tool.py", "os.py"]
    assert example.modules(str(library), 2) == ["broken.py", "json/__init__.py"]


def test_a_link_to_nowhere_is_no_module(library: Path) -> None:
    (library / "gone.py").symlink_to(library / "nowhere.py")

    assert "gone.py" not in example.modules(str(library))


def test_indexing_twice_keeps_one_row_and_counts_the_repeat(library: Path, database: str) -> None:
    index_all(library, database)
    first = example.read_facts(database)

    example.index_file(str(library), database, "os.py")

    with closing(sqlite3.connect(database)) as db:
        writes = dict(db.execute("SELECT path, writes FROM modules"))
    assert example.read_facts(database) == first
    assert writes == {"json/__init__.py": 1, "json/tool.py": 1, "os.py": 2}


def test_preparing_again_keeps_the_rows(library: Path, database: str) -> None:
    index_all(library, database)

    example.create_tables(database, total=5)

    assert len(example.read_facts(database)) == 3
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT total, batch, parallel FROM job").fetchall() == [(5, example.BATCH, example.PARALLEL)]


def test_threads_may_write_at_the_same_time(library: Path, database: str) -> None:
    threads = [threading.Thread(target=index_all, args=(library, database)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT count(*), sum(writes) FROM modules").fetchone() == (3, 12)


def test_the_plain_loop_sets_aside_what_is_no_python(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example.sysconfig, "get_paths", lambda: {"stdlib": str(library)})

    summary = example.index_plainly(tmp_path, None)

    assert (summary.files, summary.set_aside, summary.functions, summary.classes) == (3, 1, 3, 1)


# --- the report --------------------------------------------------------------------------------------------------------


def test_the_report_holds_the_totals_and_the_largest_modules(library: Path, database: str) -> None:
    index_all(library, database)

    text = example.report_text(example.read_totals(database), example.read_facts(database), set_aside=1, chart="report.svg")

    assert "| files | set aside | lines | classes | functions | docstrings | imports |\n" in text
    assert "\n| 3 | 1 | 6 | 1 | 3 | 1 | 1 |\n" in text
    assert "![Functions by package](report.svg)" in text
    assert text.index("| `os.py` | 2 |") < text.index("| `json/__init__.py` | 1 |")


def test_functions_are_added_up_by_package(library: Path, database: str) -> None:
    index_all(library, database)

    assert example.by_package(example.read_facts(database)) == [("os", 2), ("json", 1)]


@pytest.mark.parametrize("bars", [[], [("a", 0)], [("<&>\"'", 3), ("b", 1_000)]])
def test_the_chart_is_well_formed_whatever_the_names(bars: list[tuple[str, int]]) -> None:
    svg = ET.fromstring(example.bar_chart("Functions", bars))

    namespace = "{http://www.w3.org/2000/svg}"
    names = [text.text for text in svg.iter(f"{namespace}text") if text.get("class") == "name"]
    widths = [float(rect.attrib["width"]) for rect in svg.iter(f"{namespace}rect")]
    assert names == [name for name, _ in bars]
    assert len(widths) == len(bars)
    assert all(0 <= width <= 440 for width in widths)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.md"

    example.replace_file(path, "long text")
    example.replace_file(path, "text")

    assert path.read_text(encoding="utf-8") == "text"
    assert list(tmp_path.iterdir()) == [path]


# --- the demo, on jobs that stand in for the example ------------------------------------------------------------------

JOB = """
import argparse, os, pathlib, sqlite3, sys, time
parser = argparse.ArgumentParser()
for name in ("--out", "--limit"):
    parser.add_argument(name)
parser.add_argument("--plain", action="store_true")
given = parser.parse_args()
total, out = int(given.limit), pathlib.Path(given.out)
mark = out / "mark"
begin = int(mark.read_text()) if mark.exists() else 0
again = mark.exists()
db = sqlite3.connect(out / "modules.db", isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE IF NOT EXISTS job (one PRIMARY KEY, total, batch, parallel)")
facts = "path PRIMARY KEY, sha256, lines, classes, functions, docstrings, imports, writes, pid"
db.execute(f"CREATE TABLE IF NOT EXISTS modules ({facts})")
upsert = "ON CONFLICT DO UPDATE SET writes = writes + 1, pid = excluded.pid"
db.execute("INSERT OR REPLACE INTO job VALUES (1, ?, 5, 1)", (total,))
FAULT
for n in range(begin, total):
    db.execute(f"INSERT INTO modules VALUES (?, ?, 1, 1, 1, 1, 1, 1, ?) {upsert}", (str(n), value, os.getpid()))
    if n % 5 == 4:
        mark.with_suffix(".new").write_text(str(n + 1))
        os.replace(mark.with_suffix(".new"), mark)
    if n == 40 and waits:
        time.sleep(600)
"""
HONEST = "value, waits = 'x', not again and not given.plain  # the first process waits for its end with two thirds done"


def run_job(tmp_path: Path, fault: str, *, patience_s: float = PATIENCE_S) -> Verdict:
    script = tmp_path / "job.py"
    script.write_text(JOB.replace("FAULT", f"{HONEST}\n{fault}"), encoding="utf-8")
    return run_demo(script, tmp_path / "out", limit=60, console=Console(quiet=True), patience_s=patience_s)


@pytest.mark.kill
def test_a_job_that_resumes_is_found_right(tmp_path: Path) -> None:
    verdict = run_job(tmp_path, "")

    assert verdict.ok
    assert verdict.done_before + verdict.done_after == verdict.files == 60
    assert 24 <= verdict.done_before <= 41
    assert verdict.repeated <= 5
    assert verdict.time_lost_s > 0


@pytest.mark.kill
@pytest.mark.parametrize(
    ("fault", "holds"),
    [
        pytest.param("begin = 0", {"repeated": False, "only_the_rest": True, "rows_equal": True}, id="starts over"),
        pytest.param(
            "if again: begin = 0; db.execute('DELETE FROM modules')",
            {"repeated": True, "only_the_rest": False, "rows_equal": True},
            id="forgets all and starts over",
        ),
        pytest.param(
            "if again: value = 'y'", {"repeated": True, "only_the_rest": True, "rows_equal": False}, id="writes other rows"
        ),
        pytest.param("if again: begin += 9", {"repeated": True, "only_the_rest": True, "rows_equal": False}, id="loses rows"),
    ],
)
def test_a_job_that_breaks_a_promise_is_found(tmp_path: Path, fault: str, holds: dict[str, bool]) -> None:
    verdict = run_job(tmp_path, fault)

    assert not verdict.ok
    found = {"repeated": verdict.repeated <= verdict.repeated_max}
    assert holds == found | {"only_the_rest": verdict.only_the_rest, "rows_equal": verdict.rows_equal}


@pytest.mark.kill
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        pytest.param(
            "waits = False; db.execute('BEGIN'); __import__('atexit').register(db.commit)",
            "done before it could be killed",
            id="too quick",
        ),
        pytest.param("sys.exit('no such library')", "no such library", id="fails at once"),
        pytest.param("if again: sys.exit('cannot resume')", "cannot resume", id="fails after the kill"),
    ],
)
def test_a_job_that_shows_nothing_stops_the_demo_with_its_output(tmp_path: Path, fault: str, complaint: str) -> None:
    with pytest.raises(DemoError, match=complaint):
        run_job(tmp_path, fault)


@pytest.mark.kill
def test_a_job_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="took longer than 1 s"):
        run_job(tmp_path, "time.sleep(600)", patience_s=1.0)


def test_the_example_is_found_beside_the_package() -> None:
    assert example_file("index_stdlib.py") == SCRIPT


def test_a_missing_example_says_where_it_was_looked_for() -> None:
    with pytest.raises(DemoError, match=r"there is no nothing\.py in .*examples or .*examples"):
        example_file("nothing.py")


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "modules.db").touch()

    assert demo(keep=tmp_path) == 1
    assert "is not empty" in capsys.readouterr().out


@pytest.mark.kill
def test_the_demo_holds_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = demo(keep=tmp_path / "kept", limit=120, as_json=True)

    verdict = json.loads(capsys.readouterr().out)
    assert (code, verdict["ok"]) == (0, True)
    assert verdict["repeated"] <= example.BATCH + example.PARALLEL
    assert "| files |" in (tmp_path / "kept" / "durable" / "report.md").read_text(encoding="utf-8")
