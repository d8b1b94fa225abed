"""A disk that fails, is full, slow or read-only, and files that were damaged: nobody is told what is not so.

Failures are made by a VFS under the real store (see `fault_vfs`). By default some of all are drawn, by a printed seed;
`ACTORFLOW_DISKFAULTS=all python -m pytest tests/test_disk_faults.py` tries each operation of a small load.
"""

# What is tested is what happens to files, and a test may block.

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from attrs import define, evolve, field, frozen

from actorflow import Runtime, StoreUnavailable, Workflow, step
from actorflow.errors import StoreBroken, StoreError, Undecodable
from actorflow.records import Rejected, Run, RunQuery, SetView, Write
from actorflow.stores import Durability, open_store, schema, sqlite
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.clock import Backend
from actorflow.testing.invariants import rows_of, violations
from actorflow.testing.samples import Held, a_run, an_entry
from tests.fault_vfs import Disk, Event, Fault, Kind, folder_in_memory, image, rebuild, recording, why_not
from tests.harness import both

CASES = os.environ.get("ACTORFLOW_DISKFAULTS", "40")
"""How many faults are tried, or "all"."""

on_a_disk = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be done")


@pytest.fixture
def seed() -> int:
    drawn = random.randrange(1 << 32)
    print(f"seed {drawn}")
    return drawn


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with folder_in_memory(tmp_path) as folder:
        yield folder


@asynccontextmanager
async def opened(path: Path, *, now: float = 1.0) -> AsyncIterator[Held]:
    store = SqliteStore(str(path))
    try:
        yield Held(store, await store.open(now=now))
    finally:
        await store.close()


# --- any operation fails --------------------------------------------------------------------------------------------------

FAILURES: tuple[tuple[Kind, int], ...] = (
    ("write", sqlite3.SQLITE_IOERR_WRITE),
    ("write", sqlite3.SQLITE_FULL),
    ("write", sqlite3.SQLITE_READONLY),
    ("sync", sqlite3.SQLITE_IOERR_FSYNC),
    ("truncate", sqlite3.SQLITE_IOERR_TRUNCATE),
    ("read", sqlite3.SQLITE_IOERR_READ),
    ("delete", sqlite3.SQLITE_IOERR_DELETE),
)
LASTING: frozenset[int] = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
"""What a store outlives: it goes on when there is space, or the file may be written to."""


def batches() -> list[list[Sequence[Write]]]:
    """Commits that can be told apart, each of two rows; one is large."""
    made: list[list[Sequence[Write]]] = [
        [(a_run(run), an_entry(run)) for run in range(10 * batch + 1, 10 * batch + 4)] for batch in range(1, 8)
    ]
    made[4].append((a_run(59), SetView(59, b"x" * 200_000), an_entry(59)))
    return made


@define
class Told:
    """What the client of a store was told of each commit, by the number of its run."""

    saved: set[int] = field(factory=set[int])
    refused: set[int] = field(factory=set[int])  #: "nothing was written"
    unknown: list[set[int]] = field(factory=list[set[int]])  #: batch by batch
    broken: bool = False


async def told_by(path: Path, disk: Disk) -> list[Told]:
    """One life of a store over a disk that may fail: what was told when a commit had failed (marked so), and in the end."""
    told, moments = Told(), list[Told]()
    try:
        async with opened(path) as held:
            for number, batch in enumerate(batches()):
                calm = await _commit(held, batch, told)
                if not calm:
                    disk.mark("failed", len(moments))
                    moments.append(evolve(told, saved=set(told.saved), refused=set(told.refused), unknown=list(told.unknown)))
                if number in (2, 4):
                    await held.store.tidy()
                try:
                    await held.store.events()
                except StoreBroken:
                    told.broken = True
    except StoreError:
        pass  # It could not be opened.
    return [*moments, told]


