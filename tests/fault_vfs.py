"""A disk under the real SQLite that remembers all that is written, and fails on purpose.

`recording` puts a VFS in front of SQLite's own one, in the very library that the interpreter's `sqlite3` uses: what the
store writes goes through it, and to the real file. A `Disk` notes each write, sync, truncation and deletion in order. From
these notes `image` makes the files as a power cut at any moment could have left them; and `Fault`s make the N-th operation
of a kind fail.

Where `sqlite3` is linked into the interpreter there is no library to reach, and `why_not` says so.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import sqlite3
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p, pointer
from pathlib import Path
from typing import Any, Literal

from attrs import define, evolve, field, frozen

SECTOR_BYTES = 512

Kind = Literal["read", "write", "truncate", "sync", "delete"]


@frozen
class Event:
    """Something that was done to a file, or (kind "mark") something that a test wants to find again in the order of events."""

    kind: Kind | Literal["mark"]
    path: str
    offset: int = 0  #: of a write; of a truncation: the new size; of a mark: its number
    data: bytes = b""
    again: bool = False  #: a write of what is there already: a sector that is on its way is not garbled by that
    failed: bool = False  #: a sync that failed: what it should have made durable never will be, whatever later ones say


@define
class Fault:
    """From the *at*-th operation that fits on, *times* of them fail with SQLite's error *code*."""

    kinds: frozenset[Kind]
    at: int
    code: int
    suffix: str = ""  #: only files whose names end so ("-wal", ".db")
    times: float = 1
    beyond: int = 0  #: only at that place of a file, or behind it
    seen: int = field(default=0, init=False)
    hit: int = field(default=0, init=False)  #: how many operations it made fail

    def meets(self, event: Event) -> bool:
        if event.kind not in self.kinds or not event.path.endswith(self.suffix) or event.offset < self.beyond:
            return False
        self.seen += 1
        failing = self.at <= self.seen < self.at + self.times
        self.hit += failing
        return failing


