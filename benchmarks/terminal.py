"""What a run shows in a terminal: how far it is, and its tables, in 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.results import Results, goals, notes, rows
from benchmarks.suite import Contender, Workload

Planned = tuple[Workload, Contender, int]

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


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        left_s: float | None = task.fields.get("left_s")
        return Text("" if left_s is None else f"about {left_s // 60:.0f}:{left_s % 60:02.0f} left", "cyan")


def progress() -> Progress:
    """A bar on standard error. Its task has a field `left_s`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Left())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def table(workload: Workload, results: Results) -> RenderableType:
    """One workload: medians, of the first metric with the least and the greatest, and what is to be known of each row."""
    made = Table(title=f"{workload.id}: {workload.title}", title_justify="left", title_style="bold", pad_edge=False, box=None)
    made.add_column("who", no_wrap=True)
    for metric in workload.metrics:
        made.add_column(metric.unit, justify="right")
    made.add_column("actorflow is ... times as good", justify="right", max_width=22)
    told = rows(workload, results)
    for row in told:
        failed = "failed" if row.errors and not any(row.medians) else ""
        made.add_row(row.who, failed or row.cells[0], *row.medians[1:], row.ratio, style="red" if failed else "")
    below = [Text(f"  {note}", "red" if note.startswith("failed: ") else "dim") for note in notes(told)]
    return Group(made, *below, "")


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
