"""How a database file is claimed: what must be true of it first, and the one transaction that makes it ours.

Looking comes before writing: what is refused was not touched. The sidecar remembers which store it stood beside and how far
that had come, so that a file that was lost, emptied, exchanged or set back is not taken for a new or a sound one.
"""

# Files are known here by names and descriptors, as the system knows them.
# ruff: noqa: PTH116

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from typing import Any

from attrs import frozen

from actorflow.crashpoints import crashpoint
from actorflow.errors import StoreBroken
from actorflow.records import Lease
from actorflow.stores import reader, schema
from actorflow.stores.statements import SQL
from actorflow.stores.writer import begin_immediate
from actorflow.value import Value

MODE = 0o600
_PIECE_BYTES = 1 << 20  #: of a file that is written again


@frozen
class Remembered(Value):
    """What the sidecar knows of the store; nothing, if it is new or cannot be read."""

    sidecar: str  #: its path
    store_id: str | None
    generation: int
    unsynced: bool  #: the disk failed: what can be read of the WAL may be in memory only

    @classmethod
    def of(cls, sidecar: str, facts: dict[str, Any]) -> Remembered:
        store_id, generation = facts.get("store_id"), facts.get("generation")
        return cls(
            sidecar,
            store_id if isinstance(store_id, str) else None,
            generation if isinstance(generation, int) else 0,
            facts.get("unsynced") is True,
        )


def make_file(path: str, remembered: Remembered) -> None:
    """See that the file is there, and 0600 if we make it (SQLite gives `-wal` and `-shm` the mode of the database).

    It is opened by us only where it did not exist: closing a file that SQLite has open in this process would drop SQLite's
    locks on it.

    Raises:
        StoreBroken: It is missing or empty (to SQLite a sound, empty database), and should not be.
    """
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        size = None
    if not size and remembered.store_id is not None:
        raise StoreBroken(
            f"{path} is {'missing' if size is None else 'empty'}, but {remembered.sidecar} remembers that it held store "
            f"{remembered.store_id}. Restore it from a backup; or, to begin anew, delete {remembered.sidecar}."
        )
    if size is None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))


def look(db: sqlite3.Connection, path: str, remembered: Remembered) -> None:
    """See that the file is ours, and what it was when it was last held. *db* is read-only: what is refused is not changed.

    Raises:
        StoreBroken: It is another application's, another store's, or an older state.
        StoreTooNew: A newer actorflow wrote it.
    """
    if remembered.unsynced:
        write_again(f"{path}-wal")
    try:
        found = schema.inspect(db)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        # Whoever made the file was cut before it had a WAL. What is half done is undone by the first who may write.
        with contextlib.closing(sqlite3.connect(path)) as writer:
            found = schema.inspect(writer)
    check(found, path, remembered)


def write_again(path: str) -> None:
    """Make a file durable whose sync has failed once.

    A system that could not write its pages takes them for written: they are read as if all were well, no later sync writes
    them, and the next power cut takes them, and with a WAL all that was appended since. So each is written once more.
    """
    with contextlib.suppress(FileNotFoundError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            offset = 0
            while data := os.pread(file, _PIECE_BYTES, offset):
                offset += os.pwrite(file, data, offset)
            os.fsync(file)
        finally:
            os.close(file)


def check(found: schema.Found, path: str, remembered: Remembered) -> None:
    """Refuse a file that is not ours, or not what it was when it was last held.

    Raises:
        StoreBroken: It is another application's, another store's, or an older state.
        StoreTooNew: A newer actorflow wrote it.
    """
    schema.check_ours(found, path)
    if remembered.store_id is None:
        return
    # A file with no schema yet is what is left of a new store whose WAL was never copied into it: an older state, too.
    if found.version and remembered.store_id != found.store_id:
        raise StoreBroken(
            f"{path} holds store {found.store_id}, but {remembered.sidecar} remembers store {remembered.store_id}: the file was "
            f"exchanged. Put the right one back; or, if this is the right one, delete {remembered.sidecar}. Nothing was written."
        )
    if found.generation < remembered.generation:
        raise StoreBroken(
            f"{path} is older (generation {found.generation}) than when it was last held (generation {remembered.generation}): "
            f"its -wal file was deleted, or an old copy was put in place, and commits are missing. Put the -wal file or the "
            f"newer database back; or, to go on from this older state, delete {remembered.sidecar}. Nothing was written."
        )


def check_in_place(files: dict[str, os.stat_result]) -> int:
    """See that what is held open is still what its name says.

    Commits into a file that was deleted, renamed or replaced succeed, and all are lost. An inode's number is not given to
    another file while this one is open, so equal numbers mean the same file.

    Returns:
        The size of the last of them.

    Raises:
        StoreBroken: One is not.
    """
    size = 0
    for path, opened in files.items():
        try:
            now = os.stat(path)
        except OSError:
            now = None
        if now is None or not os.path.samestat(now, opened):
            raise StoreBroken(
                f"{path} was deleted, renamed or replaced while the store was open, so what was just written went nowhere; it "
                f"was not acknowledged. Put the file back, see who did that, and start again."
            )
        size = now.st_size
    return size


def claim(db: sqlite3.Connection, path: str, *, now: float, busy_s_max: float) -> tuple[Lease, int]:
    """Bring the schema up to date, raise the fence, count crashes. On return it is on the disk, whatever the durability.

    Returns:
        The lease, and the generation that the sidecar may now be told.
    """
    schema.configure(db, path)
    schema.migrate(db, path, store_id=uuid.uuid4().hex, now=now)
    crashpoint("open.migrated")
    begin_immediate(db, busy_s_max=busy_s_max)
    if db.execute(SQL["raise_fence"]).rowcount != 1:
        raise StoreBroken(f"{path} has no row that says which store it is. Nothing was written. Restore it from a backup.")
    interrupted = db.execute(SQL["interrupt_turns"], {"now": now}).rowcount
    db.execute(SQL["wake_undoing"], {"now": now})
    store_id, fence, _, generation = db.execute(SQL["read_store"]).fetchone()
    last = reader.numbers(db)
    db.execute("commit")
    crashpoint("open.fenced")
    lease = Lease(
        fence=fence,
        store_id=store_id,
        run_id_last=last.get("run", 0),
        message_id_last=last.get("message", 0),
        interrupted=interrupted,
    )
    return lease, generation
