"""What a runtime promises when it is told to end: nothing new, running steps finish in time, and it says what it left."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actorflow import Drained, Limits, Message, NotRunning, Runtime, StoreStopped, Workflow, step
from actorflow.errors import BadDefinition, FenceLost
from actorflow.stores.memory import MemoryStore

CHILD = Path(__file__).parent / "serving_child.py"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Gate:
    """What a step waits for; as a resource of each test."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.open = anyio.Event()


_gate = Gate()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(sys.modules[__name__], "_gate", made)
    return made


@step
async def pass_gate(n: int) -> int:
    _gate.entered.set()
    await _gate.open.wait()
    return n


class Passing(Workflow[int]):
    async def run(self) -> int:
        one = await pass_gate(1)
        return one + await pass_gate(2)


class Hint(Message[None]):
    pass


class Waiting(Workflow[None]):
    async def run(self) -> None:
        await self.sleep("1h")
        await self.receive(Hint)


ACTORS = [Passing, Waiting]


@pytest.mark.anyio
async def test_a_drain_lets_the_running_step_finish_and_leaves_the_rest(gate: Gate) -> None:
    """C2."""

    memory = MemoryStore()
    with anyio.fail_after(30):
        async with Runtime(actors=ACTORS, store=memory) as runtime:
            await runtime.start(Passing(), key="p")
            waiting = await runtime.start(Waiting(), key="w")
            await waiting.tell(Hint())
            await gate.entered.wait()
            async with anyio.create_task_group() as group:
                group.start_soon(runtime.drain)
                await anyio.lowlevel.checkpoint()
                gate.open.set()
            with pytest.raises(StoreStopped):
                await runtime.start(Waiting(), key="late")
            first, again = runtime.drained, await runtime.drain()

    assert first is again is runtime.drained
    assert first is not None
    assert (first.cut, first.under_way, first.messages, first.threads, first.written) == ((), 1, 1, 0, True)
    assert str(first).endswith("1 runs under way; 1 messages waiting")


@pytest.mark.anyio
async def test_a_step_that_does_not_end_in_time_is_cut_and_named(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with anyio.fail_after(30), caplog.at_level(logging.INFO, "actorflow"):
        async with Runtime(actors=ACTORS, limits=Limits(drain_s=0)) as runtime:
            for key in "ab":
                await runtime.start(Passing(), key=key)
            await runtime.start(Waiting(), key="w")
            await gate.entered.wait()

    assert runtime.drained is not None
    assert (runtime.drained.cut, runtime.drained.under_way) == (("Passing/a", "Passing/b"), 2)
    assert [record.levelname for record in caplog.records if "steps cut in Passing/a, Passing/b" in record.message] == ["WARNING"]


@pytest.mark.anyio
async def test_a_drain_of_a_store_that_was_lost_says_so(gate: Gate) -> None:
    with anyio.fail_after(30):
        async with Runtime(actors=ACTORS) as runtime:
            runtime._running().committer.stop(FenceLost(1))

    assert runtime.drained is not None
    assert not runtime.drained.written
    assert "left is as after a crash" in str(runtime.drained)


def test_a_report_names_a_bounded_number_of_runs_in_the_log() -> None:
    cut = tuple(f"Job/{n}" for n in range(30))

    said = str(Drained(took_s=1.25, cut=cut, under_way=30, messages=0, threads=2, written=True))

    assert said.startswith("closed in 1.2 s; 30 runs under way; 0 messages waiting; steps cut in Job/0, ")
    assert "Job/19 and 10 more; 2 threads of abandoned steps still run" in said


@pytest.mark.anyio
async def test_a_store_that_cannot_be_closed_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore()

    async def close() -> None:
        raise OSError("gone")

    monkeypatch.setattr(memory, "close", close)
    with anyio.fail_after(30), pytest.raises(ExceptionGroup) as raised:
        async with Runtime(actors=ACTORS, store=memory):
            pass

    assert raised.group_contains(OSError, match="gone")


@pytest.mark.anyio
async def test_a_runtime_that_was_not_entered_neither_serves_nor_drains() -> None:
    runtime = Runtime(actors=ACTORS)

    with pytest.raises(NotRunning, match="use it inside `async with runtime:`"):
        await runtime.serve()
    with pytest.raises(NotRunning, match="with TestClient"):
        await runtime.drain()


@pytest.mark.anyio
async def test_a_service_ends_with_the_error_when_its_store_is_lost() -> None:
    with anyio.fail_after(30):
        async with Runtime(actors=ACTORS) as runtime:
            runtime._running().deadlines.after(0.01, lambda: runtime._running().committer.stop(FenceLost(7)))
            with pytest.raises(FenceLost):
                await runtime.serve()


@pytest.mark.anyio
async def test_the_first_signal_drains_and_the_second_cuts(gate: Gate) -> None:
    """C3."""

    async def twice() -> None:
        await gate.entered.wait()
        signal.raise_signal(signal.SIGTERM)
        while not runtime._running().closing:
            await anyio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)

    with anyio.fail_after(30):
        async with Runtime(actors=ACTORS) as runtime, anyio.create_task_group() as group:
            await runtime.start(Passing(), key="p")
            group.start_soon(twice)
            drained = await runtime.serve()

    assert drained.cut == ("Passing/p",)
    assert drained.took_s < 10


@pytest.mark.anyio
async def test_signals_are_for_the_main_thread() -> None:
    async def elsewhere() -> None:
        async with Runtime(actors=ACTORS) as runtime:
            with pytest.raises(BadDefinition, match="those arrive in the main thread only"):
                await runtime.serve()

    await anyio.to_thread.run_sync(anyio.run, elsewhere)


@pytest.mark.anyio
async def test_where_a_loop_has_no_signals_a_service_runs_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> object:
        raise NotImplementedError

    monkeypatch.setattr("actorflow.embedding.signals.anyio.open_signal_receiver", none)
    async with Runtime(actors=ACTORS) as runtime:
        with anyio.move_on_after(0.05) as scope:
            await runtime.serve()

    assert scope.cancelled_caught
    assert threading.current_thread() is threading.main_thread()


# --- real signals -------------------------------------------------------------------------------------------------------


@contextmanager
def child(folder: Path, backend: str, *, drain_s: float, step_s: float) -> Iterator[subprocess.Popen[str]]:
    """A service whose run is in its step."""
    command = [sys.executable, "-W", "error", str(CHILD), str(folder / "jobs.db"), str(drain_s), str(step_s), backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert {process.stdout.readline().strip() for _ in range(2)} == {"serving", "working"}
            yield process
        finally:
            process.kill()


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_told_to_end_finishes_its_step_and_frees_the_store(
    tmp_path: Path, anyio_backend: str, number: signal.Signals
) -> None:
    """C2, C10."""

    with child(tmp_path, anyio_backend, drain_s=20, step_s=0.3) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert out.strip().splitlines()[-1] == "left () 1 1 0"


@pytest.mark.kill
def test_a_service_that_is_told_twice_leaves_its_step_to_the_next_holder(tmp_path: Path, anyio_backend: str) -> None:
    """C3."""

    with child(tmp_path, anyio_backend, drain_s=20, step_s=60) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "again: steps that still run are cut" in err
    assert "steps cut in Job/j" in err
    assert "left ('Job/j',) 1 0 0" in out
