"""`SqliteStore`: a store in one file. Takes it, writes batches, reads, gives it up; the parts have modules of their own.

Three connections, each on its own thread. The *writer* writes and checkpoints, and is the only one that does. The *reader*
answers what the runtime asks (`load`, `find`, `get`, `message`, `due`, `undoable`), the *lister* what people ask (`runs`,
`counts`, `history`, `events`, `dead_letters`): so no page of a dashboard keeps a run from being loaded, and no reading keeps a
commit waiting. In WAL mode a transaction sees every commit that was done before it began, on whichever connection: what was
acknowledged is always seen.

`filelock` says who may open the file, `claim` and `schema` what it must be, `writer` how a batch becomes durable, `checkpoint`
how the WAL is kept short, `reader` how rows are found, `trouble` what SQLite's errors mean.
"""

# Files are known here by names and descriptors, as the system knows them.
# ruff: noqa: PTH100, PTH116

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
from attrs import define, field

from actorflow.crashpoints import crashpoint
from actorflow.errors import StoreBroken, StoreBusy, StoreError, StoreStopped
from actorflow.records import Address, Commit, Envelope, Event, Lease, Loaded, Refusal, Run, RunQuery
from actorflow.stores import Durability, claim, reader, schema
from actorflow.stores.bridge import Ask, Bridge, Home
from actorflow.stores.checkpoint import WAL_BYTES, Checkpoints
from actorflow.stores.filelock import FileLock
from actorflow.stores.rows import light_run_of, run_of, unchecked_envelope_of, unchecked_event_of
from actorflow.stores.trouble import FAILURES, Trouble, as_store_error, kind_of, lost_sight, no_space
from actorflow.stores.writer import Answers, Progress, Unknown, Writer, break_chains, find_message, find_run, is_large, progress

T = TypeVar("T")

BUSY_S_MAX = 30.0
"""How long another program that writes to the file is waited for, off the loop, before commits fail."""

_SQLITE_BUSY_S = 5.0  #: how long SQLite waits for it at a time
_STANDBY_POLL_S = 0.1  #: how often a standby looks whether the holder is gone


@define(eq=False, repr=False)
class _Open:
    """All that an open store holds."""

    home: Home
    reader: Bridge
    lister: Bridge
    writer: Bridge
    files: dict[str, os.stat_result]  #: what is held open, to be found unchanged at its path
    checkpoints: Checkpoints
    turn: anyio.Lock = field(factory=lambda: anyio.Lock(fast_acquire=True))  #: one batch, or reopening, at a time
    checkpoint_due: bool = False
    unknown: bool = False  #: a COMMIT raised and was not looked up yet

    def settle(self, rows: int) -> None:
        """Last look before a batch is acknowledged: what was written is where it will be looked for."""
        wal_bytes = claim.check_in_place(self.files)
        self.checkpoint_due |= self.checkpoints.count(rows, wal_bytes)


