"""What the SQLite store owes its file: facts about SQLite and POSIX that were tried, and what must come of each."""

# What is tested is what happens to files, and a test may block.
# ruff: noqa: PTH104, PTH108, PTH116, ASYNC240

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actorflow import crashpoints, records
from actorflow.errors import FenceLost, StoreBroken, StoreBusy, StoreError, StoreTooNew, StoreUnavailable, Undecodable
from actorflow.records import Consume, Rejected, RunQuery, SetView, Write
from actorflow.stores import Durability, reader, schema
from actorflow.stores.checkpoint import BATCHES, Checkpoints
from actorflow.stores.sqlite import SqliteStore
from actorflow.stores.statements import SQL, alone
from actorflow.stores.trouble import Trouble, kind_of
from actorflow.testing.samples import Held, a_message, a_run, an_entry

SCANS = {
    "counts": "reads one narrow index",
    "list_runs": "walks back from the newest and stops at its limit",
    "last_numbers": "a table of three rows",
}

pytestmark = pytest.mark.anyio

PACKAGE = Path(records.__file__).parents[1]
PRELUDE = """
import os, sys, anyio
from actorflow.records import Commit, Entry, Run, SetState
from actorflow.stores.sqlite import SqliteStore
def entry(run, name): return Entry(run, 0, "step", "", name, 0, "ok", 1, 1.0, None, b"[]", b"1", None)
def begun(run): return Run(id=run, kind="order", key=str(run), status="pending", input=b"{}")
def stands(run): return SetState(run=run, status="waiting", reason=None, wake_at=None, crashes=0, at=1.0)
path, backend = sys.argv[1:3]
"""


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


both_backends = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def held(path: Path) -> AsyncIterator[Held]:
    store = SqliteStore(str(path), busy_s_max=0.05)
    lease = await store.open(now=1.0)
    yield Held(store, lease)
    await store.close()


@pytest.fixture
def armed() -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """`crashpoints.arm`, taken back at the end."""
    yield crashpoints.arm
    crashpoints.disarm()


async def opened(path: Path, **options: Any) -> Held:
    store = SqliteStore(str(path), **options)
    return Held(store, await store.open(now=2.0))


async def made(path: Path) -> None:
    """A store with one run in it, closed."""
    held = await opened(path)
    await held.commit([a_run(), an_entry()])
    await held.store.close()


@contextmanager
def child(code: str, path: Path, backend: str = "asyncio", **environment: str) -> Generator[subprocess.Popen[str]]:
    """Another process; killed at the end if it still lives."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PRELUDE + code, str(path), backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """What a child says next; a failing one's errors show up in the assertion."""
    assert process.stdout is not None
    assert process.stderr is not None
    said = process.stdout.readline().strip()
    return said or process.stderr.read()


HOLDER = """
async def main():
    store = SqliteStore(path)
    lease = await store.open(now=1.0)
    await store.commit([Commit((entry(1, "a"),))], fence=lease.fence)
    print("open", flush=True)
    sys.stdin.read()
anyio.run(main, backend=backend)
"""

# --- the file is not what it should be --------------------------------------------------------------------------------


async def test_files_are_for_their_owner_alone(held: Held, path: Path) -> None:
    """S23."""

    for suffix in ("", "-wal", "-shm", ".lock"):
        assert os.stat(f"{path}{suffix}").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
async def test_a_file_deleted_under_the_store_stops_it_before_the_next_acknowledgement(
    held: Held, path: Path, suffix: str
) -> None:
    """B11."""

    os.unlink(f"{path}{suffix}")

    with pytest.raises(StoreBroken, match="deleted, renamed or replaced"):
        await held.commit([a_run()])

    with pytest.raises(StoreBroken):
        await held.commit()


