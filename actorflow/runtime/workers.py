"""Who executes steps: a pool of tasks on the user's loop, each awaiting job after job inline.

At the first thing a step yields to the loop, its job notices and sends another worker to the rest of the queue, so a
blocked step holds up nobody. A step that never yields costs no task, no wake-up and no scope; a blocked one is cancelled
by the scope of the worker that it blocks. A worker that was cancelled is never used again: a cancel that came too late for
its step must not reach the next one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

import anyio
from anyio.abc import TaskGroup

from actorflow.runtime.loops import Loop, Signal, tasks_made

SLICE = 64  #: steps in a row before the loop gets a turn: some 3 ms


Tell = Callable[["Job", Any, BaseException | None], object]


class Job:
    """One attempt: `run` begins it in its context, and awaiting it goes on. Tells its outcome, once; without `tell`, nobody."""

    # Hundreds are made before the first one begins: slots, or the last ones would each get a dict of their own.
    __slots__ = ("_coro", "_wanted", "begun", "blocked", "call", "cancelled", "context", "on_block", "spawned", "tell", "worker")

    _coro: Coroutine[Any, Any, Any]
    _wanted: Any  #: what it waits for when `run` returns False

    def __init__(self, call: Callable[[], Coroutine[Any, Any, Any]], context: Context, tell: Tell | None) -> None:
        self.call: Callable[[], Coroutine[Any, Any, Any]] = call
        self.context: Context = context
        self.tell: Tell | None = tell
        self.cancelled: bool = False  #: we cancelled it; whatever comes out now is the end of that
        self.begun: bool = False
        self.blocked: bool = False
        self.on_block: Callable[[Job], object] | None = None
        self.worker: anyio.CancelScope | None = None
        self.spawned: Tell | None = None  #: whom it told, if it made tasks of its own, which may be left behind

    def ready(self) -> Context:
        """It begins: the context it runs in."""
        return self.context

    def enter(self) -> Any:
        """In that context: make what it performs, and run that to the first thing that it waits for."""
        coro = self._coro = self.call()
        return coro.send(None)

    def done(self, value: Any, error: BaseException | None) -> None:
        tell, self.tell = self.tell, None
        if tell is not None:
            tell(self, value, error)

    def ended_by_cancel(self, error: BaseException | None) -> bool:
        """True if this is the end of a job that we cancelled."""
        return self.cancelled and isinstance(error, (NotBegun, anyio.get_cancelled_exc_class()))

    def run(self) -> bool:
        """Begin it. True if it is over: it never waited, as most steps that only compute; else it is to be awaited."""
        self.begun = True
        tasks = tasks_made()
        try:
            try:
                self._wanted = self.ready().run(self.enter)
            finally:
                if tasks_made() > tasks:
                    self.spawned = self.tell or _nobody
        except StopIteration as stop:
            value = stop.value
        except BaseException as error:
            if self._ends_worker(error):
                raise
            return True
        else:
            return False
        self.done(value, None)
        return True

    def __await__(self) -> Generator[Any, Any, None]:
        self.blocked = True
        if self.on_block is not None:
            self.on_block(self)
        try:
            value = yield from self._go_on()
        except BaseException as error:
            if self._ends_worker(error):
                raise
        else:
            self.done(value, None)

    def _ends_worker(self, error: BaseException) -> bool:
        """Tell what its code raised. True if the worker is to end with that, too."""
        if isinstance(error, anyio.get_cancelled_exc_class()):
            ends = self.cancelled or self._ours()
            self.done(None, error if ends else _RaisedCancel(error))
            return ends
        if isinstance(error, GeneratorExit) and self.tell is None:
            return True  # The task itself is being closed; otherwise the step raised it.
        self.done(None, error)
        return False

    def _ours(self) -> bool:
        return self.worker is not None and (self.worker.cancel_called or anyio.current_effective_deadline() == float("-inf"))

    def _go_on(self) -> Generator[Any, Any, Any]:
        run, coro = self.context.run, self._coro
        resume: Callable[[Any], Any]
        while True:
            try:
                resume, sent = coro.send, (yield self._wanted)
            except GeneratorExit:
                self.tell = None
                coro.close()
                raise
            except BaseException as thrown:  # noqa: BLE001  (the loop's cancellation goes into the step)
                resume, sent = coro.throw, thrown
            tasks = tasks_made()  # Nobody else makes any before this yields.
            try:
                self._wanted = run(resume, sent)
            except StopIteration as stop:
                return stop.value
            finally:
                if tasks_made() > tasks:
                    self.spawned = self.tell or _nobody


def _nobody(job: Job, value: Any, error: BaseException | None) -> None:
    """It was abandoned."""


class NotBegun(BaseException):
    """The job was cancelled before it began. The loop's own cancellation cannot be made by hand: trio forbids it."""


