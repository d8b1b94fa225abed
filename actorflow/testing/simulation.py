"""A whole service, its disk, its network and its clients in one thread and in virtual time, decided by one seed.

Processes come up over one store, die, hang, are cut off and come back while clients speak to them through a network that loses,
delays and repeats. After every commit the rows of the runs that it changed are looked at; in the end every client must have
had the answers that the model (`programs`) says, every effect must have had one idempotency key, and nothing may be left over.

One plan gives one history, byte for byte: its hash says so. Whatever decides anything is drawn from the plan's seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import anyio
from attrs import field, frozen

from actorflow.testing.clock import Backend, Ticks, run_virtual
from actorflow.testing.invariants import replays, violations
from actorflow.testing.network import Network
from actorflow.testing.plans import Plan
from actorflow.testing.players import Account, Play
from actorflow.testing.programs import Expected
from actorflow.testing.world import Disk, World, Wrong
from actorflow.value import Value

DAYS_MAX = 10  #: of virtual time: who has not come to an end by then never will
TICKS_MAX = 300_000  #: of a loop that comes to no end


@frozen
class History(Value):
    """What happened."""

    plan: Plan
    hash: str  #: of everything that happened, in order
    lines: Sequence[str] = field(repr=False)  #: the same, for a person
    faults: Counter[str] = field(factory=Counter[str])  #: those that came to pass
    events: int = 0  #: commits, after each of which the rows were looked at
    failure: str | None = None  #: what must not be
    virtual_s: float = 0.0
    seen: tuple[str, ...] = ()  #: what clients and the ledger saw in the end, in order: the same over every store and loop


def simulate(plan: Plan, *, backend: Backend = "trio", disk: Callable[[], Disk] = Disk) -> History:
    """Live through a plan. What goes wrong that must not is the `failure` of the history.

    Args:
        plan: What happens.
        backend: On trio a plan gives the same history every time; asyncio leaves a little to where objects lie in memory.
        disk: Where the data are.
    """
    ticks, told = Ticks(), list[History]()

    async def main() -> None:
        world = World(plan, ticks, disk())
        seen: list[str] = []
        failure = await _failure(world, seen)
        if failure is not None:
            world.note(f"failure: {failure}")
        lived_s = world.clock.monotonic()
        told.append(History(plan, world.hash(), world.lines, world.faults, world.events, failure, lived_s, tuple(sorted(seen))))

    run_virtual(main, backend=backend, seed=plan.seed, ticks=ticks)
    return told[0]


async def _failure(world: World, seen: list[str]) -> str | None:
    """Let it all happen. What was wrong, if anything was; *seen* is filled with what was seen in the end."""
    try:
        with anyio.move_on_after(DAYS_MAX * 86_400) as whole:
            world.ticks.arm(TICKS_MAX, whole.cancel)
            await _happen(world, seen)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what we are looking for)
        return shown(error)
    except BaseExceptionGroup as errors:
        return shown(errors)
    return f"it came to no end in {DAYS_MAX} days, or in {TICKS_MAX} turns of the loop" if whole.cancelled_caught else None


async def _happen(world: World, seen: list[str]) -> None:
    if not world.plan.clients:
        return
    expected = Expected.of(world.plan.clients)
    async with anyio.create_task_group() as world.group:
        for task in (world.live, world.set_clock):
            world.group.start_soon(task)
        seen += await Network(world).serve(expected)
        world.over = True
        world.nodes[-1].life.cancel()
        await world.nodes[-1].gone.wait()
        world.group.cancel_scope.cancel()
    rows = await world.disk.rows()
    world.check([*violations(rows, [Account, Play]), *replays(rows, [Account, Play]), *left_over(world, expected)])
    seen += [f"{each.run.address} {each.run.status} {len(each.loaded.mailbox)}" for each in rows]


def shown(error: BaseException) -> str:
    """An error in one line; of a group, those that are not its consequences."""
    if isinstance(error, BaseExceptionGroup):
        parts = [shown(each) for each in cast("BaseExceptionGroup[BaseException]", error).exceptions]
        return "; ".join(dict.fromkeys(parts))
    if isinstance(error, Wrong):
        return str(error)
    return f"{type(error).__name__}: {error}"


def left_over(world: World, expected: Expected) -> list[str]:
    """What the world outside saw, against what it had to see."""
    effects = world.ledger.effects
    wrong = [
        f"{what} had its effect under {len(keys)} keys: {', '.join(keys)}" for what, keys in effects.items() if len(keys) > 1
    ]
    of_steps = {what for what in effects if "undo of" not in what and not what.startswith("Account/")}
    wrong += [f"{what} never had its effect" for what in sorted(expected.effects - of_steps)]
    wrong += [f"{what} had an effect that nobody wanted" for what in sorted(of_steps - expected.effects - expected.possible)]
    for run, undos in expected.undone.items():
        done = [each.partition("/")[2] for each in world.ledger.undone if each.startswith(f"{run}/")]
        if done != undos:
            wrong.append(f"{run} undid {done}, and it had to undo {undos}")
    wrong += [
        f"{each} was undone, and nothing failed" for each in world.ledger.undone if each.split("/")[0] not in expected.undone
    ]
    return wrong