async def test_a_file_replaced_under_the_store_stops_it(held: Held, path: Path, tmp_path: Path) -> None:
    """B12."""

    other = tmp_path / "backup.db"
    await made(other)
    os.rename(other, path)

    with pytest.raises(StoreBroken, match="deleted, renamed or replaced"):
        await held.commit([a_run()])


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("lose", [emptied, deleted])
async def test_a_store_whose_data_are_gone_is_not_taken_for_a_new_one(path: Path, lose: Callable[[Path], None]) -> None:
    """B10, C20."""

    await made(path)
    lose(path)

    with pytest.raises(StoreBroken, match=r"remembers that it held store .*delete .*\.lock"):
        await opened(path)

    os.unlink(f"{path}.lock")
    new = await opened(path)
    assert new.lease.fence == 1
    await new.store.close()


async def test_another_store_in_its_place_is_refused(path: Path, tmp_path: Path) -> None:
    await made(path)
    await made(tmp_path / "other.db")
    shutil.copy(tmp_path / "other.db", path)

    with pytest.raises(StoreBroken, match="the file was exchanged"):
        await opened(path)


async def test_an_older_copy_is_refused(path: Path, tmp_path: Path) -> None:
    await made(path)
    shutil.copy(path, tmp_path / "copy.db")
    await made_again(path)
    shutil.copy(tmp_path / "copy.db", path)

    with pytest.raises(StoreBroken, match="commits are missing"):
        await opened(path)


async def made_again(path: Path) -> None:
    held = await opened(path)
    await held.commit([a_run(2)])
    await held.store.close()


@pytest.mark.kill
@pytest.mark.parametrize("batches", [3, 11], ids=["before any checkpoint", "after a checkpoint"])
async def test_a_wal_that_was_deleted_is_noticed(path: Path, batches: int) -> None:
    """B13."""

    with child(WRITER, path, ACTORFLOW_CRASH=f"commit.begin:{batches}") as process:
        process.communicate()
    os.unlink(f"{path}-wal")

    with pytest.raises(StoreBroken, match="its -wal file was deleted"):
        await opened(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"generation": "x", "store_id": 1}'])
async def test_a_lock_file_that_makes_no_sense_is_no_harm(path: Path, content: bytes) -> None:
    await made(path)
    Path(f"{path}.lock").write_bytes(content)

    held = await opened(path)

    assert await held.store.counts() == {"waiting": 1}
    await held.store.close()


@pytest.mark.parametrize("content", [b"not a database!!" * 400, b"short"])
async def test_what_is_no_database_is_refused_untouched(path: Path, content: bytes) -> None:
    """B10."""

    path.write_bytes(content)

    with pytest.raises(StoreBroken, match="no sound SQLite database"):
        await opened(path)

    assert path.read_bytes() == content


@pytest.mark.parametrize("mark", ["create table theirs (x)", "pragma application_id=7"])
async def test_another_applications_database_is_refused_untouched(path: Path, mark: str) -> None:
    raw(path, mark)
    before = path.read_bytes()

    with pytest.raises(StoreBroken, match="another application's"):
        await opened(path)

    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused_untouched(path: Path) -> None:
    """B16."""

    await made(path)
    raw(path, "pragma user_version=99")
    before = path.read_bytes()

    with pytest.raises(StoreTooNew, match="schema 99"):
        await opened(path)

    assert path.read_bytes() == before


async def test_a_migration_that_was_edited_is_refused(path: Path) -> None:
    await made(path)
    raw(path, "update migration set crc = 1")

    with pytest.raises(StoreBroken, match="migration 1 was applied as"):
        await opened(path)


def raw(path: Path, statement: str) -> list[Any]:
    db = sqlite3.connect(path, isolation_level=None)
    rows = db.execute(statement).fetchall()
    db.close()
    return rows


async def test_a_directory_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="directory exists"):
        await opened(tmp_path / "no" / "store.db")


