from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.peers.bursts import Best
from benchmarks.peers.processes import PROC, Child, Ledger, alive, cpu_s, free_port, listening, memory, unless_ended, until

SIZES = {"tells": 3, "asks": 2, "bursts": 4}
linux = pytest.mark.skipif(not PROC.exists(), reason="what processes cost is read from /proc")

FAMILY = """
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path({path!r}).write_text(str(child.pid) + " ")
time.sleep(600)
"""


class Counter:
    def __init__(self, *, loses: int = 0) -> None:
        self.loses, self.total = loses, 0

    def tell(self) -> None:
        self.total += 0 if self.loses else 1
        self.loses = max(0, self.loses - 1)

    def ask(self) -> int:
        self.total += 1
        return self.total


def test_an_actor_that_counts_all_is_measured() -> None:
    counter = Counter()

    measured = Best(SIZES).blocking(counter.tell, counter.ask)

    assert measured["tells_per_s"] > 0
    assert measured["asks_per_s"] > 0


def test_an_actor_that_loses_one_tell_is_not_measured() -> None:
    counter = Counter(loses=1)

    with pytest.raises(AssertionError, match="counted 23"):
        Best(SIZES).blocking(counter.tell, counter.ask)


def test_awaited_calls_are_checked_in_the_same_way() -> None:
    counter = Counter(loses=1)

    async def tell() -> None:
        counter.tell()

    async def ask() -> int:
        return counter.ask()

    with pytest.raises(AssertionError, match="counted 23"):
        asyncio.run(Best(SIZES).awaited(tell, ask))


@pytest.mark.kill
def test_a_server_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child.python("server", "raise SystemExit('no disk')", tmp_path)

    with pytest.raises(RuntimeError, match="server ended with 1: no disk"):
        asyncio.run(until(lambda: listening(free_port()), [child]))


@pytest.mark.kill
def test_who_waits_for_a_worker_that_ended_does_not_wait_for_ever(tmp_path: Path) -> None:
    child = Child.python("worker", "raise SystemExit('no workflows')", tmp_path)

    async def wait() -> None:
        await unless_ended([child], asyncio.Event().wait())

    with pytest.raises(RuntimeError, match="worker ended with 1: no workflows"):
        asyncio.run(wait())


@linux
@pytest.mark.kill
def test_a_kill_reaches_what_the_process_has_started_and_its_costs_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    child = Child.python("parent", FAMILY.format(path=str(path)), tmp_path)

    async def started() -> bool:
        return path.read_text().endswith(" ")

    asyncio.run(until(started, [child]))
    grandchild = int(path.read_text())
    assert list(child.family()) == [child.process.pid, grandchild]
    assert memory([child])["rss_mb"] > 0
    assert cpu_s([child]) >= 0
    child.kill()

    assert not alive(grandchild)
    assert child.process.returncode == -9


def test_a_ledger_tells_what_was_noted_from_a_moment_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note("step", 1)
    ledger.note("waits", 1)
    at = ledger.size()
    ledger.note("step", 1)

    assert ledger.counted("step") == {"step 1": 2}
    assert ledger.counted("step", at) == {"step 1": 1}
    assert not ledger.counted("waits", at)
