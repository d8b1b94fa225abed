"""What the runtime wants from a loop that anyio does not sell cheaply: hide the current task, park, post.

While durable code runs, the loop has no current task, so timeouts, scopes and nurseries of the loop are refused there.
It is done once per stretch, not per resume. All private names of both loops are in this one module.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Sized
from contextvars import Context
from types import FrameType
from typing import Any, Protocol, TypeVar

from attrs import frozen

from actorflow.value import Value

T = TypeVar("T")

ASYNCIO_RESTS = frozenset(("asyncio.base_events", "asyncio.windows_events", "asyncio.runners", "uvloop"))
"""Modules of the frame in which asyncio waits; uvloop leaves no frame of its own, so there it is the one that runs it."""


_weak_set: Any = vars(asyncio.tasks).get("_scheduled_tasks", vars(asyncio.tasks).get("_all_tasks"))
_tasks: Sized = getattr(_weak_set, "data", ())
"""All tasks of asyncio there are, to be counted. Empty since Python 3.14."""


class _Collected:
    """Tasks that the collector of cycles has removed: they must not hide others that were made meanwhile."""

    def __init__(self) -> None:
        self.count: int = 0
        self._before = 0

    def __call__(self, phase: str, _: object) -> None:
        """The collector begins or has ended."""
        if phase == "start":
            self._before = len(_tasks)
        else:
            self.count += self._before - len(_tasks)


_collected = _Collected()
gc.callbacks.append(_collected)


def tasks_made() -> int:
    """A number that is greater when a task of asyncio was made than it was before, if the caller has let go of none."""
    return len(_tasks) + _collected.count


GROUPS = frozenset(("asyncio.taskgroups", "anyio._backends._asyncio"))
"""Modules of the callbacks by which a task group awaits its tasks."""


@frozen(kw_only=True)
class Stray(Value):
    """A task that may belong to nobody."""

    context: Context
    name: str  #: of its coroutine, and its own
    cancel: Callable[[], object]


class Loop(Protocol):
    """One running event loop."""

    def post(self, fn: Callable[[], object], /) -> bool:
        """Run *fn* on the loop, soon; callable from any thread. False, and nothing happens, if the loop is gone."""
        ...

    def resting(self, frame: FrameType, /) -> bool:
        """True if a thread whose innermost frame this is runs the loop, which waits for something to do."""
        ...

    def hidden(self, fn: Callable[..., T], /, *args: Any) -> T:
        """Call *fn* with no current task."""
        ...

    def park(self) -> Awaitable[Any]:
        """Something to await once, until it is unparked: the price of one future."""
        ...

    def unpark(self, parked: Any, /) -> None:
        """End that wait, begun or not; no effect on one that is over."""
        ...

    def cancels(self) -> Callable[[], int]:
        """What tells how often the current task was cancelled by hand and not by a scope, which only asyncio allows."""
        ...

    def strays(self) -> Iterable[Stray]:
        """Tasks that run here, that nobody has cancelled and no task group holds."""
        ...

    def undisturbed(self, *functions: Callable[..., object]) -> None:
        """Ctrl-C is for the service's own task, which drains; it is not raised in these, nor in what they call."""
        ...


class AsyncioLoop:
    """asyncio, with or without uvloop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._current: dict[Any, Any] = vars(asyncio.tasks)["_current_tasks"]

    def post(self, fn: Callable[[], object], /) -> bool:
        try:
            self._loop.call_soon_threadsafe(fn)
        except RuntimeError:  # It is closed.
            return False
        return True

    def resting(self, frame: FrameType, /) -> bool:
        # A selector that user code waits in is no rest of the loop's.
        selecting = frame.f_globals.get("__name__") == "selectors"
        caller = frame.f_back if selecting else frame
        return caller is not None and caller.f_globals.get("__name__") in ASYNCIO_RESTS

    def hidden(self, fn: Callable[..., T], /, *args: Any) -> T:
        task = self._current.get(self._loop)
        if task is None:
            return fn(*args)
        asyncio.tasks._leave_task(self._loop, task)
        try:
            return fn(*args)
        finally:
            asyncio.tasks._enter_task(self._loop, task)

    def park(self) -> Awaitable[Any]:
        return self._loop.create_future()

    def unpark(self, parked: asyncio.Future[None], /) -> None:
        if not parked.done():
            parked.set_result(None)

    def cancels(self) -> Callable[[], int]:
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling

    def strays(self) -> Iterable[Stray]:
        for task in asyncio.all_tasks(self._loop):
            if not task.cancelling() and not any(callback.__module__ in GROUPS for callback, _ in _callbacks(task)):
                name = f"{getattr(task.get_coro(), '__qualname__', task.get_coro())} ({task.get_name()})"
                yield Stray(context=_context(task), name=name, cancel=task.cancel)

    def undisturbed(self, *functions: Callable[..., object]) -> None:
        """It never is: `asyncio.run` cancels the service's task."""


