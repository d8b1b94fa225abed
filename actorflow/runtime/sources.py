"""Where the items of a loop come from: read in chunks, beside the run and off the event loop.

A sync source has a thread of its own from its making to its end, because an iterator may belong to the thread that made it:
a cursor of `sqlite3` does. It reads only when it is asked, so it is never further ahead than one chunk.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence, Sized
from contextlib import aclosing
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel

from actorflow.failures import text_of
from actorflow.runtime.loops import Loop, Signal
from actorflow.verbs import Source

T = TypeVar("T")
CHUNK_MAX = 256  #: items read in one go
CHUNK_S = 0.005  #: ... or as many as come in that time, so that a slow source holds up nobody


def calls(source: Source) -> bool:
    """True if the source is a callable that gives the items."""
    return callable(source) and not hasattr(source, "__aiter__") and not hasattr(source, "__iter__")


def takes_after(source: Source) -> bool:
    """True if it can begin behind a key: it has a parameter `after`."""
    try:
        return calls(source) and "after" in inspect.signature(cast("Callable[..., Any]", source)).parameters
    except ValueError:  # A builtin may have no signature.
        return False


def size_of(source: object) -> int | None:
    """How many items there are, if that is known before one is read."""
    return len(source) if isinstance(source, Sized) else None


def called(function: Callable[[Any], T], value: Any) -> T:
    """Call what the user gave; whatever that raises is an ordinary error.

    Raises:
        Exception: What it raised, tamed.
    """
    try:
        return function(value)
    except BaseException as error:
        raise tame(error) from error


def tame(error: BaseException) -> Exception:
    """What user code raised, as an error that ends neither a task nor the loop."""
    return (
        error if isinstance(error, Exception) else RuntimeError(f"it raised {type(error).__qualname__} itself: {text_of(error)}")
    )


class Reading:
    """One reading of a source, from its beginning or behind the key *after*."""

    def __init__(self, source: Source, after: str | None, loop: Loop, context: Context, *, in_place: bool = False) -> None:
        """Nothing is read yet. *in_place* reads a sync source on the loop: for a test, in whose time no thread fits."""
        self.size: int | None = None  #: how many items there are to read, if the source knows
        self._source, self._loop, self._context, self._in_place = source, loop, context, in_place
        self._arguments = {"after": after} if takes_after(source) else {}

    async def chunks(self) -> AsyncGenerator[list[Any]]:
        """All items, some at a time.

        Raises:
            Exception: Whatever the source raises, behind the items before it.
        """
        source: Any = self._source
        if calls(source) and (inspect.isasyncgenfunction(source) or inspect.iscoroutinefunction(source)):
            source = source(**self._arguments)
        while source is not None:
            if inspect.isawaitable(source):
                source = await source
            elif hasattr(source, "__aiter__"):
                async with aclosing(_one_by_one(source)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            elif isinstance(source, list | tuple | range):  # It is all there: no thread, and none in a test's virtual time.
                whole = cast("Sequence[Any]", source)
                self.size = len(whole)
                for at in range(0, len(whole), CHUNK_MAX):
                    yield list(whole[at : at + CHUNK_MAX])
                return
            elif self._in_place:
                made = self._context.copy().run(self._make) if source is self._source else source
                self.size = size_of(made)
                source = made if inspect.isawaitable(made) or hasattr(made, "__aiter__") else _gently(made)
            else:
                thread = _Thread(self._make if source is self._source else partial(_same, source), self._loop, self._context)
                async with aclosing(thread.chunks()) as chunks:
                    async for chunk in chunks:
                        self.size = thread.size
                        yield chunk
                source = thread.asynchronous

    def _make(self) -> Any:
        return cast("Callable[..., Any]", self._source)(**self._arguments) if calls(self._source) else self._source


def _same(source: Any) -> Any:
    return source


async def _gently(source: Iterable[T]) -> AsyncGenerator[T]:
    for item in source:
        yield item


async def _one_by_one(source: Any) -> AsyncGenerator[list[Any]]:
    count = 0
    try:
        async for item in source:
            yield [item]
            count += 1
            if count % CHUNK_MAX == 0:  # A source that never waits must not keep the loop for itself.
                await anyio.lowlevel.checkpoint()
    except BaseException as error:
        if isinstance(error, (GeneratorExit, anyio.get_cancelled_exc_class())):  # It is us who leave.
            raise
        raise tame(error) from error
    finally:
        if hasattr(source, "aclose"):
            await source.aclose()


class _Thread:
    """Makes and iterates a sync source."""

    def __init__(self, make: Callable[[], Any], loop: Loop, context: Context) -> None:
        self.size: int | None = None
        self.asynchronous: Any = None  #: what was made, if it turned out to be an async iterable
        self._make, self._loop, self._over = make, loop, False
        self._wanted = threading.Semaphore(0)
        self._read: list[Any] = []
        self._error: BaseException | None = None
        self._ready = Signal(loop)
        # A daemon: one that hangs in its source must not keep the process from ending.
        self._thread = threading.Thread(target=context.copy().run, args=(self._run,), daemon=True, name="actorflow-source")

    async def chunks(self) -> AsyncGenerator[list[Any]]:
        self._thread.start()
        try:
            while True:
                self._ready = Signal(self._loop)
                self._wanted.release()
                await self._ready.wait()
                if self._read:
                    yield self._read
                elif self._error is not None:
                    raise tame(self._error)
                else:
                    return
        finally:
            self._over = True
            self._wanted.release()

    def _run(self) -> None:
        iterator: Any = None
        try:
            self._wanted.acquire()
            iterator = self._open()
            while not self._over and self._error is None and (chunk := self._chunk(iterator)):
                self._tell(chunk)
                self._wanted.acquire()
        except BaseException as error:  # noqa: BLE001  (whatever a source raises is judged on the loop)
            self._error = error
        finally:
            if inspect.isgenerator(iterator):
                iterator.close()
        self._tell([])

    def _open(self) -> Iterator[Any]:
        made = self._make()
        if hasattr(made, "__aiter__") or inspect.isawaitable(made):
            self.asynchronous, made = made, ()
        self.size = size_of(made)
        return iter(cast("Iterable[Any]", made))

    def _chunk(self, iterator: Iterator[Any]) -> list[Any]:
        chunk: list[Any] = []
        until = time.monotonic() + CHUNK_S
        try:
            for item in iterator:
                chunk.append(item)
                if len(chunk) == CHUNK_MAX or time.monotonic() >= until:
                    break
        except BaseException as error:  # noqa: BLE001  (told behind the items that came before it)
            self._error = error
        return chunk

    def _tell(self, chunk: list[Any]) -> None:
        def on_the_loop() -> None:
            self._read = chunk
            self._ready.set()

        self._loop.post(on_the_loop)
