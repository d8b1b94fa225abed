"""What the database file must be before it is written to: ours, sound, of a schema that we know; and how it becomes so."""

from __future__ import annotations

import sqlite3
import sys
from zlib import crc32

from attrs import field, frozen

from actorflow.errors import StoreBroken, StoreTooNew, StoreUnavailable
from actorflow.stores.statements import SQL, packaged
from actorflow.value import Value

APPLICATION_ID = 0x61637466  #: "actf"; `file` shows it
SQLITE_MIN = (3, 35, 0)  #: UPDATE FROM (3.33) and RETURNING (3.35)


@frozen
class Migration(Value):
    """One numbered file."""

    number: int
    name: str
    sql: str = field(repr=False)

    @property
    def checksum(self) -> int:
        return crc32(self.sql.encode())


FILES = ("0001_start.sql",)
"""The migrations, in order: never one is taken out or edited."""

MIGRATIONS = tuple(Migration(number, name, packaged(f"migrations/{name}")) for number, name in enumerate(FILES, 1))


@frozen(kw_only=True)
class Found(Value):
    """What a database file says it is. All zero, with no store, is an empty file."""

    application_id: int
    version: int
    tables: int
    store_id: str | None
    generation: int


def inspect(db: sqlite3.Connection) -> Found:
    """Look at a file without changing it (*db* is read-only)."""
    application_id: int = db.execute("pragma application_id").fetchone()[0]
    version: int = db.execute("pragma user_version").fetchone()[0]
    tables: int = db.execute("select count(*) from sqlite_master").fetchone()[0]
    store_id, generation = None, 0
    if application_id == APPLICATION_ID and 0 < version <= len(MIGRATIONS):
        row = db.execute(SQL["read_store"]).fetchone()
        if row is not None:
            store_id, generation = row[0], row[3]
    return Found(application_id=application_id, version=version, tables=tables, store_id=store_id, generation=generation)


def check_ours(found: Found, path: str) -> None:
    """Refuse what is not ours to write.

    Raises:
        StoreBroken: It is another application's database.
        StoreTooNew: A newer actorflow wrote it.
    """
    if found.application_id != APPLICATION_ID and (found.application_id or found.version or found.tables):
        raise StoreBroken(
            f"{path} is another application's database (application id {found.application_id}, {found.tables} tables). "
            f"Nothing was written. Give actorflow a file of its own."
        )
    if found.version > len(MIGRATIONS):
        raise StoreTooNew(path, found.version, len(MIGRATIONS))


def configure(db: sqlite3.Connection, path: str) -> None:
    """Set the writer's pragmas and read each back: SQLite ignores, without a word, what it does not know or cannot do.

    fsync stays "full" until the store is opened, whatever durability was asked for: the sidecar must never know of a
    generation that a power cut can take back.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise StoreUnavailable(
            f"this Python has SQLite {sqlite3.sqlite_version}; actorflow needs {'.'.join(map(str, SQLITE_MIN))} or newer."
        )
    _set(db, path, "journal_mode", "wal", "wal")
    _set(db, path, "synchronous", "full", 2)
    # The checkpoint that SQLite makes by itself after a COMMIT swallows errors of fsync; ours does not.
    _set(db, path, "wal_autocheckpoint", "0", 0)
    if sys.platform == "darwin":
        _set(db, path, "fullfsync", "1", 1)
        _set(db, path, "checkpoint_fullfsync", "1", 1)


def set_synchronous(db: sqlite3.Connection, path: str, durability: str) -> None:
    """Sync the disk for each batch ("full") or at checkpoints ("normal"), from now on."""
    _set(db, path, "synchronous", durability, {"full": 2, "normal": 1}[durability])


def _set(db: sqlite3.Connection, path: str, pragma: str, value: str, expected: object) -> None:
    db.execute(f"pragma {pragma}={value}").fetchall()
    actual = db.execute(f"pragma {pragma}").fetchone()[0]
    if actual != expected:
        raise StoreUnavailable(
            f"{path}: SQLite did not take {pragma}={value} (it says {actual!r}), and without that nothing here is safe. "
            f"Put the file on a local disk that supports shared memory; nothing was written."
        )


def migrate(db: sqlite3.Connection, path: str, *, store_id: str, now: float) -> None:
    """Bring the schema up to date: one transaction a file, which raises the version too. Cut anywhere, it is finished next time.

    Args:
        db: The writer.
        path: For messages.
        store_id: What a new store will be called.
        now: When it was made, if it is made.

    Raises:
        StoreBroken: A migration that was applied is not the one that this actorflow has.
    """
    version: int = db.execute("pragma user_version").fetchone()[0]
    if version:
        _check_applied(db, path)
    for migration in MIGRATIONS[version:]:
        # `executescript` would commit what is open, so the script says itself where its transaction begins and ends.
        first = _FIRST if migration.number == 1 else ""
        db.executescript(f"begin immediate;\n{first}\n{migration.sql}")
        _note(db, migration)
        if migration.number == 1:
            db.execute(SQL["create_store"], {"store_id": store_id, "now": now})
            db.execute(f"pragma application_id={APPLICATION_ID}")
        db.execute("commit")


_FIRST = """
-- Which migrations were applied, and what was in them.
create table migration (
    number      integer primary key,
    name        text    not null,
    crc         integer not null
);
"""


def _note(db: sqlite3.Connection, migration: Migration) -> None:
    db.execute(
        "insert into migration (number, name, crc) values (?, ?, ?)", (migration.number, migration.name, migration.checksum)
    )
    db.execute(f"pragma user_version={migration.number}")


def _check_applied(db: sqlite3.Connection, path: str) -> None:
    applied = {number: (name, crc) for number, name, crc in db.execute("select number, name, crc from migration")}
    for migration in MIGRATIONS[: len(applied)]:
        if applied.get(migration.number) != (migration.name, migration.checksum):
            raise StoreBroken(
                f"{path}: migration {migration.number} was applied as {applied.get(migration.number)}, and this actorflow has "
                f"{(migration.name, migration.checksum)}: they were not made by the same release. Nothing was written. "
                f"Open it with the actorflow that made it."
            )
