"""The power goes at every write: what was acknowledged is there, and nothing is half there.

A load is recorded once, by a VFS under the real store (see `fault_vfs`). Then the files are made as a power cut after each
operation could have left them, and the real store opens them. By default some of these images are drawn, by a printed seed;
`ACTORFLOW_POWERCUTS=all python -m pytest tests/test_power_cuts.py` tries every moment with every kind of loss (minutes).
"""

# What is tested is what happens to files, and a test may ask for many things.
# ruff: noqa: PLR0917

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from actorflow import Limits, Message, Runtime, Workflow, gather, step
from actorflow.errors import StoreBroken
from actorflow.records import Bury, Commit, Consume, Lease, Refusal, SetCursor, SetEnd, SetRound, SetView, Wake, Write
from actorflow.stores import Durability
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.clock import Backend
from actorflow.testing.invariants import rows_of, violations
from actorflow.testing.samples import Held, a_message, a_run, an_entry, waiting
from tests.fault_vfs import SURVIVALS, Disk, Event, Fault, Survival, folder_in_memory, image, rebuild, recording, why_not
from tests.harness import Log, Note, Read, both

IMAGES = os.environ.get("ACTORFLOW_POWERCUTS", "40")
"""How many images a test looks at, or "all"; what needs a recording for each looks at some of that only."""

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be done")

Moment = tuple[int, Survival]


@pytest.fixture
def seed() -> int:
    drawn = random.randrange(1 << 32)
    print(f"seed {drawn}")
    return drawn


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with folder_in_memory(tmp_path) as folder:
        yield folder


