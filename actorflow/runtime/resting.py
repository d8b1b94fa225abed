"""Who only waits, and since when: they leave memory after a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from actorflow.clock import Clock
from actorflow.runtime.timers import Timers

AT_ONCE_S = 0.001
"""Nobody leaves in the very instant at which it came to rest: whoever had it loaded for something must find it in memory."""


class Resting:
    """Runs at rest. There is a line for each time-out that a class may have: the first of a line is the first to leave of it."""

    def __init__(self, clock: Clock, deadlines: Timers, leave: Callable[[int], object]) -> None:
        """Nobody is at rest.

        Args:
            clock, deadlines: Time, by the monotonic clock.
            leave: Called with a run whose time is over. It must not be at rest any more when that returns.
        """
        self._clock = clock
        self._deadlines = deadlines
        self._leave = leave
        self._lines: dict[float, OrderedDict[int, float]] = {}  #: by time-out: since when
        self.lines_of: dict[int, OrderedDict[int, float]] = {}  #: who is at rest, and in which line
        self._armed: set[float] = set()

    def __len__(self) -> int:
        return len(self.lines_of)

    def begin(self, run: int, after_s: float) -> None:
        """It only waits from now on, and leaves after so many seconds."""
        self.end(run)
        line = self._lines.get(after_s)
        if line is None:
            line = self._lines[after_s] = OrderedDict()
        line[run] = self._clock.monotonic()
        self.lines_of[run] = line
        if after_s not in self._armed:
            self._arm(after_s, max(after_s, AT_ONCE_S))

    def end(self, run: int) -> None:
        """It does something, or is gone."""
        line = self.lines_of.pop(run, None)
        if line is not None:
            del line[run]

    def longest(self) -> int:
        """Who has been at rest for longest."""
        _, run = min((since, run) for line in self._lines.values() if line for run, since in (next(iter(line.items())),))
        return run

    def _arm(self, after_s: float, wait_s: float) -> None:
        self._armed.add(after_s)
        self._deadlines.after(wait_s, partial(self._sweep, after_s))

    def _sweep(self, after_s: float) -> None:
        self._armed.discard(after_s)
        line, until = self._lines[after_s], self._clock.monotonic() - after_s
        while line:
            run, since = next(iter(line.items()))
            if since > until:
                self._arm(after_s, max(since - until, AT_ONCE_S))
                return
            self._leave(run)
            self.end(run)
