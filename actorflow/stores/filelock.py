"""The sidecar `<database>.lock`: who holds the store, and what the store was when it was last held.

The lock is `flock` on this file, never on the database: SQLite's own locks there are per process and are lost when anybody
in the process opens and closes the file. The system frees it when the holder ends, however it ends. Its content is JSON for
people and for other processes (where to reach the holder), and a memory of its own: the store's id and generation, by which
a database file that was lost, emptied, exchanged or set back is noticed. Content that cannot be read is no memory, and no harm.

A forked child shares the open file, and with it the lock; so it closes it at once (`os.register_at_fork`), or the lock would
outlive the holder.
"""

# Files are known here by names and descriptors, as the system knows them.
# ruff: noqa: PTH116, PTH123

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import weakref
from datetime import UTC, datetime
from typing import Any

_MODE = 0o600
_SIZE_MAX = 65_536  #: of the content; what is larger was not written by us

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_close_in_child)


class FileLock:
    """The lock of one store. Not for many threads at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: int | None = None

    def __del__(self) -> None:
        # A store that was dropped without being closed is as good as a crashed one: whoever comes next must get in.
        self.forget()

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it. Holding it already is an error.

        Raises:
            OSError: The file can be neither opened nor made.
        """
        assert self._file is None, "the lock is held"
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            except BaseException:
                os.close(file)
                raise
            if self._is_at_path(file):
                self._file = file
                _held.add(self)
                return True
            # Between open and lock somebody removed the file: what we locked is nobody's. Another may lock a new one.
            os.close(file)

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def read(self) -> dict[str, Any]:
        """What the file says, without holding the lock; {} if nothing, or nothing that makes sense."""
        with contextlib.suppress(OSError, ValueError):
            # This is our file and SQLite never opens it, so opening and closing it costs no lock of SQLite's; and flock,
            # unlike SQLite's locks, stays with the descriptor that took it.
            with open(self.path, "rb") as file:
                content = json.loads(file.read(_SIZE_MAX))
            if isinstance(content, dict):
                return {str(name): value for name, value in content.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return {}

    def write(self, **facts: Any) -> None:
        """Replace what the file says, adding who holds it. In place: a file moved there would be another lock.

        Somebody reading at this moment may see half of it, and then takes it for nothing.
        """
        assert self._file is not None, "the lock is not held"
        content = {"pid": os.getpid(), "host": socket.gethostname(), **facts}
        data = json.dumps(content, indent=1).encode() + b"\n"
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))

    def note(self, **facts: Any) -> None:
        """Add to what the file says, if it is held and can be written."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.write(**{**self.read(), **facts})

    def holder(self) -> str:
        """Who holds it, for a message."""
        facts = self.read()
        pid, since = facts.get("pid"), facts.get("started_at")
        if not isinstance(pid, int):
            return "another process"
        if not isinstance(since, (int, float)):
            return f"process {pid}"
        return f"process {pid} on {facts.get('host')} since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC"

    def identity(self) -> os.stat_result:
        """The file that is locked, to compare with the one at the path."""
        assert self._file is not None, "the lock is not held"
        return os.fstat(self._file)

    def release(self) -> None:
        """Let it go. Idempotent. The file stays: it remembers, and removing it would race with who opens it now."""
        self.forget()

    def forget(self) -> None:
        """Close the file. In a forked child this leaves the parent's lock alone, as it never unlocks."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        _held.discard(self)
