"""What one simulated history is made of: clients, and everything that goes wrong. All of it is drawn from one seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

from attrs import evolve, frozen

from actorflow.testing.drawing import random_clients
from actorflow.testing.faults import Fault, Mode
from actorflow.testing.programs import Client, reduced
from actorflow.value import Value

Network = Literal["lost_request", "lost_reply", "duplicate", "late"]
"""What becomes of a request: it never arrives, its answer never does, it arrives twice, or after a while."""

MODES: dict[Mode, int] = {
    "before": 3,
    "after": 3,
    "torn": 2,
    "await": 8,
    "cancel": 3,
    "lost_ack": 3,
    "delay": 3,
    "unavailable": 3,
    "busy": 2,
    "zombie": 1,
    "stop": 2,
    "drain": 1,
    "pause": 2,
}
"""Faults of a process and its disk, and how often each is drawn."""
NETWORK: tuple[Network, ...] = ("lost_request", "lost_reply", "duplicate", "late")

LIVES_MAX = 4  #: processes with faults; those after them live in peace
COMMITS = (4, 12, 40)  #: faults of a disk are drawn among so many first commits of a life
AWAITS = (60, 200, 600)  #: and deaths among so many first awaits


@frozen
class Hiccup(Value):
    """What the network does to the N-th request, counted from 1."""

    at: int
    kind: Network
    s: float

    def __str__(self) -> str:
        return f"{self.kind} of request {self.at}, {self.s:g} s"


@frozen
class Jump(Value):
    """Somebody sets the wall clock."""

    at_s: float
    by_s: float

    def __str__(self) -> str:
        return f"the clock jumps by {self.by_s:+g} s after {self.at_s:g} s"


@frozen
class Plan(Value):
    """A history, before it happens. The same plan gives the same history, byte for byte."""

    seed: int  #: of what is left to chance: who of those ready is first, ids, jitter
    clients: tuple[Client, ...]
    lives: tuple[tuple[Fault, ...], ...] = ()  #: what happens to each process
    downtime_s: float = 0.0  #: between two of them
    hiccups: tuple[Hiccup, ...] = ()
    jumps: tuple[Jump, ...] = ()

    @property
    def faults(self) -> list[Fault | Hiccup | Jump]:
        return [*(fault for life in self.lives for fault in life), *self.hiccups, *self.jumps]


def plan_of(dice: Random, *, seed: int, calm: bool = False) -> Plan:
    """Draw a plan.

    Args:
        dice: What draws it.
        seed: What the plan leaves to chance derives from it.
        calm: Without anything that goes wrong.
    """
    clients = random_clients(dice)
    if calm:
        return Plan(seed, clients)
    return Plan(
        seed,
        clients,
        lives=tuple(_life(dice) for _ in range(dice.randint(0, LIVES_MAX))),
        downtime_s=dice.choice((0.0, 0.0, 1.0, 100.0)),
        hiccups=tuple(_hiccups(dice)),
        jumps=tuple(_jump(dice) for _ in range(dice.choice((0, 0, 1, 3)))),
    )


def seeded(seed: int, *, calm: bool = False) -> Plan:
    """The plan of that seed."""
    return plan_of(Random(seed), seed=seed, calm=calm)  # noqa: S311  (no secret)


def _life(dice: Random) -> tuple[Fault, ...]:
    return tuple(_fault(dice) for _ in range(dice.choice((1, 1, 2, 3))))


def _fault(dice: Random) -> Fault:
    mode: Mode = dice.choice([mode for mode, often in MODES.items() for _ in range(often)])
    match mode:
        case "await" | "cancel":
            return Fault(dice.randint(1, dice.choice(AWAITS)), mode)
        case "drain" | "pause":
            return Fault(0, mode, dice.choice((0.0, 0.5, 3.0, 20.0)))
        case "stop":
            return Fault(dice.randint(1, dice.choice(COMMITS)), mode, dice.choice((30.0, 300.0)))
        case _:
            return Fault(dice.randint(1, dice.choice(COMMITS)), mode, dice.choice((0.1, 2.0, 40.0)))


def _hiccups(dice: Random) -> list[Hiccup]:
    rate = dice.choice((0.0, 0.0, 0.1, 0.4))
    return [Hiccup(at, dice.choice(NETWORK), dice.choice((0.1, 5.0, 60.0))) for at in range(1, 41) if dice.random() < rate]


def _jump(dice: Random) -> Jump:
    return Jump(dice.choice((0.3, 2.0, 10.0, 100.0)), dice.choice((-3_600.0, -0.2, 0.2, 3_600.0)))


def less_of(plan: Plan, keep: Callable[[], bool]) -> Plan:
    """The same with fewer faults, acts and operations: those for which *keep* says yes, asked in a fixed order."""
    return evolve(
        plan,
        lives=tuple(tuple(fault for fault in life if keep()) for life in plan.lives),
        hiccups=tuple(hiccup for hiccup in plan.hiccups if keep()),
        jumps=tuple(jump for jump in plan.jumps if keep()),
        clients=reduced(plan.clients, keep),
    )


def of_one_holder(plan: Plan) -> Plan:
    """The same without processes that run beside each other: a file has one holder."""
    lives = tuple(tuple(fault for fault in life if fault.mode not in ("stop", "zombie")) for life in plan.lives)
    return evolve(plan, lives=lives)


def described(plan: Plan) -> str:
    """The plan for a person: who does what, and what goes wrong."""
    lines = [f"client {number}: {act}" for number, client in enumerate(plan.clients) for act in client.acts]
    lines += [f"process {number}: {', '.join(map(str, life)) or 'no fault'}" for number, life in enumerate(plan.lives)]
    lines += [str(each) for each in (*plan.hiccups, *plan.jumps)]
    return "\n".join(lines)
