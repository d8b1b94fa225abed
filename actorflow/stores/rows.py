"""Rows of the database as records, with a look at their checksums."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from actorflow.errors import Undecodable
from actorflow.records import Entry, Envelope, Event, Run, SetCursor, made
from actorflow.stores.changes import RUN_COLUMNS, RUN_PAYLOADS, checksum, entry_checksum, message_checksum

Row = tuple[Any, ...]

_LIGHT_COLUMNS = (*RUN_COLUMNS[:-5], "report")
_WHY = "its checksum does not match, so it was changed on disk since it was written. Restore it from a backup, or end its run"


def run_of(row: Row) -> Run:
    """A whole run.

    Raises:
        Undecodable: A payload is not what was written.
    """
    for name, payload, crc in zip(RUN_PAYLOADS, row[16:21], row[21:26], strict=True):
        if crc != (None if payload is None else crc32(payload)):
            raise Undecodable(f"{name} of run {row[1]}/{row[2]}", _WHY)
    return _run(dict(zip(RUN_COLUMNS, row, strict=False)))


def light_run_of(row: Row) -> Run:
    """A run without its payloads (but its report), as lists show it; unchecked, as one bad row must not hide the others."""
    return _run(dict(zip(_LIGHT_COLUMNS, row, strict=True)))


def _run(values: dict[str, Any]) -> Run:
    values["detached"], values["actor"] = bool(values["detached"]), bool(values["actor"])
    return Run(**values)


def envelope_of(row: Row) -> Envelope:
    """A message.

    Raises:
        Undecodable: Body or answer is not what was written.
    """
    message = Envelope(*row[:12])
    if message_checksum(message) != row[12] or checksum(message.answer) != row[13]:
        raise Undecodable(f"message {message.id} of run {message.run}", _WHY)
    return message


def unchecked_envelope_of(row: Row) -> Envelope:
    """A message as lists show it."""
    return Envelope(*row[:12])


def event_of(row: Row) -> Event:
    """An entry and its place.

    Raises:
        Undecodable: A payload is not what was written.
    """
    entry = made(Entry, row[1:14])
    if entry_checksum(entry) != row[14]:
        raise Undecodable(f"entry {row[0]} ({entry.kind} {entry.identity}) of run {entry.run}", _WHY)
    return made(Event, (row[0], entry))


def unchecked_event_of(row: Row) -> Event:
    """An entry as the log shows it."""
    return Event(row[0], Entry(*row[1:14]))


def cursor_of(row: Row) -> SetCursor:
    """Where an `each` stands.

    Raises:
        Undecodable: It is not what was written.
    """
    cursor = SetCursor(*row[:5])
    if crc32(row[4]) != row[5]:
        raise Undecodable(f"cursor {cursor.branch}#{cursor.n} of run {cursor.run}", _WHY)
    return cursor
