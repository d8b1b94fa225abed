"""Time and chance, injected: the only places where the runtime learns what time it is or rolls a die.

Two clocks because they answer two questions. *Wall* time is what a person means by "in three days": it is stored, and it
may jump. *Monotonic* time measures how long something takes within one process: timeouts of steps use it, so that a clock
set forward by an hour makes no step late.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

from actorflow.errors import BadDuration

Duration = int | float | str | timedelta
"""Seconds as int or float, a `timedelta`, or "<number><ms, s, m, h, d>"; at least 0, at most 100 years."""

DURATION_S_MAX = 100 * 365.25 * 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(duration: Duration) -> float:
    """The length of *duration* in seconds.

    >>> [seconds(d) for d in (2, "250ms", "1.5h", timedelta(days=1))]
    [2.0, 0.25, 5400.0, 86400.0]

    Raises:
        BadDuration: It is no duration, negative, not finite or over 100 years.
    """
    match duration:
        case bool():
            raise BadDuration(duration, "a bool is no number of seconds")
        case int() | float():
            value = float(duration) if not abs(duration) > DURATION_S_MAX else math.inf if duration > 0 else -1.0
        case timedelta():
            value = duration.total_seconds()
        case str():
            value = _parse(duration)
        case _:
            raise BadDuration(duration, f"it is a {type(duration).__qualname__}")
    if not value >= 0:  # NaN is not, either.
        raise BadDuration(duration, "it is negative or not a number")
    if value > DURATION_S_MAX:
        raise BadDuration(duration, "it is over 100 years")
    return value


@lru_cache(maxsize=1_024)
def _parse(text: str) -> float:
    number = text.strip().rstrip("msdh")
    unit, number = text.strip()[len(number) :], number.rstrip()
    if unit not in _UNITS or not number.isascii() or not number.replace(".", "", 1).isdigit():
        raise BadDuration(text, "it is not a number followed by a unit")
    return float(number) * _UNITS[unit]


def moment(at: float) -> datetime:
    """Seconds since the epoch as an aware `datetime` in UTC."""
    return datetime.fromtimestamp(at, UTC)


class Clock(Protocol):
    """What the runtime asks for time. `wall` is seconds since the epoch; `monotonic` only its differences mean anything."""

    def wall(self) -> float: ...
    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    wall: staticmethod[[], float] = staticmethod(time.time)
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)


class Chance:
    """Seeds, jitter and ids. With a seed, the same sequence every time."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311  (jitter and ids, no secrets)

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def seed(self) -> int:
        """A number that a run derives its own chance from; fits into 63 bits."""
        return self._random.getrandbits(63)

    def id(self) -> str:
        """A fresh, unique name of 32 hexadecimal digits."""
        return uuid.UUID(int=self._random.getrandbits(128), version=4).hex
