"""The SQL of the SQLite store, read from `statements.sql` by name; and `Bulk`, one statement for many rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHUNKS = (256, 32, 4, 2)
"""How many rows one statement takes; one that is left is written alone. Few sizes, so that each statement is found prepared;
256 rows of the widest table stay far below SQLite's limit of 32,766 parameters."""

CACHED_STATEMENTS_MAX = 256
"""More than there are statements, counted with their sizes: none is ever prepared twice."""

_NAME = re.compile(r"^-- name: (\w+)\n-- (.+)\n", re.MULTILINE)
_JOINED = re.compile(
    r"with new \((?P<columns>[\w, ]+)\) as\s+\(values \([?, ]+\)\)\n(?P<before>.+)\sfrom new(?P<after> where .+)", re.DOTALL
)
_COLUMN = re.compile(r"\bnew\.(\w+)")
_GROUP = re.compile(r"\(\?(?:, \?)*\)")


def parse(text: str) -> dict[str, str]:
    r"""Statements by name.

    >>> parse("-- name: one\n-- What it is for.\nselect 1\n")
    {'one': 'select 1'}
    """
    parts = _NAME.split(text)[1:]
    return {name: body.strip() for name, body in zip(parts[::3], parts[2::3], strict=True)}


def packaged(path: str) -> str:
    """A text that lies in this package; also where that is a zip file."""
    loader: Any = __spec__.loader  # `pkgutil.get_data` asks it, too, but takes longer to import than all of these modules.
    found: bytes = loader.get_data(str(Path(__file__).parent / path))
    return found.decode()


SQL = parse(packaged("statements.sql"))


class Bulk:
    """A statement with one group of question marks, run for many rows at a time.

    Not `executemany`: that steps the statement for each row, and each step gives the interpreter's lock away. Beside a busy
    loop it is got back 5 ms later, so 100 rows would take half a second.
    """

    def __init__(self, name: str) -> None:
        head, tail = _GROUP.split(SQL[name])
        group = _GROUP.findall(SQL[name])[0]
        self.width: int = group.count("?")
        self._sized = [(size * self.width, head + ",".join([group] * size) + tail) for size in CHUNKS]
        one, self._order = alone(SQL[name])
        self.one: str = one

    def run(self, db: sqlite3.Connection, values: Sequence[Any]) -> None:
        """Run it for all rows, whose values follow each other in one flat sequence."""
        start, end = 0, len(values)
        if end > self.width:
            for taken, sql in self._sized:
                while end - start >= taken:
                    db.execute(sql, values[start : start + taken])
                    start += taken
        if start < end:
            row = values[start:] if start else values
            db.execute(self.one, row if self._order is None else [row[at] for at in self._order])


def alone(sql: str) -> tuple[str, Sequence[int] | None]:
    r"""The statement for one row, and in which order it takes the row's values, if that is another one.

    A join with a table of one row takes twice as long as what it does: so the values stand where they are used.

    >>> alone("with new (id, at) as (values (?, ?))\nupdate run set at = new.at from new where id = new.id")
    ('update run set at = ? where id = ?', [1, 0])
    """
    joined = _JOINED.fullmatch(sql)
    if joined is None:
        return sql, None
    columns = joined["columns"].split(", ")
    text = joined["before"] + joined["after"]
    return _COLUMN.sub("?", text), [columns.index(name) for name in _COLUMN.findall(text)]


INSERT_RUN = Bulk("insert_run")
INSERT_ENTRY = Bulk("insert_entry")
INSERT_MESSAGE = Bulk("insert_message")
SET_STATE = Bulk("set_state")
WAKE = Bulk("wake")
SET_VIEW = Bulk("set_view")
SET_ROUND = Bulk("set_round")
SET_END = Bulk("set_end")
SET_STATE_AND_END = Bulk("set_state_and_end")
DROP_CONSUMED = Bulk("drop_consumed")
KEEP_CONSUMED = Bulk("keep_consumed")
SET_LETTERS = Bulk("set_letters")
EXPIRE = Bulk("expire")
DROP_PENDING_SYSTEM = Bulk("drop_pending_system")
BURY = Bulk("bury")
SET_CURSOR = Bulk("set_cursor")
DROP_CURSOR = Bulk("drop_cursor")
SET_ASIDE = Bulk("set_aside")
