"""Who may send to one receiver at this moment: a few, in the order in which they came.

All that is ready is written together, so a batch, and with it everybody's wait, becomes as large as what a single receiver
is flooded with. Here that is held back: the flood waits for itself. A receiver that nobody else is beside may have all.
"""

from __future__ import annotations

from collections import deque

from actorflow.runtime.loops import Loop, Signal

INSIDE_MAX_ALONE = 256  #: of a receiver that nobody else is beside
ALONE_S = 1.0  #: for so long after somebody else was sent to, a receiver is not taken to be alone


class Queue:
    """The senders before one door."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.inside: int = 0
        self.waiting: deque[Signal] = deque()

    async def enter(self, inside_max: int) -> None:
        """Wait for one's turn. Who is cancelled meanwhile has not entered."""
        if self.inside < inside_max and not self.waiting:
            self.inside += 1
            return
        turn = Signal(self.loop)
        self.waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.is_set:
                self.leave(inside_max)
            else:
                self.waiting.remove(turn)
            raise

    def leave(self, inside_max: int) -> None:
        """Let in who is next, as far as there is room."""
        self.inside -= 1
        while self.waiting and self.inside < inside_max:
            self.inside += 1
            self.waiting.popleft().set()  # It has a place from here on.

    @property
    def empty(self) -> bool:
        """True if nobody is here."""
        return not (self.inside or self.waiting)


class Queues:
    """One before the door of each receiver that is sent to at this moment."""

    def __init__(self, loop: Loop, inside_max: int) -> None:
        self.loop = loop
        self.inside_max = inside_max  #: messages to one receiver that are written at a time, while others are sent to as well
        self._queues: dict[object, Queue] = {}
        self._last: object = None
        self._alone_from = 0.0  #: when the last one will have been alone for long enough

    async def enter(self, to: object, now: float) -> Queue:
        """Wait for one's turn to send there; *now* is the monotonic clock. Afterwards call `leave`."""
        if to != self._last:
            self._alone_from = 0.0 if self._last is None else now + ALONE_S
            self._last = to
        queue = self._queues.get(to)
        if queue is None:
            queue = self._queues[to] = Queue(self.loop)
        try:
            await queue.enter(self._inside_max(now))
        except BaseException:
            self._forget(to, queue)
            raise
        return queue

    def leave(self, to: object, queue: Queue, now: float) -> None:
        """What was sent there is accepted or refused."""
        queue.leave(self._inside_max(now))
        self._forget(to, queue)

    def _inside_max(self, now: float) -> int:
        return max(self.inside_max, INSIDE_MAX_ALONE) if now >= self._alone_from else self.inside_max

    def _forget(self, to: object, queue: Queue) -> None:
        if queue.empty:
            self._queues.pop(to, None)
