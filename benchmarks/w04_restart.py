"""W4: 1,000 runs have three steps done and wait for a message. Their process is killed with SIGKILL and started again.

A run is live when it is in memory, was driven over its three recorded steps, and waits in its `receive`. `live_s` is taken from
the first line of Python in the new process, so all imports count, until that is true of all 1,000. actorflow does not do so by
itself: a run that waits stays a row until there is something for it, and every run takes its message as soon as the runtime
is up. That is `up_s`; for `live_s` all of them are loaded as a message would load them.

What ran is counted outside of all stores: a step appends a line to a file each time it runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.peers import peers
from benchmarks.suite import OURS, Contender, Goal, Measured, Metric, Sizes, Workload, serve

WORKLOAD = Workload(
    id="W4",
    title="1,000 runs that wait, after SIGKILL and a restart",
    metrics=(
        Metric("live_s", "s until all are live", "less", 3),
        Metric("done_s", "s from message to end", "less", 3),
        Metric("twice", "steps that ran twice", "less"),
        Metric("up_s", "s until it takes messages", "less", 3),
    ),
    full={"runs": 1_000},
    quick={"runs": 1_000},
    contenders=(Contender(OURS, __name__), *peers("W4")),
    goals=(
        Goal("all live within 0.3 s of the first line of Python", "live_s", at_most=0.3),
        Goal("30 times DBOS on SQLite", "live_s", at_least=30, against="dbos"),
        Goal("5 times Restate", "live_s", at_least=5, against="restate"),
        Goal("no step ran twice", "twice", at_most=0),
    ),
)

FIRST = "from benchmarks.restarted import first; first({folder!r}, {runs})"
SECOND = "import time; begun = time.perf_counter(); from benchmarks.restarted import second; second(begun, {folder!r}, {runs})"


def kill_when_all_wait(folder: Path, runs: int) -> None:
    """The first life."""
    command = [sys.executable, "-c", FIRST.format(folder=str(folder), runs=runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
    assert said == "all wait\n", "the service ended before all its runs waited"


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    runs = int(sizes["runs"])
    kill_when_all_wait(folder, runs)
    command = [sys.executable, "-c", SECOND.format(folder=str(folder), runs=runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)  # It has said why.
    lines = Counter((folder / "ledger.txt").read_text("utf-8").splitlines())
    assert len(lines) == 3 * runs, f"{len(lines)} different steps ran, of {3 * runs}"
    return {**json.loads(done.stdout), "twice": lines.total() - len(lines)}


if __name__ == "__main__":
    serve({OURS: actorflow})
