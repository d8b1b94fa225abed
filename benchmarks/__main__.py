"""`python -m benchmarks`: actorflow beside the bare ceiling and its peers, pair by pair in one run.

Machines are noisy: only the ratios of runs that were taken in turn mean something, and even their medians move.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report, suite, terminal
from benchmarks.charts import NoCharts
from benchmarks.peers import install
from benchmarks.results import Results, workloads
from benchmarks.suite import OURS, ROOT, Workload
from benchmarks.terminal import Estimate, Planned

OUT = ROOT / "out" / "benchmarks"
INTERRUPTED = 130


def listed(text: str) -> set[str]:
    """The words between commas."""
    return {word.strip() for word in text.split(",") if word.strip()}


def named(text: str) -> set[str]:
    """The contenders between commas; a comma that a space follows belongs to a name, as in "dbos, WAL"."""
    return {word.strip() for word in re.split(r",(?! )", text) if word.strip()}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round: under 2 minutes")
    parser.add_argument("--only", type=listed, metavar="W1,W2", help="these workloads")
    parser.add_argument(
        "--against", type=named, metavar="bare,dbos", help="these contenders, beside actorflow; an empty text: none"
    )
    parser.add_argument("--repeats", type=int, help="rounds of each workload")
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output as they come, instead of tables")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="where results.jsonl, charts and REPORT.md are put (default: out/benchmarks)"
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="make charts and REPORT.md of its results.jsonl again")
    parser.add_argument("--list", action="store_true", help="list the workloads and their contenders, and measure nothing")
    parser.add_argument("--install-peers", action="store_true", help="install the peers into .venv-peers, and measure nothing")
    return parser.parse_args(arguments)


def plan(arguments: argparse.Namespace, chosen: list[Workload]) -> list[Planned]:
    """Who is run, in order."""
    only = None if arguments.against is None else arguments.against | {OURS}
    return [
        (workload, contender, repeat)
        for workload in chosen
        for contender, repeat in suite.rounds(workload, quick=arguments.quick, repeats=arguments.repeats, only=only)
    ]


def measure(planned: list[Planned], *, results: Results, file: Path, estimate: Estimate, as_json: bool) -> None:
    """Run them all; each sample is on disk, and told, before the next is taken.

    Raises:
        KeyboardInterrupt: Somebody has seen enough. What was measured by then is in *results* and in *file*.
    """
    own, theirs = Path(sys.executable), install.python()
    with terminal.progress() as progress, file.open("w", encoding="utf-8") as out:

        def tell(line: str) -> None:
            out.write(line + "\n")
            out.flush()
            if as_json:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()

        tell(results.first())
        task = progress.add_task("measuring", total=len(planned), until=estimate.until(planned))
        for number, (workload, contender, repeat) in enumerate(planned):
            progress.update(task, description=f"{workload.id} {contender.name}", until=estimate.until(planned[number:]))
            begun = time.monotonic()
            sample = suite.run(workload, contender, results.sizes(workload), repeat, theirs if contender.peer else own)
            estimate.learn(workload.id, contender.name, time.monotonic() - begun)
            results.samples.append(sample)
            tell(sample.line())
            if sample.error:
                progress.console.print(f"{workload.id} {contender.name}: {sample.error}", style="red", markup=False)
            progress.advance(task)


def earlier(file: Path, *, quick: bool) -> Results | None:
    """The run before, if it was of the same sizes: it says how long this one will take."""
    try:
        found = Results.read(file)
    except (OSError, ValueError):
        return None
    return found if bool(found.machine.get("quick")) == quick else None


def run(arguments: argparse.Namespace, chosen: list[Workload]) -> int:
    """Measure, keep it, show it."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "results.jsonl"
    begun, estimate = time.monotonic(), Estimate(earlier(file, quick=arguments.quick))
    results = Results({**machine.describe(), "quick": arguments.quick}, [])
    try:
        measure(plan(arguments, chosen), results=results, file=file, estimate=estimate, as_json=arguments.json)
    except KeyboardInterrupt:
        results.machine["interrupted"] = True
    results.machine["taken_s"] = round(time.monotonic() - begun)
    results.write(file)
    if not arguments.json:
        console = Console()
        terminal.show(chosen, results, console if console.is_terminal else Console(width=100))
    render(results, arguments.out)
    sys.stderr.write(f"all samples: {file}\n")
    if results.machine.get("interrupted"):
        return INTERRUPTED
    return 1 if any(sample.error and sample.contender == OURS for sample in results.samples) else 0


def render(results: Results, folder: Path) -> int:
    """Write the report; 2 if it cannot be drawn."""
    try:
        sys.stderr.write(f"report: {report.write(results, folder)}\n")
    except NoCharts as error:
        sys.stderr.write(f"no report: {error}\n")
        return 2
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print tables or JSON lines; or what else is asked for."""
    asked = parse(arguments)
    if asked.install_peers:
        install.install()
        return 0
    if asked.report is not None:
        try:
            return render(Results.read(asked.report / "results.jsonl"), asked.report)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
    every = workloads()
    unknown = (asked.only or set[str]()) - {workload.id for workload in every}
    if unknown:
        sys.stderr.write(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(w.id for w in every)}\n")
        return 2
    strangers = (asked.against or set[str]()) - {contender.name for workload in every for contender in workload.contenders}
    if strangers:
        sys.stderr.write(f"no contender {', '.join(sorted(strangers))}; --list shows them\n")
        return 2
    chosen = [workload for workload in every if asked.only is None or workload.id in asked.only]
    if asked.list:
        for workload in chosen:
            sys.stdout.write(f"{workload.id}  {workload.title}: {', '.join(c.name for c in workload.contenders)}\n")
        return 0
    return run(asked, chosen)


if __name__ == "__main__":
    sys.exit(main())