async def _commit(held: Held, batch: list[Sequence[Write]], told: Told) -> bool:
    runs = [write.id for commit in batch for write in commit if isinstance(write, Run)]
    try:
        answers = await held.commit(*batch)
    except StoreUnavailable:
        assert not told.broken, "a broken store goes on"
        told.refused.update(runs)
    except StoreBroken:
        if told.broken:
            told.refused.update(runs)
        else:
            told.unknown.append(set(runs))
        told.broken = True
    else:
        assert not told.broken, "a broken store goes on"
        for run, answer in zip(runs, answers, strict=True):
            assert answer is None or isinstance(answer, Rejected)
            (told.saved if answer is None else told.refused).add(run)
        return True
    return False


def there(path: Path) -> set[int]:
    """The runs in a file, each with its entry; it is sound."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        if not db.execute("select count(*) from sqlite_master").fetchone()[0]:
            return set()
        runs = {run for (run,) in db.execute("select id from run")}
        assert runs == {run for (run,) in db.execute("select run from entry")}
    return runs


def compare(told: Told, found: set[int]) -> None:
    lost, came_back = told.saved - found, told.refused & found
    assert not lost, f"acknowledged and gone: {lost}"
    assert not came_back, f"refused and there: {came_back}"
    for batch in told.unknown:
        assert batch & found in (set(), batch), f"half of a batch is there: {batch & found} of {batch}"
    assert found <= told.saved.union(*told.unknown)


@frozen
class Case:
    kind: Kind
    code: int
    at: int
    times: float

    def fault(self) -> Fault:
        return Fault(frozenset({self.kind}), self.at, self.code, times=self.times)


async def cases(folder: Path) -> list[Case]:
    """Every operation of the load, failing in every way, once and from then on."""
    disk = Disk(watched=str(folder))
    counts: dict[str, int] = {}
    disk.before = lambda event: counts.update({event.kind: counts.get(event.kind, 0) + 1})
    with recording(disk):
        [told] = await told_by(folder / "calm.db", disk)
    assert told.saved == there(folder / "calm.db")
    return [
        Case(kind, code, at, times) for kind, code in FAILURES for at in range(1, counts[kind] + 1) for times in (1, float("inf"))
    ]


def drawn(known: list[Case], number: int, chance: random.Random) -> list[Case]:
    """As many of each kind of failure: there are a hundred writes to a sync."""
    few = []
    for kind, code in FAILURES:
        alike = [case for case in known if (case.kind, case.code) == (kind, code)]
        few += chance.sample(alike, min(len(alike), max(1, number // len(FAILURES))))
    return few


@on_a_disk
@both
def test_whatever_fails_nobody_is_told_that_it_is_saved_if_it_is_not_or_that_it_is_not_if_it_is(
    backend: Backend, memory: Path, seed: int
) -> None:
    """B3, B4, B5, B6, B7, B15: also after SIGKILL and after a power cut behind the fault; and the next holder goes on."""

    async def check() -> None:
        chance = random.Random(seed)
        known = await cases(memory)
        few = known if CASES == "all" else drawn(known, int(CASES) // 2, chance)
        hit = broken = 0
        for number, case in enumerate(few):
            folder = memory / str(number)
            folder.mkdir()
            try:
                fault, told = await one(case, folder, chance)
                hit += fault.hit > 0
                broken += told.broken
            except Exception as error:
                raise AssertionError(f"seed {seed}, {case}: {error!r}") from error
            shutil.rmtree(folder)
        print(f"{hit} faults of {len(known)}, {broken} broke the store")
        assert hit > len(few) * 0.9  # Threads decide how often a page is read: not every last operation comes to pass again.

    async def one(case: Case, folder: Path, chance: random.Random) -> tuple[Fault, Told]:
        disk, path = Disk(watched=str(folder)), folder / "store.db"
        fault = case.fault()
        disk.faults.append(fault)
        with recording(disk):
            *moments, told = await told_by(path, disk)
        if case.code in LASTING:
            assert not told.broken
        failed = [at for at, event in enumerate(disk.events, 1) if event.kind == "mark"]
        for number, (at, moment) in enumerate(zip(failed[:2], moments, strict=False)):
            for survival in ("kept", "lost"):
                there_then = folder / f"{number}-{survival}"
                rebuild(image(disk.events[:at], survival, chance), there_then)
                compare(moment, there(there_then / "store.db"))
        async with opened(path, now=2.0) as held:
            assert violations(await rows_of(held.store)) == []
            compare(told, {run.id for run in await held.store.runs(RunQuery(limit=1_000))})
            assert await held.commit([a_run(999), an_entry(999)]) == [None]
        assert there(path) >= told.saved | {999}
        return fault, told

    anyio.run(check, backend=backend)


# --- a disk that is full, slow, or not synced -----------------------------------------------------------------------------


class Job(Workflow[int]):
    """Three steps that are counted."""

    async def run(self) -> int:
        return sum([await counted(at) for at in range(3)])


_counts: dict[int, int] = {}


@step
async def counted(at: int) -> int:
    _counts[at] = _counts.get(at, 0) + 1
    return at


@on_a_disk
@both
def test_a_service_on_a_full_disk_refuses_its_clients_and_goes_on_by_itself_when_there_is_space(
    backend: Backend, memory: Path
) -> None:
    """B3, B4: the run that was under way goes on too, and no step of it runs again."""
    _counts.clear()
    full = Fault(frozenset({"write"}), 1, sqlite3.SQLITE_FULL, times=float("inf"))

    async def check() -> None:
        disk = Disk(watched=str(memory))
        with recording(disk):
            async with Runtime(f"sqlite:///{memory}/jobs.db", actors=[Job]) as runtime:
                first = await runtime.start(Job(), key="first")
                disk.faults.append(full)
                with pytest.raises(StoreUnavailable, match="no space left"):
                    await runtime.start(Job(), key="second")
                assert full.hit
                disk.faults.clear()
                assert await first.result() == 3
                assert _counts == dict.fromkeys(range(3), 1)
                assert await (await runtime.start(Job(), key="second")).result() == 3
                assert _counts == dict.fromkeys(range(3), 2)

    with_time(check, backend)


@on_a_disk
@pytest.mark.anyio
async def test_on_a_full_disk_the_space_of_the_wal_is_used_again(memory: Path) -> None:
    """B4: whoever tries again needs nobody to make room while there is some in the WAL."""
    disk = Disk(watched=str(memory))
    with recording(disk):
        async with opened(memory / "store.db") as held:
            full = Fault(frozenset({"write"}), 1, sqlite3.SQLITE_FULL, "-wal", float("inf"), beyond=200_000)
            disk.faults.append(full)
            refused = 0
            for number in range(1, 61):
                while True:
                    try:
                        assert await held.commit([a_run(number), an_entry(number)]) == [None]
                    except StoreUnavailable:
                        refused += 1
                        assert refused < 30
                    else:
                        break
            assert full.hit

    assert there(memory / "store.db") == set(range(1, 61))


@on_a_disk
@both
def test_while_a_sync_takes_its_time_the_loop_goes_on(backend: Backend, memory: Path) -> None:
    """B18: a thousand other things are done until the disk has done one."""
    stuck, go_on = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        if event.kind == "sync":
            stuck.set()
            go_on.wait()

    async def start(runtime: Runtime) -> None:
        await runtime.start(Job(), key="j")

    async def check() -> None:
        disk = Disk(watched=str(memory))
        with recording(disk):
            async with Runtime(f"sqlite:///{memory}/jobs.db", actors=[Job]) as runtime, anyio.create_task_group() as tasks:
                disk.before = slow
                tasks.start_soon(start, runtime)
                try:
                    assert await anyio.to_thread.run_sync(stuck.wait, 20)
                    for _ in range(1_000):
                        await anyio.lowlevel.checkpoint()
                    assert await runtime.counts() == {}  # Readers are not kept waiting either.
                finally:
                    go_on.set()

    with_time(check, backend)


@pytest.mark.anyio
async def test_every_transaction_that_may_write_takes_the_write_lock_as_it_begins(tmp_path: Path) -> None:
    """B2: one that begins by reading cannot wait for the lock later (BUSY_SNAPSHOT). Readers cannot write at all."""
    folder = Path(sqlite.__file__).parent
    sources = [*folder.glob("*.py"), *folder.glob("*.sql"), *folder.glob("migrations/*.sql")]

    plain = {
        source.name for source in sources if re.search(r"\"begin\"|begin deferred|^\s*begin;", source.read_text(), re.MULTILINE)
    }

    assert plain == {"reader.py"}
    async with opened(tmp_path / "store.db") as held:
        assert isinstance(held.store, SqliteStore)
        for bridge in (held.store._open().reader, held.store._open().lister):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                await bridge.call(lambda db: db.execute("update store set fence = fence + 1"))


@on_a_disk
@both
def test_nothing_is_written_or_synced_on_the_thread_of_the_loop(backend: Backend, memory: Path) -> None:
    """R18."""
    threads: dict[int, set[str]] = {}
    disk = Disk(watched=str(memory))
    disk.before = lambda event: threads.setdefault(threading.get_ident(), set()).add(event.kind)

    async def check() -> None:
        with recording(disk):
            async with Runtime(f"sqlite:///{memory}/jobs.db", actors=[Job]) as runtime:
                assert await (await runtime.start(Job(), key="j")).result() == 3
                await runtime.runs()

    with_time(check, backend)

    assert threading.get_ident() not in threads
    assert set().union(*threads.values()) >= {"read", "write", "sync"}


@on_a_disk
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_the_disk_is_synced_before_each_acknowledgement_or_not_as_was_asked(durability: Durability, memory: Path) -> None:
    """R10."""
    disk = Disk(watched=str(memory))

    async def check() -> None:
        with recording(disk):
            store = SqliteStore(str(memory / "store.db"), durability=durability)
            held = Held(store, await store.open(now=1.0))
            for number in range(1, 6):
                disk.events.clear()
                await held.commit([a_run(number)])
                last = disk.events[-1]
                assert ((last.kind, last.path[-4:]) == ("sync", "-wal")) == (durability == "full")
            await store.close()

    anyio.run(check)


@pytest.mark.parametrize("durability", ["off", "WAL", "FULL", "", 2, None])
def test_a_durability_that_is_unknown_is_refused(durability: Durability, tmp_path: Path) -> None:
    """R10."""
    with pytest.raises(ValueError, match='durability is "full" or "normal"'):
        open_store(f"sqlite:///{tmp_path}/store.db", durability=durability)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pragma", "instead"), [("journal_mode", "memory"), ("synchronous", "nonsense"), ("wal_autocheckpoint", "7")]
)
async def test_a_pragma_that_sqlite_did_not_take_keeps_the_store_shut(
    pragma: str, instead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10, B20: it is read back, as SQLite ignores what it cannot do without a word."""
    set_pragma = schema._set

    def mistaken(db: sqlite3.Connection, path: str, name: str, value: str, expected: object) -> None:
        set_pragma(db, path, name, instead if name == pragma else value, expected)

    monkeypatch.setattr(schema, "_set", mistaken)

    with pytest.raises(StoreUnavailable, match=f"SQLite did not take {pragma}"):
        async with opened(tmp_path / "store.db"):
            pass


