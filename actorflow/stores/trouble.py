"""SQLite's errors, said in the store's words: what happened, so what, and what to do now."""

from __future__ import annotations

import errno
import sqlite3
from enum import Enum, auto

from actorflow.errors import StoreBroken, StoreError, StoreUnavailable


class Trouble(Enum):
    """What kind of error it is, and so what may still be done."""

    DATA = auto()  #: one row cannot be stored; the other ones can
    FULL = auto()  #: no space; the transaction is gone
    BUSY = auto()  #: another program writes
    SLOW = auto()  #: a read took too long and was cut
    CLOSED = auto()  #: the file or directory may not be written to
    DAMAGED = auto()  #: the content is not what it should be
    DEVICE = auto()  #: reading or writing failed: nothing may be trusted until the file is opened anew


FAILURES = (sqlite3.Error, UnicodeDecodeError, OSError, MemoryError)
"""What comes out of SQLite and of files when they fail."""

_PRIMARY = {
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_INTERRUPT: Trouble.SLOW,
    sqlite3.SQLITE_READONLY: Trouble.CLOSED,
    sqlite3.SQLITE_CANTOPEN: Trouble.CLOSED,
    sqlite3.SQLITE_PERM: Trouble.CLOSED,
    sqlite3.SQLITE_CORRUPT: Trouble.DAMAGED,
    sqlite3.SQLITE_NOTADB: Trouble.DAMAGED,
    sqlite3.SQLITE_IOERR: Trouble.DEVICE,
    sqlite3.SQLITE_CONSTRAINT: Trouble.DATA,
    sqlite3.SQLITE_TOOBIG: Trouble.DATA,
    sqlite3.SQLITE_MISMATCH: Trouble.DATA,
    sqlite3.SQLITE_RANGE: Trouble.DATA,
}


_ERRNO = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EIO: Trouble.DEVICE,
}


def kind_of(error: BaseException) -> Trouble:
    """Sort an error that came out of a statement.

    What comes without SQLite's code is Python refusing to bind a value (too large an integer, a lone surrogate, a type that
    it does not know); memory that ran out is treated like a device that fails.
    """
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return _PRIMARY.get(code & 0xFF, Trouble.DEVICE)
    if isinstance(error, (sqlite3.OperationalError, UnicodeDecodeError)):
        return Trouble.DAMAGED  # A text that is not UTF-8 was read, in a row or in the schema, and none such was written.
    if isinstance(error, OSError):
        return _ERRNO.get(error.errno or 0, Trouble.CLOSED)
    if isinstance(error, (sqlite3.Error, ValueError, OverflowError, TypeError)):
        return Trouble.DATA
    return Trouble.DEVICE


def as_store_error(error: BaseException, path: str) -> StoreError:
    """What to raise for *error*; it should be its cause."""
    match kind_of(error):
        case Trouble.FULL:
            return no_space(path)
        case Trouble.BUSY:
            return StoreUnavailable(
                f"another program is writing to {path} and did not finish in time; nothing was written. Only the holder "
                f"may write to it: close the other program (a database browser, a script), then go on."
            )
        case Trouble.SLOW:
            return StoreUnavailable(
                f"a read of {path} took too long and was cut. Ask for less: a smaller page, a narrower filter."
            )
        case Trouble.CLOSED:
            return StoreUnavailable(
                f"{path} cannot be opened for writing; nothing was written. See that its directory exists and that this user "
                f"may write to both (the directory also takes {path}-wal, {path}-shm and {path}.lock)."
            )
        case Trouble.DAMAGED:
            return StoreBroken(
                f"{path} is no sound SQLite database ({error}). Nothing was written. Restore it from a backup; keep this "
                f"file: much of it may still be readable."
            )
        case Trouble.DEVICE:
            return StoreBroken(
                f"reading or writing {path} failed ({error}), and what reached the disk is unknown. The store takes no more "
                f"writes: see to the disk, then start again; what was acknowledged is looked up in the file."
            )
        case Trouble.DATA:
            return StoreUnavailable(
                f"{path} refused a statement ({error}); nothing was written. This is a bug of actorflow: please report it."
            )


def no_space(path: str) -> StoreUnavailable:
    """What to raise when the disk is full."""
    return StoreUnavailable(f"there is no space left for {path}; nothing was written. Free some, then go on.")


def lost_sight(path: str) -> StoreBroken:
    """What to raise when a COMMIT failed and cannot be looked up either."""
    return StoreBroken(
        f"writing to {path} failed and the file could not be opened again to see whether the batch is in it; it was not "
        f"acknowledged. See to the disk and start again: what is in the file counts."
    )
