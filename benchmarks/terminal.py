"""What a run shows in a terminal: how far it is, and its tables, in 100 columns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.results import Results, goals, notes, rows
from benchmarks.suite import Contender, Workload

Planned = tuple[Workload, Contender, int]

ROOMY = 3
"""Metrics beside which a spread finds room in the same line."""

COLORS = {"met": "green", "not met": "red", "not measured": "yellow"}


class Estimate:
    """How long the rest will take, from what each contender took before: in this run, or in an earlier one like it."""

    def __init__(self, earlier: Results | None = None) -> None:
        self._took: dict[tuple[str, str], float] = {}
        last = None
        for sample in earlier.samples if earlier is not None else ():
            if last is not None:
                self.learn(sample.workload, sample.contender, sample.at - last)
            last = sample.at

    def learn(self, workload: str, contender: str, seconds: float) -> None:
        """That took so long."""
        self._took[workload, contender] = seconds

    def left_s(self, planned: Sequence[Planned]) -> float | None:
        """Of these; None before anything is known. Who was never run takes as long as the others do on average."""
        if not self._took:
            return None
        usual = sum(self._took.values()) / len(self._took)
        return sum(self._took.get((workload.id, contender.name), usual) for workload, contender, _ in planned)

    def until(self, planned: Sequence[Planned]) -> float | None:
        """The moment (monotonic) at which they will be done, if the first of them begins now."""
        left_s = self.left_s(planned)
        return None if left_s is None else time.monotonic() + left_s


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        until: float | None = task.fields.get("until")
        if until is None:
            return Text()
        minutes, seconds = divmod(max(0, round(until - time.monotonic())), 60)
        return Text(f"about {minutes}:{seconds:02} left", "cyan")


def progress() -> Progress:
    """A bar on standard error. Its task has a field `until`: the moment (monotonic) at which all will be done, or None."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Left())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def table(workload: Workload, results: Results) -> RenderableType:
    """One workload: medians, of the first metric with the least and the greatest, and what is to be known of each row."""
    made = Table(pad_edge=False, box=None)
    made.add_column("who", no_wrap=True)
    for metric in workload.metrics:
        made.add_column(metric.unit, justify="right", overflow="fold")
    told = rows(workload, results)
    compared, roomy = any(row.ratio for row in told), len(workload.metrics) <= ROOMY
    if compared:
        made.add_column("actorflow is ... times as good", justify="right", max_width=22)
    for row in told:
        failed = "failed" if row.errors and not any(row.medians) else ""
        first, ratio = (text if roomy else text.replace(" (", "\n(") for text in (row.cells[0], row.ratio))
        cells = (row.who, failed or first, *row.medians[1:], *([ratio] if compared else []))
        made.add_row(*cells, style="red" if failed else "")
    below = [Text(f"  {note}", "red" if note.startswith("failed: ") else "dim") for note in notes(told)]
    return Group(Text(f"{workload.id}: {workload.title}", "bold"), made, *below, "")


def verdicts(chosen: Sequence[Workload], results: Results) -> Table:
    """What became of the goals."""
    made = Table(title="goals", title_justify="left", title_style="bold", pad_edge=False, box=None)
    for name in ("goal", "reached", "verdict"):
        made.add_column(name, justify="right" if name == "reached" else "left")
    for workload in chosen:
        for each in goals(workload, results):
            made.add_row(each.goal, each.reached, each.verdict, style=COLORS[each.verdict])
    return made


def show(chosen: Sequence[Workload], results: Results, console: Console) -> None:
    """The tables, what became of the goals, and the machine."""
    for workload in chosen:
        if results.taking_part(workload):
            console.print(table(workload, results))
    console.print(verdicts(chosen, results))
    told = ", ".join(f"{name} {value}" for name, value in results.machine.items() if not isinstance(value, dict))
    console.print(told, style="dim")