def drawn(disk: Disk, chance: random.Random, *, one_in: int = 1) -> list[Moment]:
    """The moments and losses to look at."""
    moments = list(product(disk.moments(), SURVIVALS))
    number = len(moments) if IMAGES == "all" else min(len(moments), int(IMAGES))
    return sorted(chance.sample(moments, max(1, number // one_in)))


# --- what is recorded -----------------------------------------------------------------------------------------------------


def content(db: sqlite3.Connection) -> str:
    """All rows that commits make, as a short text that is equal only if they are; "" if there is none."""
    tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table' order by name")]
    rows = {name: db.execute(f"select * from {name}").fetchall() for name in tables if name not in ("store", "migration")}
    held = {name: of_table for name, of_table in rows.items() if of_table}
    shape = " ".join(f"{name}:{len(of_table)}" for name, of_table in held.items())
    return f"{shape} {hashlib.sha256(repr(held).encode()).hexdigest()[:12]}" if held else ""


@define
class Take:
    """What a load did to the disk, and what the tables held after each of its transactions."""

    disk: Disk = field(factory=Disk)
    contents: dict[int, str] = field(factory=lambda: {0: ""}, repr=False)
    durability: Durability = "full"
    begun: int = 0

    def begin(self) -> None:
        """A transaction may reach the disk from here on."""
        self.begun += 1
        self.disk.mark("begun", self.begun)

    def acknowledge(self, held: str) -> None:
        """It is acknowledged here."""
        self.contents[self.begun] = held
        self.disk.mark("acknowledged", self.begun)

    def allowed(self, at: int) -> list[str]:
        """What a power cut after *at* events may leave: the acknowledged, and of what was under way all or nothing."""
        least = max(self.disk.marks("acknowledged" if self.durability == "full" else "opened", at), default=0)
        most = max(self.disk.marks("begun", at), default=0)
        return [self.contents[number] for number in range(least, most + 1)]


class Watched(SqliteStore):
    """Says when a batch is begun and when it is acknowledged, and what the tables held then."""

    def __init__(self, path: Path, take: Take) -> None:
        super().__init__(str(path), durability=take.durability)
        self.take = take

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        self.take.begin()
        lease = await super().open(now=now, standby=standby)
        self.take.disk.mark("opened", self.take.begun)
        self.take.disk.mark("fence", lease.fence)
        self.take.acknowledge(await self._list(content))
        return lease

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        self.take.begin()
        if self._held is not None and self.take.begun % 3 == 0:
            self._held.checkpoint_due = True  # A passive one follows this batch, beside whatever comes next.
        answers = await super().commit(batch, fence=fence)
        self.take.acknowledge(await self._list(content))
        return answers


@asynccontextmanager
async def holder(path: Path, take: Take, *, now: float) -> AsyncIterator[Held]:
    """The store's next life."""
    store = Watched(path, take)
    try:
        yield Held(store, await store.open(now=now))
    finally:
        await store.close()


@contextmanager
def python_recorded(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lock file is written beside SQLite, and never synced."""
    write, truncate = os.pwrite, os.ftruncate

    def path_of(file: int) -> str:
        return str(Path(f"/proc/self/fd/{file}").readlink())

    def pwrite(file: int, data: bytes, offset: int) -> int:
        path = path_of(file)
        disk.attempt(Event("write", path, offset, bytes(data), again=path.endswith("-wal")))
        return write(file, data, offset)

    def ftruncate(file: int, size: int) -> None:
        disk.attempt(Event("truncate", path_of(file), size))
        truncate(file, size)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(os, "ftruncate", ftruncate)
        yield


async def two_lives(path: Path, take: Take) -> None:
    """Two holders, one after the other: every kind of write, refusals, checkpoints of both kinds."""
    async with holder(path, take, now=1.0) as held:
        await held.commit([a_run(1, status="running", wake_at=0.0), an_entry(1)], [a_run(2), an_entry(2, outcome=b"x" * 9_000)])
        await held.commit([a_message(1, 1, key="m1"), Wake(1, 3.0)], [a_message(2, 2, key="m2")])
        taken, duplicate = [a_run(9, "k1")], [a_message(3, 1, key="m1")]
        await held.commit(taken, [a_run(3, status="running", wake_at=0.0), an_entry(3)], duplicate)
        await held.commit([Consume(1, b"1"), an_entry(1, "ship"), waiting(1)], [SetView(2, b"v" * 5_000)])
        await held.store.tidy()
        await held.commit([SetCursor(3, 0, "", 0, b"[1]"), SetRound(3, 1, b"{}")], [an_entry(3, "again", round=1)])
        completed = waiting(2)._replace(status="completed")
        ended: list[Write] = [an_entry(2, kind="completed"), SetEnd(2, outcome=b"1", ended_at=4.0), completed, Bury(2)]
        await held.commit(ended, *([a_run(id, input=b"y" * 3_000)] for id in range(10, 20)))
        await held.commit(*([an_entry(id, outcome=b"z" * 700)] for id in range(10, 20)))

    async with holder(path, take, now=5.0) as held:
        await held.commit([a_run(20, status="running", wake_at=0.0), an_entry(20)])
        await held.commit([SetCursor(3, 0, "", 0, None), an_entry(3, "on", round=1)], [an_entry(1, "late")])
        await held.commit(*([an_entry(id, "more", outcome=b"w" * 2_000)] for id in range(10, 20)))


async def recorded(
    load: Callable[[Path, Take], Awaitable[None]], folder: Path, monkeypatch: pytest.MonkeyPatch, take: Take | None = None
) -> Take:
    take = take or Take()
    take.disk.watched = str(folder)
    with recording(take.disk), python_recorded(take.disk, monkeypatch):
        await load(folder / "store.db", take)
    return take


# --- what is looked at ----------------------------------------------------------------------------------------------------


async def survive(take: Take, moment: Moment, chance: random.Random, folder: Path) -> dict[str, bytes]:
    """Cut the power at *moment*, open what is left, and see that it is what it must be. Hands back what was left."""
    at, survival = moment
    left = image(take.disk.events[:at], survival, chance)
    rebuild(left, folder / "look")
    found, sound = looked_at(folder / "look" / "store.db")
    allowed = take.allowed(at)
    assert sound == "ok"
    assert found in allowed

    rebuild(left, folder / "open")
    store = SqliteStore(str(folder / "open" / "store.db"), durability=take.durability)
    lease = await store.open(now=9.0)
    try:
        latest = max(take.disk.marks("fence", at), default=0)
        assert lease.fence > latest
        assert violations(await rows_of(store)) == []
        assert await Held(store, lease).commit([a_run(99, "after")]) == [None]
    finally:
        await store.close()
    assert looked_at(folder / "open" / "store.db")[1] == "ok"
    for name in ("look", "open"):
        shutil.rmtree(folder / name)
    return left


def looked_at(path: Path) -> tuple[str, str]:
    """What a plain SQLite finds there, and whether it is sound."""
    with closing(sqlite3.connect(path)) as db:
        return content(db), str(db.execute("pragma integrity_check").fetchone()[0])


def told(take: Take, moment: Moment, seed: int) -> str:
    at, survival = moment
    shown = take.disk.events[at - 1] if at else None
    what = f"{shown.kind} {Path(shown.path).name} at {shown.offset}" if shown else "nothing"
    return f"seed {seed}: power cut after {what} ({at} of {len(take.disk.events)}), unsynced writes {survival}"


async def survive_all(take: Take, moments: Sequence[Moment], seed: int, folder: Path) -> None:
    chance = random.Random(seed)
    for moment in moments:
        await survive_told(take, moment, seed, chance, folder)


async def survive_told(take: Take, moment: Moment, seed: int, chance: random.Random, folder: Path) -> dict[str, bytes]:
    try:
        return await survive(take, moment, chance, folder)
    except Exception as error:
        raise AssertionError(f"{told(take, moment, seed)}: {type(error).__name__}: {error}") from error


# --- the store ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_no_power_cut_loses_what_was_acknowledged_or_leaves_half_of_a_batch(
    backend: Backend, durability: Durability, tmp_path: Path, memory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A14, A16, A17, A21: a migration, batches, both kinds of checkpoint, closing and opening again. "normal" may lose batches
    since the opening, the last first."""

    async def check() -> None:
        take = await recorded(two_lives, tmp_path, monkeypatch, Take(durability=durability))
        assert len(take.contents) == 13
        assert len(set(take.contents.values())) == 12  # The first claim of an empty store adds no row.
        moments = drawn(take.disk, random.Random(seed))
        await survive_all(take, moments, seed, memory)
        print(f"{len(moments)} images of {len(take.disk.moments()) * len(SURVIVALS)}, {durability}, {backend}")

    anyio.run(check, backend=backend)


@both
def test_a_store_whose_making_was_cut_short_is_made_by_the_next_holder(
    backend: Backend, tmp_path: Path, memory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A16: before it has a WAL, too, when a rollback journal is left that no reader can apply."""

    async def check() -> None:
        take = await recorded(two_lives, tmp_path, monkeypatch)
        without_wal = next(at for at, event in enumerate(take.disk.events) if event.path.endswith("-wal"))
        assert without_wal > 6
        moments = [(at, survival) for at in range(without_wal + 1) for survival in SURVIVALS]
        await survive_all(take, moments, seed, memory)

    anyio.run(check, backend=backend)


def test_a_power_cut_in_the_recovery_from_a_power_cut_does_no_more_harm(
    tmp_path: Path, memory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A15, A16, A21."""

    async def recovers(path: Path, take: Take) -> None:
        async with holder(path, take, now=8.0) as held:
            await held.commit([a_run(50, "recovered"), an_entry(50)])

    async def check() -> None:
        chance = random.Random(seed)
        first = await recorded(two_lives, tmp_path, monkeypatch)
        for number, moment in enumerate(drawn(first.disk, chance, one_in=8)):
            left = await survive_told(first, moment, seed, chance, memory)
            folder = tmp_path / str(number)
            again = as_left(left, folder)
            prepared = len(again.disk.events)
            await recorded(recovers, folder, monkeypatch, again)
            later = [(at, survival) for at, survival in drawn(again.disk, chance, one_in=8) if at >= prepared]
            await survive_all(again, later, seed, memory)

    anyio.run(check)


def as_left(files: dict[str, bytes], folder: Path) -> Take:
    """A disk on which these files are, and nothing is under way."""
    rebuild(files, folder)
    rebuild(files, folder / "look")
    take = Take(contents={0: looked_at(folder / "look" / "store.db")[0]})
    for path, data in files.items():
        there = str(folder / Path(path).name)
        take.disk.events += [Event("write", there, 0, data), Event("sync", there)]
    return take


@pytest.mark.parametrize("times", [1, math.inf], ids=["once", "until the next start"])
@pytest.mark.parametrize("suffix", ["-wal", ".db"])
def test_a_sync_that_failed_costs_nothing_that_was_acknowledged_before_or_after_it(
    suffix: str, times: float, tmp_path: Path, memory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B6, B7, A21: the system takes the pages that it could not write for written, so that they are read until the power goes."""

    async def stopped(path: Path, take: Take) -> None:
        with contextlib.suppress(StoreBroken):
            await two_lives(path, take)

    async def goes_on(path: Path, take: Take) -> None:
        async with holder(path, take, now=7.0) as held:
            for number in range(60, 63):
                await held.commit([a_run(number), an_entry(number)])

    async def check() -> None:
        chance, hit = random.Random(seed), 0
        calm = await recorded(two_lives, made(tmp_path / "calm"), monkeypatch)
        syncs = sum(event.kind == "sync" and event.path.endswith(suffix) for event in calm.disk.events)
        for nth in range(1, syncs + 1) if IMAGES == "all" else chance.sample(range(1, syncs + 1), 4):
            fault = Fault(frozenset({"sync"}), nth, sqlite3.SQLITE_IOERR_FSYNC, suffix, times)
            folder = made(tmp_path / str(nth))
            take = await recorded(stopped, folder, monkeypatch, Take(Disk(faults=[fault]), dict(calm.contents)))
            failed = next((at for at, event in enumerate(take.disk.events, 1) if event.failed), None)
            if failed is None:
                continue  # Checkpoints go as far as readers let them: this time there were fewer.
            hit += 1
            take.disk.faults.clear()
            await recorded(goes_on, folder, monkeypatch, take)
            later = [moment for moment in drawn(take.disk, chance, one_in=6) if moment[0] >= failed]
            await survive_all(take, later, seed, memory)
        assert hit

    anyio.run(check)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# --- a runtime ------------------------------------------------------------------------------------------------------------

STEPS, JOBS, NOTES = 4, 3, 3


class Go(Message[None], kind="power-go"):
    by: int


@define
class Stage:
    """Where steps say what they do."""

    take: Take = field(factory=Take)


_stage = Stage()


@step
async def perform(job: int, at: int) -> int:
    _stage.take.disk.mark(f"step of {job}", at)
    return at


class Job(Workflow[list[int]]):
    """Steps one after the other, a message between, a few at a time at the end."""

    number: int

    async def run(self) -> list[int]:
        done = [await perform(self.number, at) for at in range(STEPS)]
        done.append((await self.receive(Go)).by)
        await self.sleep("1ms")
        done += [await perform(self.number, STEPS)]
        return [*done, *await gather(*(perform(self.number, 100 + branch) for branch in range(2)))]


async def serve(path: Path, take: Take, *, acknowledged: Sequence[int] = ()) -> tuple[list[Any], list[int]]:
    """What clients do, but for what was *acknowledged* to them; and what comes of it."""
    _stage.take = take
    calls = [*(("start", job, 0) for job in range(JOBS)), *(("go", job, 0) for job in range(JOBS))]
    calls += [("note", 0, number) for number in range(NOTES)]
    with anyio.fail_after(60):
        async with Runtime(store=Watched(path, take), actors=[Job, Log], limits=Limits(crashes_max=1_000)) as runtime:
            log = runtime.at(Log, "l")
            for number, (what, job, note) in enumerate(calls):
                if number in acknowledged:
                    continue
                match what:
                    case "start":
                        await runtime.start(Job(job), key=str(job))
                    case "go":
                        await runtime.run(Job, str(job)).tell(Go(job), key="go")
                    case _:
                        await log.tell(Note(note), key=str(note))
                take.disk.mark("told", number)
            results = [await runtime.run(Job, str(job)).result() for job in range(JOBS)]
            while len(noted := await log.ask(Read())) < NOTES:
                await anyio.lowlevel.checkpoint()
            return results, noted


@both
def test_a_service_goes_on_after_a_power_cut_with_all_that_its_clients_were_told(
    backend: Backend, tmp_path: Path, memory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A5, A6, A11, A21: no step that another step followed runs again, what was acknowledged need not be sent again, and each
    message is handled once."""
    expected = [[*range(STEPS), job, STEPS, 100, 101] for job in range(JOBS)], [*range(NOTES)]

    async def check() -> None:
        chance = random.Random(seed)
        came: list[Any] = []

        async def load(path: Path, take: Take) -> None:
            came.append(await serve(path, take))

        take = await recorded(load, tmp_path, monkeypatch)
        assert came == [expected]
        for moment in drawn(take.disk, chance, one_in=6):
            at, survival = moment
            rebuild(image(take.disk.events[:at], survival, chance), memory / "served")
            again = Take()
            try:
                came_again = await serve(memory / "served" / "store.db", again, acknowledged=take.disk.marks("told", at))
            except Exception as error:
                raise AssertionError(f"{told(take, moment, seed)}: {error!r}") from error
            assert came_again == expected, told(take, moment, seed)
            for job in range(JOBS):
                # Those of the trunk, one after the other.
                reached = max((n for n in take.disk.marks(f"step of {job}", at) if n <= STEPS), default=0)
                repeated = [n for n in again.disk.marks(f"step of {job}", len(again.disk.events)) if n < reached]
                assert repeated == [], told(take, moment, seed)
            shutil.rmtree(memory / "served")

    anyio.run(check, backend=backend)