@define(eq=False)
class Disk:
    """What happened to files, in order; and what is to fail."""

    events: list[Event] = field(factory=list[Event], repr=False)
    faults: list[Fault] = field(factory=list[Fault])
    watched: str = ""  #: only files whose paths begin so are noted and fail
    before: Callable[[Event], object] | None = None  #: called first, on the thread that does it
    _lock: threading.Lock = field(factory=threading.Lock, init=False, repr=False)

    def mark(self, what: str, number: int = 0) -> None:
        """Remember that *what* was true here."""
        self._note(Event("mark", what, number))

    def _note(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def marks(self, what: str, before: int) -> list[int]:
        """The numbers of those marks among the first *before* events."""
        return [event.offset for event in self.events[:before] if event.kind == "mark" and event.path == what]

    def moments(self) -> list[int]:
        """Every number of events after which the power may go: before and after each operation."""
        return [0, *(at for at, event in enumerate(self.events, 1) if event.kind != "mark")]

    def attempt(self, event: Event) -> int:
        """Note what is about to be done. Not 0: it is not done, and this is what SQLite is told (of a write half is done)."""
        if event.kind == "mark" or not event.path.startswith(self.watched):
            return 0
        if self.before is not None:
            self.before(event)
        code = 0
        for fault in self.faults:
            if fault.meets(event):
                code = fault.code
        if event.kind == "sync" and code:
            self._note(evolve(event, failed=True))
        elif event.kind == "write" and code:
            self._note(evolve(event, data=event.data[: len(event.data) // 2]))
        elif event.kind != "read" and not code:
            self._note(event)
        return code


# --- after a power cut ----------------------------------------------------------------------------------------------------

Survival = Literal["lost", "kept", "torn", "garbled"]
"""What becomes of writes that were not synced.

lost: none is on the disk. kept: all are, as after SIGKILL. torn: each sector is or is not, whatever the others are.
garbled: the same, and some that were being written hold chance.
"""
SURVIVALS: tuple[Survival, ...] = ("lost", "kept", "torn", "garbled")


@define
class _File:
    """One file's history: operations in order, and how many of them a sync has made durable."""

    operations: list[tuple[Event, bool]] = field(factory=list[tuple[Event, bool]])  #: (what, whether it is doomed)
    durable: int = 0
    deleted: bool = False  #: for good
    created: bool = True  #: since the last time that its directory was synced

    def add(self, event: Event) -> None:
        if self.operations and self.operations[-1][0].kind == "delete" and event.kind != "delete":
            self.operations.clear()  # A new file of that name.
            self.durable, self.created = 0, True
        self.operations.append((event, False))

    def sync(self, *, failed: bool) -> None:
        if failed:
            # The system takes the pages for clean from now on: no later sync will write them.
            late = [(event, True) for event, _ in self.operations[self.durable :]]
            self.operations[self.durable :] = late
        self.durable = len(self.operations)

    def content(self, survival: Survival, chance: random.Random) -> bytes | None:
        """What the power cut left of it; None: no file."""
        held: bytearray | None = None
        for at, (event, doomed) in enumerate(self.operations):
            certain = at < self.durable and not doomed
            if event.kind == "delete":
                if certain or _survives(survival, chance):
                    held = None
                continue
            held = bytearray() if held is None and certain else held
            for piece in [event] if certain else _surviving(event, survival, chance):
                held = bytearray() if held is None else held
                _apply(held, piece)
        return None if held is None else bytes(held)


def _survives(survival: Survival, chance: random.Random) -> bool:
    return survival == "kept" or (survival != "lost" and chance.random() < 0.5)


def _surviving(event: Event, survival: Survival, chance: random.Random) -> Iterator[Event]:
    """The pieces of an operation that was not synced which are on the disk nevertheless."""
    if survival == "kept" or (event.kind == "truncate" and _survives(survival, chance)):
        yield event
    elif event.kind == "write" and survival != "lost":
        begin, end = event.offset, event.offset + len(event.data)
        while begin < end:
            until = min(end, (begin // SECTOR_BYTES + 1) * SECTOR_BYTES)
            data = event.data[begin - event.offset : until - event.offset]
            roll = chance.random()
            if roll < 0.55:
                yield Event("write", event.path, begin, data)
            elif roll < 0.65 and survival == "garbled" and not event.again:
                yield Event("write", event.path, begin, chance.randbytes(len(data)))
            begin = until


def _apply(held: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del held[event.offset :]
        return
    if len(held) < event.offset:
        held.extend(bytes(event.offset - len(held)))
    held[event.offset : event.offset + len(event.data)] = event.data


def image(events: Iterable[Event], survival: Survival, chance: random.Random) -> dict[str, bytes]:
    """The files as a power cut after *events* leaves them, by path; without the WAL's index, which is memory."""
    files: defaultdict[str, _File] = defaultdict(_File)
    for event in events:
        match event.kind:
            case "mark":
                pass
            case "sync":
                file = files[event.path]
                file.sync(failed=event.failed)
                if file.created and not event.failed and event.path.endswith(("-wal", "-journal")):
                    # With a new log SQLite syncs its directory, too: whatever was deleted there stays so.
                    file.created = False
                    for other in files.values():
                        if other.operations and other.operations[-1][0].kind == "delete":
                            other.durable = len(other.operations)
            case _:
                files[event.path].add(event)
    left = {path: file.content(survival, chance) for path, file in files.items()}
    return {path: content for path, content in left.items() if content is not None}


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, if there is one: where power cuts are made up, real syncs prove nothing and take their time."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if os.access(shm, os.W_OK) else otherwise))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def rebuild(files: dict[str, bytes], folder: Path) -> None:
    """Write an image's files into *folder*."""
    folder.mkdir()
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)


# --- the VFS --------------------------------------------------------------------------------------------------------------

_READ = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)


class _Methods(Structure):
    """`sqlite3_io_methods`. What is not called from here is left as an address."""

    _fields_ = (
        ("iVersion", c_int),
        ("xClose", _CLOSE),
        ("xRead", _READ),
        ("xWrite", _READ),
        ("xTruncate", _TRUNCATE),
        ("xSync", _SYNC),
        ("others", c_void_p * 13),  # xFileSize ... xDeviceCharacteristics, xShmMap ... xShmUnmap, xFetch, xUnfetch
    )


class _SqliteFile(Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", POINTER(_Methods)),)


class _Vfs(Structure):
    """`sqlite3_vfs`."""

    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", _OPEN),
        ("xDelete", _DELETE),
        ("others", c_void_p * 14),  # xAccess ... xGetLastError, xCurrentTimeInt64, xSetSystemCall ... xNextSystemCall
    )


_immortal: list[Any] = []  #: SQLite may still point to these


def _library() -> ctypes.CDLL | None:
    """The SQLite library that `sqlite3` has loaded: another copy would have locks of its own."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    loaded = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "libsqlite3" in line}
    if len(loaded) != 1:
        return None
    library = ctypes.CDLL(loaded.pop())
    library.sqlite3_libversion.restype = c_char_p
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = (c_char_p,)
    library.sqlite3_vfs_register.argtypes = (c_void_p, c_int)
    library.sqlite3_vfs_unregister.argtypes = (c_void_p,)
    return library if library.sqlite3_libversion().decode() == sqlite3.sqlite_version else None


def why_not() -> str:
    """Why there can be no such disk here; "" if there can."""
    return "" if _library() else "the interpreter's SQLite is no library of its own that could be found"


@contextmanager
def recording(disk: Disk) -> Iterator[Disk]:
    """Until the end of the block each connection that this process opens goes through *disk*. Close them before it ends."""
    library = _library()
    assert library is not None
    system = library.sqlite3_vfs_find(None)
    vfs = _Shim(disk, system.contents).vfs
    assert library.sqlite3_vfs_register(byref(vfs), 1) == sqlite3.SQLITE_OK
    try:
        yield disk
    finally:
        library.sqlite3_vfs_unregister(byref(vfs))
        library.sqlite3_vfs_register(system, 1)


class _Shim:
    """SQLite's own VFS, with a look at (and a say in) what changes files."""

    def __init__(self, disk: Disk, system: _Vfs) -> None:
        self.disk, self.system = disk, system
        self.paths: dict[int, str] = {}
        self.patched: dict[int, _Methods] = {}
        self.vfs = _Vfs.from_buffer_copy(system)
        self.vfs.name = b"actorflow-recording"
        self.vfs.xOpen = _OPEN(self.open)
        self.vfs.xDelete = _DELETE(self.delete)
        _immortal.append(self)

    def open(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        code = int(self.system.xOpen(vfs, name, file, flags, out))
        if code == sqlite3.SQLITE_OK and name:
            opened = _SqliteFile.from_address(file)
            original = opened.methods.contents
            where = ctypes.addressof(original)
            if where not in self.patched:
                self.patched[where] = self.patch(original)
            self.paths[file] = ctypes.string_at(name).decode()
            opened.methods = pointer(self.patched[where])
        return code

    def delete(self, vfs: int, name: bytes, sync_directory: int) -> int:
        code = self.disk.attempt(Event("delete", name.decode()))
        return code or int(self.system.xDelete(vfs, name, sync_directory))

    def patch(self, original: _Methods) -> _Methods:
        disk, paths = self.disk, self.paths

        def close(file: int) -> int:
            del paths[file]
            return int(original.xClose(file))

        def read(file: int, into: int, size: int, offset: int) -> int:
            return disk.attempt(Event("read", paths[file], offset)) or int(original.xRead(file, into, size, offset))

        def write(file: int, data: int, size: int, offset: int) -> int:
            code = disk.attempt(Event("write", paths[file], offset, ctypes.string_at(data, size)))
            done = int(original.xWrite(file, data, size // 2 if code else size, offset))
            return code or done

        def truncate(file: int, size: int) -> int:
            return disk.attempt(Event("truncate", paths[file], size)) or int(original.xTruncate(file, size))

        def sync(file: int, flags: int) -> int:
            return disk.attempt(Event("sync", paths[file])) or int(original.xSync(file, flags))

        patched = _Methods.from_buffer_copy(original)
        patched.xClose, patched.xRead, patched.xWrite = _CLOSE(close), _READ(read), _READ(write)
        patched.xTruncate, patched.xSync = _TRUNCATE(truncate), _SYNC(sync)
        return patched
