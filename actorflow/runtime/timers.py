"""One heap of moments for one clock, instead of a task for each: call something when its time has come.

With the wall clock it holds what waits for a moment that a person means; the clock may jump, so it is looked at again at
least every second. With the monotonic clock it holds timeouts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import anyio
from attrs import define

from actorflow.runtime.loops import Loop, Signal

SLICE = 256  #: moments handled before the loop gets a turn: a hundred thousand at one instant must not stall it
DEAD_MIN = 1_000  #: cancelled moments that may lie in the heap whatever its size


@define(eq=False, repr=False)
class Timer:
    """One moment; `cancel` makes it mean nothing."""

    due: float
    call: Callable[[], Any] | None
    owner: Timers

    def cancel(self) -> None:
        if self.call is not None:
            self.call = None
            self.owner.cancelled()


class Timers:
    """Moments of one clock."""

    def __init__(self, now: Callable[[], float], loop: Loop, recheck_s: float) -> None:
        self.now = now
        self.loop = loop
        self.recheck_s = recheck_s  #: how long to trust the clock; math.inf if it cannot jump
        self._heap: list[tuple[float, int, Timer]] = []
        self._dead = 0  #: cancelled ones in the heap
        self._count = 0
        self._rearm: Signal | None = None

    def at(self, due: float, call: Callable[[], Any]) -> Timer:
        """Call it at *due*, never before; at once (in the next slice) if that has passed."""
        timer = Timer(due, call, self)
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, timer))
        if self._rearm is not None and self._heap[0][2] is timer:
            self._rearm.set()
        return timer

    def after(self, delay_s: float, call: Callable[[], Any]) -> Timer:
        """Call it when so many seconds have passed."""
        return self.at(self.now() + delay_s, call)

    def cancelled(self) -> None:
        """One of them means nothing any more; once most do, they are cleared out.

        A timeout of 30 s on a step of a millisecond would otherwise lie here 30,000 times over.
        """
        self._dead += 1
        if self._dead > DEAD_MIN and self._dead * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2].call is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            self._rearm = Signal(self.loop)
            now = self.now()
            wait = self._heap[0][0] - now if self._heap else math.inf
            if wait > 0:
                with anyio.move_on_after(min(wait, self.recheck_s if self._heap else math.inf)):
                    await self._rearm.wait()
                now = self.now()
            self._rearm = None
            # What one look found due is fired by that look: a second one may find that it is not, and so on for ever.
            while self._fire(now):
                await anyio.lowlevel.checkpoint()

    def _fire(self, now: float) -> bool:
        """Call up to a slice of what is due; True if there may be more."""
        done = 0
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.call is None:
                self._dead -= 1
                continue
            call, timer.call = timer.call, None
            call()
            done += 1
            if done == SLICE:
                return True
        return False
