"""SIGKILL at random moments, for real: a child process over one file is killed again and again until its job is done.

`ACTORFLOW_KILLS=100 python -m pytest tests/test_kill.py` is the long form.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

KILLS = int(os.environ.get("ACTORFLOW_KILLS", "8"))
RUNS, STEPS = 200, 20


def lives(folder: Path, chance: random.Random) -> tuple[int, int]:
    """Run the job, killing it after a moment each time, batch of runs after batch, until it was killed often enough.

    Returns:
        How often it was killed, and how many runs there were in the end.
    """
    program, database, ledger = str(Path(__file__).with_name("kill_job.py")), folder / "jobs.db", folder / "ledger"
    killed = first = 0
    while True:
        job = [program, str(database), str(ledger), str(first), str(RUNS), str(STEPS), "0.2"]
        child = subprocess.Popen([sys.executable, *job])
        try:
            # The interpreter needs a moment to start: some kills meet it there, some in recovery, most at work.
            child.wait(timeout=None if killed >= KILLS else 0.3 + chance.random() * 0.7)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            killed += 1
        else:
            assert child.returncode == 0
            first += RUNS
            if killed >= KILLS:
                return killed, first


@pytest.mark.kill
def test_no_step_that_another_step_followed_runs_again_and_no_message_is_lost_or_handled_twice(tmp_path: Path) -> None:
    """X2, X3, X19, R6, R7, A4, C1, C7, I13, P1, P2, P3."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")

    killed, runs = lives(tmp_path, random.Random(seed))

    begun: dict[int, int] = {}
    keys: dict[tuple[int, int], set[str]] = defaultdict(set)
    results: dict[int, list[int]] = {}
    repeated = 0
    for line in (tmp_path / "ledger").read_text().splitlines():
        word, *rest = line.split()
        if word == "begin":
            run, at = int(rest[0]), int(rest[1])
            assert at >= begun.get(run, 0), f"seed {seed}: step {at} of run {run} began again after step {begun[run]}"
            repeated += at == begun.get(run, -1)
            begun[run] = at
            keys[run, at].add(rest[2])
        elif word == "result":
            results[int(rest[0])] = [int(value) for value in rest[1:]]
    assert results == {run: [sum(range(STEPS)), 0, 1, 2] for run in range(runs)}, f"seed {seed}"
    assert all(len(of_step) == 1 for of_step in keys.values()), f"seed {seed}: an idempotency key changed"
    assert begun == dict.fromkeys(range(runs), STEPS)
    check_rows(tmp_path / "jobs.db", runs)
    print(f"{killed} kills, {runs} runs of {STEPS} steps: {repeated} steps begun again, none of them followed by another")


def check_rows(database: Path, runs: int) -> None:
    """The store's own tables, once everything has ended."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        assert db.execute("select count(*) from run where status = 'completed'").fetchone() == (runs,)
        assert db.execute("select count(*) from run where wake_at is not null").fetchone() == (0,)
        assert db.execute("select count(*) from message where state = 'pending'").fetchone() == (0,)
        calls = "select run, round, branch, name, n from entry where kind in ('step', 'receive', 'sleep')"
        twice = f"{calls} group by 1, 2, 3, 4, 5 having count(*) > 1"
        assert db.execute(twice).fetchall() == []
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    finally:
        db.close()
