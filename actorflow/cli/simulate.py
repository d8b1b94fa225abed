"""`actorflow simulate`: live through histories of a simulated service full of faults, each of them decided by a seed."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from attrs import define, field, frozen
from cyclopts import Parameter
from cyclopts.validators import Number

from actorflow.cli.exits import Exit, UsageError
from actorflow.cli.options import Options as CommonOptions
from actorflow.cli.options import flag, length_s
from actorflow.cli.printer import Printer, cell, grid
from actorflow.testing.plans import Plan, described, of_one_holder, seeded
from actorflow.testing.simulation import History
from actorflow.testing.simulation import simulate as simulated
from actorflow.testing.world import Disk, SqliteDisk

CHUNK = 10  #: histories that a process lives through at a time
FAILED_MAX = 20  #: after so many it is enough


@frozen
class Kind:
    """Which histories."""

    calm: bool  #: nothing goes wrong
    sqlite: bool  #: on a file

    def plan(self, seed: int) -> Plan:
        """The plan of that seed."""
        plan = seeded(seed, calm=self.calm)
        return of_one_holder(plan) if self.sqlite else plan

    def history(self, plan: Plan) -> History:
        """What comes of it."""
        with _unlogged(), tempfile.TemporaryDirectory(prefix="actorflow-simulate-") as folder:
            path = str(Path(folder) / "simulated.db")
            return simulated(plan, disk=partial(SqliteDisk, path) if self.sqlite else Disk)


@frozen
class Lived:
    """What came of one seed."""

    seed: int
    hash: str
    commits: int
    faults: Counter[str]
    failure: str | None
    virtual_s: float


@define
class Summary:
    """What came of all seeds so far."""

    first: int
    histories: int = 0
    commits: int = 0  #: after each of them the rows were looked at
    virtual_s: float = 0.0
    faults: Counter[str] = field(factory=Counter[str])
    failed: list[Lived] = field(factory=list[Lived])
    hashes: list[str] = field(factory=list[str])

    def add(self, lived: Lived) -> None:
        """The next seed, in order."""
        self.histories += 1
        self.commits += lived.commits
        self.virtual_s += lived.virtual_s
        self.faults += lived.faults
        self.hashes.append(lived.hash)
        if lived.failure is not None:
            self.failed.append(lived)

    @property
    def hash(self) -> str:
        """Of the one history, or of all of them in order."""
        return self.hashes[0] if len(self.hashes) == 1 else hashlib.sha256("".join(self.hashes).encode()).hexdigest()


def simulate(
    *,
    seed: Annotated[int, Parameter(help="The first seed.", validator=Number(gte=0))] = 0,
    runs: Annotated[int | None, Parameter(help="How many histories, each with the next seed.", validator=Number(gte=1))] = None,
    within: Annotated[str | None, Parameter(name="--for", help="As many as there is time for: 10m, 8h.")] = None,
    jobs: Annotated[int | None, Parameter(help="Processes; as many as there are cores.", validator=Number(gte=1))] = None,
    calm: Annotated[bool, flag("Let nothing go wrong.", "--calm")] = False,
    sqlite: Annotated[bool, flag("On a file instead of in memory; slower.", "--sqlite")] = False,
    trace: Annotated[bool, flag("Print the plan and everything that happened.", "--trace")] = False,
    shrink: Annotated[bool, Parameter(help="Look for the shortest plan that fails.")] = True,
    as_json: Annotated[bool, flag("Print the result as JSON.", "--json")] = False,
    quiet: Annotated[bool, flag("No progress and no remarks.", "--quiet", "-q")] = False,
) -> int:
    """Live through simulated histories: a service with its disk, network and clients, in virtual time, full of faults.

    Processes die at any await and around any commit, lose their lease, hang and come back, the disk is full, busy or slow,
    requests get lost or come twice, the clock jumps. After every commit the rows are looked at, and in the end all must be as a
    simple model says. One seed gives one history, byte for byte: the line `history` has its hash. The exit code is 0 if all
    histories held.
    """
    printer = Printer(CommonOptions(quiet=quiet))
    _needed("trio")
    deadline = None if within is None else time.monotonic() + length_s(within)
    began = time.monotonic()
    summary = Summary(seed)
    total = runs or (1 if deadline is None else 0)
    kind = Kind(calm, sqlite)
    with printer.progress("histories", total or 10**9) as bar:
        for lived in _histories(seed, total, deadline, jobs or os.cpu_count() or 1, kind):
            summary.add(lived)
            if bar is not None:
                bar.update(bar.task_ids[0], advance=1, description=f"histories, {len(summary.failed)} failed")
            if len(summary.failed) >= FAILED_MAX:
                break
    if trace:
        plan = kind.plan(seed)
        printer.lines([*described(plan).splitlines(), *kind.history(plan).lines])
    failures = [_failure(lived, kind, shrink=shrink and place == 0) for place, lived in enumerate(summary.failed)]
    if as_json:
        printer.json(_record(summary, failures, time.monotonic() - began))
    else:
        _show(printer, summary, failures, time.monotonic() - began)
    return Exit.FAILED if failures else Exit.OK


def _needed(package: str) -> None:
    try:
        __import__(package)
    except ImportError:
        raise UsageError(f"this needs {package}: pip install 'actorflow[test]'") from None


# --- living --------------------------------------------------------------------------------------------------------------


def _histories(first: int, total: int, deadline: float | None, jobs: int, kind: Kind) -> Iterator[Lived]:
    """In the order of their seeds; a *total* of 0 is as many as there is time for."""
    if total == 1 or jobs == 1:
        for seed in range(first, first + total) if total else count(first):
            if deadline is not None and time.monotonic() > deadline:
                return
            yield from live(seed, seed + 1, kind)
        return
    under_way: deque[Future[list[Lived]]] = deque()
    chunks = iter(range(first, first + total, CHUNK)) if total else count(first, CHUNK)
    last = first + total if total else None
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for at in chunks:
                if deadline is not None and time.monotonic() > deadline:
                    break
                until = at + CHUNK if last is None else min(at + CHUNK, last)
                under_way.append(pool.submit(live, at, until, kind))
                while len(under_way) > 2 * jobs:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def live(first: int, until: int, kind: Kind) -> list[Lived]:
    """Live through the histories of some seeds, in this process."""
    found = (kind.history(kind.plan(seed)) for seed in range(first, until))
    return [Lived(each.plan.seed, each.hash, each.events, each.faults, each.failure, each.virtual_s) for each in found]


@contextmanager
def _unlogged() -> Generator[None]:
    """Faults are what this is about: nobody wants to read of each."""
    logger = logging.getLogger("actorflow")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _failure(lived: Lived, kind: Kind, *, shrink: bool) -> dict[str, Any]:
    """What failed, and the shortest plan that does, if it is looked for."""
    plan, why = kind.plan(lived.seed), lived.failure
    if shrink:
        _needed("hypothesis")
        from actorflow.testing.shrinking import shrunk  # noqa: PLC0415  (who does not need it need not have it)

        plan = shrunk(plan, lambda plan: kind.history(plan).failure is not None)
        why = kind.history(plan).failure
    options = f"{' --calm' if kind.calm else ''}{' --sqlite' if kind.sqlite else ''}"
    again = f"actorflow simulate --seed {lived.seed}{options} --trace"
    return {"seed": lived.seed, "failure": why, "plan": described(plan).splitlines(), "shrunk": shrink, "again": again}


# --- telling -------------------------------------------------------------------------------------------------------------


def _record(summary: Summary, failures: list[dict[str, Any]], took_s: float) -> dict[str, Any]:
    return {
        "seeds": [summary.first, summary.first + summary.histories - 1],
        "histories": summary.histories,
        "commits": summary.commits,
        "virtual_s": summary.virtual_s,
        "took_s": took_s,
        "faults": dict(sorted(summary.faults.items())),
        "failed": failures,
        "history": summary.hash if summary.hashes else None,
    }


def _show(printer: Printer, summary: Summary, failures: list[dict[str, Any]], took_s: float) -> None:
    last = summary.first + summary.histories - 1
    seeds = f"seed {summary.first}" if summary.histories == 1 else f"seeds {summary.first} to {last}"
    days = summary.virtual_s / 86_400
    what = "history" if summary.histories == 1 else "histories"
    table = grid("fault", "times")
    for kind, times in sorted(summary.faults.items()):
        table.add_row(kind, f"{times:,}")
    printer.show(table)
    said = (
        f"{summary.histories:,} {what} ({seeds}), {summary.commits:,} commits looked at, "
        f"{sum(summary.faults.values()):,} faults, {days:,.1f} days lived in {took_s:,.1f} s: {len(failures) or 'none'} failed"
    )
    printer.show(cell(said))
    for failure in failures:
        printer.show(cell(f"seed {failure['seed']} failed: {failure['failure']}", "red"))
        if failure["shrunk"]:
            printer.show(cell("the shortest plan that fails so:"), *(cell(f"  {line}") for line in failure["plan"]))
        printer.show(cell(f"again, with all that happened: {failure['again']}"))
    if summary.hashes:
        printer.lines([f"history {summary.hash}"])
