"""A connection on its own thread, reached in the same way from asyncio and from trio.

aiosqlite gives a connection a thread and speaks asyncio only. On asyncio it is used as it is; on trio it lives on a private
asyncio loop in another thread, and what it says comes back through trio's token. Either way a call is one hop: a function
runs on the connection's thread with the connection in hand and its result comes back. aiosqlite has no public "run this
there", but it passes `executemany` on to whatever class the connection has, so that our class may run a function instead.

A task that is cancelled while it waits leaves the call running: what was asked for is done, and its result dropped.

A hop costs as much as a small query. So what is `read` while one is under way gathers, and goes with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import aiosqlite
import anyio
import anyio.lowlevel

from actorflow.errors import StoreStopped
from actorflow.stores.statements import CACHED_STATEMENTS_MAX

T = TypeVar("T")

Ask = Callable[[Callable[[sqlite3.Connection], T]], Awaitable[T]]
"""One way to have a function run on a connection's thread."""

READS_MAX = 32
"""Answered in one hop. More of them gain little, and the loop would have nothing to do meanwhile."""


class _Call(Generic[T]):
    """A function on its way to the connection's thread, and its result on the way back."""

    __slots__ = ("function", "result")

    def __init__(self, function: Callable[[sqlite3.Connection], T]) -> None:
        self.function = function
        self.result: T

    def run(self, db: sqlite3.Connection) -> None:
        self.result = self.function(db)


class _Read(_Call[T]):
    """One of several that are answered together: what it raises is its own matter."""

    __slots__ = ("answered", "error")

    def __init__(self, function: Callable[[sqlite3.Connection], T]) -> None:
        super().__init__(function)
        self.answered: asyncio.Future[None] | None = None  #: for one that waits for others; of the loop that the connection is on
        self.error: BaseException | None = None

    def run(self, db: sqlite3.Connection) -> None:
        try:
            super().run(db)
        except BaseException as error:  # noqa: BLE001  (raised where it was asked for)
            self.error = error


class _Thread(sqlite3.Connection):
    """A connection whose `executemany` runs whole functions on the thread it lives on."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        for call in parameters:
            call.run(self)
        return self.cursor()


class Home(Protocol):
    """The asyncio loop that connections live on."""

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T: ...
    def start(self, coroutine: Coroutine[Any, Any, None]) -> None: ...
    async def close(self) -> None: ...


class SameLoop:
    """The caller's own loop."""

    def __init__(self) -> None:
        self._started: set[asyncio.Task[None]] = set()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await coroutine

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._started.add(task)
        task.add_done_callback(self._started.discard)

    async def close(self) -> None:
        if self._started:
            await asyncio.wait(self._started)


