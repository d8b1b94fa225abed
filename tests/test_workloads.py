"""What the workloads of the benchmarks measure is right and whole, at sizes that take no time; how fast, nobody asks here."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actorflow.stores import open_store
from actorflow.testing.invariants import Rows, replays, rows_of, violations
from benchmarks import stores, w08_sleeping, w09_each, w10_messages, w11_growth, w12_bank, w13_loop, w14_neighbours
from benchmarks.steps import Line
from benchmarks.suite import BARE, OURS

COPIES = 12


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stores, "KEPT", tmp_path / "kept")
    return tmp_path / "kept"


def read(path: Path) -> Sequence[Rows]:
    async def reading() -> Sequence[Rows]:
        store = open_store(f"sqlite:///{path}", durability="normal")
        await store.open(now=w08_sleeping.AT)
        try:
            return await rows_of(store)
        finally:
            await store.close()

    return asyncio.run(reading())


def test_copies_of_a_sleeper_are_what_the_runtime_would_have_written(kept: Path) -> None:
    path = stores.stored("sleeping", COPIES, w08_sleeping.template, key=stores.NUMBERED, apart_s=w08_sleeping.APART_S)

    found = read(path)

    assert violations(found, [w08_sleeping.Sleeper]) == []
    assert replays(found, [w08_sleeping.Sleeper]) == []
    with closing(sqlite3.connect(path)) as db:
        runs = db.execute("select key, wake_at, status from run order by id").fetchall()
        timers = db.execute("select due_at from entry where kind = 'timer' order by run").fetchall()
    dues = [w08_sleeping.AT + w08_sleeping.LENGTH_S + number * w08_sleeping.APART_S for number in range(COPIES)]
    assert [(key, status) for key, _, status in runs] == [(str(number + 1), "waiting") for number in range(COPIES)]
    assert [due for _, due, _ in runs] == pytest.approx(dues, abs=1e-4)
    assert [due for (due,) in timers] == pytest.approx(dues, abs=1e-4)


def test_copies_of_an_ended_run_have_keys_of_their_own_and_all_its_rows(kept: Path) -> None:
    path = stores.stored("ended", COPIES, w11_growth.template, key=stores.RANDOM)

    found = read(path)

    assert violations(found, [Line]) == []
    assert replays(found, [Line]) == []
    assert len({rows.run.key for rows in found}) == COPIES
    assert {rows.run.status for rows in found} == {"completed"}
    assert stores.rows(path) == COPIES * w11_growth.ROWS_OF_A_RUN


def test_a_file_is_made_once_and_one_that_could_not_be_made_is_not_there(kept: Path) -> None:
    made: list[Path] = []

    def fails(path: Path) -> None:
        made.append(path)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        stores.stored("ended", COPIES, fails, key=stores.RANDOM)
    assert list(kept.iterdir()) == []

    kept.joinpath(f"ended-{COPIES}-of-another-version.db").touch()
    path = stores.stored("ended", COPIES, w11_growth.template, key=stores.RANDOM)
    assert list(kept.iterdir()) == [path]
    assert stores.stored("ended", COPIES, fails, key=stores.RANDOM) == path
    assert len(made) == 1


SMALL = [
    (w08_sleeping, OURS, {"runs": 4_000, "wakes": 5, "ahead_s": 0.2}),
    (w09_each, OURS, {"rows": 20_000}),
    (w09_each, BARE, {"rows": 200_000}),
    (w10_messages, OURS, {"tells": 200, "asks": 20, "bursts": 2, "durable": 100, "most": 200}),
    (w11_growth, OURS, {"rows": 1_000, "actors": 10, "runs": 10, "passes": 1, "rounds": 1, "by": 10}),
    (w12_bank, OURS, {"clients": 20, "transfers": 200, "accounts": 10}),
    (w12_bank, w12_bank.A_RUN_EACH, {"clients": 20, "transfers": 100, "accounts": 10}),
    (w12_bank, BARE, {"clients": 20, "transfers": 200, "accounts": 10}),
    (w13_loop, OURS, {"runs": 20, "steps": 2, "clients": 10, "seconds": 1}),
    (w14_neighbours, OURS, {"actors": 50, "seconds": 0.1, "rounds": 1}),
]


@pytest.mark.kill
@pytest.mark.parametrize(("module", "contender", "sizes"), SMALL, ids=[f"{m.WORKLOAD.id}-{c}" for m, c, _ in SMALL])
def test_a_workload_measures_all_that_it_names(module: Any, contender: str, sizes: dict[str, float], tmp_path: Path) -> None:
    measured = module.BODIES[contender](tmp_path, sizes)

    assert sizes.keys() == module.WORKLOAD.full.keys() == module.WORKLOAD.quick.keys()
    missing = {metric.name for metric in module.WORKLOAD.metrics} - measured.keys()
    assert not missing
    assert all(value >= 0 for value in measured.values())
