"""Time in a test: lengths as a person writes them, and the clock of another day."""

from __future__ import annotations

import re
from collections.abc import Callable

from actorflow.clock import Duration
from actorflow.testing.clock import LoopClock

_UNITS = {"second": "s", "minute": "m", "hour": "h", "day": "d"}
_PROSE = re.compile(rf"\s*([\d.]+) +({'|'.join(_UNITS)})s?\s*", re.ASCII)


def in_prose(duration: Duration) -> Duration:
    """A duration as a person writes it in prose, as the clock reads it.

    >>> in_prose("3 days"), in_prose("1 hour"), in_prose("90s")
    ('3d', '1h', '90s')
    """
    found = _PROSE.fullmatch(duration) if isinstance(duration, str) else None
    return duration if found is None else f"{found[1]}{_UNITS[found[2]]}"


class Elsewhen:
    """The clock of a loop, some time later: what a program says that depends on the moment is another thing then."""

    recheck_s: float = LoopClock.recheck_s

    def __init__(self, clock: LoopClock) -> None:
        self.wall: Callable[[], float] = lambda: clock.wall() + 12_345.678
        self.monotonic: Callable[[], float] = clock.monotonic
