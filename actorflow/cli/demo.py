"""`actorflow demo`: kill a job with SIGKILL, start it again, and count what that cost.

The job is `examples/index_stdlib.py`, run in a process of its own. The demo looks at nothing but the rows that the job
writes into a database of its own, where each row says how often it was written and by which process: so it believes
neither the runtime nor its store. At the end a plain loop does the same work, and all rows must be equal.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated

from attrs import asdict, frozen
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

KILL_AT = 0.4  #: share of the files that are done when the job is killed
POLL_S = 0.02  #: how often the rows are counted; a file takes about as long
PATIENCE_S = 900.0  #: the longest that one process may take: a slow machine needs a minute
FILES_MIN = 50  #: with fewer files the job ends before it can be killed

FACTS = "path, sha256, lines, classes, functions, docstrings, imports"


class DemoError(Exception):
    """The demo could not show what it wanted to show."""


@frozen(kw_only=True)
class Rows:
    """What the job's database holds at one moment."""

    total: int  #: files there are
    batch: int  #: files acknowledged together
    parallel: int  #: files in flight
    done: int  #: rows
    writes: int  #: how often rows were written: more than `done` if some were repeated
    by_pid: tuple[tuple[int, int], ...]  #: process, and the rows that it wrote last


@frozen(kw_only=True)
class Verdict:
    """What the kill cost, and whether that is what is promised."""

    files: int
    set_aside: int  #: files without a row: they are no Python
    done_before: int  #: files done when the process was killed
    done_after: int  #: files done by the process after it
    repeated: int  #: files that were done again
    repeated_max: int  #: one unacknowledged batch, and what was in flight
    time_lost_s: float  #: from the kill to the next file done
    only_the_rest: bool  #: the second process wrote what was left and the repeated files, nothing else
    rows_equal: bool  #: all rows are those of a plain run

    @property
    def ok(self) -> bool:
        resumed = self.done_before > 0 and self.done_after > 0
        return resumed and self.repeated <= self.repeated_max and self.only_the_rest and self.rows_equal


