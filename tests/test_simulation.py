"""Simulated histories: one seed gives one, all invariants hold in each, and what is broken on purpose is found and made small."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from actorflow.cli import main
from actorflow.records import Commit, Duplicate
from actorflow.stores import memory, tables
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault
from actorflow.testing.plans import MODES, NETWORK, Plan, described, less_of, of_one_holder, plan_of, seeded
from actorflow.testing.programs import Client, Deposit, Do, Each, Expected, Fan, Kid, Launch, Part, Program, Stop
from actorflow.testing.shrinking import plans, shrunk
from actorflow.testing.simulation import History, simulate
from actorflow.testing.world import SqliteDisk

HISTORIES = int(os.environ.get("ACTORFLOW_HISTORIES", "0")) or 120
"""How many, in all. The variable is for who has more time; `actorflow simulate --runs` is for who has much more."""
CHUNKS = 6
FIRST = random.SystemRandom().randrange(10**9)
"""Other histories each time: a failure prints its seed."""


def held(history: History) -> History:
    assert history.failure is None, (
        f"{history.failure}\nagain: actorflow simulate --seed {history.plan.seed} --trace\n{described(history.plan)}"
    )
    return history


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_goes_wrong_what_must_hold_holds_after_every_commit_and_all_comes_to_its_end(chunk: int) -> None:
    """C1, I1, I3, I5, I7, I8, I9, I10, I11, I15, A1, A6, A8, D1, D2, D3, F2, F4, X39, X40, R14."""
    for seed in range(FIRST + chunk, FIRST + HISTORIES, CHUNKS):
        held(simulate(seeded(seed)))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans())
def test_hypothesis_finds_no_plan_that_breaks_it(plan: Plan) -> None:
    held(simulate(plan))


def test_one_seed_gives_one_history_byte_for_byte_in_whatever_process() -> None:
    def hashes(hash_seed: str) -> list[str]:
        code = (
            "import logging; logging.disable(50)\n"
            "from actorflow.testing.plans import seeded\nfrom actorflow.testing.simulation import simulate\n"
            "for seed in range(12): print(simulate(seeded(seed)).hash)"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return found.stdout.split()

    first = hashes("1")

    assert first == hashes("2")
    assert len(set(first)) == 12  # Other seeds give other histories.


@pytest.mark.parametrize("chunk", range(3))
def test_sqlite_and_memory_asyncio_and_trio_all_come_to_the_same(chunk: int, tmp_path: Path) -> None:
    backends: tuple[Backend, ...] = ("asyncio", "trio")
    for seed in range(FIRST + chunk, FIRST + 18, 3):
        plan = of_one_holder(seeded(seed))
        seen = [held(simulate(plan, backend=backend)).seen for backend in backends]
        path = tmp_path / f"{seed}.db"

        seen.append(held(simulate(plan, disk=partial(SqliteDisk, str(path)))).seen)

        assert seen[0] == seen[1] == seen[2], f"seed {seed}"
        assert seen[0]


def test_every_kind_of_fault_comes_to_pass() -> None:
    happened = {kind for seed in range(400) for fault in seeded(seed).faults for kind in [getattr(fault, "mode", None)]}
    network = {kind for seed in range(60) for fault in seeded(seed).hiccups for kind in [fault.kind]}

    assert happened >= set(MODES)
    assert network == set(NETWORK)


# --- it finds what is broken ----------------------------------------------------------------------------------------------


def first_failure(mode: str = "") -> History:
    """Of those plans that have such a fault, if one is named."""
    named = (plan for plan in map(seeded, range(400)) if not mode or any(getattr(f, "mode", "") == mode for f in plan.faults))
    return next(history for history in map(simulate, named) if history.failure is not None)


def forget_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    conflict = tables._conflict

    def forgetful(data: Any, writes: Any) -> Any:
        found = conflict(data, writes)
        return None if isinstance(found, Duplicate) else found

    monkeypatch.setattr(tables, "_conflict", forgetful)


def ignore_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = memory.MemoryStore.commit

    async def unfenced(self: memory.MemoryStore, batch: list[Commit], *, fence: int) -> Any:
        return await commit(self, batch, fence=self._memory.fence)

    monkeypatch.setattr(memory.MemoryStore, "commit", unfenced)


def tear_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit consumes is written, what it appends to the journal now and then is not."""
    insert, dice = tables.insert, random.Random(1)

    def torn(data: Any, commit: Commit) -> Any:
        writes = commit.writes if dice.random() < 0.9 else tuple(w for w in commit.writes if type(w).__name__ != "Entry")
        return insert(data, Commit(writes, commit.chain))

    monkeypatch.setattr(memory, "insert", torn)


