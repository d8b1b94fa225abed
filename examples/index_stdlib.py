"""Index Python's standard library: a job over many files that survives being killed.

    python examples/index_stdlib.py --out out

reads every .py file of the running Python's standard library, counts what is in it, keeps one row a file in
`out/modules.db`, and writes a report with a chart. Kill it at any moment (`kill -9`), start it again with the same
`--out`, and it goes on where it was: the runtime's own store, `out/jobs.db`, knows which files are acknowledged.

`--plain` does the same work in a plain loop, without actorflow, to compare the rows with.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import sqlite3
import sys
import sysconfig
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import anyio
from attrs import asdict, astuple, fields, frozen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actorflow import KeyTaken, Run, RunPaused, Runtime, SetAside, Workflow, step

BATCH = 50  #: files acknowledged together: what a kill repeats at most, with those in flight
PARALLEL = 4  #: files in flight
TOP = 12  #: modules in each table of the report

# --- the job ----------------------------------------------------------------------------------------------------------


@frozen
class Summary:
    """What the index holds once the job is done."""

    files: int
    set_aside: int  #: files that are no Python: they are listed in the run's history, and do not stop the job
    lines: int
    classes: int
    functions: int
    docstrings: int
    imports: int
    report: str


class IndexStdlib(Workflow[Summary]):
    """Read every module, keep a row for each, write a report."""

    library: str
    database: str
    report: str
    limit: int | None = None

    async def run(self) -> Summary:
        await prepare(self.library, self.database, self.limit)
        done = await self.each(
            partial(modules, self.library, self.limit),
            partial(index_file, self.library, self.database),
            key=str,
            batch=BATCH,
            flush="1s",
            parallel=PARALLEL,
            on_error=SetAside(at_most=0.05),
        )
        totals = await summarise(self.database)
        await write_report(self.database, self.report, done.set_aside)
        return Summary(set_aside=done.set_aside, report=self.report, **asdict(totals))


@step
def prepare(library: str, database: str, limit: int | None) -> None:
    """Make the tables, and write down how much there is to do."""
    create_tables(database, total=len(modules(library, limit)))


@step
def summarise(database: str) -> Totals:
    """Add up all rows."""
    return read_totals(database)


@step
def write_report(database: str, report: str, set_aside: int) -> None:
    """Write the report and its chart; written again, they are the same."""
    facts = read_facts(database)
    chart = Path(report).with_suffix(".svg")
    replace_file(chart, bar_chart("Functions by package", by_package(facts)[:TOP]))
    replace_file(Path(report), report_text(read_totals(database), facts, set_aside=set_aside, chart=chart.name))


# --- one file: pure ----------------------------------------------------------------------------------------------------


@frozen
class ModuleFacts:
    """What one file holds."""

    path: str  #: below the library, with forward slashes
    sha256: str
    lines: int
    classes: int
    functions: int
    docstrings: int
    imports: int


@frozen
class Totals:
    """Sums over all files."""

    files: int
    lines: int
    classes: int
    functions: int
    docstrings: int
    imports: int


def modules(library: str, limit: int | None = None) -> list[str]:
    """Every .py file below *library*, the same ones in the same order each time; installed packages are left out."""
    found: list[str] = []
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in {"site-packages", "dist-packages", "__pycache__"}]
        paths = (Path(folder, name) for name in files if name.endswith(".py"))
        found += [path.relative_to(library).as_posix() for path in paths if path.is_file()]
    return sorted(found)[:limit]


def analyse(path: str, data: bytes) -> ModuleFacts:
    r"""Count what is in a file.

    >>> facts = analyse("x.py", b"import os, re\nclass A:\n    'Doc.'\n    def f(self): ...\n")
    >>> facts.lines, facts.classes, facts.functions, facts.docstrings, facts.imports
    (4, 1, 1, 1, 1)

    Raises:
        SyntaxError: It is no Python of this version, or its encoding is wrong or unknown.
        ValueError: It holds null bytes (a SyntaxError in some versions), or is no valid UTF-8.
    """
    with silence():
        nodes = list(statements(ast.parse(data, path)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    documented = [*functions, *classes, *(node for node in nodes if isinstance(node, ast.Module))]
    return ModuleFacts(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        lines=len(data.splitlines()),
        classes=len(classes),
        functions=len(functions),
        docstrings=sum(ast.get_docstring(node, clean=False) is not None for node in documented),
        imports=sum(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes),
    )


def statements(tree: ast.Module) -> Generator[ast.AST]:
    """The tree and every statement in it. `ast.walk` visits expressions, too: some ten times as many nodes."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            todo += getattr(node, block, ())


