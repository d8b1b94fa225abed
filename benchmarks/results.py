"""The results of a run, as JSON lines: first the machine, then a line a sample. And the table that is made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from rich.table import Table

import benchmarks
from benchmarks.suite import OURS, Sample, Workload, median, ratios, reached


def workloads() -> list[Workload]:
    """All of them, in order: whatever module here is called `w` and a number."""
    names = sorted(
        found.name for found in iter_modules(benchmarks.__path__) if found.name[:1] == "w" and found.name[1:3].isdigit()
    )
    return [import_module(f"benchmarks.{name}").WORKLOAD for name in names]


@dataclass
class Results:
    """A run."""

    machine: dict[str, Any]
    samples: list[Sample]

    def lines(self) -> Iterable[str]:
        """As JSON lines."""
        yield json.dumps({"machine": self.machine})
        for sample in self.samples:
            yield sample.line()

    @classmethod
    def read(cls, path: Path) -> Results:
        """Back from a file of them.

        Raises:
            ValueError: It is none.
        """
        first, *rest = path.read_text("utf-8").splitlines()
        return cls(json.loads(first)["machine"], [Sample(**json.loads(line)) for line in rest])

    def of(self, workload: Workload, contender: str) -> list[Sample]:
        """The samples of one contender in one workload."""
        return [sample for sample in self.samples if (sample.workload, sample.contender) == (workload.id, contender)]


def number(value: float | None, digits: int = 0) -> str:
    """As it is printed."""
    return "" if value is None else f"{value:,.{digits}f}"


def times(found: Sequence[float]) -> str:
    """A ratio with its spread."""
    if not found:
        return ""
    middle = median(found)
    assert middle is not None
    digits = 2 if middle < 10 else 0
    return f"{middle:,.{digits}f} ({min(found):,.{digits}f} to {max(found):,.{digits}f})"


def rows(workload: Workload, results: Results) -> list[tuple[str, ...]]:
    """A row a contender: its medians with their spread, how many times as good actorflow was, its durability and sizes."""
    told = []
    for contender in workload.contenders:
        samples = results.of(workload, contender.name)
        if not samples:
            continue
        cells = []
        for metric in workload.metrics:
            values = [sample.measured[metric.name] for sample in samples if metric.name in sample.measured]
            spread = f" ({number(min(values), metric.digits)} to {number(max(values), metric.digits)})" if len(values) > 1 else ""
            cells.append(number(median(values), metric.digits) + spread)
        errors = {sample.error for sample in samples if sample.error}
        ratio = "" if contender.name == OURS else times(ratios(workload, workload.metrics[0], results.samples, contender.name))
        other = ", ".join(f"{name} {value:,.0f}" for name, value in contender.sizes.items())
        durability = contender.durability + (f" [{other}]" if other else "")
        told.append((contender.name, *cells, ratio, "; ".join(sorted(errors)) or durability))
    return told


def header(workload: Workload) -> tuple[str, ...]:
    """The names of those columns."""
    return ("who", *(metric.unit for metric in workload.metrics), "actorflow is ... times as good", "durability [other sizes]")


def table(workload: Workload, results: Results) -> Table:
    """For a terminal."""
    made = Table(title=f"{workload.id}: {workload.title}", title_justify="left")
    for name in header(workload):
        made.add_column(name, overflow="fold")
    for row in rows(workload, results):
        made.add_row(*row)
    return made


def goals(workload: Workload, results: Results) -> list[tuple[str, str, str]]:
    """Each goal, what was reached, and whether that is it."""
    told = []
    for goal in workload.goals:
        value = reached(workload, goal, results.samples)
        verdict = "not measured" if value is None else ("met" if goal.met(value) else "not met")
        told.append((f"{workload.id}: {goal.text}", number(value, 2 if value is not None and value < 10 else 0), verdict))
    return told
