"""What is done to a process: stopped, starved, cut off, restricted. Real processes, real signals, one real file."""

# What is tested is what happens to files and processes, and a test may block.

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from actorflow import Client, crashpoints
from actorflow.errors import StoreBroken, StoreBusy
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.clock import Backend
from actorflow.testing.samples import Held, a_run, an_entry
from tests import fault_child
from tests.harness import both

PROGRAM = Path(fault_child.__file__)
PACKAGE = PROGRAM.parents[1]

pytestmark = pytest.mark.kill


@contextmanager
def child(what: str, path: Path, backend: str = "asyncio") -> Iterator[subprocess.Popen[str]]:
    """A service in a process of its own; killed at the end if it still lives."""
    command = [sys.executable, "-W", "error::ResourceWarning", str(PROGRAM), what, str(path), backend]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """What a child says next; a failing one's errors show up in the assertion."""
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout.readline().strip() or process.stderr.read()


def tell(process: subprocess.Popen[str]) -> None:
    """Let it go on."""
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def stopped(process: subprocess.Popen[str]) -> None:
    """Wait until it is stopped, and not yet on its way to that."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def rows(path: Path) -> list[tuple[object, ...]]:
    """All that a holder writes, but for the store's own row."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [row for table in ("run", "entry", "message") for row in db.execute(f"select * from {table}")]


# --- stopped --------------------------------------------------------------------------------------------------------------


@both
def test_a_holder_that_slept_while_its_lease_was_lost_writes_nothing_when_it_wakes(backend: Backend, tmp_path: Path) -> None:
    """X39, R14, C4, C17: the outcome of its step is dropped, and said to be; no step follows."""
    path = tmp_path / "jobs.db"
    with child("gated", path, backend) as process:
        assert line(process) == "working 1"
        process.send_signal(signal.SIGSTOP)
        stopped(process)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("update store set fence = fence + 1")
        before = rows(path)

        process.send_signal(signal.SIGCONT)
        tell(process)
        out, err = process.communicate(timeout=30)

        assert rows(path) == before
    assert out.startswith("ended ")
    assert "FenceLost" in out
    assert "working 2" not in out
    assert "what is left is as after a crash" in err


def test_a_holder_that_is_stopped_inside_a_transaction_is_named_and_goes_on_when_it_may(tmp_path: Path) -> None:
    """C5, R2, R22: nobody takes the store from it, who only reads is not kept waiting."""
    path = tmp_path / "jobs.db"
    with child("stopped_inside", path) as process:
        assert line(process) == "inside"
        stopped(process)

        with pytest.raises(StoreBusy, match=f"process {process.pid}"):
            anyio.run(open_and_close, path)
        assert rows(path) == []
        with (
            closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as db,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            db.execute("begin immediate")

        process.send_signal(signal.SIGCONT)
        assert line(process) == "result 1"


async def open_and_close(path: Path) -> None:
    store = SqliteStore(str(path))
    try:
        await store.open(now=1.0)
    finally:
        await store.close()


def test_a_holder_that_is_killed_while_it_is_stopped_inside_a_transaction_leaves_nothing_of_it(tmp_path: Path) -> None:
    """C5, C7, A14."""
    path = tmp_path / "jobs.db"
    with child("stopped_inside", path) as process:
        assert line(process) == "inside"
        stopped(process)
        process.kill()
        process.wait()

        anyio.run(open_and_close, path)

    assert rows(path) == []


def test_of_two_services_that_are_started_at_once_one_has_the_store_and_the_other_names_it(tmp_path: Path) -> None:
    """C6, C9, C19, R2, R22: the run is begun once, however long its step takes."""
    path = tmp_path / "jobs.db"
    with child("gated", path, "asyncio") as one, child("gated", path, "trio") as other:
        said = {line(one): one, line(other): other}

        assert set(said) == {"working 1", "ended StoreBusy"}
        assert said["ended StoreBusy"].wait(30) == 0
        tell(said["working 1"])
        tell(said["working 1"])
        assert [line(said["working 1"]) for _ in range(2)] == ["working 2", "result 3"]


# --- starved --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="how much memory a process has is asked of /proc")
def test_a_step_that_asks_for_more_memory_than_there_is_fails_alone(tmp_path: Path) -> None:
    """C11."""
    with child("little_memory", tmp_path / "jobs.db") as process:
        assert line(process) == "result MemoryError 1"
        assert process.wait(30) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("point", ["commit.begin", "commit.rows", "commit.before", "commit.after"])
async def test_a_writer_that_runs_out_of_memory_is_the_end_of_the_store(anyio_backend: str, point: str, tmp_path: Path) -> None:
    """C11: nothing was acknowledged, and the next holder finds all of the batch or nothing."""
    path = tmp_path / "store.db"
    store = SqliteStore(str(path))
    held = Held(store, await store.open(now=1.0))

    def no_memory() -> None:
        raise MemoryError

    crashpoints.arm(point, no_memory)
    try:
        answers = None
        with contextlib.suppress(StoreBroken):
            answers = await held.commit([a_run(1), an_entry(1)])
    finally:
        crashpoints.disarm()
    with pytest.raises(StoreBroken):
        await held.commit([a_run(2)])
    await store.close()

    assert answers == ([None] if point == "commit.after" else None)
    assert len(rows(path)) == (2 if point == "commit.after" else 0)


@both
def test_without_descriptors_what_runs_goes_on_and_clients_come_in_when_there_are_some(backend: Backend, tmp_path: Path) -> None:
    """C12: nothing is lost, and nobody need start it again."""
    path = tmp_path / "jobs.db"
    with child("no_descriptors", path, backend) as process:
        assert line(process) == "result 1"

        async def call() -> int:
            async with Client(f"sqlite:///{path}", actors=fault_child.ACTORS) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, tell, process)
                return await (await client.start(fault_child.Plain(), key="of a client")).result()
            raise AssertionError

        assert anyio.run(call, backend=backend) == 1
        assert line(process) == "opened again"
        tell(process)
        assert process.wait(30) == 0


