"""What performs the items of a loop: one class for callees on the event loop, one for those in threads.

A hand works on one item at a time, with the callee's timeout, and tells its loop what came out; what follows from that is
not its business. A loop has at most `parallel` of them.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from attrs import define

from actorflow.attempt import StepInfo, current
from actorflow.clock import moment
from actorflow.errors import BadDefinition, StepTimeout
from actorflow.runtime.performing import perform
from actorflow.runtime.workers import Job
from actorflow.steps import Step

if TYPE_CHECKING:
    from contextvars import Context

    from actorflow.runtime.host import Host
    from actorflow.runtime.timers import Timer

log: logging.Logger = logging.getLogger("actorflow")
SLICE_S = 0.005  #: how long a thread goes on from item to item before it tells what it finished


@define(eq=False, repr=False)
class Item:
    """One item on its way."""

    index: int
    key: str
    value: Any
    attempt: int = 1
    failed_at: float | None = None  #: when it failed first


class Bench(Protocol):
    """The loop, as its hands see it."""

    host: Host
    step: Step
    context: Context
    key: str  #: what the idempotency key of an item begins with

    def take(self) -> Item | None:
        """The next item to perform; callable from any thread."""
        ...

    def told(self, hand: Hand, ended: list[tuple[Item, BaseException | None]], trouble: BaseException | None = None) -> None:
        """The hand is free; these attempts have ended. *trouble* kept it from working, whatever the item."""
        ...


def in_thread(step: Step) -> bool:
    """True if the callee runs in threads of this process."""
    is_async = step.is_async or inspect.iscoroutinefunction(getattr(step.fn, "__call__", None))  # noqa: B004
    return not is_async and step.run_in == "thread"


class Hand:
    """Works on one item at a time."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.timer: Timer | None = None
        self.timed_out = False
        self.job: Job | None = None

    def begin(self) -> None:
        """Take an item and perform it."""
        raise NotImplementedError

    def started(self) -> int:
        """One more than the largest index that it began."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Whatever it says later is dropped."""
        if self.job is not None:
            self.job.tell, self.job = _late, None
        if self.timer is not None:
            self.timer.cancel()

    def cancel(self) -> None:
        """Make it end."""
        if self.job is not None:
            self.bench.host.workers.cancel(self.job)

    def info(self, item: Item) -> StepInfo:
        """What the callee may ask about itself."""
        step, host = self.bench.step, self.bench.host
        deadline = None if step.timeout_s is None else moment(host.clock.wall() + step.timeout_s)
        return StepInfo(key=f"{self.bench.key}/{item.index}:{item.key}", name=step.name, attempt=item.attempt, deadline=deadline)

    def timeout(self) -> StepTimeout:
        return StepTimeout(self.bench.step.name, self.bench.step.timeout_s or 0.0)

    def perform(self, call: Callable[[], Any], context: Context) -> None:
        self.job = Job(call, context, self._told)
        self.bench.host.workers.perform(self.job)

    def _told(self, job: Job, _: Any, error: BaseException | None) -> None:
        self.let_go()
        cancelled = error is not None and job.ended_by_cancel(error)
        if error is not None and not cancelled and isinstance(error, anyio.get_cancelled_exc_class()):
            return  # The runtime itself is being torn down: as if the process had died.
        self.ended(error, cancelled=cancelled)

    def ended(self, error: BaseException | None, *, cancelled: bool) -> None:
        """Its job has ended."""
        raise NotImplementedError


