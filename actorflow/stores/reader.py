"""What is read, on the thread of a read-only connection. Plain functions of the connection; each is one short transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from attrs import asdict

from actorflow.records import LOG_ONLY, Address, Event, Loaded, Run, RunQuery
from actorflow.stores.changes import RUN_COLUMNS
from actorflow.stores.rows import Row, cursor_of, envelope_of, event_of, light_run_of, run_of
from actorflow.stores.statements import SQL

T = TypeVar("T")

READ_S_MAX = 5.0
"""How long a list may take. A transaction that stays open keeps the WAL from being reset, so it grows without bound."""

_STEPS_BETWEEN_LOOKS = 100_000  #: of SQLite's machine: a few milliseconds
_LOG_ONLY = json.dumps(sorted(LOG_ONLY))
_PARENT = RUN_COLUMNS.index("parent")


@contextmanager
def _one_moment(db: sqlite3.Connection) -> Generator[None]:
    """All that is read inside is of one moment."""
    db.execute("begin")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("rollback")


def within(function: Callable[[sqlite3.Connection], T], seconds: float = READ_S_MAX) -> Callable[[sqlite3.Connection], T]:
    """*function*, cut (SQLITE_INTERRUPT) when it takes longer than *seconds*."""

    def limited(db: sqlite3.Connection) -> T:
        deadline = time.monotonic() + seconds
        db.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
        try:
            return function(db)
        finally:
            db.set_progress_handler(None, 0)

    return limited


def rows(name: str, **values: object) -> Callable[[sqlite3.Connection], list[Any]]:
    """All rows of one statement."""
    return lambda db: db.execute(SQL[name], values).fetchall()


def load(db: sqlite3.Connection, run: int) -> Loaded | None:
    """See `Store.load`."""
    return load_many(db, (run,))[0]


def load_many(db: sqlite3.Connection, runs: Sequence[int]) -> list[Loaded | None]:
    """See `Store.load_many`. A statement for each table, not for each run of each: that is what loading takes its time for."""
    of_all = {"runs": json.dumps(runs)}
    with _one_moment(db):
        found = {run.id: run for run in map(run_of, db.execute(SQL["runs_by_id"], of_all))}
        entries = _replayed(db, found)
        mailboxes = _by_run(db.execute(SQL["mailboxes"], of_all), 1, envelope_of)
        cursors = _by_run(db.execute(SQL["cursors"], of_all), 0, cursor_of)
        children = _by_run(db.execute(SQL["children"], of_all), _PARENT, light_run_of)
    return [
        None
        if run not in found
        else Loaded(
            run=found[run],
            entries=entries.get(run, []),
            mailbox=mailboxes.get(run, []),
            cursors=cursors.get(run, []),
            children=children.get(run, []),
        )
        for run in runs
    ]


def _by_run(rows: Iterable[Row], column: int, record: Callable[[Row], T]) -> dict[int, list[T]]:
    """Records by the run that a column names, in the order of the rows."""
    found: dict[int, list[T]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(record(row))
    return found


def _replayed(db: sqlite3.Connection, runs: Mapping[int, Run]) -> dict[int, list[Event]]:
    """Entries that replay sees. If some are folded, what they carry is not even read: a checkpoint may hide gigabytes."""
    folding = {run for (run,) in db.execute(SQL["folding"], {"runs": json.dumps([*runs])})}
    plain = {"runs": json.dumps([run for run in runs if run not in folding]), "log_only": _LOG_ONLY}
    found = _by_run(sorted(db.execute(SQL["replayed"], plain)), 1, event_of)
    for run in folding:
        found[run] = _replayed_of_folding(db, runs[run])
    return found


def _replayed_of_folding(db: sqlite3.Connection, run: Run) -> list[Event]:
    where = {"run": run.id, "round": run.round, "log_only": _LOG_ONLY}
    closed = {scope for (scope,) in db.execute(SQL["closed_scopes"], where)}
    seqs = _unfolded(db.execute(SQL["replayed_headers"], where), closed)
    return [event_of(row) for row in db.execute(SQL["entries_by_seq"], {"seqs": json.dumps(seqs)})]


def taken(db: sqlite3.Connection, addresses: Sequence[Address]) -> set[Address]:
    """See `Store.taken`."""
    return {Address(*row) for row in db.execute(SQL["taken"], {"addresses": json.dumps(addresses)})}


def _unfolded(headers: Iterable[tuple[int, str, str]], closed: set[str]) -> list[int]:
    """Numbers of the entries outside all *closed* scopes, and of every patch."""
    inside: dict[str, bool] = {}
    kept: list[int] = []
    for seq, kind, branch in headers:
        folded = inside.get(branch)
        if folded is None:
            folded = inside[branch] = any(scope in closed for scope in _scopes(branch))
        if kind == "patch" or not folded:
            kept.append(seq)
    return kept


def _scopes(branch: str) -> Iterator[str]:
    """A branch's path and every scope around it.

    >>> list(_scopes("/pay#0/retry#1"))
    ['/pay#0/retry#1', '/pay#0']
    """
    while branch:
        yield branch
        branch = branch.rpartition("/")[0]


def undoable(db: sqlite3.Connection, run: int, round: int) -> list[Event]:
    """See `Store.undoable`."""
    return [event_of(row) for row in db.execute(SQL["undoable"], {"run": run, "round": round})]


def list_runs(query: RunQuery) -> Callable[[sqlite3.Connection], list[Any]]:
    """The statement that suits a query: by the narrowest index there is for it."""
    if query.parent is not None:
        name = "list_runs_by_parent"
    elif query.status is not None:
        name = "list_runs_by_status"
    else:
        name = "list_runs"
    return rows(name, **asdict(query))


def numbers(db: sqlite3.Connection) -> dict[str, int]:
    """The last number given, by table."""
    found: Sequence[tuple[str, int]] = db.execute(SQL["last_numbers"]).fetchall()
    return dict(found)
