"""What is read, on the thread of a read-only connection. Plain functions of the connection; each is one short transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from attrs import asdict

from actorflow.records import LOG_ONLY, Event, Loaded, Run, RunQuery
from actorflow.stores.rows import cursor_of, envelope_of, event_of, light_run_of, run_of
from actorflow.stores.statements import SQL

T = TypeVar("T")

READ_S_MAX = 5.0
"""How long a list may take. A transaction that stays open keeps the WAL from being reset, so it grows without bound."""

_STEPS_BETWEEN_LOOKS = 100_000  #: of SQLite's machine: a few milliseconds
_LOG_ONLY = json.dumps(sorted(LOG_ONLY))


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
    with _one_moment(db):
        row = db.execute(SQL["run_by_id"], {"id": run}).fetchone()
        if row is None:
            return None
        found = run_of(row)
        return Loaded(
            run=found,
            entries=_replayed(db, found),
            mailbox=[envelope_of(row) for row in db.execute(SQL["mailbox"], {"run": run})],
            cursors=[cursor_of(row) for row in db.execute(SQL["cursors"], {"run": run, "round": found.round})],
            children=[light_run_of(row) for row in db.execute(SQL["children"], {"run": run})],
        )


def _replayed(db: sqlite3.Connection, run: Run) -> list[Event]:
    """Entries that replay sees. If some are folded, what they carry is not even read: a checkpoint may hide gigabytes."""
    where = {"run": run.id, "round": run.round, "log_only": _LOG_ONLY}
    closed = {scope for (scope,) in db.execute(SQL["closed_scopes"], {"run": run.id, "round": run.round})}
    if not closed:
        return [event_of(row) for row in db.execute(SQL["replayed"], where)]
    seqs = _unfolded(db.execute(SQL["replayed_headers"], where), closed)
    return [event_of(row) for row in db.execute(SQL["entries_by_seq"], {"seqs": json.dumps(seqs)})]


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
