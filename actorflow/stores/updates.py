"""What a batch changes, done: each kind of change is one statement, however many rows it touches. Where the words come from is
`changes`; this is how SQLite hears them, inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from actorflow.stores import statements
from actorflow.stores.changes import Changes, checksum
from actorflow.stores.statements import SQL, Bulk


def apply(db: sqlite3.Connection, changes: Changes) -> None:
    """One step of a batch: all but the burials, which come after the last one."""
    if changes.ends:
        _set_ends(db, changes)
    if changes.states:
        statements.SET_STATE.run(db, list(chain.from_iterable(changes.states.values())))
    if changes.wakes:
        statements.WAKE.run(db, [value for row in changes.wakes.items() for value in row])
    if changes.views:
        statements.SET_VIEW.run(db, [value for run, view in changes.views.items() for value in (run, view, checksum(view))])
    if changes.rounds:
        rounds = changes.rounds.values()
        statements.SET_ROUND.run(db, [value for row in rounds for value in (*row, checksum(row.fields))])
    if changes.cursors:
        _set_cursors(db, changes)
    if changes.aside:
        statements.SET_ASIDE.run(db, [value for row in changes.aside.items() for value in row])
    if changes.letters:
        _set_letters(db, changes)
    if changes.consumed:
        _consume(db, changes)
    if changes.expired:
        statements.EXPIRE.run(db, [value for row in changes.expired.items() for value in row])
    if changes.pruned is not None:
        _prune(db, changes.pruned)


def bury(db: sqlite3.Connection, runs: Sequence[int]) -> None:
    """What ended runs never took."""
    if runs:
        statements.DROP_PENDING_SYSTEM.run(db, runs)
        statements.BURY.run(db, runs)


def _set_ends(db: sqlite3.Connection, changes: Changes) -> None:
    with_state: list[Any] = []
    alone: list[Any] = []
    for run, end in changes.ends.items():
        state = changes.states.pop(run, None)  # Written here, with the end.
        if state is None:
            flat = alone
            flat += end
        else:
            flat = with_state
            flat += state
            flat += end[1:]
        flat += (checksum(end.outcome), checksum(end.report))
    statements.SET_STATE_AND_END.run(db, with_state)
    statements.SET_END.run(db, alone)


def _set_letters(db: sqlite3.Connection, changes: Changes) -> None:
    rows = (
        (id, state, kept, answer, checksum(answer), dead_kept, dead_answer, checksum(dead_answer), line, dead_line)
        for id, (state, kept, answer, dead_kept, dead_answer, line, dead_line) in changes.letters.items()
    )
    statements.SET_LETTERS.run(db, [value for row in rows for value in row])


def _consume(db: sqlite3.Connection, changes: Changes) -> None:
    """Each is kept or dropped, and only the database knows which. Where there is an answer somebody asked, as a rule: so what
    is more likely is done first, and the other only if that was not all."""
    kept = [value for id, answer in changes.consumed.items() for value in (id, answer, checksum(answer))]
    ways: list[tuple[Bulk, list[Any]]] = [(statements.DROP_CONSUMED, list(changes.consumed)), (statements.KEEP_CONSUMED, kept)]
    if any(answer is not None for answer in changes.consumed.values()):
        ways.reverse()
    before = db.total_changes
    for statement, values in ways:
        if db.total_changes - before < len(changes.consumed):
            statement.run(db, values)


def _set_cursors(db: sqlite3.Connection, changes: Changes) -> None:
    kept = [(*key, state, checksum(state)) for key, state in changes.cursors.items() if state is not None]
    statements.SET_CURSOR.run(db, [value for row in kept for value in row])
    gone = [key for key, state in changes.cursors.items() if state is None]
    statements.DROP_CURSOR.run(db, [value for key in gone for value in key])


def _prune(db: sqlite3.Connection, run: int) -> None:
    if db.execute(SQL["tombstone"], {"run": run}).rowcount:
        for name in ("prune_entries", "prune_set_aside", "prune_messages", "prune_cursors"):
            db.execute(SQL[name], {"run": run})