_WARNINGS = threading.Lock()


@contextmanager
def silence() -> Generator[None]:
    """Ignore what the parser warns about. Its filters belong to the process, so one thread at a time.

    That costs nothing: the parser holds the interpreter's lock anyway.
    """
    with _WARNINGS, warnings.catch_warnings(action="ignore"):
        yield


# --- the rows ----------------------------------------------------------------------------------------------------------

TABLES = """
CREATE TABLE IF NOT EXISTS job (one INTEGER PRIMARY KEY CHECK (one = 1), total, batch, parallel);
CREATE TABLE IF NOT EXISTS modules (
    path TEXT PRIMARY KEY, sha256, lines, classes, functions, docstrings, imports,
    writes INTEGER NOT NULL DEFAULT 1,  -- how often this row was written: 1, or more if a kill made the job repeat it
    pid INTEGER NOT NULL                -- the process that wrote it last
);
"""

UPSERT = """
INSERT INTO modules (path, sha256, lines, classes, functions, docstrings, imports, pid) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    sha256 = excluded.sha256, lines = excluded.lines, classes = excluded.classes, functions = excluded.functions,
    docstrings = excluded.docstrings, imports = excluded.imports, pid = excluded.pid, writes = writes + 1
"""


def connect(database: str) -> sqlite3.Connection:
    """A connection of one's own: threads write at the same time, and wait for each other."""
    return sqlite3.connect(database, timeout=30.0)