def demo(
    *,
    keep: Annotated[Path | None, Parameter(help="Keep databases, logs and report in this new or empty folder.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print the result as JSON.")] = False,
    limit: Annotated[int | None, Parameter(validator=Number(gte=FILES_MIN), help="Only the first files.")] = None,
) -> int:
    """Kill a real job with SIGKILL at 40 %, start it again, and show what was lost.

    The job reads every module of Python's standard library. The exit code is 0 only if nothing was lost, no more was
    repeated than promised, and all rows are equal to those of a run without actorflow.
    """
    console = Console(stderr=as_json)
    try:
        with _folder(keep) as out:
            verdict = run_demo(example_file("index_stdlib.py"), out, limit=limit, console=console)
    except DemoError as error:
        console.print(f"[bold red]The demo failed:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    if as_json:
        print(json.dumps({**asdict(verdict), "ok": verdict.ok}))  # noqa: T201  (the output of a command)
    else:
        console.print(_table(verdict))
        if keep is not None:
            console.print(f"The report: {keep / 'durable' / 'report.md'}", highlight=False, soft_wrap=True)
    return 0 if verdict.ok else 1


def example_file(name: str) -> Path:
    """Where an example is: within the package when it was installed, beside it in a checkout.

    Raises:
        DemoError: It is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / "examples" / name, package.parent / "examples" / name]
    for place in places:
        if place.is_file():
            return place
    raise DemoError(f"there is no {name} in {places[0].parent} or {places[1].parent}: install actorflow again")


@contextmanager
def _folder(keep: Path | None) -> Generator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="actorflow-demo-", ignore_cleanup_errors=True) as out:
            yield Path(out)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise DemoError(f"{keep} is not empty, and a finished job has nothing to show: name a new folder")
    yield keep.absolute()


# --- the course of events ----------------------------------------------------------------------------------------------


def run_demo(script: Path, out: Path, *, limit: int | None, console: Console, patience_s: float = PATIENCE_S) -> Verdict:
    """Kill *script* at `KILL_AT`, run it again to its end, then plainly, and compare.

    Args:
        script: Takes `--out`, `--limit` and `--plain`, and keeps its rows in `modules.db` below `--out`.
        out: Gets the folders `durable` and `plain`.
        limit: Work on the first files only.
        console: Where the progress is drawn.
        patience_s: The longest that one process may take.

    Raises:
        DemoError: A process failed by itself, hung, or ended before it could be killed.
    """
    job, durable, plain = Job(script, limit, patience_s), out / "durable", out / "plain"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("indexing", total=None)
        before = _run_and_kill(job, durable, _drawing(bar, task))
        killed_at = time.monotonic()
        bar.console.print(f"[bold]SIGKILL[/] at {before.done:,} of {before.total:,} files. Starting it again ...")
        after, resumed_at = _run_again(job, durable, before, _drawing(bar, task))
        bar.update(task, completed=after.total)
        bar.console.print(f"It went on where it was: the next file was done {resumed_at - killed_at:.1f} s after the kill.")
        task = bar.add_task("the same without actorflow", total=None)
        with job.process(plain, "--plain") as child:
            job.watch(child, plain, until=lambda _: False, drawing=_drawing(bar, task))
        bar.update(task, completed=after.total)
    return _judge(before, after, resumed_at - killed_at, rows_equal=read_facts(durable) == read_facts(plain))


def _run_and_kill(job: Job, out: Path, drawing: Drawing) -> Rows:
    with job.process(out) as child:
        seen = job.watch(child, out, until=lambda rows: rows.done >= KILL_AT * rows.total, drawing=drawing)
        child.kill()
        child.wait()
    before = read_rows(out)
    if seen is None or before is None:
        raise DemoError(f"the job was done before it could be killed:\n{_log(out)}")
    return before


def _run_again(job: Job, out: Path, before: Rows, drawing: Drawing) -> tuple[Rows, float]:
    """The rows at the end, and when the first new one was there."""
    with job.process(out) as child:
        job.watch(child, out, until=lambda rows: rows.done > before.done, drawing=drawing)
        resumed_at = time.monotonic()
        job.watch(child, out, until=lambda _: False, drawing=drawing)
    after = read_rows(out)
    if after is None or after.done <= before.done:
        raise DemoError(f"the job was done before it could be killed, or its rows are gone:\n{_log(out)}")
    return after, resumed_at


def _judge(before: Rows, after: Rows, time_lost_s: float, *, rows_equal: bool) -> Verdict:
    pids_before = {pid for pid, _ in before.by_pid}
    written_after = sum(rows for pid, rows in after.by_pid if pid not in pids_before)
    done_after, repeated = after.done - before.done, after.writes - after.done
    return Verdict(
        files=after.done,
        set_aside=after.total - after.done,
        done_before=before.done,
        done_after=done_after,
        repeated=repeated,
        repeated_max=after.batch + after.parallel,
        time_lost_s=round(time_lost_s, 3),
        only_the_rest=written_after == done_after + repeated,
        rows_equal=rows_equal,
    )


# --- the job's process -------------------------------------------------------------------------------------------------

Drawing = Callable[[Rows], None]


@frozen
class Job:
    """How the example is run."""

    script: Path
    limit: int | None
    patience_s: float

    @contextmanager
    def process(self, out: Path, *options: str) -> Generator[subprocess.Popen[bytes]]:
        """The example in a process of its own, which does not outlive the block."""
        out.mkdir(parents=True, exist_ok=True)
        limited: Sequence[str] = () if self.limit is None else ("--limit", str(self.limit))
        command = [sys.executable, str(self.script), "--out", str(out), *limited, *options]
        with (out / "output.log").open("ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    def watch(self, child: subprocess.Popen[bytes], out: Path, *, until: Callable[[Rows], bool], drawing: Drawing) -> Rows | None:
        """Count rows until *until* holds (returns them) or the process has ended (returns None).

        Raises:
            DemoError: The process failed, or took longer than `patience_s`.
        """
        give_up_at = time.monotonic() + self.patience_s
        while True:
            code = child.poll()
            if rows := read_rows(out):
                drawing(rows)
                if until(rows) and code is None:
                    return rows
            if code:
                raise DemoError(f"the job failed with exit code {code}:\n{_log(out)}")
            if code == 0:
                return None
            if time.monotonic() > give_up_at:
                raise DemoError(f"the job took longer than {self.patience_s:g} s:\n{_log(out)}")
            time.sleep(POLL_S)


def _log(out: Path) -> str:
    """The last lines that the job printed."""
    return "\n".join((out / "output.log").read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def read_rows(out: Path) -> Rows | None:
    """What the job's database holds; None while it is not there yet."""
    with suppress(sqlite3.OperationalError), closing(_open(out)) as db:
        job = db.execute("SELECT total, batch, parallel FROM job").fetchone()
        by_pid = db.execute("SELECT pid, count(*), sum(writes) FROM modules GROUP BY pid ORDER BY pid").fetchall()
        if job is not None:
            return Rows(
                total=job[0],
                batch=job[1],
                parallel=job[2],
                done=sum(rows for _, rows, _ in by_pid),
                writes=sum(writes for _, _, writes in by_pid),
                by_pid=tuple((pid, rows) for pid, rows, _ in by_pid),
            )
    return None


def read_facts(out: Path) -> list[tuple[object, ...]]:
    """All rows, without who wrote them and how often."""
    with closing(_open(out)) as db:
        return db.execute(f"SELECT {FACTS} FROM modules ORDER BY path").fetchall()  # noqa: S608  (a constant)


def _open(out: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{(out / 'modules.db').as_uri()}?mode=ro", uri=True)


# --- what a person sees ------------------------------------------------------------------------------------------------


def _drawing(bar: Progress, task: TaskID) -> Drawing:
    def draw(rows: Rows) -> None:
        bar.update(task, completed=rows.done, total=rows.total)

    return draw


def _table(verdict: Verdict) -> Table:
    table = Table(title="What the kill cost")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("promised", justify="right")
    table.add_row("files done before the kill", f"{verdict.done_before:,}", "")
    table.add_row("files done after it", f"{verdict.done_after:,}", "")
    table.add_row("files set aside: no Python", f"{verdict.set_aside:,}", "")
    table.add_row("files done twice", f"{verdict.repeated:,}", f"at most {verdict.repeated_max:,}")
    table.add_row("the second process did only the rest", "yes" if verdict.only_the_rest else "[red]no[/]", "yes")
    table.add_row("rows equal to those of a plain run", "yes" if verdict.rows_equal else "[red]no[/]", "yes")
    table.add_row("time lost, to the next file done", f"{verdict.time_lost_s:.1f} s", "seconds")
    table.caption = "[bold green]everything holds[/]" if verdict.ok else "[bold red]a promise is broken[/]"
    return table
