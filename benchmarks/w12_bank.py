"""W12: the bank under contention: 1,000 clients transfer money, and one hot account takes part in every transfer.

An account is a durable actor. A client asks the account that pays; its turn takes the money and tells the other account, in one
transaction, so no cent is lost or made by a crash. The clock stops when the hot account, where all stand in line, has what it
is due; then all balances are checked. "A run each" is the other way of writing it (`examples/bank.py`): a transfer is a run
that asks both accounts, one after the other. "Bare" is a plain transaction of two updates for each transfer, on one
connection, behind a lock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite
import anyio

from actorflow import Abort, Actor, Limits, Message, Runtime, Workflow, handler
from benchmarks.peers import peers
from benchmarks.suite import BARE, OURS, Body, Contender, Measured, Metric, Sizes, Watch, Workload, quantile, rss_mb, serve

A_RUN_EACH = "actorflow, a run each"

WORKLOAD = Workload(
    id="W12",
    title="the bank: 1,000 clients, one hot account",
    metrics=(
        Metric("transfers_per_s", "transfers/s", "more"),
        Metric("p99_ms", "ms a transfer, p99", "less"),
        Metric("cpu_us_per_transfer", "µs of CPU a transfer", "less"),
        Metric("rss_mb", "MB", "less"),
    ),
    full={"clients": 1_000, "transfers": 10_000, "accounts": 1_000},
    quick={"clients": 1_000, "transfers": 2_000, "accounts": 1_000},
    contenders=(
        Contender(BARE, __name__),
        Contender(OURS, __name__),
        Contender(A_RUN_EACH, __name__, repeats=2, quick=False),
        *peers("W12"),
    ),
)

HOT, OPENING, LARGEST = 0, 1_000_000, 100
PATIENCE, GIVE_UP_S, POLL_S = "10m", 250.0, 0.01

Transfer = tuple[int, int, int]
"""From whom, to whom, cents."""


def planned(transfers: int, accounts: int) -> list[Transfer]:
    """The same ones each time; in each the hot account pays or is paid."""
    dice = random.Random(12)
    plan: list[Transfer] = []
    for _ in range(transfers):
        other, cents = dice.randrange(1, accounts), dice.randrange(1, LARGEST)
        plan.append((HOT, other, cents) if dice.random() < 0.5 else (other, HOT, cents))
    return plan


def balances(plan: list[Transfer], accounts: int) -> list[int]:
    """What each account has when all of it was done."""
    cents = [OPENING] * accounts
    for source, target, amount in plan:
        cents[source] -= amount
        cents[target] += amount
    return cents


async def clients(count: int, plan: list[Transfer], transfer: Callable[[int, Transfer], Awaitable[object]]) -> list[float]:
    """So many clients make all transfers, each one after another; the seconds of each transfer."""
    todo, taken = iter(enumerate(plan)), list[float]()

    async def client() -> None:
        for number, each in todo:
            begun = time.perf_counter()
            await transfer(number, each)
            taken.append(time.perf_counter() - begun)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(client)
    return taken


def measured(watch: Watch, taken: list[float]) -> Measured:
    """What is told of so many transfers."""
    count = len(taken)
    return {
        "transfers_per_s": count / watch.s(),
        "p99_ms": quantile(taken, 99) * 1e3,
        "cpu_us_per_transfer": watch.cpu_s() / count * 1e6,
        "rss_mb": rss_mb(),
    }


# --- actorflow


class Open(Message[None]):
    """The first deposit."""

    cents: int


class Pay(Message[int]):
    """Send so much to that account; answered by what is left."""

    to: str
    cents: int


class Withdraw(Message[int]):
    """Take so much; answered by what is left."""

    cents: int


class Deposit(Message[int]):
    """Add so much; answered by what is there then."""

    cents: int


class Balance(Message[int]):
    """How much is there?"""


class Account(Actor):
    """Has money."""

    cents: int = 0

    @handler
    async def open(self, m: Open) -> None:
        self.cents = m.cents

    def less(self, cents: int) -> None:
        self.cents -= cents
        if self.cents < 0:
            raise Abort(f"{self.me.key} has too little")

    @handler
    async def pay(self, m: Pay) -> int:
        self.less(m.cents)
        await Account.at(m.to).tell(Deposit(m.cents))  # Leaves with this turn, or not at all.
        return self.cents

    @handler
    async def withdraw(self, m: Withdraw) -> int:
        self.less(m.cents)
        return self.cents

    @handler
    async def deposit(self, m: Deposit) -> int:
        self.cents += m.cents
        return self.cents

    @handler(readonly=True)
    async def balance(self, m: Balance) -> int:
        return self.cents


class Moves(Workflow[None]):
    """A transfer that asks both. All accounts have enough, and none refuses."""

    source: str
    target: str
    cents: int

    async def run(self) -> None:
        await Account.at(self.source).ask(Withdraw(self.cents), within=PATIENCE)
        await Account.at(self.target).ask(Deposit(self.cents), within=PATIENCE)


async def bank(folder: Path, sizes: Sizes, *, a_run_each: bool) -> Measured:
    """Open the accounts, make all transfers, look at the balances."""
    count, accounts = int(sizes["clients"]), int(sizes["accounts"])
    plan = planned(int(sizes["transfers"]), accounts)
    expected = balances(plan, accounts)
    limits = Limits(mailbox_depth_max=len(plan))  # Every transfer may have sent the hot account its money before it takes any.
    async with Runtime(f"sqlite:///{folder}/a.db", actors=[Account, Moves], limits=limits) as runtime:
        all_of_them = [runtime.at(Account, str(number)) for number in range(accounts)]
        async with anyio.create_task_group() as group:
            for account in all_of_them:
                group.start_soon(account.ask, Open(OPENING))

        async def pay(_: int, transfer: Transfer) -> None:
            source, target, cents = transfer
            await all_of_them[source].ask(Pay(str(target), cents), within=PATIENCE)

        async def move(number: int, transfer: Transfer) -> None:
            source, target, cents = transfer
            run = await runtime.start(Moves(str(source), str(target), cents), key=str(number))
            await run.result()

        watch = Watch()
        taken = await clients(count, plan, move if a_run_each else pay)
        while await all_of_them[HOT].ask(Balance()) != expected[HOT]:
            assert watch.s() < GIVE_UP_S, "the hot account does not have what it is due"
            await asyncio.sleep(POLL_S)
        found = measured(watch, taken)
        while (ended := [await account.ask(Balance()) for account in all_of_them]) != expected:
            assert watch.s() < GIVE_UP_S, f"there are {sum(ended)} cents of {sum(expected)}, or not where they should be"
    return found


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """A turn of the account that pays."""
    return asyncio.run(bank(folder, sizes, a_run_each=False))


def actorflow_runs(folder: Path, sizes: Sizes) -> Measured:
    """A run that asks both."""
    return asyncio.run(bank(folder, sizes, a_run_each=True))


# --- bare


def bare(folder: Path, sizes: Sizes) -> Measured:
    """A transaction for each."""
    count, accounts = int(sizes["clients"]), int(sizes["accounts"])
    plan = planned(int(sizes["transfers"]), accounts)

    async def work() -> Measured:
        async with aiosqlite.connect(folder / "bare.db", isolation_level=None) as db:
            await db.execute("pragma journal_mode=wal")
            await db.execute("pragma synchronous=full")
            await db.execute("create table account (id integer primary key, cents integer not null check (cents >= 0))")
            await db.execute("begin")
            await db.executemany("insert into account values (?, ?)", [(number, OPENING) for number in range(accounts)])
            await db.execute("commit")
            lock = asyncio.Lock()

            async def transfer(_: int, transfer: Transfer) -> None:
                source, target, cents = transfer
                async with lock:
                    await db.execute("begin immediate")
                    await db.execute("update account set cents = cents - ? where id = ?", (cents, source))
                    await db.execute("update account set cents = cents + ? where id = ?", (cents, target))
                    await db.execute("commit")

            watch = Watch()
            found = measured(watch, await clients(count, plan, transfer))
            ended = await db.execute_fetchall("select cents from account order by id")
            assert [cents for (cents,) in ended] == balances(plan, accounts)
            return found

    return asyncio.run(work())


BODIES: dict[str, Body] = {OURS: actorflow, A_RUN_EACH: actorflow_runs, BARE: bare}

if __name__ == "__main__":
    serve(BODIES)