def create_tables(database: str, *, total: int) -> None:
    """Make what is missing; rows that are there stay."""
    with closing(connect(database)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(TABLES)
        db.execute("INSERT OR REPLACE INTO job VALUES (1, ?, ?, ?)", (total, BATCH, PARALLEL))


def index_file(library: str, database: str, path: str) -> None:
    """Read one file and keep its row. Doing it twice leaves the same row, with one write more."""
    facts = analyse(path, Path(library, path).read_bytes())
    with closing(connect(database)) as db, db:
        db.execute(UPSERT, (*astuple(facts), os.getpid()))


def read_facts(database: str) -> list[ModuleFacts]:
    """All rows, by path."""
    columns = ", ".join(field.name for field in fields(ModuleFacts))
    with closing(connect(database)) as db:
        return [ModuleFacts(*row) for row in db.execute(f"SELECT {columns} FROM modules ORDER BY path")]  # noqa: S608


def read_totals(database: str) -> Totals:
    """The sums over all rows."""
    facts = read_facts(database)
    sums = {name: sum(getattr(one, name) for one in facts) for name in (f.name for f in fields(Totals)) if name != "files"}
    return Totals(files=len(facts), **sums)


# --- the report: pure but for the last function ------------------------------------------------------------------------


def by_package(facts: Sequence[ModuleFacts]) -> list[tuple[str, int]]:
    """Functions of each top-level package or module, most first."""
    sums: dict[str, int] = {}
    for one in facts:
        package = one.path.partition("/")[0].removesuffix(".py")
        sums[package] = sums.get(package, 0) + one.functions
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


def report_text(totals: Totals, facts: Sequence[ModuleFacts], *, set_aside: int, chart: str) -> str:
    """The report in Markdown."""
    sums = {"files": totals.files, "set aside": set_aside, **asdict(totals)}
    lines = [
        f"# The standard library of Python {platform.python_version()}",
        "",
        f"| {' | '.join(sums)} |",
        "|--:" * len(sums) + "|",
        f"| {' | '.join(f'{n:,}' for n in sums.values())} |",
        "",
        f"![Functions by package]({chart})",
    ]
    for what in ("functions", "classes", "lines"):
        largest = sorted(facts, key=lambda one: (-getattr(one, what), one.path))[:TOP]
        lines += ["", f"## Most {what}", "", f"| module | {what} |", "|---|--:|"]
        lines += [f"| `{one.path}` | {getattr(one, what):,} |" for one in largest]
    return "\n".join(lines) + "\n"


def bar_chart(title: str, bars: Sequence[tuple[str, int]]) -> str:
    """Horizontal bars as SVG, the longest one as wide as there is room."""
    row, left, room = 26, 170, 440
    largest = max((value for _, value in bars), default=0) or 1
    width, height = left + room + 90, 50 + row * len(bars)
    svg = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", role="img")
    ET.SubElement(svg, "title").text = title
    ET.SubElement(svg, "style").text = (
        "text{font:13px system-ui,sans-serif;fill:#24292f}.head{font-size:16px;font-weight:600}"
        ".bar{fill:#3b82c4}.name{text-anchor:end}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#58a6ff}}"
    )
    ET.SubElement(svg, "text", {"class": "head", "x": "16", "y": "26"}).text = title
    for n, (name, value) in enumerate(bars):
        y, length = 44 + row * n, room * value / largest
        ET.SubElement(svg, "text", {"class": "name", "x": str(left - 8), "y": str(y + 14)}).text = name
        ET.SubElement(
            svg, "rect", {"class": "bar", "x": str(left), "y": str(y), "height": "18", "width": f"{length:.1f}", "rx": "3"}
        )
        ET.SubElement(svg, "text", {"x": f"{left + length + 8:.1f}", "y": str(y + 14)}).text = f"{value:,}"
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def replace_file(path: Path, text: str) -> None:
    """Write a file so that there is always a whole one."""
    path.with_name(path.name + ".new").write_text(text, encoding="utf-8")
    path.with_name(path.name + ".new").replace(path)


# --- the program -------------------------------------------------------------------------------------------------------


async def index(out: Path, limit: int | None) -> Summary:
    """Start the job, or go on with it."""
    library = sysconfig.get_paths()["stdlib"]
    job = IndexStdlib(library, str(out / "modules.db"), str(out / "report.md"), limit)
    async with Runtime(f"sqlite:///{out / 'jobs.db'}", actors=[IndexStdlib]) as runtime:
        run = await runtime.start(job, key="stdlib")
        await show_progress(run)
        return await run.result()


async def show_progress(run: Run[IndexStdlib]) -> None:
    """Draw a bar until the run ends or stops."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("indexing", total=None)
        going = True
        while going:
            info = await run.status()
            for loop in info.loops:
                bar.update(task, completed=loop.done + loop.set_aside, total=loop.total)
            going = info.status in {"pending", "running", "waiting"}
            await anyio.sleep(0.1 if going else 0.0)


def index_plainly(out: Path, limit: int | None) -> Summary:
    """The same work in a plain loop: what is not written when it is killed is lost."""
    library, database, report = sysconfig.get_paths()["stdlib"], str(out / "modules.db"), str(out / "report.md")
    paths, set_aside = modules(library, limit), 0
    create_tables(database, total=len(paths))
    for path in paths:
        try:
            index_file(library, database, path)
        except (ValueError, SyntaxError):
            set_aside += 1
    return Summary(set_aside=set_aside, report=report, **asdict(read_totals(database)))


def main() -> int:
    """Read the command line, do the job, print what came out."""
    parser = argparse.ArgumentParser(description="Index Python's standard library, and survive being killed.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the databases and the report")
    parser.add_argument("--limit", type=int, help="only the first LIMIT files")
    parser.add_argument("--plain", action="store_true", help="a plain loop, without actorflow")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    given = parser.parse_args()
    out: Path = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    try:
        summary = index_plainly(out, given.limit) if given.plain else anyio.run(index, out, given.limit)
    except (RunPaused, KeyTaken) as error:  # Either says what to do now.
        print(error, file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(asdict(summary)))
    else:
        print(f"{summary.files:,} files, {summary.set_aside} set aside, {summary.functions:,} functions: {summary.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
