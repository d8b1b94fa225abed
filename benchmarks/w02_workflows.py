"""W2: 2,000 workflows of 5 steps, all at a time: what group commit, the journal and the loop can carry."""

from __future__ import annotations

from benchmarks.peers import peers
from benchmarks.steps import BODIES, METRICS
from benchmarks.suite import BARE, OURS, Contender, Goal, Workload, serve

WORKLOAD = Workload(
    id="W2",
    title="2,000 workflows of 5 steps",
    metrics=METRICS,
    full={"runs": 2_000, "steps": 5},
    quick={"runs": 1_000, "steps": 5},
    contenders=(
        Contender(BARE, __name__),
        Contender(OURS, __name__),
        Contender("actorflow, normal", __name__, durability="SQLite, WAL, synchronous=NORMAL", quick=False),
        Contender("actorflow, uvloop", __name__, quick=False),
        Contender("actorflow, tuned gc", __name__, quick=False),
        *peers("W2"),
    ),
    goals=(
        Goal("0.6 of the bare ceiling", "steps_per_s", at_least=0.6, against=BARE),
        Goal("50 times DBOS on SQLite", "steps_per_s", at_least=50, against="dbos"),
        Goal("15 times Restate", "steps_per_s", at_least=15, against="restate"),
        Goal("CPU per step under 40 µs", "cpu_us_per_step", at_most=40),
    ),
)

if __name__ == "__main__":
    serve(BODIES)
