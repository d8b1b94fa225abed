"""A nightly import: a CSV with some bad rows goes into a database, and a report says which ones were left out.

    python examples/nightly_import.py

Kill it (`kill -9`) and start it again: it goes on at the row where it was. A bad row is set aside; if more than two in a
hundred are bad, the file is, and the run pauses for a person to look at it.
"""

from __future__ import annotations

import argparse
import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
from attrs import frozen

from actorflow import Fatal, Runtime, SetAside, Workflow, step

ROWS = 1_000
EVERY_BAD = 100  #: one row in so many is bad


@frozen
class Row:
    """One line of the file, as text: what it means is found out when it is loaded."""

    line: int
    account: str
    cents: str


@frozen
class Imported:
    """What came of it."""

    loaded: int
    set_aside: int
    total_cents: int


class Import(Workflow[Imported]):
    """Load every row once it is known to be good, then add up."""

    source: str
    database: str

    async def run(self) -> Imported:
        await prepare(self.database)
        done = await self.each(
            partial(read_rows, self.source),
            partial(load, self.database),
            key=lambda row: row.line,
            batch=200,
            parallel=2,
            on_error=SetAside(at_most=0.02),
        )
        return Imported(loaded=done.done, set_aside=done.set_aside, total_cents=await total(self.database))


def read_rows(source: str) -> Iterator[Row]:
    """The rows of the file; a resumed import reads over those that are done."""
    with Path(source).open(encoding="utf-8", newline="") as file:
        for line, (account, cents) in enumerate(csv.reader(file), start=1):
            yield Row(line, account, cents)


@step(timeout="10s")
def load(database: str, row: Row) -> None:
    """Keep one row. Its line number is the key, so doing it twice leaves one row."""
    if not row.cents.isdigit():
        raise Fatal(f"line {row.line}: {row.cents!r} is no amount")  # Bad data does not get better: not tried again.
    with closing(sqlite3.connect(database, timeout=30.0)) as db, db:
        db.execute("INSERT OR REPLACE INTO bookings VALUES (?, ?, ?)", (row.line, row.account, int(row.cents)))


@step
def prepare(database: str) -> None:
    """Make the table."""
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS bookings (line INTEGER PRIMARY KEY, account TEXT, cents INTEGER)")


@step
def total(database: str) -> int:
    """The sum of all that was loaded."""
    with closing(sqlite3.connect(database)) as db:
        return int(db.execute("SELECT sum(cents) FROM bookings").fetchone()[0])


def make_file(path: Path, rows: int) -> None:
    """Tonight's file: rows 100, 200, ... are bad."""
    lines = (f"account-{n % 7},{'n/a' if n % EVERY_BAD == 0 else n}\n" for n in range(1, rows + 1))
    path.write_text("".join(lines), encoding="utf-8")


async def main(out: Path, rows: int) -> None:
    """Import the file, or go on with it."""
    source = out / "bookings.csv"
    if not source.exists():
        make_file(source, rows)
    async with Runtime(f"sqlite:///{out / 'jobs.db'}", actors=[Import]) as runtime:
        run = await runtime.start(Import(str(source), str(out / "bookings.db")), key="2030-01-01")
        done = await run.result()
        print(f"{done.loaded:,} rows loaded, {done.set_aside} set aside, {done.total_cents:,} cents in all")
        for entry in await run.history():
            if entry.kind == "set_aside":
                print(f"  {entry.outcome}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Import a CSV with bad rows, and survive being killed.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the file and the databases")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many rows tonight's file has")
    given = parser.parse_args()
    folder: Path = given.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    anyio.run(main, folder, given.rows)
