"""How often something may be restarted, and how long each restart waits. Pure.

A sliding period bounds the restarts (OTP's intensity), and exponential backoff with jitter spreads them (OTP has none).
"""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Literal

from attrs import evolve, field, frozen

from actorflow.clock import Duration, seconds
from actorflow.errors import BadDefinition, BadDuration
from actorflow.policies import retry
from actorflow.value import Value

RESTARTS_MAX = 10_000
"""The most restarts that a budget may allow: each one within the period is remembered."""


@frozen
class Backoff(Value):
    """How long a restart waits: `first` after the first failure in a row, `factor` times longer after each further one, at
    most `cap`, plus up to `jitter` of itself. A child that came up over a period ago begins a new row.

    Raises:
        BadDefinition: A length is no duration, `cap` is below `first`, or a number is out of its range.
    """

    first: Duration = "100ms"
    cap: Duration = "30s"
    factor: float = field(default=2.0, kw_only=True)
    jitter: float = field(default=0.2, kw_only=True)

    def __attrs_post_init__(self) -> None:
        try:
            first_s, cap_s = seconds(self.first), seconds(self.cap)
        except BadDuration as error:
            raise BadDefinition(f"Backoff: {error}") from error
        if first_s > cap_s:
            raise BadDefinition(f"Backoff: the first wait ({first_s:g} s) is over the cap ({cap_s:g} s). Raise `cap`.")
        if not _number(self.factor) or not 1.0 <= self.factor < math.inf:
            raise BadDefinition(f"Backoff: factor is {self.factor!r}. Write a number that is at least 1.")
        if not _number(self.jitter) or not 0.0 <= self.jitter <= 1.0:
            raise BadDefinition(f"Backoff: jitter is {self.jitter!r}. Write a share between 0 and 1.")

    def delay_s(self, failures: int, *, die: float) -> float:
        """Seconds to wait after so many failures in a row, counted from 1; *die* is in [0, 1).

        >>> [Backoff("1s", "3s", jitter=0.5).delay_s(n, die=0.5) for n in (1, 2, 3)]
        [1.25, 2.5, 3.75]
        """
        policy = retry.Retry(first=self.first, cap=self.cap, factor=self.factor, jitter=self.jitter)
        return retry.delay_s(policy, failures, die=die)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@frozen
class Budget(Value):
    """How many restarts are allowed in any period. A supervisor has one for all its children; a dynamic child (a run, a
    virtual actor) has one of its own, so that it never takes its siblings along.
    """

    restarts: int = 3
    within_s: float = 60.0
    spent: tuple[float, ...] = ()  #: moments of the restarts within the period, newest first; at most `restarts` + 1


def spend(budget: Budget, *, now: float) -> tuple[Budget, Literal["restart", "quarantine"]]:
    """Count one restart, at a moment of the monotonic clock.

    The period slides, and a restart exactly one period ago still counts. A dynamic child that is allowed to restart waits
    `Backoff.delay_s(len(budget.spent))` with the budget that is returned; one in quarantine stays out until `resume`.

    >>> spend(Budget(1, 60.0, (40.0,)), now=100.0)[1], spend(Budget(1, 60.0, (40.0,)), now=100.1)[1]
    ('quarantine', 'restart')
    """
    recent = takewhile(lambda moment: moment >= now - budget.within_s, budget.spent)
    spent = (now, *recent)[: budget.restarts + 1]
    return evolve(budget, spent=spent), "restart" if len(spent) <= budget.restarts else "quarantine"


def resume(budget: Budget) -> Budget:
    """A new budget of the same size, for one that was mended."""
    return evolve(budget, spent=())
