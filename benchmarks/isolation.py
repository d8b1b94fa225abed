"""W11: what bad neighbours cost. p99 latency of asks of 1,000 actors, alone and beside actors that crash, hang, block and flood.

`python -m benchmarks.isolation [--seconds 5] [--durability full]`. The quiet ones are asked by 50 clients, each at its own
pace (so that the machine is not full), and each neighbour is added alone, then all together. The neighbour that blocks the
loop for 200 ms blocks everybody for so long: nothing in one process can help that, the watchdog names it; it is measured
to be seen, and told apart from the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.table import Table

from actorflow import Actor, ActorflowError, Limits, MailboxFull, Message, Runtime, handler, step

ACTORS, CLIENTS, PACE_S = 1_000, 50, 0.1


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
    "one crashes": (crash,),
    "one hangs": (hanging,),
    "one is flooded": (flood,),
    "these three": (crash, hanging, flood),
    "one blocks 200 ms": (block,),
}


async def measure(neighbours: tuple[Neighbour, ...], seconds: float, durability: str) -> list[float]:
    """Seconds of every ask."""
    late: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = [Quiet, Crashing, Hanging, Blocking, Flooded]
        limits = Limits(drain_s=0.5, cancel_grace_s=0.1)
        async with Runtime(f"sqlite:///{folder}/a.db", actors=kinds, limits=limits, durability=durability) as runtime:  # type: ignore[arg-type]
            quiet = [runtime.at(Quiet, str(n)) for n in range(ACTORS)]
            for first in range(0, ACTORS, 100):
                await asyncio.gather(*(address.ask(Add(1), within="60s") for address in quiet[first : first + 100]))
            bad = [asyncio.ensure_future(neighbour(runtime)) for neighbour in neighbours]
            until = time.perf_counter() + seconds

            async def client(number: int) -> None:
                n = number
                await asyncio.sleep(PACE_S * number / CLIENTS)
                while time.perf_counter() < until:
                    begun = time.perf_counter()
                    await quiet[n % ACTORS].ask(Add(1), within="60s")
                    late.append(time.perf_counter() - begun)
                    n += CLIENTS
                    await asyncio.sleep(PACE_S)

            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(client(number))
            for each in bad:
                each.cancel()
            await asyncio.gather(*bad, return_exceptions=True)
    return late


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=2, help="rounds through all neighbours; the best of each counts")
    parser.add_argument("--durability", choices=("full", "normal"), default="full")
    arguments = parser.parse_args()
    logging.getLogger("actorflow").setLevel(logging.CRITICAL)
    found: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(arguments.repeats):
        for name, neighbours in NEIGHBOURS.items():
            late = asyncio.run(measure(neighbours, arguments.seconds, arguments.durability))
            cuts = statistics.quantiles(late, n=100)
            found.setdefault(name, []).append((cuts[98] * 1e3, cuts[49] * 1e3, len(late)))
    alone = min(found["alone"])[0]
    table = Table(title=f"asks of {ACTORS:,} actors, milliseconds ({arguments.durability} durability)")
    for column in ("neighbours", "median", "p99", "p99 / alone", "asks"):
        table.add_column(column)
    for name, measured in found.items():
        p99, median, asks = min(measured)
        table.add_row(name, f"{median:.1f}", f"{p99:.1f}", f"{p99 / alone:.2f}", f"{asks:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
