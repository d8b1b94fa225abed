"""Draws programs and clients, from dice that may be a seed's or Hypothesis's."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import define, field

from actorflow.testing.programs import (
    ACCOUNTS,
    TRIES,
    Act,
    Ask,
    Break,
    Client,
    Deposit,
    Do,
    Each,
    Explode,
    Fan,
    Hear,
    Kid,
    Launch,
    Once,
    Op,
    Part,
    Program,
    Silence,
    Sleep,
    Stop,
    Tell,
)


@define
class _Draw:
    """Draws programs. Names are unique within one."""

    dice: Random
    count: int = field(default=0, init=False)

    def name(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def program(self) -> Program:
        ops = self.ops(depth=2, length=4, trunk=True)
        if self.dice.random() < 0.15:
            ops = (*ops, Stop())
        return Program(ops, rounds=2 if self.dice.random() < 0.15 else 1)

    def ops(self, *, depth: int, length: int, trunk: bool) -> tuple[Op, ...]:
        return tuple(self.op(depth, trunk=trunk) for _ in range(self.dice.randint(1, length)))

    def op(self, depth: int, *, trunk: bool) -> Op:
        makers: list[Callable[[], Op]] = [lambda: self.do(trunk=trunk)] * 4 + [self.once, self.sleep, self.ask, self.tell]
        if trunk:
            makers += [Hear, self.silence, self.each]
        if depth:
            makers += [lambda: self.fan(depth), lambda: self.part(depth, trunk=trunk), lambda: self.kid(depth)]
        return self.dice.choice(makers)()

    def do(self, *, trunk: bool) -> Op:
        fails = self.dice.choice((0, 0, 0, 1, 2, TRIES))
        takes_s = self.dice.choice((0.0, 0.1, 1.0, 3.0))
        return Do(self.name(), takes_s, fails, self.dice.random() < 0.2, trunk and self.dice.random() < 0.4)

    def once(self) -> Op:
        return Once(self.name(), self.dice.choice((0.1, 1.0)))

    def sleep(self) -> Op:
        return Sleep(self.dice.choice((0.0, 0.5, 30.0, 7_200.0)))

    def silence(self) -> Op:
        return Silence(self.dice.choice((0.0, 2.0, 600.0)))

    def ask(self) -> Op:
        return Ask(self.dice.choice(ACCOUNTS), self.dice.randint(1, 9))

    def tell(self) -> Op:
        return Tell(self.dice.choice(ACCOUNTS), self.dice.randint(1, 9), self.dice.choice((0.0, 0.0, 20.0)))

    def each(self) -> Op:
        return Each(self.name(), self.dice.randint(0, 7))

    def fan(self, depth: int) -> Op:
        branches = [self.ops(depth=depth - 1, length=2, trunk=False) for _ in range(self.dice.randint(2, 3))]
        if self.dice.random() < 0.2:
            # What the siblings had done by then is not decided here, so they do nothing that others would see.
            at = self.dice.randrange(len(branches))
            quiet = (tuple(op for op in branch if isinstance(op, Do | Once | Sleep)) for branch in branches)
            branches = [(*branch, Break()) if place == at else branch for place, branch in enumerate(quiet)]
        return Fan(tuple(branches))

    def part(self, depth: int, *, trunk: bool) -> Op:
        name = self.name()
        return Part(name, tuple(op for op in self.ops(depth=depth - 1, length=3, trunk=trunk) if not isinstance(op, Each)))

    def kid(self, depth: int) -> Op:
        name = self.name()
        ops = self.ops(depth=depth - 1, length=2, trunk=False)
        return Kid(name, (*ops, Stop()) if self.dice.random() < 0.2 else ops)


def random_program(dice: Random) -> Program:
    """Of a few operations, some of which hold others."""
    return _Draw(dice).program()


def random_clients(dice: Random) -> tuple[Client, ...]:
    """One to three clients with one to three acts each."""
    draw = _Draw(dice)
    return tuple(_client(draw, str(number)) for number in range(dice.randint(1, 3)))


def _client(draw: _Draw, name: str) -> Client:
    dice, acts = draw.dice, list[Act]()
    for number in range(dice.randint(1, 3)):
        key = f"c{name}-{number}"
        match dice.choice("LLADDDE"):
            case "L" | "A" as kind:
                acts.append(Launch(key, draw.program(), asks=kind == "A"))
            case "D":
                how = dice.random()
                acts.append(Deposit(key, dice.choice(ACCOUNTS), dice.randint(1, 9), how < 0.7, how < 0.3 or how >= 0.7))
            case _:
                acts.append(Explode(key, dice.choice(ACCOUNTS)))
    return Client(tuple(acts), dice.choice((0.0, 0.1, 5.0)))
