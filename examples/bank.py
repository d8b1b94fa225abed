"""A bank: accounts are actors, a transfer is a run that asks two of them, and pays back if the second one refuses.

    python examples/bank.py

Kill it anywhere and run it again: it repeats every transfer with the same key, so each happens once, and no cent is lost or
made. An account exists as soon as somebody writes to it.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from functools import partial
from pathlib import Path

import anyio

from actorflow import Abort, Actor, Message, Runtime, Workflow, handler

OPENING = 100_00  #: what everybody begins with, in cents
FULL = 150_00  #: no account takes more
AT_A_TIME = 50  #: transfers under way
PATIENCE = "30d"  #: how long a transfer waits for an account; a time-out would leave open where the money is


# --- the accounts ------------------------------------------------------------------------------------------------------


class Withdraw(Message[int]):
    """Take so much; answered by what is left."""

    cents: int


class Deposit(Message[int]):
    """Add so much; answered by what is there then."""

    cents: int


class PayBack(Message[int]):
    """A deposit that is never refused: the money came from here."""

    cents: int


class Balance(Message[int]):
    """How much is there?"""


class TooLittle(Abort):
    """There is less than was asked for."""


class TooMuch(Abort):
    """There would be more than an account takes."""


class Account(Actor):
    """Handles one message at a time, each in a transaction: new state, acknowledgement and reply, or nothing at all."""

    cents: int = 0

    @handler
    async def withdraw(self, m: Withdraw) -> int:
        """An `Abort` is the answer, and undoes what its turn has changed."""
        self.cents -= m.cents
        if self.cents < 0:
            raise TooLittle(f"{self.me.key} has too little")
        return self.cents

    @handler
    async def deposit(self, m: Deposit) -> int:
        """It may refuse."""
        if self.cents + m.cents > FULL:
            raise TooMuch(f"{self.me.key} is full")
        self.cents += m.cents
        return self.cents

    @handler
    async def take_back(self, m: PayBack) -> int:
        """It may not refuse."""
        self.cents += m.cents
        return self.cents

    @handler(readonly=True)
    async def balance(self, m: Balance) -> int:
        """Answered at once from what is durable, even while another message is being handled."""
        return self.cents


# --- a transfer --------------------------------------------------------------------------------------------------------


class Transfer(Workflow[int]):
    """From one account to another. Its result is what the first one has left."""

    source: str
    target: str
    cents: int

    async def run(self) -> int:
        left = await Account.at(self.source).ask(Withdraw(self.cents), within=PATIENCE)  # Refused: the run fails, nothing moved.
        try:
            await Account.at(self.target).ask(Deposit(self.cents), within=PATIENCE)
        except Abort:
            await Account.at(self.source).ask(PayBack(self.cents), within=PATIENCE)
            raise
        return left


# --- the program -------------------------------------------------------------------------------------------------------


def planned(number: int, accounts: int) -> Transfer:
    """Some transfer; the same number is always the same one."""
    chance = random.Random(number)  # noqa: S311  (dice, no secret)
    source, target = chance.sample(range(accounts), 2)
    return Transfer(f"a-{source}", f"a-{target}", chance.randrange(1, OPENING // 2))


async def transfer(runtime: Runtime, number: int, accounts: int) -> str:
    """Perform one, or join it if it was accepted before; how it ended."""
    run = await runtime.start(planned(number, accounts), key=f"t-{number}")
    try:
        await run.result()
    except Abort as refusal:
        return type(refusal).__name__
    return "paid"


async def main(out: Path, accounts: int, transfers: int) -> None:
    """Open the accounts, make all transfers, and count the money."""
    ended: Counter[str] = Counter()
    room = anyio.CapacityLimiter(AT_A_TIME)

    async def one(number: int) -> None:
        async with room:
            ended[await transfer(runtime, number, accounts)] += 1

    async with Runtime(f"sqlite:///{out / 'bank.db'}", actors=[Account, Transfer]) as runtime:
        all_of_them = [runtime.at(Account, f"a-{number}") for number in range(accounts)]
        for account in all_of_them:
            await account.ask(Deposit(OPENING), key="opening")  # The key: only once, however often this program runs.
        async with anyio.create_task_group() as group:
            for number in range(transfers):
                group.start_soon(one, number)
        cents = sum([await account.ask(Balance()) for account in all_of_them])
    print(f"{transfers} transfers:", ", ".join(f"{count} {how}" for how, count in sorted(ended.items())))
    print(f"{cents / 100:.2f} in {accounts} accounts; {accounts * OPENING / 100:.2f} were brought in")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A bank that loses no money when it is killed.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the database")
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--transfers", type=int, default=1_000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    anyio.run(partial(main, given.out.absolute(), given.accounts, given.transfers))
