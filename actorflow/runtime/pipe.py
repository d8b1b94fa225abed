"""Local sockets as byte streams: a Unix socket, or TCP on this machine's own address.

anyio has such streams, too, but on asyncio theirs answers to a byte that comes while its reader is cancelled with an
`InvalidStateError` in the log. Waiting until a socket is readable or writable is what anyio does right everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

BACKLOG_MAX = 128
"""Connections that were not accepted yet. Who comes beyond that comes again."""

ACCEPT_AGAIN_S = 0.1
"""While this process has no descriptor left, those who come wait in the backlog."""

_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Pipe(ByteStream):
    """A connected socket."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = self._raw.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._raw)
            except OSError as error:
                raise anyio.BrokenResourceError from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[self._raw.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._raw)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        close(self._raw)


def close(raw: socket.socket) -> None:
    """Close a socket that a task may be waiting for."""
    if raw.fileno() != -1:
        anyio.notify_closing(raw)
        raw.close()


def listen_unix(path: str) -> socket.socket:
    """A socket at *path* for this user only. What a process that died has left there is replaced.

    Raises:
        OSError: Something else is there, or the file system has no sockets.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            Path(path).unlink()
    raw = socket.socket(socket.AF_UNIX)
    try:
        raw.setblocking(False)
        raw.bind(path)
        Path(path).chmod(0o600)
        raw.listen(BACKLOG_MAX)  # Before this nobody can connect, so nobody came while the mode was wider.
    except BaseException:
        raw.close()
        raise
    return raw


def listen_loopback() -> socket.socket:
    """A socket at a free port, for processes of this machine (of all its users)."""
    raw = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG_MAX)
    raw.setblocking(False)
    return raw


async def accept(listener: socket.socket) -> Pipe:
    """The next who connects.

    Raises:
        OSError: The listener is broken.
        ClosedResourceError: It was closed.
    """
    await anyio.lowlevel.checkpoint()
    while True:
        try:
            raw, _ = listener.accept()
        except BlockingIOError:
            await anyio.wait_readable(listener)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS and error.errno != errno.ECONNABORTED:
                raise
            await anyio.sleep(ACCEPT_AGAIN_S)
        else:
            return Pipe(raw)


async def connect(address: str | tuple[str, int]) -> Pipe:
    """Connect to a path, or to a port of this machine.

    Raises:
        OSError: Nobody listens there, or too many wait there.
    """
    raw = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        raw.setblocking(False)
        try:
            raw.connect(address)
        except BlockingIOError:
            if isinstance(address, str):
                raise  # The backlog is full.
            await anyio.wait_writable(raw)
            if (number := raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
                raise OSError(number, os.strerror(number)) from None
    except BaseException:
        close(raw)
        raise
    return Pipe(raw)
