"""Where the holder of a store is to be found: the database file, what stands beside it, and what the lock file says.

The lock file is the only place where a holder says how to reach it. What it says may be old (its writer may be dead), so
nothing here is believed before a connection was made.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from anyio.abc import ByteStream
from attrs import frozen

from actorflow.errors import StoreUnavailable
from actorflow.runtime.pipe import connect
from actorflow.stores.filelock import FileLock
from actorflow.value import Value

LOOPBACK: bool = sys.platform == "win32"
"""Listen on TCP, for this machine only and with a token, where there are no Unix sockets that files protect."""

SOCKET_PATH_BYTES_MAX = 99
"""The system keeps 104 to 108 bytes for it, its end included."""


@runtime_checkable
class Announces(Protocol):
    """A store in a file, beside which the holder can say where it is to be reached."""

    @property
    def url(self) -> str: ...
    async def announce(self, **facts: Any) -> None: ...


@frozen(kw_only=True)
class Facts(Value):
    """What the lock file says of whoever holds the store, or held it last."""

    pid: int | None
    since: float | None
    told: bool  #: it said how to reach it, or that it cannot be; if not, it has just begun or is a client at one act
    socket: str | None  #: the path of a Unix socket, or "127.0.0.1:port"
    token: str  #: what to show at a port; "" for a Unix socket

    @property
    def silent(self) -> bool:
        """True if a live process holds the store and does not listen (or did, and lives)."""
        return self.told and self.socket is None and self.pid is not None and _lives(self.pid)


@frozen
class Place(Value):
    """A database file."""

    path: str  #: absolute

    @classmethod
    def of(cls, url: str) -> Place:
        """The file behind a store's URL.

        Raises:
            ValueError: It names no file.
        """
        scheme, _, path = url.partition("://")
        if scheme != "sqlite" or not path.startswith("/") or len(path) < 2:
            raise ValueError(
                f"{url!r} names no file that two processes could share: write sqlite:///file.db or sqlite:////absolute/file.db. "
                f"For memory:// use the verbs of its Runtime."
            )
        return cls(os.path.abspath(path[1:]))  # noqa: PTH100  (as the store does it: a link stays one)

    @property
    def lock_path(self) -> str:
        return f"{self.path}.lock"

    def check(self) -> None:
        """See that there is a database, and that this user may reach it; a client makes none.

        Raises:
            StoreUnavailable: There is none, or it is another user's.
        """
        if not Path(self.path).exists():
            raise StoreUnavailable(
                f"there is no database {self.path}, and a client makes none. See that the URL names the file that the service "
                f"uses, or start the service first."
            )
        if Path(self.lock_path).exists() and not os.access(self.lock_path, os.R_OK | os.W_OK):
            raise StoreUnavailable(f"{self.lock_path} belongs to another user. Run this as the user who runs the service.")

    def facts(self) -> Facts:
        """What the lock file says now."""
        said = FileLock(self.lock_path).read()
        pid, since, socket, token = said.get("pid"), said.get("started_at"), said.get("socket"), said.get("token")
        return Facts(
            pid=pid if isinstance(pid, int) else None,
            since=since if isinstance(since, (int, float)) else None,
            told="socket" in said,
            socket=socket if isinstance(socket, str) else None,
            token=token if isinstance(token, str) else "",
        )

    def holder(self) -> str:
        """Who holds it, for a message."""
        return FileLock(self.lock_path).holder()

    def socket_path(self, store_id: str) -> str:
        """Where a holder listens: beside the file, or, if that path is too long for a socket, in a directory of this user.

        Raises:
            OSError: That directory is not this user's alone.
        """
        beside = f"{self.path}.sock"
        if len(os.fsencode(beside)) <= SOCKET_PATH_BYTES_MAX:
            return beside
        from tempfile import gettempdir  # noqa: PLC0415  (it brings all of Python's archives)

        path = Path(gettempdir(), f"actorflow-{os.getuid()}", f"{store_id[:16]}.sock")
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            path = Path("/tmp", *path.parts[-2:])  # noqa: S108  (made 0700, and looked at before it is used)
        _own_directory(path.parent)
        return str(path)


def place_of(store: object) -> Place | None:
    """The file of a store that is one whose holder can be reached."""
    return Place.of(store.url) if isinstance(store, Announces) else None


async def reach(facts: Facts) -> ByteStream | None:
    """A connection to whoever listens there, or None.

    Raises:
        StoreUnavailable: This user may not connect.
    """
    if facts.socket is None:
        return None
    try:
        if facts.token:
            host, _, port = facts.socket.rpartition(":")
            return await connect((host, int(port)))
        return await connect(facts.socket)
    except PermissionError as error:
        raise StoreUnavailable(
            f"this user may not connect to {facts.socket}. Run this as the user who runs the service."
        ) from error
    except (OSError, ValueError):
        return None  # What the lock file says is old: the holder has gone, or is about to go.


def _own_directory(path: Path) -> None:
    try:
        path.mkdir(0o700)
    except FileExistsError:
        found = path.lstat()
        # In a directory that all may write to somebody else may have made it first, to listen in our place.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{path} is not a directory of this user alone (0700); remove it") from None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
