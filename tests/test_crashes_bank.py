"""Random programs of actors and a run, with the power cut at random commits, against a model of a few lines."""

from __future__ import annotations

import random
from typing import Any, cast

import anyio
import pytest
from attrs import field

from actorflow import Abort, Actor, HandlerFailed, Limits, Message, Runtime, StoreUnavailable, Workflow, handler, step
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault
from actorflow.testing.scenario import Scenario, World, effect, play, world

ACCOUNTS: tuple[str, ...] = ("a", "b", "c", "d")
START = 100
PROGRAMS = 12
LIVES = 3

Way = str  #: how money moves: by telling, by asking, by a run, later by a timer


@step
async def fee(n: int) -> int:
    effect()
    await anyio.sleep(0.3)
    return n


class Move(Message[int]):
    to: str
    amount: int
    way: str


class Receive(Message[int]):
    amount: int
    of: str  #: which transfer


class Later(Message[None]):
    to: str
    amount: int
    of: str


class Balance(Message[int]): ...


class Received(Message[list[str]]): ...


class Account(Actor):
    """Sends money in several ways; each transfer is paid once and received once."""

    balance: int = START
    received: list[str] = field(factory=list[str])

    @handler(timeout="1h")
    async def move(self, m: Move) -> int:
        way, _, of = m.way.partition(":")
        if m.amount > self.balance:
            raise Abort("not enough")
        self.balance -= m.amount
        to = Account.at(m.to)
        match way:
            case "tell":
                await to.tell(Receive(m.amount, of))
            case "step":
                await fee(m.amount)
                await to.tell(Receive(m.amount, of), key=of)
                if (of, "failed") not in world().marks:
                    world().marks.append((of, "failed"))
                    raise ValueError("once, after telling")
            case "pot":
                await Pot.at("pot").ask(Receive(m.amount, of), within="1h")
                await Pot.at("pot").tell(Move(m.to, m.amount, "tell:" + of))
            case _:
                self.after("2s", Later(m.to, m.amount, of), name=of)
        return self.balance

    @handler
    async def receive_(self, m: Receive) -> int:
        self.balance += m.amount
        self.received.append(m.of)
        return self.balance

    @handler
    async def later(self, m: Later) -> None:
        await Account.at(m.to).tell(Receive(m.amount, m.of))

    @handler(Balance, readonly=True)
    async def read(self, m: Balance) -> int:
        return self.balance

    @handler(Received, readonly=True)
    async def all(self, m: Received) -> list[str]:
        return self.received


class Pot(Account):
    balance: int = 0


class Standing(Workflow[int]):
    """A run that takes from one and gives to another."""

    source: str
    target: str
    amount: int
    of: str

    async def run(self) -> int:
        await Account.at(self.source).ask(Move(self.target, self.amount, "tell:" + self.of), within="1h")
        return await fee(self.amount)


def program(seed: int) -> list[tuple[str, str, int, str]]:
    """Who moves how much to whom, and how."""
    chance = random.Random(seed)
    ways = ("tell", "step", "pot", "later", "run")
    return [
        (*chance.sample(ACCOUNTS, 2), chance.choice((1, 5, 20, 90)), chance.choice(ways))  # type: ignore[misc]
        for _ in range(chance.randint(4, 10))
    ]


def scenario(seed: int, *, limits: Limits) -> Scenario:
    moves = program(seed)

    async def one(runtime: Runtime, n: int) -> None:
        (source, target, amount, way), name, answers = moves[n], f"t{n}", seen_before()
        while True:
            try:
                if way == "run":
                    run = await runtime.start(Standing(source, target, amount, name), key=name)
                    answer: Any = await run.result()
                else:
                    answer = await runtime.at(Account, source).ask(Move(target, amount, f"{way}:{name}"), key=name, within="2h")
            except StoreUnavailable:  # Nothing was written, and all has a key.
                await anyio.sleep(0.1)
                continue
            except (Abort, HandlerFailed) as error:
                answer = type(error).__name__
            break
        # What was seen once stays so: it was durable.
        assert answers.setdefault(name, answer) == answer, (name, answers[name], answer)

    def seen_before() -> dict[str, Any]:
        marks = world().marks
        if not marks:  # The first of them, before any account has left a mark of its own.
            marks.append(dict[str, Any]())
        return cast("dict[str, Any]", marks[0])

    async def script(runtime: Runtime, world: World) -> Any:
        answers = seen_before()
        chance = random.Random(seed + world.crashes)
        async with anyio.create_task_group() as group:
            for n in range(len(moves)):
                group.start_soon(one, runtime, n)
                if chance.random() < 0.5:
                    await anyio.sleep(chance.random())
        paid = {f"t{n}" for n in range(len(moves)) if answers[f"t{n}"] not in ("Abort", "HandlerFailed")}
        balances: dict[str, int] = {}
        received: list[str] = []
        for _ in range(200):
            balances = {key: await runtime.at(Account, key).ask(Balance()) for key in ACCOUNTS}
            received = [of for key in ACCOUNTS for of in await runtime.at(Account, key).ask(Received())]
            if len(received) >= len(paid):
                break
            await anyio.sleep(1.0)
        await anyio.sleep(5.0)
        received = [of for key in ACCOUNTS for of in await runtime.at(Account, key).ask(Received())]
        model: dict[str, int] = dict.fromkeys(ACCOUNTS, START)
        for n, (source, target, amount, _) in enumerate(moves):
            if f"t{n}" in paid:
                model[source] -= amount
                model[target] += amount
        balances = {key: await runtime.at(Account, key).ask(Balance()) for key in ACCOUNTS}
        assert sorted(received) == sorted(paid), "each transfer arrives once"
        assert balances == model
        assert sum(balances.values()) == START * len(ACCOUNTS), "money is conserved"
        assert await runtime._running().store.dead_letters() == []
        return None

    name = f"bank {seed}: {moves}"
    return Scenario(name=name, actors=[Account, Pot, Standing], script=script, limits=limits, same_effects=False)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_money_is_conserved_and_each_transfer_arrives_once_over_any_crashes(backend: Backend, seed: int) -> None:
    """P3, P4, P5 for tells, keyed tells after failing handlers, asks between actors, timers and runs."""
    chance = random.Random(f"{seed}/{backend}")
    limits = Limits(passivate_after_s=chance.choice((0.5, 60.0)))
    calm = play(scenario(seed, limits=limits), backend)

    for _ in range(4):
        lives = [
            [Fault(chance.randint(1, calm.commits), chance.choice(("before", "after", "unavailable", "lost_ack")))]
            for _ in range(chance.randint(1, LIVES))
        ]
        play(scenario(seed, limits=limits), backend, *lives, seed=chance.getrandbits(32), downtime_s=chance.choice((0.0, 3.0)))
