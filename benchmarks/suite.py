"""What a workload is, and how contenders are run: each in a process of its own, in turn, pair by pair.

Machines are noisy, so no figure is compared with one of another run or another machine: all contenders of a workload are run
one after the other, and that round is repeated. A ratio is taken within a round, and what is told is the median of the
ratios, with the least and the greatest.

A contender is a function that is given a folder of its own and the workload's sizes, and returns its measurements by name.
Among the sizes is the number of the workload, as `workload` (1 for W1), for who takes part in several.
`python -m MODULE CONTENDER SIZES` runs it and prints them as JSON (`serve`). A module of a peer is run by the interpreter that
has the peer installed, and so must import nothing of actorflow, nor anything else that is not of the standard library or the
peer's: this module imports nothing but the standard library for that reason.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
FULL = "SQLite, WAL, synchronous=FULL"
OURS, BARE = "actorflow", "bare"

Sizes = Mapping[str, float]
Measured = Mapping[str, float]
Body = Callable[[Path, Sizes], Measured]


@dataclass(frozen=True)
class Metric:
    """One measurement by its name in JSON, and how to read it."""

    name: str
    unit: str
    better: Literal["more", "less"]
    digits: int = 0


@dataclass(frozen=True)
class Goal:
    """What actorflow is to reach: a value of a metric, or, against another contender, how many times as good it is to be.

    Twice as good is twice the number where more is better, and half of it where less is.
    """

    text: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Args:
        name: As in the table, and as `MODULE` knows it.
        module: Run with `python -m`.
        durability: What is on disk when a step, or a message, counts as done.
        peer: Run by the interpreter of the peers.
        sizes: Other sizes than the workload's, for who would take minutes. They are told in the report.
        repeats: At most so many.
        quick: Whether it takes part in `--quick`.
        timeout_s: Killed then, and reported.
    """

    name: str
    module: str
    durability: str = FULL
    peer: bool = False
    sizes: Sizes = field(default_factory=dict[str, float])
    repeats: int = 1_000
    quick: bool = True
    timeout_s: float = 300.0


@dataclass(frozen=True)
class Workload:
    """One workload. The first metric is the one that is drawn, and that peers are compared by."""

    id: str
    title: str
    metrics: tuple[Metric, ...]
    contenders: tuple[Contender, ...]
    full: Sizes
    quick: Sizes
    goals: tuple[Goal, ...] = ()
    repeats: int = 3
    tiny: Sizes | None = None

    def smallest(self) -> Sizes:
        """Sizes for tests, which measure nothing: `tiny`, or what is large in `quick` made a hundredth."""
        return self.tiny or {name: value // 100 if value >= 200 else value for name, value in self.quick.items()}

    def metric(self, name: str) -> Metric:
        [found] = [metric for metric in self.metrics if metric.name == name]
        return found


@dataclass(frozen=True)
class Sample:
    """What one run of one contender gave: its measurements, or why there are none."""

    workload: str
    contender: str
    durability: str
    repeat: int
    sizes: Sizes
    measured: Measured
    error: str | None
    at: float

    def line(self) -> str:
        """As a JSON line."""
        return json.dumps(asdict(self))


class NotInstalled(Exception):
    """There is no interpreter for the peers."""


def run(workload: Workload, contender: Contender, sizes: Sizes, repeat: int, python: Path | None) -> Sample:
    """One run, in a process and a folder of its own."""
    asked = {**sizes, **contender.sizes}
    measured: Measured = {}
    error = None
    with tempfile.TemporaryDirectory(prefix="actorflow-bench-") as folder:
        told = {"workload": int(workload.id[1:]), **asked}
        command = [str(python), "-m", contender.module, contender.name, json.dumps(told), folder]
        try:
            if python is None:
                raise NotInstalled("not installed; python -m benchmarks --install-peers installs it")
            measured = outcome(command, contender.timeout_s)
        except (OSError, RuntimeError, NotInstalled, subprocess.TimeoutExpired) as why:
            error = str(why) if isinstance(why, RuntimeError | NotInstalled) else f"{type(why).__name__}: {why}"
    return Sample(workload.id, contender.name, contender.durability, repeat, asked, measured, error, time.time())


def outcome(command: list[str], timeout_s: float) -> Measured:
    """What that process measured.

    Raises:
        RuntimeError: It failed, with the last thing it said.
        subprocess.TimeoutExpired: It took longer; it and all it had started were killed.
    """
    # Everybody's modules are compiled once, as those of an installed package are.
    compiling = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Files, because a server that a peer leaves behind would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**compiling, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)},
        )
        try:
            process.wait(timeout_s)
        finally:
            # Such servers, and what a timeout has left.
            for_all_of_its_session(process.pid)
            process.wait()
        out.seek(0)
        err.seek(0)
        said, wrong = (file.read().strip().splitlines() for file in (out, err))
    if process.returncode != 0 or not said or not said[-1].startswith("{"):
        raise RuntimeError((wrong or said or [f"it ended with {process.returncode} and without a word"])[-1][:300])
    return {name: float(value) for name, value in json.loads(said[-1]).items()}