def _callbacks(task: asyncio.Task[Any]) -> Iterable[tuple[Any, Context]]:
    return getattr(task, "_callbacks", None) or ()


def _context(task: Any) -> Context:
    if hasattr(task, "get_context"):  # Since Python 3.12.
        found: Context = task.get_context()
        return found
    # Its own comes first; behind it may come contexts of those who wait for it.
    return next((each for each in gc.get_referents(task) if isinstance(each, Context)), Context())


class TrioLoop:
    """trio."""

    def __init__(self) -> None:
        import trio  # noqa: PLC0415  (a service on asyncio shall not carry it)
        from trio._core._run import GLOBAL_RUN_CONTEXT  # noqa: PLC0415

        self._here: Any = GLOBAL_RUN_CONTEXT
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()

    def post(self, fn: Callable[[], object], /) -> bool:
        try:
            self._token.run_sync_soon(fn)
        except self._trio.RunFinishedError:
            return False
        return True

    def resting(self, frame: FrameType, /) -> bool:
        name: str = frame.f_globals.get("__name__", "")
        return name.startswith("trio._core._io_")

    def hidden(self, fn: Callable[..., T], /, *args: Any) -> T:
        task = getattr(self._here, "task", None)
        if task is None:
            return fn(*args)
        del self._here.task
        try:
            return fn(*args)
        finally:
            self._here.task = task

    def park(self) -> Awaitable[Any]:
        return _TrioWait(self._trio.lowlevel)

    def unpark(self, parked: _TrioWait, /) -> None:
        parked.wake()

    def cancels(self) -> Callable[[], int]:
        return int

    def strays(self) -> Iterable[Stray]:
        return ()  # Each task is in a nursery.

    def undisturbed(self, *functions: Callable[..., object]) -> None:
        for function in functions:
            self._trio.lowlevel.enable_ki_protection(function)


class _TrioWait:
    __slots__ = ("lowlevel", "over", "task")

    def __init__(self, lowlevel: Any) -> None:
        self.lowlevel: Any = lowlevel
        self.task: Any = None
        self.over: bool = False

    def __await__(self) -> Generator[Any, Any, None]:
        if self.over:
            return
        self.task = self.lowlevel.current_task()
        yield from self.lowlevel.wait_task_rescheduled(self._abort).__await__()

    def _abort(self, _: object) -> Any:
        self.over = True
        return self.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        if not self.over and self.task is not None:
            self.lowlevel.reschedule(self.task)
        self.over = True


def innermost(thread: int) -> FrameType | None:
    """The frame that this thread is in at this instant; None if the thread has ended. Let go of it soon.

    Whoever lets go of a frame last destroys its locals, and those belong to the other thread.
    """
    return sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]  # public in all but name


def current_loop() -> Loop:
    """The loop that is running here."""
    try:
        return AsyncioLoop()
    except RuntimeError:  # No asyncio loop runs here, so it is the other one.
        return TrioLoop()


class Signal:
    """An event that costs nothing until somebody waits for it. Set once, for ever."""

    __slots__ = ("_loop", "_parked", "is_set")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.is_set: bool = False
        self._parked: tuple[Awaitable[Any], ...] = ()

    def set(self) -> None:
        self.is_set = True
        if self._parked:
            parked, self._parked = self._parked, ()
            for each in parked:
                self._loop.unpark(each)

    def __await__(self) -> Generator[Any, Any, None]:
        if self.is_set:
            return _over()
        parked = self._loop.park()
        self._parked += (parked,)
        return parked.__await__()

    async def wait(self) -> None:
        await self


def _over() -> Generator[Any, Any, None]:
    """There is nothing to wait for."""
    yield from ()
