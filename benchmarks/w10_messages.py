"""W10: messages. Tells and asks of one actor in memory, beside other actors; asks of 1, 100 and 10,000 durable ones.

Who is measured handles an addition. A burst of tells ends with an ask, so that all of it was handled, and the best burst of
several counts: on a machine with other work only that is near what the code can do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from actorflow import Actor, Limits, Message, Runtime, handler
from benchmarks.peers import peers
from benchmarks.suite import OURS, Body, Contender, Goal, Measured, Metric, Sizes, Workload, rss_mb, serve

WORKLOAD = Workload(
    id="W10",
    title="messages to volatile and durable actors",
    metrics=(
        Metric("tells_per_s", "tells/s, volatile", "more"),
        Metric("asks_per_s", "asks/s, volatile", "more"),
        Metric("durable_1_per_s", "asks/s, 1 durable", "more"),
        Metric("durable_100_per_s", "asks/s, 100 durable", "more"),
        Metric("durable_10000_per_s", "asks/s, 10,000 durable", "more"),
    ),
    full={"tells": 20_000, "asks": 2_000, "bursts": 15, "durable": 5_000, "most": 10_000},
    quick={"tells": 20_000, "asks": 2_000, "bursts": 3, "durable": 1_000, "most": 2_000},
    contenders=(
        Contender(OURS, __name__, durability="in memory; the durable ones: SQLite, WAL, synchronous=FULL"),
        *peers("W10"),
    ),
    goals=(
        Goal("tells 5 times Pykka", "tells_per_s", at_least=5, against="pykka"),
        Goal("durable asks of 100 actors over 10,000/s", "durable_100_per_s", at_least=10_000),
    ),
)

CLIENTS = {1: 50, 100: 500, 10_000: 500}
"""How many clients ask so many durable actors at a time. The last ones are as many as the sizes say."""
ROUNDS = 3


class Add(Message[int]):
    """One more."""

    n: int


class Counter(Actor, durable=False):
    """Adds, in memory."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total


class Account(Actor):
    """Adds, durably."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total


async def best(
    tell: Callable[[], Awaitable[object]], ask: Callable[[], Awaitable[int]], *, tells: int, asks: int, bursts: int
) -> Measured:
    """Tells and asks a second, one after the other, in the best burst of each."""
    told, asked = 0.0, 0.0
    for burst in range(1, bursts + 1):
        begun = time.perf_counter()
        for _ in range(tells):
            await tell()
        total = await ask()
        told = max(told, tells / (time.perf_counter() - begun))
        begun = time.perf_counter()
        for _ in range(asks):
            total = await ask()
        asked = max(asked, asks / (time.perf_counter() - begun))
        assert total == burst * (tells + 1 + asks)
    return {"tells_per_s": told, "asks_per_s": asked}


async def volatile(tells: int, asks: int, bursts: int) -> Measured:
    """One actor in memory."""
    message = Add(1)
    async with Runtime("memory://", actors=[Counter], watchdog=None) as runtime:
        counter = runtime.at(Counter, "one")
        return await best(lambda: counter.tell(message), lambda: counter.ask(message), tells=tells, asks=asks, bursts=bursts)


async def durable(url: str, actors: int, clients: int, asks: int) -> float:
    """Asks a second of so many actors by so many clients, in the best round of a few."""
    message = Add(1)
    async with Runtime(url, actors=[Account], limits=Limits(resident_max=20_000)) as runtime:
        addresses = [runtime.at(Account, str(n)) for n in range(actors)]

        async def round_(count: int) -> float:
            todo = iter([addresses[n % actors] for n in range(count)])

            async def client() -> None:
                for address in todo:
                    await address.ask(message, within="60s")

            begun = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(client())
            return count / (time.perf_counter() - begun)

        await round_(actors)  # So that all of them are there.
        rate = max([await round_(asks) for _ in range(ROUNDS)])
        assert await addresses[0].ask(message) == 2 + ROUNDS * -(-asks // actors)
    return rate


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """All of it."""
    tells, asks, bursts = int(sizes["tells"]), int(sizes["asks"]), int(sizes["bursts"])
    measured = dict(asyncio.run(volatile(tells, asks, bursts)))
    for actors, clients in CLIENTS.items():
        there = min(actors, int(sizes["most"]))
        rate = asyncio.run(durable(f"sqlite:///{folder}/{actors}.db", there, clients, int(sizes["durable"])))
        measured[f"durable_{actors}_per_s"] = rate
    return {**measured, "rss_mb": rss_mb()}


BODIES: dict[str, Body] = {OURS: actorflow}

if __name__ == "__main__":
    serve(BODIES)
