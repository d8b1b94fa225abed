"""REPORT.md: one run, all that is known of it, and what was found out.

It is made of `results.jsonl` and `findings.md` alone, so it can be made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.results import Results, about, goals, listed, notes, rows, workloads
from benchmarks.suite import OURS, Workload

FINDINGS = Path(__file__).with_name("findings.md")

INTRODUCTION = """\
All contenders of a workload are run one after the other, each in a process and a folder of its own, and that round is repeated.
A cell is the median over the rounds, with the least and the greatest in brackets. "Times as good" is what actorflow's first
measurement is to the other's: it is taken within each round, and the median of these is told with its spread. 2 means half the
time, or twice the throughput. Only what is in one table was measured under the same conditions, and on another machine, another
disk above all, all of it is different. What counts as durable stands below each table; where it could be chosen it is the same.
"""

REPEAT = """\
```
python -m benchmarks --install-peers    # DBOS, Restate, Temporal and others, into .venv-peers; else they are told as missing
make bench                              # all of it; `make bench-quick` takes less than 2 minutes
python -m benchmarks --only W2,W5 --against bare,dbos --repeats 3
```

A run leaves `results.jsonl`, `charts/` and this report in `out/benchmarks`; `python -m benchmarks --report FOLDER` makes the
report of a folder's `results.jsonl` again.
"""


def write(results: Results, folder: Path) -> Path:
    """The report and its charts into that folder; returns where it is.

    Raises:
        NoCharts: matplotlib is not installed; nothing was written.
    """
    chosen = [workload for workload in workloads() if results.taking_part(workload)]
    drawn = charts.write(chosen, results, folder / "charts")
    path = folder / "REPORT.md"
    path.write_text(text(chosen, results, drawn), "utf-8")
    return path


def text(chosen: Sequence[Workload], results: Results, drawn: dict[str, list[str]]) -> str:
    """All of it."""
    parts = [
        "# Benchmarks\n",
        _ran(chosen, results),
        INTRODUCTION,
        "## How to repeat it\n",
        REPEAT,
        "## Where it ran\n",
        _table(("", ""), _machine(results.machine)),
        "## Goals\n",
        _table(
            ("goal", "reached", "verdict"),
            [(each.goal, each.reached, each.verdict) for workload in chosen for each in goals(workload, results)],
        ),
    ]
    for workload in chosen:
        parts += _workload(workload, results, drawn.get(workload.id, []))
    if FINDINGS.exists():
        parts.append(FINDINGS.read_text("utf-8"))
    return "\n".join(parts)


def _ran(chosen: Sequence[Workload], results: Results) -> str:
    machine = results.machine
    what = f"{len(chosen)} workload{'' if len(chosen) == 1 else 's'}, {len(results.samples)} measurements"
    told = [f"One run of {machine.get('at', 'an unknown time')}: {what}"]
    if "taken_s" in machine:
        told.append(f" in {machine['taken_s'] // 60} min {machine['taken_s'] % 60} s")
    told.append(", at the sizes of `--quick`." if machine.get("quick") else ".")
    if machine.get("interrupted"):
        told.append(" It was interrupted: what is missing was not measured.")
    return "".join(told) + "\n"


def _machine(machine: dict[str, Any]) -> Iterable[tuple[str, str]]:
    named = {
        "processor": "processor",
        "cpus": "processors",
        "load": "load when it began",
        "system": "system",
        "fsync_ms": "ms to append 4 KB and sync",
        "python": "Python",
        "sqlite": "SQLite",
        "actorflow": "actorflow",
    }
    for name, words in named.items():
        if name in machine:
            yield words, str(machine[name])
    for name, words in (("packages", "with"), ("peers", "peers")):
        if machine.get(name):
            yield words, ", ".join(f"{package} {version}" for package, version in machine[name].items())


def _workload(workload: Workload, results: Results, drawn: Sequence[str]) -> Iterable[str]:
    told = rows(workload, results)
    rounds = max(len(results.of(workload, row.who)) for row in told)
    yield f"## {workload.id}: {workload.title}\n"
    yield f"{about(workload)}\n"
    yield f"Sizes: {listed(results.sizes(workload))}. Rounds: {rounds}.\n"
    for name in drawn:
        yield f"![{workload.metrics[0].unit if name == f'{workload.id.lower()}.svg' else 'growth'}](charts/{name})\n"
    compared = any(row.ratio for row in told)
    yield _table(
        ("who", *(metric.unit for metric in workload.metrics), *(["times as good"] if compared else [])),
        [(f"**{row.who}**" if row.who == OURS else row.who, *row.cells, *([row.ratio] if compared else [])) for row in told],
    )
    yield "\n".join(f"- {_cell(note)}" for note in notes(told)) + "\n"


def _table(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---", *("---:" for _ in header[1:])], *(list(map(_cell, row)) for row in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: str) -> str:
    """As Markdown shows it as it is: an error may hold anything."""
    return value.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