class _RaisedCancel(Exception):
    """The step raised the loop's cancellation itself: a failure, not a cancel."""

    def __init__(self, cancel: BaseException) -> None:
        super().__init__(f"the step raised {type(cancel).__name__} itself: {cancel}")


class Workers:
    """The pool."""

    def __init__(self, group: TaskGroup, loop: Loop, idle_max: int = 64, slice_max: int = SLICE) -> None:
        self.group = group
        self.loop = loop
        self.idle_max = idle_max
        self.slice_max = slice_max
        self.on_spawned: Callable[[Job], object] | None = None  #: told of jobs that made tasks of their own, when they have ended
        self._ready: deque[Job] = deque()
        self._idle: list[Signal] = []
        self._blocked: dict[Job, anyio.CancelScope] = {}
        self._running = False  #: a worker is on its way through the queue
        self.loop.undisturbed(Workers._work)

    def perform(self, job: Job) -> None:
        """Begin it soon."""
        self._ready.append(job)
        if not self._running:
            self._send()

    def cancel(self, job: Job) -> None:
        """Make it end: its outcome is told as the loop's cancellation, or as whatever it makes of that."""
        job.cancelled = True
        if (scope := self._blocked.get(job)) is not None:
            scope.cancel()
        elif not job.begun:
            self._ready = deque(other for other in self._ready if other is not job)
            job.done(None, NotBegun())

    def ended(self, job: Job) -> None:
        """It has ended: look after what it may have left behind."""
        if job.spawned is not None and self.on_spawned is not None:
            self.on_spawned(job)

    @property
    def busy(self) -> bool:
        return bool(self._ready or self._blocked or self._running)

    def _send(self) -> None:
        self._running = bool(self._ready)
        if self._running:
            if self._idle:
                self._idle.pop().set()
            else:
                self.group.start_soon(self._work)

    async def _work(self) -> None:
        wake = Signal(self.loop)
        cancels = self.loop.cancels()
        try:
            with anyio.CancelScope() as scope:

                def on_block(job: Job) -> None:
                    self._blocked[job] = scope
                    if job.cancelled:  # By itself, on its way to the first thing that it waits for.
                        scope.cancel()
                    self._send()

                while True:
                    await self._through_the_queue(on_block, scope, cancels)
                    if scope.cancel_called or cancels() or len(self._idle) >= self.idle_max:
                        return
                    wake = Signal(self.loop)
                    self._idle.append(wake)
                    await wake.wait()
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # No scope of ours: a step cancelled the task that performs it. This worker ends, and nothing else.
            if wake in self._idle:
                self._idle.remove(wake)
            else:
                self._send()

    async def _through_the_queue(
        self, on_block: Callable[[Job], object], scope: anyio.CancelScope, cancels: Callable[[], int]
    ) -> None:
        done, slice_max = 0, self.slice_max
        while self._ready:
            job = self._ready.popleft()
            job.on_block, job.worker = on_block, scope
            if not job.run():
                try:
                    await job
                finally:
                    self._blocked.pop(job, None)
                    if job.spawned is not None:
                        self.ended(job)
                return  # Another worker has the queue now, or nothing was left in it.
            if job.spawned is not None:
                self.ended(job)
            done += 1
            if done % slice_max == 0 or cancels():  # It is delivered here, not to the next step.
                await anyio.lowlevel.checkpoint()
        self._running = False