async def test_the_file_says_what_it_is_and_is_sound(path: Path) -> None:
    """I13."""

    await made(path)

    db = sqlite3.connect(path)
    found = [db.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version", "integrity_check")]

    assert found == [schema.APPLICATION_ID, len(schema.MIGRATIONS), "ok"]
    assert db.execute("select outcome from entry_text").fetchall() == [("1",)]
    db.close()


async def test_a_flipped_byte_is_noticed_and_harms_one_run_only(path: Path) -> None:
    """B9, E5, I13."""

    held = await opened(path)
    await held.commit([a_run(1), a_run(2), a_run(3), an_entry(1, outcome=b'"needle"'), an_entry(2)])
    await held.commit([a_message(1, 3, body=b'"haystack"', key="k")])
    await held.store.close()
    path.write_bytes(path.read_bytes().replace(b"needle", b"needlf").replace(b"haystack", b"haystach"))

    held = await opened(path)

    with pytest.raises(Undecodable, match=r"entry 1 .* of run 1 .*checksum"):
        await held.store.load(1)
    with pytest.raises(Undecodable, match="message 1 of run 3"):
        await held.store.message(3, "k")
    assert isinstance((await held.commit([a_message(2, 3, key="k")]))[0], Rejected)
    assert len((await held.loaded(2)).entries) == 1
    assert len(await held.store.events()) == 2
    await held.store.close()


# --- who holds it -----------------------------------------------------------------------------------------------------


async def test_a_store_that_is_held_names_its_holder(path: Path) -> None:
    """R22, C6."""

    with child(HOLDER, path) as holder:
        assert line(holder) == "open"

        with pytest.raises(StoreBusy, match=rf"process {holder.pid} on .* since 1970-01-01 00:00:01 UTC"):
            await opened(path)


@both_backends
async def test_a_killed_holder_is_followed_at_once_by_the_standby(path: Path) -> None:
    """C7."""

    with child(HOLDER, path) as holder:
        assert line(holder) == "open"
        store = SqliteStore(str(path))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_open_as_standby, store)
            await anyio.wait_all_tasks_blocked()
            holder.kill()

    assert len(await store.history(1)) == 1
    await store.close()


async def _open_as_standby(store: SqliteStore) -> None:
    await store.open(now=2.0, standby=True)


async def test_waiting_as_a_standby_can_be_given_up(path: Path) -> None:
    with child(HOLDER, path) as holder:
        assert line(holder) == "open"
        store = SqliteStore(str(path))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_open_as_standby, store)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

        with pytest.raises(StoreBusy):
            await store.open(now=2.0)


async def test_the_lock_file_tells_where_the_holder_is_reached(held: Held, path: Path) -> None:
    assert isinstance(held.store, SqliteStore)

    await held.store.announce(socket="/run/app.sock")

    said = json.loads(Path(f"{path}.lock").read_bytes())
    assert (said["pid"], said["socket"], said["store_id"]) == (os.getpid(), "/run/app.sock", held.lease.store_id)


FORKER = """
from actorflow.errors import StoreStopped
async def main():
    store = SqliteStore(path)
    lease = await store.open(now=1.0)
    if os.fork() == 0:
        try:
            await store.commit([Commit((entry(1, "a"),))], fence=lease.fence)
        except StoreStopped as error:
            print("forked child" in str(error), flush=True)
        sys.stdin.read()
        os._exit(0)
    sys.stdin.read()
anyio.run(main)
"""


async def test_a_forked_child_can_use_neither_the_store_nor_its_lock(path: Path) -> None:
    """C8."""

    with child(FORKER, path) as holder:
        assert line(holder) == "True"
        with pytest.raises(StoreBusy):
            await opened(path)
        holder.kill()
        holder.wait()

        held = await opened(path)  # Though the forked child lives.

        assert await held.commit([a_run()]) == [None]
        await held.store.close()
        assert holder.stdin is not None
        holder.stdin.close()


FORGETFUL = """
async def main():
    store = SqliteStore(path)
    lease = await store.open(now=1.0)
    await store.commit([Commit((entry(1, "a"),))], fence=lease.fence)
    globals()["kept"] = store
anyio.run(main, backend=backend)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_process_that_forgets_to_close_ends_quietly(path: Path, backend: str) -> None:
    """C14."""

    with child(FORGETFUL, path, backend) as process:
        _, errors = process.communicate(timeout=20)

    assert (process.returncode, "Traceback" in errors) == (0, False)
    held = await opened(path)
    assert len(await held.store.history(1)) == 1
    await held.store.close()


# --- crashes ----------------------------------------------------------------------------------------------------------

WRITER = """
async def main():
    store = SqliteStore(path, durability="normal")
    lease = await store.open(now=1.0)
    for batch in range(12):
        runs = range(batch * 500 + 1, batch * 500 + 501)
        commits = [Commit((begun(run), entry(run, "a"), stands(run), entry(run, "b"))) for run in runs]
        await store.commit(commits, fence=lease.fence)
        print(batch, flush=True)
    await store.close()
