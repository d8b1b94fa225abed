"""`python -m benchmarks`: steps per second, beside the bare ceiling and, if asked, DBOS; pair by pair in one run.

Machines are noisy: only the ratios of runs that were taken in turn mean something, and even their medians move.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import actorflow
from benchmarks import bare, steps

WORKLOADS = {"W1": (1, 1_000), "W2": (2_000, 5)}
"""Name: how many workflows, of how many steps each."""


def pair(pool: Executor, runs: int, length: int, durability: str) -> tuple[float, float]:
    """Steps per second of the bare loop and of actorflow, one after the other, each in a process of its own: neither finds the
    heap, or the warm caches, of the other."""
    with tempfile.TemporaryDirectory() as folder:
        ceiling = pool.submit(bare.alone, f"{folder}/bare.db", runs, length, durability).result()
        ours = pool.submit(steps.alone, f"sqlite:///{folder}/actorflow.db", runs, length, durability).result()
    return runs * length / ceiling, runs * length / ours


def dbos(python: str, runs: int, length: int) -> float:
    """Steps per second of DBOS on SQLite as it ships, in the environment of that interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(Path(__file__).with_name("peer_dbos.py")), f"{folder}/dbos.db", str(runs), str(length)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def machine() -> dict[str, str]:
    """What the figures belong to."""
    return {
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "version": actorflow.__version__,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row a workload."""
    rows: list[dict[str, object]] = []
    repeats = 2 if arguments.quick else arguments.repeats
    alone = ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with alone as pool, Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=len(WORKLOADS) * repeats)
        for name, (runs, length) in WORKLOADS.items():
            pairs = []
            for _ in range(repeats):
                pairs.append(pair(pool, runs, length, arguments.durability))
                progress.advance(task)
            ratios = sorted(ours / ceiling for ceiling, ours in pairs)
            row: dict[str, object] = {
                "workload": name,
                "durability": arguments.durability,
                "bare": round(statistics.median(ceiling for ceiling, _ in pairs)),
                "actorflow": round(statistics.median(ours for _, ours in pairs)),
                "ratio": round(statistics.median(ratios), 2),
                "spread": f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            }
            if arguments.dbos:
                row["dbos"] = round(dbos(arguments.dbos, min(runs, 200), min(length, 200)))
            rows.append(row)
    return rows


def main() -> None:
    """Measure, and print a table or JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two repeats instead of five")
    parser.add_argument("--repeats", type=int, default=5, help="pairs per workload")
    parser.add_argument("--durability", choices=("full", "normal"), default="full")
    parser.add_argument("--dbos", metavar="PYTHON", help="an interpreter that has `dbos` installed: measure it, too")
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output")
    arguments = parser.parse_args()
    rows = measure(arguments)
    if arguments.json:
        for row in rows:
            sys.stdout.write(json.dumps({**row, **machine()}) + "\n")
        return
    table = Table(title="steps per second, medians", caption=", ".join(f"{name} {value}" for name, value in machine().items()))
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