def for_all_of_its_session(pid: int) -> None:
    """Kill that process and all in its group, if there are any."""
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        return


def rounds(workload: Workload, *, quick: bool, repeats: int | None, only: set[str] | None) -> Iterator[tuple[Contender, int]]:
    """Who is run, in order: all contenders in turn, then again."""
    taking_part = [c for c in workload.contenders if (only is None or c.name in only) and (c.quick or not quick)]
    count = repeats or (1 if quick else workload.repeats)
    for repeat in range(count):
        # Every other round backwards: who comes after a peer that has heated the machine is not always the same.
        for contender in taking_part if repeat % 2 == 0 else reversed(taking_part):
            if repeat < contender.repeats:
                yield contender, repeat


def ratios(workload: Workload, metric: Metric, samples: Iterable[Sample], other: str) -> list[float]:
    """How many times as good actorflow was as the other, in each round that has both."""
    found: dict[int, dict[str, float]] = {}
    for sample in samples:
        if sample.workload == workload.id and metric.name in sample.measured:
            found.setdefault(sample.repeat, {})[sample.contender] = sample.measured[metric.name]
    pairs = [(both[OURS], both[other]) for both in found.values() if OURS in both and other in both]
    return [(ours / theirs if metric.better == "more" else theirs / ours) for ours, theirs in pairs if ours and theirs]


def median(values: Iterable[float]) -> float | None:
    """The median; None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None


def reached(workload: Workload, goal: Goal, samples: Iterable[Sample]) -> float | None:
    """What is held against that goal; None if it was not measured."""
    if goal.against is not None:
        return median(ratios(workload, workload.metric(goal.metric), samples, goal.against))
    return median(
        sample.measured[goal.metric]
        for sample in samples
        if sample.workload == workload.id and sample.contender == OURS and goal.metric in sample.measured
    )


# For the modules that are measured.


def serve(bodies: Mapping[str, Body]) -> None:
    """Run the contender that the command line names and print what it measured."""
    name, sizes, folder = sys.argv[1:]
    measured = bodies[name](Path(folder), json.loads(sizes))
    sys.stdout.write("\n" + json.dumps(dict(measured)) + "\n")
    sys.stdout.flush()
    # Some peers leave threads behind that would keep the process.
    os._exit(0)


def rss_mb() -> float:
    """The most memory this process has had, in megabytes.

    On Linux `ru_maxrss` begins with what the parent had when it started us, which may be more than we ever have.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peak) / 1024


@dataclass
class Watch:
    """Seconds of the clock, and of the processors in this process and all its threads, since it was made."""

    begun: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def s(self) -> float:
        return time.perf_counter() - self.begun

    def cpu_s(self) -> float:
        return time.process_time() - self.cpu


def cold(folder: Path, sizes: Sizes, imports: str, first_step: str) -> Measured:
    """How long that import takes, and that script until its first step is done: each the median of so many starts.

    Args:
        folder: Where the scripts and what they write go.
        sizes: `starts`, after one that is not measured, so that what is imported is compiled and cached.
        imports: The line that a service has at its top.
        first_step: A script that is given the path of a file that is not there yet, and prints milliseconds.
    """
    imported = f"import time\nbegun = time.perf_counter()\n{imports}\nprint((time.perf_counter() - begun) * 1e3)\n"
    medians: list[float] = []
    for script in (imported, first_step):
        path = folder / "script.py"
        path.write_text(script, "utf-8")
        printed: list[float] = []
        for number in range(int(sizes["starts"]) + 1):
            command = [sys.executable, str(path), str(folder / f"{number}.db")]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=folder)
            if done.returncode != 0:
                # It has said why.
                sys.exit(done.returncode)
            printed.append(float(done.stdout.split()[-1]))
            for left in folder.glob("*.db*"):
                left.unlink()
        medians.append(statistics.median(printed[1:]))
    return dict(zip(("import_ms", "first_step_ms"), medians, strict=True))


def quantile(values: Iterable[float], of_hundred: int) -> float:
    """The value that so many of a hundred are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * of_hundred // 100)]
