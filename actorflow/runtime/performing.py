"""Where the function of a step is called: on the loop, in a thread, or in a process of its own.

A thread cannot be killed: a call that outlives its cancel is *abandoned*, and while too many of those still run no other
begins. A process can, and dies with this one; what it raises comes back as a record, like everything that crosses a border.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from attrs import evolve

from actorflow.attempt import StepInfo, current
from actorflow.errors import WorkerDied
from actorflow.failures import decode_failure, encode_failure
from actorflow.policies.limits import Limits
from actorflow.runtime.loops import Loop, Signal
from actorflow.steps import Step, find_step

T = TypeVar("T")
Begun = Callable[[], object]
PARENT_LOOK_S = 0.2  #: how often a worker process looks whether its parent lives


class Stage(Protocol):
    """Who performs steps instead, wherever they belong: a test, which counts them, replaces them, and knows no threads."""

    def perform(self, step: Step, arguments: dict[str, Any]) -> Awaitable[Any]:
        """What the function of that step would give."""
        ...


class Place(Protocol):
    """The runtime, as far as calls need it."""

    threads: Threads
    processes: anyio.CapacityLimiter
    stage: Stage | None


async def perform(place: Place, step: Step, arguments: dict[str, Any], begun: Begun) -> Any:
    """Call the function of a step where it belongs: here, in a thread, or in another process.

    Args:
        place: Whose threads and processes.
        step: Whose function.
        arguments: As they are recorded.
        begun: Called when there is a place for the call: it is from here on that it takes time, not while it stands in line.
    """
    if place.stage is not None:
        begun()
        return await place.stage.perform(step, arguments)
    if step.is_async:
        begun()
        return await step.call(arguments)
    if step.run_in == "thread":
        return await place.threads.run(lambda: step.call(arguments), begun)
    async with place.processes:
        begun()
        return await _perform_in_process(step, arguments)


async def _perform_in_process(step: Step, arguments: dict[str, Any]) -> Any:
    import anyio.to_process  # noqa: PLC0415  (most services have no such step, and it brings pickle and runpy)

    encoded = step.coder.encode(arguments, step.of_argument)
    info = current.get()
    known = evolve(info, beat=None) if isinstance(info, StepInfo) else None
    call = partial(_in_process, os.getpid(), step.ref, encoded, known)
    try:
        ok, payload = await anyio.to_process.run_sync(call, cancellable=True, limiter=anyio.CapacityLimiter(math.inf))
    except anyio.BrokenWorkerProcess as error:
        raise WorkerDied(step.name) from error
    if not ok:
        raise decode_failure(payload)
    return step.outcome.decode(payload, step.of_outcome)


# --- threads ------------------------------------------------------------------------------------------------------------


class _Call:
    """One call in a thread. Under the lock it is clear whether it was abandoned while it ran."""

    __slots__ = ("abandoned", "lock", "running")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: bool = False
        self.abandoned: bool = False

    def ends_abandoned(self) -> bool:
        """It has ended: True if nobody waited for it any more."""
        with self.lock:
            self.running = False
            return self.abandoned


class Threads:
    """Calls in threads: so many at a time, and none while too many abandoned ones still run."""

    def __init__(self, limits: Limits, loop: Loop, *, in_place: bool = False) -> None:
        self.limits = limits
        self.loop = loop
        self.in_place = in_place  #: on the loop itself: nobody can tell how long a thread takes in virtual time
        self.abandoned: int = 0  #: calls that nobody waits for, and that still run
        self._limiter = anyio.CapacityLimiter(limits.threads_max)
        # The loops disagree on whose token an abandoned call keeps, so they are given one that is nobody's.
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self._fewer: Signal | None = None

    async def run(self, function: Callable[[], T], begun: Begun) -> T:
        """Call it in a thread. When this is cancelled a call that has begun goes on, and its outcome is dropped.

        Args:
            function: What to call.
            begun: Called when there is a thread for it.
        """
        if self.in_place:
            begun()
            return function()
        await self._take(function)
        try:
            begun()
            return await self._run(function)
        finally:
            self._limiter.release_on_behalf_of(function)

    async def _take(self, borrower: object) -> None:
        """Stand in line for a thread; at once, if there is one."""
        try:
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except anyio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)
        try:
            while self.abandoned >= self.limits.abandoned_threads_max:
                self._fewer = self._fewer or Signal(self.loop)
                await self._fewer.wait()
        except BaseException:
            self._limiter.release_on_behalf_of(borrower)
            raise

    async def _run(self, function: Callable[[], T]) -> T:
        call = _Call()
        try:
            return await anyio.to_thread.run_sync(
                self._in_thread, call, function, abandon_on_cancel=True, limiter=self._unlimited
            )
        except anyio.get_cancelled_exc_class():
            with call.lock:
                call.abandoned = True
                self.abandoned += call.running
            raise

    def _in_thread(self, call: _Call, function: Callable[[], T]) -> T:
        with call.lock:
            if call.abandoned:  # It was cancelled before it began, so it must not begin.
                raise RuntimeError("the call was cancelled")
            call.running = True
        try:
            return function()
        except GeneratorExit as leaving:  # The loop would throw it into the task that waits, and close that.
            raise RuntimeError(f"the step raised {leaving!r} itself") from leaving
        finally:
            if call.ends_abandoned():
                self.loop.post(self._ended)

    def _ended(self) -> None:
        self.abandoned -= 1
        fewer, self._fewer = self._fewer, None
        if fewer is not None:
            fewer.set()


# --- processes ----------------------------------------------------------------------------------------------------------
# What runs in worker processes is not measured: they are killed before they could say what they ran.


def _in_process(
    parent: int, ref: str, arguments: bytes, info: StepInfo | None
) -> tuple[bool, bytes]:  # pragma: no cover  (see above)
    """Perform a step in a worker process. True and its outcome, or False and its failure."""
    _settle(parent)
    streams = _hide_streams()
    token = current.set(info)
    try:
        step = find_step(ref)
        if step is None:
            raise RuntimeError(f"step {ref} cannot be imported in a worker process: define it at the top level of a module")
        value = step.call(step.coder.decode(arguments, step.of_argument))
        return True, step.outcome.encode(value, step.of_outcome)
    except BaseException as error:  # noqa: BLE001  (whatever a step raises is its outcome)
        return False, encode_failure(error)
    finally:
        current.reset(token)
        _restore_streams(streams)


_settled = False


def _settle(parent: int) -> None:  # pragma: no cover  (see above)
    """Once in a worker: die with the parent, and leave Ctrl-C to it, which drains."""
    global _settled  # noqa: PLW0603  (once a process)
    if _settled:
        return
    _settled = True
    import signal  # noqa: PLC0415  (only in worker processes)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="actorflow-parent-watch").start()


def _watch(parent: int) -> None:  # pragma: no cover  (see above)
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    os._exit(1)  # The parent is dead; nobody waits for what this process does.


def _hide_streams() -> list[int]:  # pragma: no cover  (see above)
    """Lead descriptors 0 to 2 nowhere while a step runs: the first two speak to the parent, and nobody reads the third.

    `sys.stdout` is led elsewhere by anyio; this is for programs that the step starts, and for code that is not Python.
    """
    kept = [os.dup(number) for number in range(3)]
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)
    return kept


def _restore_streams(kept: list[int]) -> None:  # pragma: no cover  (see above)
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number)
        os.close(descriptor)
