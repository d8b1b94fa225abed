"""W1: 1,000 steps of one workflow, one after another: each waits for its own commit, so the disk and the way to it are all."""

from __future__ import annotations

from benchmarks.peers import peers
from benchmarks.steps import BODIES, METRICS
from benchmarks.suite import BARE, OURS, Contender, Goal, Workload, serve

WORKLOAD = Workload(
    id="W1",
    title="1,000 sequential steps of one workflow",
    metrics=METRICS,
    full={"runs": 1, "steps": 1_000},
    quick={"runs": 1, "steps": 1_000},
    contenders=(
        Contender(BARE, __name__),
        Contender(OURS, __name__),
        *peers("W1"),
    ),
    goals=(
        Goal("0.8 of the bare ceiling", "steps_per_s", at_least=0.8, against=BARE),
        Goal("4 times DBOS on SQLite", "steps_per_s", at_least=4, against="dbos"),
    ),
)

if __name__ == "__main__":
    serve(BODIES)
