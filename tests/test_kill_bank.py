"""SIGKILL at random moments of a bank under load: of the process that runs it, and of a client of it.

`ACTORFLOW_KILLS=50 python -m pytest tests/test_kill_bank.py` is the long form.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("ACTORFLOW_KILLS", "3"))
JOB = Path(__file__).with_name("kill_bank_job.py")


def begun(who: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(JOB), who, str(folder)])


def lives(folder: Path, chance: random.Random) -> Counter[str]:
    """Let the bank and its client work, and kill one of the two after a moment, again and again.

    Returns:
        How often each was killed.
    """
    alive = {"serve": begun("serve", folder)}
    killed: Counter[str] = Counter()
    while not (folder / "bank.db").exists():
        assert alive["serve"].poll() is None
    alive["client"] = begun("client", folder)
    try:
        while killed.total() < KILLS:
            who = "serve" if killed.total() == 0 or chance.random() < 0.7 else "client"
            # The interpreter needs a moment to start: some kills meet it there, some in recovery, most at work.
            with pytest.raises(subprocess.TimeoutExpired):
                alive[who].wait(timeout=0.5 + chance.random())
            alive[who].kill()
            alive[who].wait()
            killed[who] += 1
            alive[who] = begun(who, folder)
        for who in ("client", "serve"):
            (folder / f"stop-{who}").touch()
            assert alive[who].wait(timeout=120) == 0
    finally:
        for child in alive.values():
            child.kill()
            child.wait()
    assert begun("check", folder).wait(timeout=300) == 0
    return killed


@pytest.mark.kill
def test_no_kill_makes_or_loses_money_applies_a_transfer_twice_or_takes_back_an_answer(tmp_path: Path) -> None:
    """C1, P1, P3, P4."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")

    killed = lives(tmp_path, random.Random(seed))

    seen: dict[str, set[tuple[str, int]]] = defaultdict(set)
    balances: dict[str, int] = {}
    for line in (tmp_path / "ledger").read_text().splitlines():
        word, *rest = line.split()
        if word == "seen":
            seen[rest[0]].add((rest[1], int(rest[2])))
        elif word == "balance":
            balances[rest[0]] = int(rest[1])
    changed = {name: answers for name, answers in seen.items() if len(answers) > 1}
    assert changed == {}, f"seed {seed}: answers that were seen, and changed"
    assert balances == expected({name: answers.pop()[0] for name, answers in seen.items()}), f"seed {seed}"
    check_rows(tmp_path / "bank.db", transfers=sum(name.startswith("transfer") for name in seen))
    print(f"{killed} killed, {len(seen)} answers seen, {sum(balances.values())} cents")


def expected(outcomes: dict[str, str]) -> Counter[str]:
    """What each account holds if everything that was answered was done, once."""
    job = loaded(JOB)
    holds: Counter[str] = Counter()
    for name, outcome in outcomes.items():
        what, number = name.partition("-")[0], int(name.rpartition("-")[2])
        if outcome != "ok":
            continue
        if what == "transfer":
            planned = job.bank.planned(number, job.ACCOUNTS)
            holds[planned.source] -= planned.cents
            holds[planned.target] += planned.cents
        else:
            holds[job.account(number)] += job.bank.OPENING if what == "opening" else 1
    return holds


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setitem(sys.modules, "bank", sys)  # Gone again afterwards.
        del sys.modules["bank"]
        spec.loader.exec_module(module)
    return module


def check_rows(database: Path, *, transfers: int) -> None:
    """The store's own tables, once everything has ended."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        ended = "select count(*) from run where kind = 'Transfer' and status in ('completed', 'failed')"
        assert db.execute(ended).fetchone() == (transfers,)
        assert db.execute("select count(*) from run where kind = 'Transfer'").fetchone() == (transfers,)
        assert db.execute("select count(*) from message where state in ('pending', 'dead')").fetchone() == (0,)
        twice = "select run, ref from entry where kind = 'handled' and ref <> '' group by 1, 2 having count(*) > 1"
        assert db.execute(twice).fetchall() == []
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    finally:
        db.close()
