"""What is promised to code that blocks: the same verbs from any thread, an orderly end, and a clear error after a fork."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from actorflow import (
    Abort,
    Client,
    Message,
    NotRunning,
    Run,
    RunCancelled,
    RunPaused,
    Runtime,
    StoreBusy,
    StoreStopped,
    SyncClient,
    SyncRun,
    SyncRuntime,
    UnknownRun,
    Workflow,
    query,
    resource,
    resource_of,
    step,
)
from actorflow.address import Address
from actorflow.embedding.blocking import SyncAddress
from actorflow.embedding.portal import Backend


class Add(Message[int]):
    amount: int


class Close(Message[None]):
    pass


class Greeting:
    word = "hello"


@step
def greet() -> str:
    return resource_of(Greeting).word


class Sum(Workflow[int]):
    total: int = 0

    async def run(self) -> int:
        while True:
            match message := await self.receive(Add, Close):
                case Add(amount):
                    self.total += amount
                    self.reply(message, self.total)
                case _:
                    return self.total

    @query
    def shown(self, unit: str) -> str:
        return f"{self.total} {unit}"


class Fails(Workflow[str]):
    greeting: Greeting = resource()

    async def run(self) -> str:
        await broken()
        return await greet()


class Aborts(Workflow[str]):
    async def run(self) -> str:
        raise Abort("no")


@step
def broken() -> None:
    raise ValueError("mend me")


_caught: list[BaseException] = []


@step
async def calls_its_own_runtime(kept: list[int]) -> str:
    for use in (_held[0].counts, _held[0].close, _held[0].open):
        try:
            use()
        except NotRunning as error:
            _caught.append(error)
    return "did not hang"


@step
def calls_from_its_thread(key: str) -> int:
    return len(_held[0].counts())


class Inward(Workflow[str]):
    async def run(self) -> str:
        await calls_from_its_thread("x")
        return await calls_its_own_runtime([])


_held: list[SyncRuntime] = []
ACTORS = [Sum, Fails, Aborts, Inward]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture
def runtime(backend: Backend) -> Iterator[SyncRuntime]:
    with SyncRuntime(actors=ACTORS, resources=[Greeting()], backend=backend) as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="af-") as made:
        yield Path(made)


def test_the_verbs_of_a_run_block_until_they_are_done(runtime: SyncRuntime) -> None:
    run = runtime.start(Sum(), key="a")

    assert runtime.start(Sum(), key="a") == run
    assert (run.kind, run.key, str(run), repr(run), len({run, runtime.run(Sum, "a")})) == (
        "Sum",
        "a",
        "Sum/a",
        "SyncRun(Sum/a)",
        1,
    )
    assert runtime.at(Sum, "a").ask(Add(3)) == 3
    run.tell(Add(4), key="once")
    run.tell(Add(4), key="once")
    assert run.ask(Add(0)) == 7
    assert run.query(Sum.shown, "cents") == "7 cents"
    assert run.status().status == "waiting"
    assert "Close" in run.why()
    run.pause()
    run.resume()
    with pytest.raises(TimeoutError, match=r"Sum/a has not ended within 0\.01 s; it goes on"):
        run.result(within="10ms")
    run.tell(Close())
    assert run.result(within=10) == 7
    assert "started" in {entry.kind for entry in run.history()}
    assert [each.key for each in runtime.runs(kind="Sum").runs] == ["a"]
    assert runtime.counts() == {"completed": 1}
    run.prune()


def test_the_errors_are_those_of_the_run(runtime: SyncRuntime) -> None:
    with pytest.raises(Abort, match="no"):
        runtime.start(Aborts(), key="a").result()
    with pytest.raises(UnknownRun):
        runtime.run(Sum, "nobody").status()
    cancelled = runtime.start(Sum(), key="b")
    assert cancelled.cancel("enough")
    with pytest.raises(RunCancelled):
        cancelled.result()


def test_an_operator_repairs_a_run(runtime: SyncRuntime) -> None:
    run = runtime.start(Fails(), key="a")
    with pytest.raises(RunPaused):
        run.result()
    run.retry()
    with pytest.raises(RunPaused):
        run.result()
    fork = run.fork("b", keep=True)
    assert isinstance(fork, SyncRun)
    with pytest.raises(RunPaused):
        fork.result()

    run.skip(None)

    assert run.result() == "hello"


def test_many_threads_use_one_runtime(runtime: SyncRuntime) -> None:
    run = runtime.start(Sum(), key="a")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: run.tell(Add(n), key=str(n)), range(40)))
        list(pool.map(lambda n: runtime.start(Sum(), key=str(n % 5)), range(40)))

    assert run.ask(Add(0)) == sum(range(40))
    assert sum(runtime.counts().values()) == 6


def test_a_runtime_is_used_while_it_is_open_and_can_be_opened_again(backend: Backend, tmp_path: Path) -> None:
    runtime = SyncRuntime(f"sqlite:///{tmp_path}/a.db", actors=[Sum], backend=backend)
    with pytest.raises(NotRunning, match=r"this SyncRuntime is not open\. Use it as a context manager, or call `open"):
        runtime.start(Sum(), key="a")
    assert runtime.drained is None

    assert runtime.open() is runtime
    runtime.open()
    run = runtime.start(Sum(), key="a")
    runtime.close()
    runtime.close()

    assert runtime.drained is not None
    with pytest.raises(NotRunning):
        run.status()
    with runtime:
        assert run.ask(Add(1)) == 1


def test_what_keeps_it_from_opening_is_raised_and_leaves_nothing_behind(backend: Backend, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    second = SyncRuntime(url, actors=[Sum], socket=False, backend=backend)

    with SyncRuntime(url, actors=[Sum], socket=False, backend=backend):
        threads = threading.active_count()
        with pytest.raises(StoreBusy):
            second.open()
        assert threading.active_count() == threads
    with second:
        assert second.counts() == {}


def test_a_thread_that_waits_is_told_when_the_runtime_closes(backend: Backend) -> None:
    runtime = SyncRuntime(actors=[Sum], backend=backend).open()
    run = runtime.start(Sum(), key="a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run.result)
        while "result" not in _waits(runtime):
            pass
        runtime.close()

        assert isinstance(waiting.exception(10), StoreStopped)


def _waits(runtime: SyncRuntime) -> str:
    """Whether somebody waits for a result."""
    entered = runtime._loop.opened().entered
    assert isinstance(entered, Runtime)
    return "result" if entered._running().results else ""


def test_its_own_loop_does_not_wait_for_itself(runtime: SyncRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "_held", [runtime])
    _caught.clear()

    assert runtime.start(Inward(), key="a").result(within=20) == "did not hang"
    assert len(_caught) == 3
    assert "a plain `def` step has a thread of its own and may block" in str(_caught[0])


def test_a_client_reaches_the_runtime_of_another_process(backend: Backend, folder: Path) -> None:
    url = f"sqlite:///{folder}/a.db"
    with SyncRuntime(url, actors=[Sum], backend=backend), SyncClient(url, backend=backend) as client:
        run = client.start(Sum(), key="a")

        assert run.ask(Add(2)) == 2
        assert client.at(Sum, "a").key == "a"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(run.result)
            client.close()
            assert isinstance(waiting.exception(10), StoreStopped)


@pytest.mark.parametrize(
    ("blocking", "awaited"), [(SyncRun, Run), (SyncAddress, Address), (SyncRuntime, Runtime), (SyncClient, Client)]
)
def test_every_verb_is_there_with_the_same_arguments(blocking: Any, awaited: Any) -> None:
    embeds = {"drain", "serve", "install", "lifespan", "asgi"}
    verbs = [
        name for name in dir(awaited) if not name.startswith("_") and callable(getattr(awaited, name)) and name not in embeds
    ]

    assert verbs
    for name in verbs:
        here, there = (inspect.signature(getattr(cls, name)).parameters for cls in (blocking, awaited))
        assert [str(p) for p in here.values() if p.name not in ("self", "within")] == [
            str(p) for p in there.values() if p.name not in ("self", "within")
        ], name


@pytest.mark.parametrize(
    ("blocking", "awaited", "left_out"), [(SyncRuntime, Runtime, {"clock", "chance", "store"}), (SyncClient, Client, set())]
)
def test_it_is_made_with_the_same_arguments(blocking: Any, awaited: Any, left_out: set[str]) -> None:
    here, there = (inspect.signature(cls).parameters for cls in (blocking, awaited))

    assert [str(p) for p in here.values() if p.name != "backend"] == [str(p) for p in there.values() if p.name not in left_out]


# --- forks and ends of processes ----------------------------------------------------------------------------------------


def script(folder: Path, text: str, backend: Backend = "asyncio") -> str:
    """What a script prints that uses a SyncRuntime; it must end by itself, and well."""
    head = f"""
        import os, sys, threading
        from actorflow import NotRunning, SyncClient, SyncRuntime, Workflow, step

        @step
        def work(n: int) -> int:
            return n + 1

        class Job(Workflow[int]):
            async def run(self) -> int:
                n = await work(1)
                await self.sleep("1h")
                return n

        url = "sqlite:///{folder}/a.db"
        runtime = SyncRuntime(url, actors=[Job], backend="{backend}")
        def drained():
            with SyncClient(url) as client:
                return client.counts()
    """
    (folder / "job.py").write_text(textwrap.dedent(head) + textwrap.dedent(text), encoding="utf-8")
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "job.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.kill
def test_a_script_that_forgets_to_close_ends_in_order(folder: Path, backend: Backend) -> None:
    """C14."""

    said = script(
        folder,
        """
        import atexit, logging
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        runtime.open()
        run = runtime.start(Job(), key="a")
        while run.status().status != "waiting":
            pass
        atexit.register(lambda: print("drained", runtime.drained is not None, flush=True))
        print("ends", flush=True)
        """,
        backend,
    )

    lines = said.splitlines()
    assert lines[0] == "ends"
    assert lines[1].startswith("closed in ")
    assert lines[2] == "drained True"


@pytest.mark.kill
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_told_to_open_after_the_fork(folder: Path) -> None:
    """C8."""

    said = script(
        folder,
        """
        runtime.open()
        run = runtime.start(Job(), key="a")
        child = os.fork()
        if child == 0:
            for use in (run.status, runtime.open, lambda: runtime.start(Job(), key="b")):
                try:
                    use()
                except NotRunning as error:
                    print("child:", str(error)[:60], flush=True)
            runtime.close()
            with SyncClient(url) as client:
                print("child:", client.run(Job, "a").key, sum(client.counts().values()), flush=True)
            sys.exit(0)
        print("parent:", os.waitpid(child, 0)[1], run.status().status != "", flush=True)
        runtime.close()
        """,
    )

    lines = said.splitlines()
    assert [line[:46] for line in lines[:3]] == ["child: this SyncRuntime was opened in process "] * 3
    assert lines[3:] == ["child: a 1", "parent: 0 True"]


@pytest.mark.kill
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_runtime_that_was_made_before_the_fork_is_opened_after_it(folder: Path) -> None:
    """C9."""

    said = script(
        folder,
        """
        child = os.fork()
        if child == 0:
            with runtime:
                print("child:", runtime.start(Job(), key="a").key, flush=True)
            sys.exit(0)
        print("parent:", os.waitpid(child, 0)[1], drained(), flush=True)
        """,
    )

    assert said.splitlines()[0] == "child: a"
    assert said.splitlines()[1].startswith("parent: 0 {'")
