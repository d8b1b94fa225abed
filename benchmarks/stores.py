"""Stores with many rows: made once, kept under `out/benchmarks/stores` (1.2 GB in all), and copied for who measures.

The rows are those of one run, which actorflow itself has written, copied by SQL under other keys. So they are what this version
writes; a file of another version, or of another schema, is made anew. Who measures writes to a copy, which is on the
disk before the measuring begins: so nothing that was measured is in the next file, and the disk is quiet.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from zlib import crc32

import actorflow
from actorflow.stores.schema import MIGRATIONS
from benchmarks.suite import ROOT

KEPT = ROOT / "out" / "benchmarks" / "stores"
MAKE_IN_MEMORY = ("pragma journal_mode=delete", "pragma journal_mode=off", "pragma synchronous=off", "pragma cache_size=-200000")
NUMBERED = "1 + i"
RANDOM = "lower(hex(randomblob(8)))"

Template = Callable[[Path], None]


def stored(name: str, runs: int, template: Template, *, key: str, apart_s: float = 0.0) -> Path:
    """The file of so many runs, made now if it is not there.

    Args:
        name: What is in it.
        runs: How many.
        template: Makes a store at that path that has one run, and closes it.
        key: SQL that gives a copy its key. `i` is its number, from 1: the first run keeps its own.
        apart_s: What is due is due so much later in each copy.
    """
    schema = crc32(b"".join(migration.sql.encode() for migration in MIGRATIONS))
    path = KEPT / f"{name}-{runs}-{actorflow.__version__}-{schema:08x}.db"
    if path.exists():
        return path
    KEPT.mkdir(parents=True, exist_ok=True)
    making = KEPT / f"making-{os.getpid()}"
    making.mkdir()
    try:
        template(making / "a.db")
        multiply(making / "a.db", runs, key=key, apart_s=apart_s)
        for other in KEPT.glob(f"{name}-{runs}-*.db"):
            other.unlink()
        (making / "a.db").replace(path)
    finally:
        shutil.rmtree(making)
    return path


def multiply(path: Path, runs: int, *, key: str, apart_s: float) -> None:
    """Copy the only run there until there are so many."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in MAKE_IN_MEMORY:
            db.execute(pragma).fetchall()
        [(first,)] = db.execute("select id from run").fetchall()
        later = {name: f"{name} + i * {apart_s}" for name in ("wake_at", "due_at")} if apart_s else {}
        db.execute("begin exclusive")
        db.execute(
            "create temp table number as with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) "
            "select i from n where i <= ?",
            (runs - 1, runs - 1),
        )
        copy(db, "run", f"id = {first}", {"id": "id + i", "key": key, **later})
        copy(db, "entry", f"run = {first}", {"seq": "null", "run": "run + i", **later})
        db.execute("commit")


def copy(db: sqlite3.Connection, table: str, which: str, changed: dict[str, str]) -> None:
    """Copy those rows of a table for every number; these columns are given other values."""
    columns: list[str] = [row[1] for row in db.execute(f"pragma table_info({table})")]
    values = [changed.get(column, column) for column in columns]
    db.execute(f"create temp table one_{table} as select * from {table} where {which} order by rowid")
    db.execute(
        f"insert into {table} ({', '.join(columns)}) select {', '.join(values)} from number cross join one_{table} "
        f"order by number.rowid, one_{table}.rowid"
    )


def rows(path: Path) -> int:
    """How many there are in that file, of runs and of entries."""
    with closing(sqlite3.connect(path)) as db:
        return sum(db.execute(f"select count(*) from {table}").fetchone()[0] for table in ("run", "entry"))


def copied(path: Path, folder: Path) -> Path:
    """A copy of that file in that folder, on the disk on return."""
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    return copy


def forgotten(path: Path) -> bool:
    """Let the system forget what it has of that file in memory, so that it is read from the disk; false if it cannot be told."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
