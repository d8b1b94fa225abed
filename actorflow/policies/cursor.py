"""Where a loop over many items stands: the cursor of `each`. Pure.

Items are finished out of order by several workers, so the cursor is a low-water mark (all below it are done) and the few
finished indexes above it. A crash repeats what was finished but not yet written, and what was in flight: at most a batch
and the workers' hands.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen
from attrs.validators import ge

from actorflow.errors import BadDefinition
from actorflow.value import Value


@frozen(kw_only=True)
class SetAside(Value):
    """The error budget of a loop: how many bad items may be set aside before the run pauses.

    A float below 1 is a ratio of all items, judged from 1,000 items on and at the end; an int is a count.
    """

    at_most: int | float = field(default=0, validator=ge(0))

    def __attrs_post_init__(self) -> None:
        if isinstance(self.at_most, bool) or (isinstance(self.at_most, float) and not 0.0 <= self.at_most < 1.0):
            raise BadDefinition(f"SetAside(at_most={self.at_most!r}): write a count (int) or a ratio below 1.0 (float).")


JUDGED_FROM = 1_000


@frozen(kw_only=True)
class BadItem(Value):
    """An item that was set aside."""

    index: int
    key: str
    error: str


ABOVE_MAX = 10_000  #: items finished above one that is not: a single slow one must not make the row large
BAD_ITEMS_KEPT_MAX = 1_000  #: the row stays small; the log has all of them


@frozen(kw_only=True)
class Cursor(Value):
    """What the one row of a loop says."""

    low: int = 0  #: all items below are finished
    above: tuple[tuple[int, str], ...] = ()  #: finished ones above and their keys, ascending
    last_key: str | None = None  #: of the item just below `low`
    done: int = 0
    set_aside: int = 0
    spent: bool = False  #: the run was paused because the budget was spent: who goes on gives a new one
    forgiven: int = 0  #: set aside before the last `resume`, which gave a new budget
    forgiven_done: int = 0
    repeated: int = 0  #: finished before a crash, unacknowledged, and done again
    total: int | None = None
    begun_at: float = 0.0
    started: int = 0  #: how many items were begun, as far as was written
    bad: tuple[BadItem, ...] = ()


@frozen(kw_only=True)
class Progress(Value):
    """How far a loop is."""

    done: int
    set_aside: int
    repeated: int  #: items that a crash made run again, as far as known
    total: int | None
    rate_per_s: float
    eta_s: float | None


def finished(cursor: Cursor, index: int) -> bool:
    """True if the item needs no more work."""
    if index < cursor.low or not cursor.above or index > cursor.above[-1][0]:
        return index < cursor.low
    return any(index == above for above, _ in cursor.above)


def room(cursor: Cursor, *, open_: int, batch: int, parallel: int) -> bool:
    """True if another item may be begun.

    Args:
        cursor: As last written.
        open_: Items that were begun or may begin at any moment, and are not yet written as finished.
        batch: How many finished ones a crash may repeat, with those in flight.
        parallel: How many may be in flight.
    """
    return open_ < batch + parallel - 1 and len(cursor.above) < ABOVE_MAX


def advance(cursor: Cursor, keys: Mapping[int, str], *, bad: tuple[BadItem, ...] = (), started: int = 0) -> Cursor:
    """The cursor after these items were finished.

    Args:
        cursor: As last written.
        keys: The key of each item finished since, by index.
        bad: Those of them that were set aside.
        started: How many items were begun so far.
    """
    above = dict(cursor.above) | dict(keys)
    low, last_key = cursor.low, cursor.last_key
    while low in above:
        last_key = above.pop(low)
        low += 1
    return evolve(
        cursor,
        low=low,
        above=tuple(sorted(above.items())),
        last_key=last_key,
        done=cursor.done + len(keys) - len(bad),
        set_aside=cursor.set_aside + len(bad),
        started=max(cursor.started, started),
        bad=(cursor.bad + bad)[-BAD_ITEMS_KEPT_MAX:],
    )


def over_budget(cursor: Cursor, budget: SetAside | None, *, ended: bool) -> bool:
    """True if more items were set aside than the budget allows."""
    spent = cursor.set_aside - cursor.forgiven
    if budget is None:
        return spent > 0
    if isinstance(budget.at_most, int):
        return spent > budget.at_most
    judged = cursor.done + cursor.set_aside - cursor.forgiven_done
    return (ended or judged >= JUDGED_FROM) and spent > budget.at_most * judged


def forgive(cursor: Cursor) -> Cursor:
    """A new budget: what was set aside so far counts no more."""
    return evolve(cursor, spent=False, forgiven=cursor.set_aside, forgiven_done=cursor.done + cursor.set_aside)


def progress(cursor: Cursor, *, now: float, since: float, finished_before: int) -> Progress:
    """How far the loop is at *now*, and when it will be done if it goes on as in this life of the process.

    Args:
        now: Wall-clock moment.
        since: When this life began to work on it.
        finished_before: How many items were finished then.
    """
    count = cursor.done + cursor.set_aside
    rate = (count - finished_before) / max(now - since, 1e-3)
    eta = (cursor.total - count) / rate if cursor.total is not None and rate > 0 else None
    return Progress(
        done=cursor.done, set_aside=cursor.set_aside, repeated=cursor.repeated, total=cursor.total, rate_per_s=rate, eta_s=eta
    )