anyio.run(main, backend=backend)
"""


@pytest.mark.kill
@pytest.mark.parametrize("point", crashpoints.POINTS)
async def test_killed_anywhere_what_was_acknowledged_is_there_and_nothing_is_half_there(path: Path, point: str) -> None:
    """A14, A17."""

    nth = 3 if point.startswith("commit.") else 1
    with child(WRITER, path, ACTORFLOW_CRASH=f"{point}:{nth}") as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    acknowledged = len(said.split())

    held = await opened(path)

    names: dict[int, str] = {}
    for event in await held.store.events(limit=20_000):
        names[event.entry.run] = names.get(event.entry.run, "") + event.entry.name
    assert set(names) >= set(range(1, acknowledged * 500 + 1))
    assert set(names.values()) <= {"ab"}
    assert len(names) in (acknowledged * 500, (acknowledged + 1) * 500)
    assert await held.store.counts() == ({"waiting": len(names)} if names else {})
    await held.store.close()


# --- space, errors, other writers -------------------------------------------------------------------------------------


async def test_one_commit_too_large_for_the_disk_is_refused_and_the_small_ones_pass(path: Path) -> None:
    """B3."""

    held = await opened(path, pages_max=200)
    large = SetView(1, b"x" * 2_000_000)

    answers = await held.commit([a_run()], [a_run(2), large], [a_run(3)], [an_entry(3)], [a_run(4), an_entry(outcome=large.view)])

    assert answers == [None, Rejected("it is too large for the space that is left on the disk"), None, None, answers[1]]
    assert [run.id for run in await held.store.runs(RunQuery())] == [3, 1]
    await held.store.close()


async def test_a_full_disk_writes_nothing_and_goes_on_when_there_is_space(path: Path) -> None:
    """B4."""

    held = await opened(path, pages_max=60)
    entries = [an_entry(n=n, outcome=b"x" * 4_000) for n in range(100)]

    with pytest.raises(StoreUnavailable, match="no space left"):
        await held.commit(*([entry] for entry in entries))

    assert await held.store.events() == []
    assert await held.commit([a_run()]) == [None]
    await held.store.close()
    held = await opened(path)
    assert await held.commit(*([entry] for entry in entries)) == [None] * 100
    await held.store.close()


def raising(code: int) -> Callable[[], object]:
    def action() -> None:
        error = sqlite3.OperationalError("made up")
        error.sqlite_errorcode = code
        raise error

    return action


Arm = Callable[[str, Callable[[], object]], None]


told_apart = pytest.mark.parametrize(
    "writes", [[a_run(2, "k2")], [an_entry()], [SetView(1, b"{}")]], ids=["run", "entry", "no row"]
)
"""What tells a batch that is in from one that is not: the number of a new row, or the counter of those that have none."""


@both_backends
@told_apart
async def test_a_commit_that_raised_for_lack_of_space_may_be_repeated(
    held: Held, armed: Arm, path: Path, monkeypatch: pytest.MonkeyPatch, writes: list[Write]
) -> None:
    await held.commit([a_run(1)])
    before = os.stat(path).st_size
    monkeypatch.setattr(Checkpoints, "passive", lambda *_: None)
    armed("commit.before", raising(sqlite3.SQLITE_FULL))

    with pytest.raises(StoreUnavailable):
        await held.commit(writes)

    crashpoints.disarm()
    assert os.stat(path).st_size == before  # Nothing was copied from the WAL: the writer was not the last to leave it.
    assert [await held.store.get(1), await held.store.get(2), await held.store.events()] == [a_run(1), None, []]
    assert await held.commit(writes) == [None]


async def test_a_commit_that_raised_for_lack_of_space_is_written_without_its_large_ones(held: Held, armed: Arm) -> None:
    times = iter([raising(sqlite3.SQLITE_FULL)])

    def once() -> None:
        for fail in times:
            fail()

    armed("commit.before", once)

    answers = await held.commit([a_run()], [a_run(2, view=b"x" * 200_000)], [a_run(3)])

    assert [type(answer) for answer in answers] == [type(None), Rejected, type(None)]


async def test_a_lost_fence_found_on_the_careful_way_leaves_no_transaction_open(held: Held, path: Path, armed: Arm) -> None:
    await held.commit([a_run(1, "same")])
    begun: list[None] = []

    def steal() -> None:
        begun.append(None)
        raw(path, "update store set fence = fence + 1")

    armed("commit.begin", steal)
    for _ in range(2):
        with pytest.raises(FenceLost):
            await held.commit([a_run(2, "same")])

    assert len(begun) == 2


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC])
@pytest.mark.parametrize("careful", [False, True], ids=["at once", "carefully"])
@told_apart
async def test_a_commit_that_raised_and_is_there_is_a_success(
    held: Held, armed: Arm, code: int, *, careful: bool, writes: list[Write]
) -> None:
    """B6."""

    await held.commit([a_run(1)])
    armed("commit.after", raising(code))

    try:
        answers = await held.commit(writes, *([[a_run(9, "k1")]] if careful else []))
    except StoreError as wrong:
        pytest.fail(f"it is in the file, and was called unwritten: {wrong}")

    assert answers[0] is None
    assert all(isinstance(answer, records.Taken) for answer in answers[1:])

    crashpoints.disarm()
    if code == sqlite3.SQLITE_FULL:
        assert await held.commit([a_run(3)]) == [None]
    else:
        with pytest.raises(StoreBroken):
            await held.commit([a_run(3)])


async def test_a_commit_that_raised_for_the_device_stops_the_store(held: Held, armed: Arm) -> None:
    """B5."""

    armed("commit.before", raising(sqlite3.SQLITE_IOERR_FSYNC))

    with pytest.raises(StoreBroken, match="unknown"):
        await held.commit([a_run()])

    crashpoints.disarm()
    with pytest.raises(StoreBroken):
        await held.commit([a_run()])


@pytest.mark.parametrize("answer", [None, b"1"])
async def test_of_the_messages_taken_those_go_that_nobody_asks_for_again(held: Held, path: Path, answer: bytes | None) -> None:
    """Whatever was guessed of them by their answers."""
    for batch in ([1], [2], [3], [4, 5], [6, 7]):
        keys = {2: "k2", 4: "k4", 6: "k6", 7: "k7"}
        await held.commit([a_message(id, key=keys.get(id), reply_to=1 if id == 3 else None) for id in batch])
        await held.commit([Consume(id, answer) for id in batch])

    left = raw(path, "select id, state, answer from message order by id")

    assert left == [(id, "done", answer) for id in (2, 3, 4, 6, 7)]


async def test_sqlite_makes_no_checkpoint_by_itself(held: Held, path: Path) -> None:
    """B7."""

    before = os.stat(path).st_size

    await held.commit(*([an_entry(n=n, outcome=b"x" * 16_000)] for n in range(500)))

    assert os.stat(path).st_size == before


@pytest.mark.parametrize(("durability", "grows"), [("full", False), ("normal", True)])
async def test_small_batches_that_are_synced_are_soon_written_in_place(
    path: Path, durability: Durability, *, grows: bool
) -> None:
    """What is not synced gains nothing by that, and a checkpoint syncs."""
    held = await opened(path, durability=durability)

    async def wal_bytes_after(batches: int) -> int:
        for _ in range(batches):
            assert await held.commit([an_entry()]) == [None]
        return os.stat(f"{path}-wal").st_size

    first = await wal_bytes_after(BATCHES + 10)
    later = await wal_bytes_after(2 * BATCHES)

    assert (later > first) == grows
    await held.store.close()
    assert raw(path, "select count(*) from entry") == [(3 * BATCHES + 10,)]


async def test_a_checkpoint_that_fails_for_the_device_stops_the_store(held: Held, armed: Arm) -> None:
    """B7."""

    reached = threading.Event()

    def fail() -> None:
        reached.set()
        raising(sqlite3.SQLITE_IOERR_FSYNC)()

    armed("checkpoint.before", fail)
    await held.commit(*([an_entry(n)] for n in range(4_000)))
    await anyio.to_thread.run_sync(reached.wait)

    with pytest.raises(StoreBroken):
        await held.commit([a_run()])


async def test_another_writer_is_waited_for_and_then_named(held: Held, path: Path) -> None:
    """B1."""

    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")

    with pytest.raises(StoreUnavailable, match="another program is writing") as caught:
        await held.commit([a_run()])

    assert "locked" not in str(caught.value)
    other.execute("rollback")
    other.close()
    assert await held.commit([a_run()]) == [None]


async def test_a_fence_raised_behind_its_back_stops_a_holder(held: Held, path: Path) -> None:
    """I8."""

    raw(path, "update store set fence = fence + 1")

    with pytest.raises(FenceLost):
        await held.commit([a_run()])

    assert await held.store.counts() == {}


@both_backends
async def test_a_cancelled_caller_leaves_its_batch_running(held: Held, armed: Arm) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go_on.wait()

    armed("commit.before", hold)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(held.commit, [a_run()])
        await anyio.to_thread.run_sync(reached.wait)
        tasks.cancel_scope.cancel()
    go_on.set()

    assert [type(answer) for answer in await held.commit([a_run(2, "k1")])] == [records.Taken]


@both_backends
@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
async def test_a_cancelled_callers_unknown_commit_stops_the_store(held: Held, armed: Arm, point: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go_on.wait()
        raising(sqlite3.SQLITE_IOERR_FSYNC)()

    armed(point, hold)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(held.commit, [a_run()])
        await anyio.to_thread.run_sync(reached.wait)
        tasks.cancel_scope.cancel()
    crashpoints.disarm()
    go_on.set()

    with pytest.raises(StoreBroken, match="unknown"):
        await held.commit([a_run(2)])


@pytest.mark.parametrize("name", [name for name in SQL if name not in SCANS])
async def test_no_statement_reads_a_whole_table(path: Path, name: str) -> None:
    await made(path)
    db = sqlite3.connect(path)
    named = dict.fromkeys(re.findall(r":(\w+)", SQL[name]))
    lists = dict.fromkeys(("log_only", "seqs", "runs", "addresses"), "[]")
    plan: list[str] = []

    for sql in (SQL[name], alone(SQL[name])[0]):
        values: Any = {**named, **lists} if named else [None] * sql.count("?")
        plan += [row[3] for row in db.execute(f"explain query plan {sql}", values)]

    assert [step for step in plan if re.match(r"SCAN (run|entry|message|cursor|set_aside)\b", step)] == []
    db.close()


def test_a_read_that_takes_too_long_is_cut() -> None:
    """B17."""

    db = sqlite3.connect(":memory:")
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"

    with pytest.raises(sqlite3.OperationalError) as caught:
        reader.within(lambda db: db.execute(endless).fetchall(), seconds=0.0)(db)

    assert kind_of(caught.value) is Trouble.SLOW
    db.close()


async def test_a_store_that_failed_to_open_can_be_opened_when_the_cause_is_gone(path: Path) -> None:
    path.write_bytes(b"not a database!!" * 400)
    store = SqliteStore(str(path))
    with pytest.raises(StoreError):
        await store.open(now=1.0)
    path.unlink()

    assert (await store.open(now=1.0)).fence == 1

    await store.close()


def test_none_and_bytes_are_bound_as_they_are_and_an_adapter_of_the_service_stays(path: Path) -> None:
    code = """
import sqlite3, sys, anyio
from actorflow.stores.sqlite import SqliteStore

sqlite3.register_adapter(bytes, lambda value: value.upper())

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open(now=0.0)
    await store.close()

anyio.run(main)
print(sqlite3.connect(":memory:").execute("select ?, ? is null, typeof(?)", (b"abc", None, b"")).fetchone())
"""
    with child(code, path) as process:
        assert line(process) == "(b'ABC', 1, 'blob')"
