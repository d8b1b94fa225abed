"""When a failed attempt is made again. Pure: the attempt, the error and the die are passed in.

Exponential backoff with proportional jitter; see "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015) for why
the jitter: without it, all that failed together comes back together.
"""

from __future__ import annotations

import math
from typing import Any, cast

from attrs import field, frozen
from attrs.validators import ge, le, lt

from actorflow.clock import Duration, seconds
from actorflow.errors import BadDefinition
from actorflow.policies.failure import classify
from actorflow.value import Value


def _optional_seconds(value: Duration | None) -> float | None:
    return None if value is None else seconds(value)


def _classes(_: object, __: object, on: Any) -> None:
    if on is not None and not (isinstance(on, tuple) and all(isinstance(each, type) for each in cast("tuple[object, ...]", on))):
        raise BadDefinition(f"Retry(on={on!r}): that is no tuple of exception classes. One alone is written (x,).")


@frozen(kw_only=True)
class Retry(Value):
    """How often and when a step is tried again.

    `attempts` counts the first one. The wait after attempt n is `first * factor ** (n - 1)`, at most `cap`, plus up to
    `jitter` of itself. `on` names the exceptions that are worth another try; None means the transient ones (`Transient`,
    connection errors, timeouts, HTTP 429 and 5xx). `total` bounds the time from the first attempt's beginning to the
    last one's.
    """

    attempts: int = field(default=3, validator=ge(1))
    first: Duration = field(default="1s", validator=lambda _, __, value: seconds(value) and None)
    factor: float = field(default=2.0, validator=[ge(1.0), lt(math.inf)])
    cap: Duration = field(default="30s", validator=lambda _, __, value: seconds(value) and None)
    jitter: float = field(default=0.2, validator=[ge(0.0), le(1.0)])
    total: Duration | None = field(default=None, validator=lambda _, __, value: _optional_seconds(value) and None)
    on: tuple[type[Exception], ...] | None = field(default=None, validator=_classes)


#: What a bare `@step` gets: transient errors three tries, anything else one.
DEFAULT = Retry()
#: What a step gets whose interruption forbids another attempt.
NEVER = Retry(attempts=1)


def chosen(step: str, given: Retry | None, *, on_interrupt: str, fails: tuple[type[Exception], ...]) -> Retry:
    """The policy of a step, from what its declaration says.

    Args:
        step: Its name.
        given: Its `retry=`.
        on_interrupt: Unless it is "retry", another attempt is made only after exceptions that prove that nothing happened.
        fails: What it calls business failures: they are never retried.

    Raises:
        BadDefinition: It contradicts itself.
    """
    if given is not None and given.on is not None:
        for error in given.on:
            if issubclass(error, fails):
                also = next(each for each in fails if issubclass(error, each))
                raise BadDefinition(
                    f"step {step}: retry= tries again after {error.__name__}, but fails= calls {also.__name__} a business "
                    f"failure, which is never retried. Take {error.__name__} out of one of them."
                )
    if on_interrupt == "retry":
        return given or DEFAULT
    if given is None or given is DEFAULT or given == NEVER:  # The default itself: nobody asked for it.
        return NEVER
    if given.on is None:
        raise BadDefinition(
            f'step {step}: with on_interrupt="{on_interrupt}" a `retry=` must name the exceptions that prove that nothing '
            f"happened: Retry(on=(...,))."
        )
    return given


@frozen
class RetryAfter(Value):
    """Make another attempt in so many seconds."""

    delay_s: float


@frozen
class GiveUp(Value):
    """The failure stands."""

    why: str


def delay_s(retry: Retry, attempt: int, *, die: float) -> float:
    """Seconds to wait after the failure of *attempt*, counted from 1; *die* is in [0, 1).

    >>> [delay_s(Retry(first=1, cap=3, jitter=0), n, die=0.5) for n in (1, 2, 3)]
    [1.0, 2.0, 3.0]
    """
    try:
        grown = seconds(retry.first) * retry.factor ** (attempt - 1)
    except OverflowError:  # 2.0 ** 10_000 is no float any more.
        grown = math.inf if seconds(retry.first) else 0.0
    return min(seconds(retry.cap), grown) * (1.0 + retry.jitter * die)


def decide(retry: Retry, attempt: int, error: BaseException, *, elapsed_s: float, die: float) -> RetryAfter | GiveUp:
    """What follows the failure of *attempt*.

    Args:
        retry: The step's policy.
        attempt: Counted from 1; earlier lives of the process count.
        error: What the attempt raised.
        elapsed_s: Since the first attempt began.
        die: In [0, 1), for the jitter.
    """
    wanted = classify(error) in ("transient", "timeout") if retry.on is None else isinstance(error, retry.on)
    if not wanted:
        return GiveUp("this kind of failure is not retried")
    if attempt >= retry.attempts:
        return GiveUp(f"all {retry.attempts} attempts are spent")
    wait = delay_s(retry, attempt, die=die)
    if retry.total is not None and elapsed_s + wait > seconds(retry.total):
        return GiveUp(f"the total of {seconds(retry.total):g} s is spent")
    return RetryAfter(wait)