# --- cut off --------------------------------------------------------------------------------------------------------------


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@pytest.mark.parametrize(
    ("backend", "streams"),
    [pytest.param("asyncio", "<&- >&- 2>&-", id="closed"), pytest.param("trio", ">/dev/full 2>/dev/full", id="full", marks=FULL)],
)
def test_a_service_that_cannot_say_anything_does_its_work(backend: Backend, streams: str, tmp_path: Path) -> None:
    """C15."""
    path = tmp_path / "jobs.db"
    command = f'exec "$0" "$1" nowhere_to_log "$2" {backend} {streams}'
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}

    subprocess.run(["/bin/sh", "-c", command, sys.executable, str(PROGRAM), str(path)], check=True, timeout=60, env=environment)

    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert db.execute("select status from run").fetchall() == [("completed",)]
    assert json.loads(Path(f"{path}.lock").read_bytes())["store_id"]


@both
def test_an_interpreter_that_is_told_to_end_in_the_middle_of_everything_ends(backend: Backend, tmp_path: Path) -> None:
    """C14, C2: Control-C ends a service that did not ask for signals; the store is free, and its run is left for the next one."""
    path = tmp_path / "jobs.db"
    with child("left_open", path, backend) as process:
        assert line(process) == "working 1"
        process.send_signal(signal.SIGINT)
        tell(process)
        _, err = process.communicate(timeout=30)

    assert "Exception ignored" not in err
    assert "never retrieved" not in err
    anyio.run(open_and_close, path, backend=backend)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert db.execute("select key from run where ended_at is null and wake_at is not null").fetchall() == [("g",)]


# --- restricted -----------------------------------------------------------------------------------------------------------

SMALL_DISK = 'mount -t tmpfs -o size=4m none "$0" && exec "$@"'


def namespace() -> list[str]:
    """How to give a program mounts of its own; [] if that cannot be done here."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        with contextlib.suppress(OSError):
            if not subprocess.run(
                [*command, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
            ).returncode:
                return command
    return []


def test_a_service_on_a_small_disk_refuses_until_there_is_room_and_loses_nothing(tmp_path: Path) -> None:
    """B4: with a real file system that is really full."""
    command = namespace()
    if not command:
        pytest.skip("no file system can be mounted here")
    service = [sys.executable, str(PROGRAM), "full_disk", str(tmp_path / "jobs.db"), "trio"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}

    process = subprocess.run(
        [*command, "/bin/sh", "-c", SMALL_DISK, str(tmp_path), *service],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )

    assert process.stdout.startswith("result "), process.stderr
    assert "no space left" in process.stdout


RESTRICTED = """
import os, sys, anyio
from actorflow.stores.sqlite import SqliteStore
async def main():
    for path in sys.argv[1:]:
        store = SqliteStore(path)
        try:
            await store.open(now=1.0)
        except Exception as error:
            print(type(error).__name__, "may write to both" in str(error))
        else:
            print("open")
            await store.close()
anyio.run(SqliteStore(sys.argv[1]).close)  # All that is imported late is imported.
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
anyio.run(main)
"""


def test_a_file_or_directory_that_may_not_be_written_to_is_named_and_mending_that_is_enough(tmp_path: Path) -> None:
    """B15: nothing is half made."""
    with tempfile.TemporaryDirectory() as place:  # Others may go there, which they may not to `tmp_path`.
        folder = Path(place)
        folder.chmod(0o755)
        paths = [folder / name / "store.db" for name in ("empty", "file", "folder", "free")]
        for path in paths:
            path.parent.mkdir()
            if path.parent.name != "empty":
                anyio.run(open_and_close, path)
            for each in path.parent.iterdir():
                each.chmod(0o444 if path.parent.name == "file" else 0o666)
            path.parent.chmod(0o777 if path.parent.name in ("file", "free") else 0o555)

        said = subprocess.run(
            [sys.executable, "-c", RESTRICTED, *map(str, paths)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        ).stdout.splitlines()

        assert said == [*["StoreUnavailable True"] * 3, "open"]
        for path in paths:
            path.parent.chmod(0o777)
            for each in path.parent.iterdir():
                each.chmod(0o666)
        anyio.run(open_and_close, paths[2])
