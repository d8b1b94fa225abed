"""Crash points: where a process dies, or its store fails it, and how a person writes that down.

before commit 3             the power goes, and that commit is not on the disk
await 17                    the process is killed just before the loop lets something go on for the 17th time
after commit 2; await 4     the next life has a fault of its own
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import cast

from attrs import frozen

from actorflow.testing.faults import Fault, Mode
from actorflow.value import Value

COMMIT_MODES: tuple[Mode, ...] = ("before", "after", "torn", "lost_ack", "unavailable", "delay")
FAULTS: tuple[str, ...] = (*COMMIT_MODES, "await")
"""What `survives` tries, in this order at each commit."""

Schedule = tuple[tuple[Fault, ...], ...]
"""The faults of life after life; the lives behind the last one have none."""

CALM: Schedule = ()

_FAULT = re.compile(r"await (\d+)|(\w+) commit (\d+)", re.ASCII)


@frozen
class Lived(Value):
    """How long one life was, in places to die in."""

    batches: Sequence[int]  #: how many commits each batch brought
    awaits: int  #: how often the loop let something go on


def written(schedule: Schedule) -> str:
    """As `parse` reads it.

    >>> written(((Fault(2, "after"),), (), (Fault(4, "await"),)))
    'after commit 2; ; await 4'
    """
    return "; ".join(", ".join(str(fault).removeprefix("dead at ") for fault in life) for life in schedule)


def parse(text: str) -> Schedule:
    """The schedule that *text* says.

    >>> parse("; await 4")
    ((), (Fault(at=4, mode='await', delay_s=1.0),))

    Raises:
        ValueError: It says none.
    """
    return tuple(tuple(_fault(part.strip()) for part in life.split(",") if part.strip()) for life in text.split(";"))


def _fault(text: str) -> Fault:
    found = _FAULT.fullmatch(text.removeprefix("dead at "))
    if found is None or found[2] not in (None, *COMMIT_MODES):
        known = ", ".join(f"{mode} commit 3" for mode in COMMIT_MODES)
        raise ValueError(f"{text!r} is no crash point. Write {known} or await 17; those of the next life come behind a ';'.")
    return Fault(int(found[1] or found[3]), cast("Mode", found[2] or "await"))


def singles(lives: Sequence[Lived], faults: Sequence[str]) -> list[Schedule]:
    """Every schedule of one fault, the earliest first: those at commits, then those at awaits."""
    at_commits = [
        _in_life(number, Fault(at, mode))
        for number, life in enumerate(lives)
        for at, batch in enumerate(life.batches, start=1)
        for mode in COMMIT_MODES
        if mode in faults and (batch > 1 or mode != "torn")  # Half of one commit is none of it.
    ]
    at_awaits = [
        _in_life(number, Fault(at, "await"))
        for number, life in enumerate(lives)
        for at in range(1, life.awaits + 1)
        if "await" in faults
    ]
    return [*at_commits, *at_awaits]


def _in_life(number: int, fault: Fault) -> Schedule:
    return (*((),) * number, (fault,))


def chosen(schedules: Sequence[Schedule], most: int | None, seed: str) -> list[Schedule]:
    """At most so many of them, in their order: crashes before and after a commit first, of the rest a sample.

    Args:
        schedules: All there are.
        most: How many; None is all.
        seed: Of the sample.
    """
    if most is None or len(schedules) <= most:
        return list(schedules)
    chance = random.Random(seed)  # noqa: S311  (a sample, no secret)
    plain = [n for n, schedule in enumerate(schedules) if schedule[-1][0].mode in ("before", "after")]
    if len(plain) > most:
        plain = chance.sample(plain, most)
    rest = sorted(set(range(len(schedules))) - set(plain))
    return [schedules[n] for n in sorted([*plain, *chance.sample(rest, most - len(plain))])]


def pairs(schedules: Sequence[Schedule], count: int, seed: str) -> list[Schedule]:
    """A fault, and another one in the life that follows, drawn at random."""
    chance = random.Random(f"{seed}/pairs")  # noqa: S311
    return [chance.choice(schedules) + chance.choice(schedules)[-1:] for _ in range(count)] if schedules else []