@pytest.mark.parametrize(("broken", "mode"), [(forget_duplicates, ""), (ignore_the_fence, "stop"), (tear_commits, "")])
def test_a_store_that_breaks_its_promise_is_found(broken: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)

    assert first_failure(mode).failure


def test_a_plan_that_fails_is_made_as_short_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_duplicates(monkeypatch)
    plan = first_failure().plan

    short = shrunk(plan, lambda plan: simulate(plan).failure is not None)

    assert simulate(short).failure is not None
    assert sum(len(client.acts) for client in short.clients) == 1
    assert len(short.faults) <= 2


def test_a_plan_that_does_not_fail_is_left_as_it_is() -> None:
    plan = seeded(3)

    assert shrunk(plan, lambda _: False, tries=5) == plan


# --- plans and the model --------------------------------------------------------------------------------------------------


def test_less_of_a_plan_asks_about_each_part_once() -> None:
    program = Program((Part("p", (Do("a"),)), Fan(((Do("b"),), (Kid("k", (Do("c"),)),)))))
    plan = Plan(1, (Client((Launch("x", program), Deposit("y", "ann", 1))),), lives=((Fault(1, "after"),),))
    asked: list[bool] = []

    def keep() -> bool:
        asked.append(True)
        return True

    assert less_of(plan, keep) == plan
    assert len(asked) == 1 + 2 + 6
    assert less_of(plan, lambda: False) == Plan(1, (), lives=((),))


def test_the_model_knows_what_a_program_comes_to() -> None:
    program = Program((Do("a", undo=True), Do("b", fails=4), Each("e", 2), Stop()))

    expected = Expected.of((Client((Launch("x", program), Deposit("y", "ann", 3))),))

    assert expected.stopped == {"x"}
    assert expected.undone == {"x": ["a"]}
    assert expected.effects == {"x/0/a", "x/0/b", "x/0/e.0", "x/0/e.1"}
    assert expected.totals == {"ann": 3}


def test_a_calm_plan_has_no_faults() -> None:
    assert plan_of(random.Random(1), seed=1, calm=True).faults == []


# --- the command -----------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_same_hash_for_the_same_seed(capsys: pytest.CaptureFixture[str]) -> None:
    codes = [main(["simulate", "--seed", "5"]) for _ in range(2)]

    first, second = (text for text in capsys.readouterr().out.split("\n") if text.startswith("history "))
    assert codes == [0, 0]
    assert first == second == f"history {simulate(seeded(5)).hash}"


def test_the_command_lives_through_many_and_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seed", "2", "--runs", "11", "--jobs", "1", "--json"]) == 0

    record = json.loads(capsys.readouterr().out)
    assert record["seeds"] == [2, 12]
    assert record["histories"] == 11
    assert record["commits"] > 100
    assert record["failed"] == []


def test_the_command_tells_the_shortest_plan_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_duplicates(monkeypatch)
    seed = first_failure().plan.seed

    assert main(["simulate", "--seed", str(seed), "--trace"]) == 1

    said = capsys.readouterr().out
    assert f"seed {seed} failed: " in said
    assert "the shortest plan that fails so:" in said
    assert f"actorflow simulate --seed {seed} --trace" in said
