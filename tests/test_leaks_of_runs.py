"""What a run leaves behind when it has ended: rows. Nothing in memory grows with the number of runs and actors.

`python -m tests.leaks --runs 100000` is the long form, which looks at the memory of the process, too.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, evolve

from actorflow.runtime import timers
from tests import leaks
from tests.harness import both
from tests.leaks import Sample

RUNS, SPARE = 2_000, 60
HALF = (RUNS - RUNS // 10) // 2


@pytest.fixture(autouse=True)
def _cleared_out_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled moments may lie in a heap, ours and trio's, up to 1,000: a leak could not be told from them over so few runs."""
    monkeypatch.setattr(timers, "DEAD_MIN", 10)
    monkeypatch.setattr("trio._core._run.DEADLINE_HEAP_MIN_PRUNE_THRESHOLD", 10)


def measured(url: str, backend: str) -> list[Sample]:
    return anyio.run(partial(leaks.measured, url, runs=RUNS), backend=backend)


def test_two_thousand_runs_leave_no_object_task_thread_or_file_behind() -> None:
    samples = measured("memory://", "asyncio")

    assert leaks.leaks(*samples, runs=HALF, spare=SPARE) == []


@both
def test_nor_do_they_over_a_file(backend: str, tmp_path: Path) -> None:
    samples = measured(f"sqlite:///{tmp_path / 'leaks.db'}", backend)

    assert leaks.leaks(*samples, runs=HALF, spare=SPARE) == []


@define
class Kept:
    """What is never let go of."""

    n: int


kept: list[Any] = []


@pytest.mark.parametrize("what", ["objects", "files", "threads"])
def test_what_every_run_leaves_behind_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, end = leaks.window, threading.Event()

    async def leaking(runtime: Any, first: int, runs: int, told: Any) -> None:
        await real(runtime, first, runs, told)
        match what:
            case "objects":
                kept.extend(Kept(n) for n in range(runs))
            case "files":
                kept.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(runs // 5))
            case _:
                threads = [threading.Thread(target=end.wait) for _ in range(runs // 5)]
                kept.extend(threads)
                for thread in threads:
                    thread.start()

    monkeypatch.setattr(leaks, "window", leaking)
    try:
        samples = anyio.run(partial(leaks.measured, "memory://", runs=300))
    finally:
        end.set()
        for each in kept:
            if isinstance(each, int):
                os.close(each)
            elif isinstance(each, threading.Thread):
                each.join()
        kept.clear()

    found = leaks.leaks(*samples, runs=135, spare=SPARE)
    assert any(line.startswith("objects of type Kept" if what == "objects" else what) for line in found), found


def test_memory_that_grows_with_the_runs_is_found_and_a_step_in_it_is_not() -> None:
    empty = Sample(100 << 20, 10, 4, 10, Counter())
    grown = [evolve(empty, rss=empty.rss + more) for more in (0, 10_000 * 1_000, 20_000 * 1_000)]

    assert leaks.leaks(*grown, runs=10_000, memory=True)[0].startswith("memory: 104.9 MB, 114.9 MB, 124.9 MB")
    assert leaks.leaks(empty, grown[2], grown[2], runs=10_000, memory=True) == []
