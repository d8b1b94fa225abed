"""`python -m benchmarks`: actorflow beside the bare ceiling and its peers, pair by pair in one run.

Machines are noisy: only the ratios of runs that were taken in turn mean something, and even their medians move.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import machine, suite
from benchmarks.peers import install
from benchmarks.results import Results, goals, table, workloads
from benchmarks.suite import OURS, ROOT, Contender, Workload

OUT = ROOT / "out" / "benchmarks"


def listed(text: str) -> set[str]:
    """The words between commas."""
    return {word.strip() for word in text.split(",") if word.strip()}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round: under 2 minutes")
    parser.add_argument("--only", type=listed, metavar="W1,W2", help="these workloads")
    parser.add_argument(
        "--against", type=listed, metavar="bare,dbos", help="these contenders, beside actorflow; an empty text: none"
    )
    parser.add_argument("--repeats", type=int, help="rounds of each workload")
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output, instead of tables")
    parser.add_argument("--out", type=Path, default=OUT, help="where results.jsonl is put (default: out/benchmarks)")
    parser.add_argument("--list", action="store_true", help="list the workloads and their contenders, and measure nothing")
    parser.add_argument("--install-peers", action="store_true", help="install the peers into .venv-peers, and measure nothing")
    return parser.parse_args()


Planned = tuple[Workload, Contender, int]


def plan(arguments: argparse.Namespace, chosen: list[Workload]) -> list[Planned]:
    """Who is run, in order."""
    only = None if arguments.against is None else arguments.against | {OURS}
    return [
        (workload, contender, repeat)
        for workload in chosen
        for contender, repeat in suite.rounds(workload, quick=arguments.quick, repeats=arguments.repeats, only=only)
    ]


def measure(planned: list[Planned], *, quick: bool, results: Results, file: Path) -> None:
    """Run them all; each sample is on disk before the next is taken."""
    own, theirs = Path(sys.executable), install.python()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress, file.open("w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in results.lines())
        task = progress.add_task("measuring", total=len(planned))
        for workload, contender, repeat in planned:
            progress.update(task, description=f"{workload.id} {contender.name}")
            sizes = workload.quick if quick else workload.full
            sample = suite.run(workload, contender, sizes, repeat, theirs if contender.peer else own)
            results.samples.append(sample)
            out.write(sample.line() + "\n")
            out.flush()
            progress.advance(task)


def show(chosen: list[Workload], results: Results) -> None:
    """The tables, and what became of the goals."""
    console = Console()
    verdicts = Table(title="goals", title_justify="left")
    for name in ("goal", "reached", "verdict"):
        verdicts.add_column(name)
    for workload in chosen:
        console.print(table(workload, results))
        for row in goals(workload, results):
            verdicts.add_row(*row)
    console.print(verdicts)
    told = ", ".join(f"{name} {value}" for name, value in results.machine.items() if not isinstance(value, dict))
    console.print(told, style="dim")


def main() -> int:
    """Measure, and print tables or JSON lines."""
    arguments = parse()
    if arguments.install_peers:
        install.install()
        return 0
    every = workloads()
    unknown = (arguments.only or set()) - {workload.id for workload in every}
    if unknown:
        sys.stderr.write(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(w.id for w in every)}\n")
        return 2
    chosen = [workload for workload in every if arguments.only is None or workload.id in arguments.only]
    if arguments.list:
        for workload in chosen:
            sys.stdout.write(f"{workload.id}  {workload.title}: {', '.join(c.name for c in workload.contenders)}\n")
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "results.jsonl"
    begun = time.monotonic()
    results = Results({**machine.describe(), "quick": arguments.quick}, [])
    measure(plan(arguments, chosen), quick=arguments.quick, results=results, file=file)
    results.machine["taken_s"] = round(time.monotonic() - begun)
    file.write_text("".join(f"{line}\n" for line in results.lines()), "utf-8")
    if arguments.json:
        sys.stdout.writelines(f"{line}\n" for line in results.lines())
    else:
        show(chosen, results)
        sys.stderr.write(f"all samples: {file}\n")
    failed = [sample for sample in results.samples if sample.error and sample.contender == OURS]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