class OtherLoop:
    """A private asyncio loop in a daemon thread, for a caller on trio."""

    def __init__(self, post: Callable[[Callable[[], object]], object]) -> None:
        self._post = post
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="actorflow-store-loop", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        done = anyio.Event()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.add_done_callback(lambda _: self._tell(done))
        await done.wait()
        return future.result()

    def _tell(self, done: anyio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # The caller's loop has ended (trio.RunFinishedError): nobody waits any more.
            self._post(done.set)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        # Nothing is left to do there, so this takes microseconds.
        self._thread.join()


class Bridge:
    """One connection. Calls are served in the order they were made."""

    def __init__(self, home: Home, db: aiosqlite.Connection) -> None:
        self._home, self._db = home, db
        self._closed = False
        self._reading = False  #: a hop of `read` is under way
        self._gathered: list[_Read[Any]] = []  #: what is to go with the next one

    @staticmethod
    def home() -> Home:
        """A loop for connections of the running task, whichever backend it runs on."""
        token: Any = anyio.lowlevel.current_token().native_token
        if isinstance(token, asyncio.AbstractEventLoop):
            return SameLoop()
        return OtherLoop(token.run_sync_soon)

    @classmethod
    async def open(cls, home: Home, database: str, *, timeout_s: float) -> Self:
        """Connect. Nothing of the file is read before the first call.

        Args:
            home: Where it lives.
            database: A "file:" URI.
            timeout_s: How long SQLite waits by itself for another program's lock.
        """
        _spare_adapting()
        db = _born_daemon(
            lambda: aiosqlite.connect(
                database,
                uri=True,
                factory=_Thread,
                isolation_level=None,
                timeout=timeout_s,
                cached_statements=CACHED_STATEMENTS_MAX,
                check_same_thread=False,
            )
        )
        with anyio.CancelScope(shield=True):  # It takes microseconds, and half open it would belong to nobody.
            await home.run(_opened(db))
        return cls(home, db)

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run *function* on the connection's thread and hand back what it returns or raises."""
        if self._closed:
            raise StoreStopped("it was closed")
        call = _Call(function)
        await self._home.run(self._hop(call))
        return call.result

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The same for a short query; many that are asked for at a time share their hops."""
        if self._closed:
            raise StoreStopped("it was closed")
        read = _Read(function)
        await self._home.run(self._answered(read))
        if read.error is not None:
            raise read.error
        return read.result

    def send(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """The same as `call`, with nobody waiting. *function* must not raise."""
        self._home.start(self._hop(_Call(function)))

    async def close(self) -> None:
        """Finish what was called before, close the connection and end its thread."""
        self._closed = True
        await self._home.run(self._end())

    # On the loop that the connection lives on.

    async def _end(self) -> None:
        while self._gathered:
            await self._read_gathered()
        await self._db.close()

    async def _answered(self, read: _Read[Any]) -> None:
        if self._reading:
            read.answered = asyncio.get_running_loop().create_future()
            self._gathered.append(read)
            await read.answered
            return
        self._reading = True
        try:
            await self._hop(read)
        finally:  # Also if it is cancelled: its hop goes on, and the thread takes them in order.
            self._next()

    def _next(self) -> None:
        self._reading = bool(self._gathered)
        if self._reading:
            self._home.start(self._read_gathered())

    async def _read_gathered(self) -> None:
        reads, self._gathered = self._gathered[:READS_MAX], self._gathered[READS_MAX:]
        try:
            await self._hop(*reads)
        except BaseException as error:  # noqa: BLE001  (the connection's own, or the end of the loop: none of them was answered)
            for read in reads:
                read.error = error
        finally:
            for read in reads:
                if read.answered is not None and not read.answered.done():
                    read.answered.set_result(None)
            self._next()

    async def _hop(self, *calls: _Call[Any]) -> None:
        await self._db.executemany("", cast("Any", calls))


async def _opened(db: aiosqlite.Connection) -> None:
    await db


_NONE: dict[None, None] = {None: None}
_AS_IT_IS: dict[type, Callable[[Any], Any]] = {type(None): _NONE.__getitem__, bytes: bytes.__bytes__}
"""Adapters that hand back what they get.

sqlite3 binds an `int`, a `float` and a `str` at once, and looks for an adapter of all others, None and bytes too, up to an
AttributeError that is raised and swallowed: 0.7 us for each such column of each row. One that is found is called instead.
"""


def _spare_adapting() -> None:
    """Register them, for the whole process: nobody notices but the clock. One that the service has registered stays."""
    for of, adapter in _AS_IT_IS.items():
        if (of, sqlite3.PrepareProtocol) not in sqlite3.adapters:
            sqlite3.register_adapter(of, adapter)


def _born_daemon(make: Callable[[], aiosqlite.Connection]) -> aiosqlite.Connection:
    """Make a connection whose thread does not keep the process alive.

    aiosqlite makes its thread without saying whether it is a daemon, and `threading` gives a thread what its maker has
    (documented: "initial value is inherited from the creating thread"). So it is made in a daemon thread. A process
    that ends with an open store then ends, which to the store is a crash like any other; otherwise the interpreter would
    wait for ever for a thread that waits for a call.
    """
    made: list[aiosqlite.Connection] = []
    maker = threading.Thread(target=lambda: made.append(make()), daemon=True)
    maker.start()
    maker.join()
    return made[0]
