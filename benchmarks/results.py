"""The results of a run, as JSON lines: first the machine, then a line a sample. And what is told of them, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import benchmarks
from benchmarks.suite import OURS, Contender, Sample, Sizes, Workload, median, ratios, reached


def modules() -> list[ModuleType]:
    """A workload each, in order: whatever module here is called `w` and a number."""
    names = sorted(
        found.name for found in iter_modules(benchmarks.__path__) if found.name[:1] == "w" and found.name[1:3].isdigit()
    )
    return [import_module(f"benchmarks.{name}") for name in names]


def workloads() -> list[Workload]:
    """All of them, in order."""
    return [module.WORKLOAD for module in modules()]


def about(workload: Workload) -> str:
    """What its module says of it, without the number."""
    texts = [module.__doc__ or "" for module in modules() if workload.id == module.WORKLOAD.id]
    text = texts[0].removeprefix(f"{workload.id}: ").strip() if texts else ""
    return text[:1].upper() + text[1:]


@dataclass
class Results:
    """A run."""

    machine: dict[str, Any]
    samples: list[Sample]

    def lines(self) -> Iterable[str]:
        """As JSON lines."""
        yield self.first()
        for sample in self.samples:
            yield sample.line()

    def first(self) -> str:
        """The line of the machine."""
        return json.dumps({"machine": self.machine})

    def write(self, path: Path) -> None:
        """To a file of lines."""
        path.write_text("".join(f"{line}\n" for line in self.lines()), "utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Back from a file of them.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is none.
        """
        lines = path.read_text("utf-8").splitlines()
        try:
            return cls(json.loads(lines[0])["machine"], [Sample(**json.loads(line)) for line in lines[1:]])
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no results of benchmarks ({type(error).__name__}: {error})") from error

    def of(self, workload: Workload, contender: str) -> list[Sample]:
        """The samples of one contender in one workload."""
        return [sample for sample in self.samples if (sample.workload, sample.contender) == (workload.id, contender)]

    def measured(self, workload: Workload, contender: str, metric: str) -> list[float]:
        """Its values of one metric."""
        return [sample.measured[metric] for sample in self.of(workload, contender) if metric in sample.measured]

    def sizes(self, workload: Workload) -> Sizes:
        """Of that workload in this run."""
        return workload.quick if self.machine.get("quick") else workload.full

    def taking_part(self, workload: Workload) -> list[Contender]:
        """Who was run, in the order of the workload."""
        return [contender for contender in workload.contenders if self.of(workload, contender.name)]


# As it is printed.


def number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, with the least and the greatest if there are several."""
    middle = number(median(values), digits)
    return middle if len(values) < 2 else f"{middle} ({number(min(values), digits)} to {number(max(values), digits)})"


def times(found: Sequence[float]) -> str:
    """A ratio with its spread."""
    return spread(found, 2 if found and min(found) < 10 else 0)


def listed(sizes: Sizes) -> str:
    """Sizes in words."""
    return ", ".join(f"{name} {value:,.10g}" for name, value in sizes.items())


@dataclass(frozen=True)
class Row:
    """What is told of one contender in one workload."""

    who: str
    cells: tuple[str, ...]  #: a metric each: the median and the spread
    medians: tuple[str, ...]  #: the same without the spread
    ratio: str  #: how many times as good actorflow was, in the first metric; "" for itself and where there is no pair
    durability: str
    sizes: str  #: those that are not the workload's
    errors: tuple[str, ...]


def rows(workload: Workload, results: Results) -> list[Row]:
    """Who was run, in the order of the workload."""
    told: list[Row] = []
    for contender in results.taking_part(workload):
        values = [(results.measured(workload, contender.name, metric.name), metric.digits) for metric in workload.metrics]
        compared = ratios(workload, workload.metrics[0], results.samples, contender.name)
        told.append(
            Row(
                who=contender.name,
                cells=tuple(spread(found, digits) for found, digits in values),
                medians=tuple(number(median(found), digits) for found, digits in values),
                ratio="" if contender.name == OURS else times(compared),
                durability=contender.durability,
                sizes=listed(contender.sizes),
                errors=failures(results.of(workload, contender.name)),
            )
        )
    return told


def failures(samples: Sequence[Sample]) -> tuple[str, ...]:
    """What went wrong, each error once, and how often."""
    errors = [sample.error for sample in samples if sample.error]
    often = {error: f" ({errors.count(error)} of {len(samples)} rounds)" if len(samples) > 1 else "" for error in errors}
    return tuple(f"{error}{rounds}" for error, rounds in often.items())


def notes(told: Sequence[Row]) -> list[str]:
    """What stands below a table: who keeps what how durably, who had other sizes, and what went wrong."""
    durabilities = dict.fromkeys(row.durability for row in told)
    kept = [f"{kind}: {', '.join(row.who for row in told if row.durability == kind)}" for kind in durabilities]
    other = [f"other sizes: {row.who} with {row.sizes}" for row in told if row.sizes]
    return kept + other + [f"failed: {row.who}: {error}" for row in told for error in row.errors]


@dataclass(frozen=True)
class Verdict:
    """What became of a goal."""

    goal: str
    reached: str
    verdict: str  #: "met", "not met", "not measured"


def goals(workload: Workload, results: Results) -> list[Verdict]:
    """Each goal of a workload."""
    told: list[Verdict] = []
    for goal in workload.goals:
        value = reached(workload, goal, results.samples)
        verdict = "not measured" if value is None else ("met" if goal.met(value) else "not met")
        told.append(Verdict(f"{workload.id}: {goal.text}", number(value, 2 if value is not None and value < 10 else 0), verdict))
    return told
