"""W14: what bad neighbours cost. p99 latency of asks of 1,000 actors, alone and beside actors that crash, hang and flood.

The quiet ones are asked by 50 clients, each at its own pace (so that the machine is not full). Each neighbour is added alone,
then three of them together ("beside"). One that blocks the loop for 200 ms blocks everybody for so long: nothing in one process
can help that, the watchdog names it; it is measured to be seen, and told apart from the rest. The best of the rounds counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from actorflow import Actor, ActorflowError, Limits, MailboxFull, Message, Runtime, handler, step
from benchmarks.peers import peers
from benchmarks.suite import OURS, Body, Contender, Measured, Metric, Sizes, Workload, quantile, serve

WORKLOAD = Workload(
    id="W14",
    title="bad neighbours: asks of 1,000 actors beside some that crash, hang and are flooded",
    metrics=(
        Metric("p99_ms_beside", "ms, p99, beside three", "less", 1),
        Metric("p99_ms_alone", "ms, p99, alone", "less", 1),
        Metric("growth", "times as much", "less", 2),
        Metric("p99_ms_crash", "ms, p99, one crashes", "less", 1),
        Metric("p99_ms_hang", "ms, p99, one hangs", "less", 1),
        Metric("p99_ms_flood", "ms, p99, one is flooded", "less", 1),
        Metric("p99_ms_block", "ms, p99, one blocks the loop for 200 ms", "less", 1),
    ),
    full={"actors": 1_000, "seconds": 3, "rounds": 2},
    quick={"actors": 200, "seconds": 0.4, "rounds": 1},
    contenders=(Contender(OURS, __name__), *peers("W14")),
    repeats=3,
)

CLIENTS, PACE_S = 50, 0.1


class Add(Message[int]):
    """One more."""

    n: int


class Quiet(Actor):
    """Adds."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        """What it comes to."""
        self.total += m.n
        return self.total


class Crashing(Actor):
    """Fails at every message."""

    @handler
    async def add(self, m: Add) -> int:
        """Never."""
        raise ValueError(m.n)


@step
async def hang() -> None:
    """For ever."""
    await asyncio.sleep(1_000)


class Hanging(Actor):
    """Waits for what does not come."""

    @handler(timeout="2s")
    async def add(self, m: Add) -> int:
        """Never."""
        await hang()
        return 0


class Blocking(Actor):
    """Holds the event loop."""

    @handler
    async def add(self, m: Add) -> int:
        """Too long."""
        time.sleep(0.2)  # noqa: ASYNC251  (that is what it is about)
        return 0


class Flooded(Actor):
    """Gets more than it can handle."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        """What it comes to."""
        self.total += m.n
        return self.total


async def crash(runtime: Runtime) -> None:
    """In a loop: what is refused once it is set aside, it is resumed and told again."""
    crashing = runtime.at(Crashing, "c")
    while True:
        with contextlib.suppress(ActorflowError):
            await crashing.tell(Add(1))
        with contextlib.suppress(ActorflowError):
            await crashing.resume()
        await asyncio.sleep(0.01)


async def hanging(runtime: Runtime) -> None:
    """More than it will ever handle."""
    while True:
        with contextlib.suppress(ActorflowError):
            await runtime.at(Hanging, "h").tell(Add(1))
        await asyncio.sleep(0.05)


async def block(runtime: Runtime) -> None:
    """Now and then."""
    while True:
        await runtime.at(Blocking, "b").tell(Add(1))
        await asyncio.sleep(2)


async def flood(runtime: Runtime) -> None:
    """A million tells, as fast as they are taken."""
    todo = iter(range(1_000_000))
    flooded = runtime.at(Flooded, "f")

    async def client() -> None:
        for _ in todo:
            try:
                await flooded.tell(Add(1))
            except MailboxFull:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(client())


Neighbour = Callable[[Runtime], Awaitable[None]]
NEIGHBOURS: dict[str, tuple[Neighbour, ...]] = {
    "alone": (),
    "crash": (crash,),
    "hang": (hanging,),
    "flood": (flood,),
    "beside": (crash, hanging, flood),
    "block": (block,),
}


async def measure(url: str, neighbours: tuple[Neighbour, ...], actors: int, seconds: float) -> list[float]:
    """Seconds of every ask."""
    late: list[float] = []
    kinds = [Quiet, Crashing, Hanging, Blocking, Flooded]
    limits = Limits(drain_s=0.5, cancel_grace_s=0.1)
    async with Runtime(url, actors=kinds, limits=limits) as runtime:
        quiet = [runtime.at(Quiet, str(n)) for n in range(actors)]
        for first in range(0, actors, 100):
            await asyncio.gather(*(address.ask(Add(1), within="60s") for address in quiet[first : first + 100]))
        bad = [asyncio.ensure_future(neighbour(runtime)) for neighbour in neighbours]
        until = time.perf_counter() + seconds

        async def client(number: int) -> None:
            n = number
            await asyncio.sleep(PACE_S * number / CLIENTS)
            while True:
                begun = time.perf_counter()
                await quiet[n % actors].ask(Add(1), within="60s")
                late.append(time.perf_counter() - begun)
                if time.perf_counter() >= until:
                    return
                n += CLIENTS
                await asyncio.sleep(PACE_S)

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))
        for each in bad:
            assert not each.done(), each
            each.cancel()
        await asyncio.gather(*bad, return_exceptions=True)
    return late


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """Alone, and beside each."""
    logging.getLogger("actorflow").setLevel(logging.CRITICAL)
    actors, seconds = int(sizes["actors"]), sizes["seconds"]
    found: dict[str, list[float]] = {}
    for number in range(int(sizes["rounds"])):
        for name, neighbours in NEIGHBOURS.items():
            late = asyncio.run(measure(f"sqlite:///{folder}/{name}-{number}.db", neighbours, actors, seconds))
            found.setdefault(name, []).append(quantile(late, 99) * 1e3)
    measured = {f"p99_ms_{name}": min(values) for name, values in found.items()}
    return {**measured, "growth": measured["p99_ms_beside"] / measured["p99_ms_alone"]}


BODIES: dict[str, Body] = {OURS: actorflow}

if __name__ == "__main__":
    serve(BODIES)