def with_time(check: Callable[[], Awaitable[None]], backend: Backend) -> None:
    async def bounded() -> None:
        with anyio.fail_after(60):
            await check()

    anyio.run(bounded, backend=backend)


# --- files that were damaged while nobody held them -----------------------------------------------------------------------


async def made(path: Path, *, batches: int = 8) -> None:
    """A store as a process that was killed leaves it: a database, and a WAL with batches that are not in it yet."""
    folder = path.parent / "made"
    folder.mkdir()
    disk = Disk(watched=str(folder))
    with recording(disk):
        async with opened(folder / path.name) as held:
            for number in range(1, batches + 1):
                await held.commit([a_run(number, input=b"i" * 2_000), an_entry(number)])
                if number == batches // 2:
                    await held.store.tidy()
            left = {name: (folder / name).read_bytes() for name in (f"{path.name}-wal", f"{path.name}.lock")}
            left |= {path.name: image(disk.events, "kept", random.Random())[str(folder / path.name)]}
    for name, data in left.items():
        (path.parent / name).write_bytes(data)


@on_a_disk
@pytest.mark.anyio
async def test_a_wal_that_was_cut_short_is_refused_or_holds_an_earlier_state_never_half_of_one(
    anyio_backend: str, tmp_path: Path
) -> None:
    """B13: what is cut to before the last claim or checkpoint is noticed; of what came after, the end is missing."""
    whole = tmp_path / "whole"
    whole.mkdir()
    await made(whole / "store.db")
    size = (whole / "store.db-wal").stat().st_size
    seen = set()

    for cut in range(0, size, size // 24):
        folder = tmp_path / str(cut)
        shutil.copytree(whole, folder)
        os.truncate(folder / "store.db-wal", cut)
        try:
            async with opened(folder / "store.db", now=2.0):
                pass
        except StoreBroken:
            seen.add("refused")
        else:
            found = there(folder / "store.db")
            assert found == set(range(1, len(found) + 1))
            assert len(found) >= 4
            seen.add("earlier")

    assert seen == {"refused", "earlier"}


@on_a_disk
@pytest.mark.anyio
async def test_a_database_that_was_cut_short_is_never_taken_for_a_sound_one(anyio_backend: str, tmp_path: Path) -> None:
    """B8, B10: it is refused, at the latest when what is missing is read; and not made anew."""
    whole = tmp_path / "whole.db"
    async with opened(whole) as held:
        for number in range(1, 9):
            await held.commit([a_run(number, input=b"i" * 2_000), an_entry(number)])
    size = whole.stat().st_size

    for pages in range(1, size // 4096):
        path = tmp_path / f"{pages}.db"
        shutil.copy(whole, path)
        os.truncate(path, pages * 4096)

        with pytest.raises(StoreBroken):
            await used(path)


async def used(path: Path) -> None:
    async with opened(path, now=2.0) as held:
        await rows_of(held.store)
        await held.commit([a_run(99), an_entry(99)])


@on_a_disk
@pytest.mark.anyio
async def test_a_page_that_was_damaged_stops_the_store_or_harms_one_run_only(tmp_path: Path, seed: int) -> None:
    """B8, B9: nobody is handed what was not written, and the file is not made anew."""
    whole = tmp_path / "whole.db"
    async with opened(whole) as held:
        for number in range(1, 31):
            await held.commit([a_run(number, input=b"i" * 900), an_entry(number, outcome=b"o" * 900)])
    chance, came = random.Random(seed), list[str]()

    for page in range(1, whole.stat().st_size // 4096):
        data, begin = bytearray(whole.read_bytes()), page * 4096
        begin += 0 if page % 3 == 0 else chance.randrange(4096 - 64)  # At its header, or anywhere.
        data[begin : begin + 64] = chance.randbytes(64)
        path = tmp_path / f"{page}.db"
        path.write_bytes(data)

        came.append(await read_all(path))

    print(came)
    assert "StoreBroken" in came


@pytest.mark.anyio
async def test_a_text_that_is_none_stops_the_store(tmp_path: Path) -> None:
    """B8: it was damaged, as nobody can have written it."""
    path = tmp_path / "store.db"
    async with opened(path) as held:
        await held.commit([a_run(1), an_entry(1, name="charge")])
    sound = path.read_bytes()

    path.write_bytes(sound.replace(b"charge", b"ch\xff\xffge"))
    async with opened(path, now=2.0) as held:
        with pytest.raises(StoreBroken, match="no sound SQLite database"):
            await held.store.load(1)
        with pytest.raises(StoreBroken):
            await held.commit([a_run(2)])

    path.write_bytes(sound.replace(b"CREATE TABLE run (", b"CREATE \xff\xff\xff\xffE run ("))
    with pytest.raises(StoreBroken, match="no sound SQLite database"):
        await open_and_close(path)


async def open_and_close(path: Path) -> None:
    async with opened(path, now=2.0):
        pass


async def read_all(path: Path) -> str:
    """What becomes of reading all runs: the name of the error, or "" if each is what was written or missing."""
    try:
        async with opened(path, now=2.0) as held:
            for run in range(1, 31):
                loaded = await held.store.load(run)
                if loaded is not None:
                    assert loaded.run.input == b"i" * 900
                    assert all(entry.outcome == b"o" * 900 for _, entry in loaded.entries)
            return ""
    except (StoreBroken, Undecodable) as error:
        return type(error).__name__