class TaskHand(Hand):
    """Performs one item on the event loop, or in another process."""

    item: Item
    timer: Timer | None

    def begin(self) -> None:
        item = self.bench.take()
        assert item is not None
        self.item = item
        step = self.bench.step
        context = self.bench.context.copy()
        context.run(current.set, self.info(item))
        if step.run_in == "process" or self.bench.host.stage is not None:
            self.perform(self._elsewhere, context)
        else:
            self._begun()
            self.perform(partial(step.fn, item.value), context)

    async def _elsewhere(self) -> None:
        step = self.bench.step
        await perform(self.bench.host, step, step.bind((self.item.value,), {}), self._begun)

    def _begun(self) -> None:
        timeout_s = self.bench.step.timeout_s
        if timeout_s is not None:
            self.timer = self.bench.host.deadlines.after(timeout_s, self._time_out)

    def started(self) -> int:
        return self.item.index + 1

    def _time_out(self) -> None:
        self.timed_out = True
        host = self.bench.host
        self.cancel()
        if self.job is not None:
            self.timer = host.deadlines.after(host.limits.cancel_grace_s, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        self.let_go()
        self.bench.told(self, [(self.item, self.timeout())])

    def ended(self, error: BaseException | None, *, cancelled: bool) -> None:
        if self.timed_out and error is not None:
            error, cancelled = self.timeout(), False
        self.bench.told(self, [] if cancelled else [(self.item, error)])


class ThreadHand(Hand):
    """Performs item after item in a thread, for up to `SLICE_S`: a hop to a thread costs more than many an item.

    Under the lock it is clear who an item belongs to: one that the thread has begun is in `_item`, one that it has ended in
    `_ended`, and once it is abandoned it takes no more.
    """

    timer: Timer | None

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._lock = threading.Lock()
        self._abandoned = False
        self._item: Item | None = None
        self._began_at = 0.0
        self._started = 0
        self._ended: list[tuple[Item, BaseException | None]] = []

    def begin(self) -> None:
        timeout_s = self.bench.step.timeout_s
        if timeout_s is not None:
            self.timer = self.bench.host.deadlines.after(timeout_s, self._look)
        self.perform(self._hop, self.bench.context.copy())

    def started(self) -> int:
        return self._started

    async def _hop(self) -> None:
        await self.bench.host.threads.run(self._work, _nothing)

    # --- in the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        now = self.bench.host.clock.monotonic
        until = now() + SLICE_S
        while (item := self._take()) is not None:
            context = self.bench.context.copy()
            context.run(current.set, self.info(item))
            error = context.run(self._attempt, item.value)
            with self._lock:
                if self._abandoned:
                    log.warning("item %s of %s ended after it was abandoned", item.key, self.bench.step.name)
                    return
                self._ended.append((item, error))
                self._item = None
            if now() >= until:
                return

    def _take(self) -> Item | None:
        with self._lock:
            if self._abandoned or (item := self.bench.take()) is None:
                return None
            self._item, self._began_at = item, self.bench.host.clock.monotonic()
            self._started = max(self._started, item.index + 1)
            return item

    def _attempt(self, value: Any) -> BaseException | None:
        try:
            result = self.bench.step.fn(value)
        except BaseException as error:  # noqa: BLE001  (whatever a callee raises is judged on the loop)
            return error
        if inspect.iscoroutine(result):
            result.close()
            return BadDefinition(f"{self.bench.step.name} returned a coroutine: pass an `async def` itself to `each`.")
        return None

    # --- on the loop ----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Has the item that it works on taken too long?"""
        timeout_s, now = self.bench.step.timeout_s or 0.0, self.bench.host.clock.monotonic()
        with self._lock:
            left_s = timeout_s if self._item is None else self._began_at + timeout_s - now
        if left_s > 0:
            self.timer = self.bench.host.deadlines.after(left_s, self._look)
        else:
            self.timed_out = True
            self.cancel()

    def let_go(self) -> None:
        with self._lock:
            self._abandoned = True
        super().let_go()

    def ended(self, error: BaseException | None, *, cancelled: bool) -> None:
        ended = self._ended
        if self._item is not None and self.timed_out:
            ended.append((self._item, self.timeout()))
        self.bench.told(self, ended, None if cancelled else error)


def _nothing() -> None:
    """A thread looks for itself how long each item takes."""


def _late(job: Job, value: Any, error: BaseException | None) -> None:
    """It was abandoned: what came out is dropped."""