class SqliteStore:
    """A store in the file *path*, with `-wal`, `-shm` and `.lock` beside it.

    Args:
        path: The file; made if it is not there, readable by its owner only. Its directory must be there.
        durability: "full" syncs the disk for each batch; "normal" may lose the last batches in a power cut (never in a crash of
            the process).
        busy_s_max: How long another program that writes to the file is waited for.
        pages_max: How large the file may become, in pages of 4 KiB; beyond that it is as if the disk were full.
    """

    _bridge: type[Bridge] = Bridge  #: how its connections are reached

    def __init__(
        self, path: str, *, durability: Durability = "full", busy_s_max: float = BUSY_S_MAX, pages_max: int | None = None
    ) -> None:
        self.url: str = f"sqlite:///{path}"
        self._path = os.path.abspath(path)
        self._durability: Durability = durability
        self._busy_s_max = busy_s_max
        self._pages_max = pages_max
        self._lock = FileLock(f"{self._path}.lock")
        self._facts: dict[str, Any] = {}  #: what the sidecar says
        self._held: _Open | None = None
        self._pid = 0
        self._broken: StoreError | None = None

    # --- taking ---------------------------------------------------------------------------------------------------------

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        """See `Store.open`.

        Raises:
            StoreBusy: Another process holds it.
            StoreUnavailable: It cannot be opened for writing.
            StoreBroken: It is not what it was, or not ours.
            StoreTooNew: A newer actorflow wrote it.
        """
        assert self._held is None, "the store is open"
        async with contextlib.AsyncExitStack() as undo:
            try:
                await self._acquire(standby=standby)
                undo.callback(self._lock.release)
                crashpoint("open.locked")
                lease = await self._take(undo, now)
            except FAILURES as error:
                self._suspect(error)
                raise as_store_error(error, self._path) from error
            undo.pop_all()
        return lease

    async def _acquire(self, *, standby: bool) -> None:
        while not self._lock.try_acquire():
            if not standby:
                raise StoreBusy(self._path, self._lock.holder())
            await anyio.sleep(_STANDBY_POLL_S)

    async def _take(self, undo: contextlib.AsyncExitStack, now: float) -> Lease:
        """Look first (read-only, so that what is refused was not touched), then write. *undo* gives back what was taken."""
        remembered = claim.Remembered.of(self._lock.path, self._lock.read())
        claim.make_file(self._path, remembered)
        live = self._bridge.home()
        undo.push_async_callback(_shielded, live.close)
        reads, lists = [await self._connect(undo, live, "ro") for _ in range(2)]
        files = {self._path: os.stat(self._path), self._lock.path: self._lock.identity()}
        await reads.call(partial(claim.look, path=self._path, remembered=remembered))
        writes = await self._connect(undo, live, "rw")
        lease, generation = await writes.call(partial(claim.claim, path=self._path, now=now, busy_s_max=self._busy_s_max))
        await writes.call(self._tune)
        for bridge in (reads, lists):
            # From its first look on a connection keeps the WAL open, so that the writer may be closed and opened (`_look_up`)
            # without being the last to leave: the last one copies the WAL and deletes it.
            await bridge.call(reader.rows("read_store"))
        wal = f"{self._path}-wal"
        files[wal] = os.stat(wal)
        self._facts = {"started_at": now, "store_id": lease.store_id}
        # The sidecar learns of a generation only when it is durable: see `checkpoint`.
        self._remember(generation)
        self._pid, self._broken = os.getpid(), None
        checkpoints = Checkpoints(self._path, self._durability, lease.fence, self._remember)
        self._held = _Open(live, reads, lists, writes, files, checkpoints)
        return lease

    async def _connect(self, undo: contextlib.AsyncExitStack, live: Home, mode: str) -> Bridge:
        uri = f"file:{quote(os.fsencode(self._path))}?mode={mode}"
        bridge = await self._bridge.open(live, uri, timeout_s=min(_SQLITE_BUSY_S, self._busy_s_max))
        undo.push_async_callback(_shielded, bridge.close)
        if mode == "ro":
            await bridge.call(_read_only)
        return bridge

    def _tune(self, db: sqlite3.Connection) -> None:
        schema.set_synchronous(db, self._path, self._durability)
        db.execute(f"pragma journal_size_limit={WAL_BYTES}").fetchall()
        if self._pages_max is not None:
            db.execute(f"pragma max_page_count={self._pages_max}").fetchall()

    def _remember(self, generation: int) -> None:
        self._facts["generation"] = generation
        self._lock.write(**self._facts)

    async def announce(self, **facts: Any) -> None:
        """Add to what the lock file says, such as where the holder can be reached. Plain JSON values."""

        def write(_: sqlite3.Connection) -> None:
            self._facts |= facts
            self._lock.write(**self._facts)

        held = self._open()
        async with held.turn:
            await held.writer.call(write)

    # --- giving up ------------------------------------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Copy the WAL into the database file and empty it."""
        held = self._open()

        def shorten(db: sqlite3.Connection) -> None:
            held.checkpoints.truncate(db)
            held.checkpoints.raise_generation(db)

        async with held.turn:
            self._open()
            self._check_sound()
            await held.writer.call(partial(self._housekeep, shorten))

    async def close(self) -> None:
        """See `Store.close`. What was called before is finished first."""
        held = self._held
        if held is not None and self._pid == os.getpid():
            with anyio.CancelScope(shield=True):
                async with held.turn:
                    if self._held is held:
                        self._held = None
                        await self._close(held)
        self._lock.release()

    async def _close(self, held: _Open) -> None:
        if self._broken is None:
            await held.writer.call(partial(self._housekeep, partial(_finish, held.checkpoints)))
        for bridge in (held.lister, held.reader, held.writer):  # The writer last, as SQLite tidies up at the last close.
            await _shielded(bridge.close)
        await held.home.close()

    def _housekeep(self, work: Callable[[sqlite3.Connection], None], db: sqlite3.Connection) -> None:
        """Do *work*, on the writer's thread, without troubling anybody: a busy or full disk is none of its business, as all is
        in the WAL; but a device that failed is the end: what was copied is unknown, and trying again would hide it."""
        try:
            work(db)
        except FAILURES as error:
            self._noted(as_store_error(error, self._path))
            self._suspect(error)

    # --- writing --------------------------------------------------------------------------------------------------------

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        """See `Store.commit`. A caller that is cancelled leaves the batch running: it becomes durable or not, as a whole."""
        held = self._open()
        async with held.turn:
            self._open()  # It may have been closed meanwhile.
            self._check_sound()
            answers = await self._commit(held, batch, fence, without_large=False)
            if answers is None and any(map(is_large, batch)):
                answers = await self._commit(held, batch, fence, without_large=True)
            if held.checkpoint_due or answers is None:  # A WAL that was copied is written from its beginning: that is space, too.
                held.checkpoint_due = False
                held.writer.send(partial(self._housekeep, held.checkpoints.passive))
            if answers is None:
                raise no_space(self._path)
            return answers

    async def _commit(self, held: _Open, batch: Sequence[Commit], fence: int, *, without_large: bool) -> Answers | None:
        """None: COMMIT found no space, and nothing was written."""
        write = partial(self._write, held, batch, fence, without_large=without_large)
        try:
            return await held.writer.call(write)
        except Unknown as unknown:
            return await self._look_up(held, batch, fence, unknown)

    def _write(self, held: _Open, batch: Sequence[Commit], fence: int, db: sqlite3.Connection, *, without_large: bool) -> Answers:
        """On the writer's thread. What happens to the store is noted here, as the caller may be gone."""
        if held.unknown:
            why = "whether an earlier batch was written is unknown. Start again: what is in the file counts"
            self._broken = StoreBroken(f"{self._path}: {why}.")
        self._check_sound()
        writer = Writer(fence=fence, busy_s_max=self._busy_s_max, settle=held.settle)
        try:
            return writer.write(db, batch, without_large=without_large)
        except Unknown as unknown:
            held.unknown = True
            self._suspect(unknown.__cause__)
            raise
        except StoreError as error:
            self._noted(error)
            raise
        except Exception as error:
            raise self._noted(as_store_error(error, self._path)) from error

    async def _look_up(self, held: _Open, batch: Sequence[Commit], fence: int, unknown: Unknown) -> Answers | None:
        """COMMIT raised: only a fresh connection tells whether the batch is in. The readers stay connected meanwhile: they keep
        the WAL's index, in which a batch appears only after it was synced."""
        error = unknown.__cause__
        assert error is not None
        try:
            applied = await self._reopen(held, fence) != unknown.before
        except (*FAILURES, StoreError) as worse:
            raise self._noted(lost_sight(self._path)) from worse
        if kind_of(error) not in (Trouble.FULL, Trouble.BUSY, Trouble.CLOSED):
            # Whatever became of this batch: a sync that failed may not be repeated, it would succeed and mean nothing.
            self._broken = as_store_error(error, self._path)
        if not applied and kind_of(error) is Trouble.FULL:
            return None
        if not applied:
            raise as_store_error(error, self._path) from error
        break_chains(batch, unknown.answers)
        return unknown.answers

    async def _reopen(self, held: _Open, fence: int) -> Progress:
        await _shielded(held.writer.close)
        async with contextlib.AsyncExitStack() as undo:
            held.writer = await self._connect(undo, held.home, "rw")
            await held.writer.call(partial(schema.configure, path=self._path))
            await held.writer.call(self._tune)
            come = await held.writer.call(partial(progress, fence=fence))
            await held.writer.call(lambda _: held.settle(0))
            undo.pop_all()
        held.unknown = False
        return come

    # --- reading --------------------------------------------------------------------------------------------------------

    async def load(self, run: int) -> Loaded | None:
        """See `Store.load`. `Undecodable` if something of that run is not what was written; others are not touched by that."""
        return await self._read(partial(reader.load, run=run))

    async def load_many(self, runs: Sequence[int]) -> list[Loaded | None]:
        return await self._read(partial(reader.load_many, runs=runs))

    async def find(self, address: Address) -> Run | None:
        return await self._read(partial(find_run, address=address))

    async def taken(self, addresses: Sequence[Address]) -> set[Address]:
        return await self._read(partial(reader.taken, addresses=addresses))

    async def get(self, run: int) -> Run | None:
        rows = await self._read(reader.rows("run_by_id", id=run))
        return run_of(rows[0]) if rows else None

    async def message(self, run: int, key: str) -> Envelope | None:
        return await self._read(partial(find_message, run=run, key=key))

    async def due(self, *, after: tuple[float, int], limit: int) -> list[tuple[float, int]]:
        return await self._read(reader.rows("due", at=after[0], run=after[1], limit=limit))

    async def undoable(self, run: int, round: int) -> list[Event]:
        return await self._read(partial(reader.undoable, run=run, round=round))

    async def runs(self, query: RunQuery) -> list[Run]:
        return [light_run_of(row) for row in await self._list(reader.list_runs(query))]

    async def counts(self, *, actor: bool | None = None) -> dict[str, int]:
        return dict(await self._list(reader.rows("counts", actor=actor)))

    async def history(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        return [unchecked_event_of(row) for row in await self._list(reader.rows("history", run=run, after=after, limit=limit))]

    async def latest(self, run: int, *, limit: int = 10) -> list[Event]:
        return [unchecked_event_of(row) for row in reversed(await self._list(reader.rows("latest", run=run, limit=limit)))]

    async def death(self, run: int, message: int) -> Event | None:
        rows = await self._read(reader.rows("death", run=run, n=message))
        return unchecked_event_of(rows[0]) if rows else None

    async def events(self, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        return [unchecked_event_of(row) for row in await self._list(reader.rows("events", after=after, limit=limit))]

    async def dead_letters(self, *, run: int | None = None, after: int = 0, limit: int = 100) -> list[Envelope]:
        name = "dead_letters" if run is None else "dead_letters_of_run"
        return [unchecked_envelope_of(row) for row in await self._list(reader.rows(name, run=run, after=after, limit=limit))]

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self._asked(self._open().reader.read, function)

    async def _list(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self._asked(self._open().lister.call, reader.within(function))

    async def _asked(self, ask: Ask[T], function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await ask(function)
        except FAILURES as error:
            raise self._noted(as_store_error(error, self._path)) from error

    # --- the state of the store -----------------------------------------------------------------------------------------

    def _open(self) -> _Open:
        if self._held is None:
            raise StoreStopped("it is not open")
        if self._pid != os.getpid():
            raise StoreStopped("this is a forked child of the process that holds the store. Open nothing here; ask the parent")
        return self._held

    def _check_sound(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))

    def _noted(self, error: StoreError) -> StoreError:
        """A broken store stays so until it is opened again."""
        if isinstance(error, StoreBroken):
            self._broken = error
        return error

    def _suspect(self, error: BaseException | None) -> None:
        if error is not None and kind_of(error) is Trouble.DEVICE:
            self._lock.note(unsynced=True)  # The next holder makes durable what it reads: see `claim.write_again`.


async def _shielded(close: Callable[[], Any]) -> None:
    with anyio.CancelScope(shield=True), contextlib.suppress(sqlite3.Error):
        await close()


def _read_only(db: sqlite3.Connection) -> None:
    db.execute("pragma query_only=1").fetchall()


def _finish(checkpoints: Checkpoints, db: sqlite3.Connection) -> None:
    db.execute("pragma busy_timeout=100").fetchall()  # A reader elsewhere may hold the WAL; it does not hold us.
    checkpoints.truncate(db)
    crashpoint("close.before")
