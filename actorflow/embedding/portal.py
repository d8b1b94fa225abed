"""An event loop in a thread of its own, for callers that block; and what is entered there for as long as it is open.

It is closed at the latest when the main thread ends. That is earlier than `atexit`, which Python comes to only when the loop's
worker threads have ended, and those end with the loop.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, Generic, Literal, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import frozen

from actorflow.errors import NotRunning, StoreStopped

T = TypeVar("T")
E = TypeVar("E")

log: logging.Logger = logging.getLogger("actorflow")

Backend = Literal["asyncio", "trio"]


@frozen(eq=False)
class Opened(Generic[E]):
    """What there is while it is open."""

    entered: E
    portal: BlockingPortal
    life: ExitStack  #: closing it leaves what was entered, then ends the loop and its thread
    thread: int  #: the loop's
    process: int


class LoopThread(Generic[E]):
    """Opens, calls and closes from any thread but the loop's own."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[E]], name: str, backend: Backend) -> None:
        self._make = make
        self._name = name
        self._backend = backend
        self._lock = threading.RLock()  #: one opens it at a time; a signal handler may want to close meanwhile
        self._opened: Opened[E] | None = None

    def open(self) -> None:
        """Start the loop and enter there what was to be made. No effect if it is open.

        Raises:
            NotRunning: It was opened in the process that this one was forked from.
            Exception: What entering raised; then nothing is left behind.
        """
        if self._opened is not None:
            self.opened()
            return
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
        _close_at_exit(self)

    def _open(self) -> Opened[E]:
        with ExitStack() as life:
            portal = life.enter_context(start_blocking_portal(self._backend, name=self._name))
            # What still waits when that was left would keep the loop for ever.
            life.callback(lambda: portal.call(portal.stop, True))
            thread = portal.call(threading.get_ident)
            entered = life.enter_context(portal.wrap_async_context_manager(portal.call(self._made)))
            return Opened(entered, portal, life.pop_all(), thread, os.getpid())

    def _made(self) -> AbstractAsyncContextManager[E]:
        return self._make()

    def close(self) -> None:
        """Leave what was entered, and end the loop and its thread. No effect if it is not open, or in a forked process."""
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            return
        self._refuse_own_thread(opened)
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.life.close()

    def opened(self) -> Opened[E]:
        """What there is to call.

        Raises:
            NotRunning: It is not open here, or this is the loop's own thread.
        """
        opened = self._opened
        if opened is None:
            raise NotRunning(f"this {self._name} is not open. Use it as a context manager, or call `open()` first.")
        if opened.process != os.getpid():
            raise NotRunning(
                f"this {self._name} was opened in process {opened.process}, and this process was forked from that one: its "
                f"thread and its store stayed there. Open it after the fork (gunicorn: `post_fork`, uWSGI: `@postfork`), in one "
                f"process; others reach that one with a `SyncClient`."
            )
        self._refuse_own_thread(opened)
        return opened

    def _refuse_own_thread(self, opened: Opened[E]) -> None:
        if threading.get_ident() == opened.thread:
            raise NotRunning(
                f"this is the thread of the event loop of this {self._name}, and the call would block it and wait for itself. An "
                f"`async def` step awaits the verbs of a `Runtime` or `Client`; a plain `def` step has a thread of its own and "
                f"may block."
            )

    def call(self, verb: Callable[[E], Awaitable[T]]) -> T:
        """Await it on the loop, and block until it is done.

        Raises:
            NotRunning: It is not open here.
            StoreStopped: It was closed meanwhile.
        """
        opened = self.opened()
        try:
            future = opened.portal.start_task_soon(verb, opened.entered)
        except RuntimeError:  # It was closed just now.
            raise NotRunning(f"this {self._name} was closed while it was called.") from None
        try:
            return future.result()
        except CancelledError:
            raise StoreStopped(f"this {self._name} was closed while the call waited") from None
        except BaseException:  # Ctrl-C, which comes to whoever waits and not to the loop.
            future.cancel()
            raise


# --- the end of the process ---------------------------------------------------------------------------------------------

_all: weakref.WeakSet[LoopThread[Any]] = weakref.WeakSet()
_watches: dict[int, threading.Thread] = {}  #: by process: a fork does not inherit threads
_watching = threading.Lock()


def _close_at_exit(loop: LoopThread[Any]) -> None:
    with _watching:
        _all.add(loop)
        if os.getpid() not in _watches:
            watch = _watches[os.getpid()] = threading.Thread(target=_watch, name="actorflow-exit", daemon=False)
            watch.start()


def _watch() -> None:
    threading.main_thread().join()
    for loop in list(_all):
        try:
            loop.close()
        except Exception:
            log.exception("a runtime could not be closed at exit")
