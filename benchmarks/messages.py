"""W10: messages a second. Memory-only actors beside Pykka, Thespian, xoscar and a bare `asyncio.Queue`; asks of durable actors.

`python -m benchmarks.messages [--peers PYTHON]`. Who is measured handles an addition; a burst of tells ends with an ask, so
that all of it was handled. Each candidate runs in a process of its own, in turn, and the best burst of several counts: on a
machine with other work only that is near what the code can do. A peer that cannot be measured is reported with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actorflow import Actor, Limits, Message, Runtime, handler

TELLS, ASKS, BURSTS = 20_000, 2_000, 15
PEERS = ("queue", "pykka", "thespian", "xoscar")


class Add(Message[int]):
    """One more."""

    n: int


class Counter(Actor, durable=False):
    """Adds, in memory."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        """What it comes to."""
        self.total += m.n
        return self.total


class Account(Actor):
    """Adds, durably."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        """What it comes to."""
        self.total += m.n
        return self.total


async def best(tell: Callable[[], Awaitable[object]], ask: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Tells and asks a second, one after the other, in the best burst of each."""
    tells, asks = 0.0, 0.0
    for _ in range(BURSTS):
        begun = time.perf_counter()
        for _ in range(TELLS):
            await tell()
        await ask()
        tells = max(tells, TELLS / (time.perf_counter() - begun))
        begun = time.perf_counter()
        for _ in range(ASKS):
            await ask()
        asks = max(asks, ASKS / (time.perf_counter() - begun))
    return tells, asks


async def memory_only() -> tuple[float, float]:
    """Ours."""
    message = Add(1)
    async with Runtime("memory://", actors=[Counter], watchdog=None) as runtime:
        counter = runtime.at(Counter, "one")
        return await best(lambda: counter.tell(message), lambda: counter.ask(message))


async def durable(actors: int, asks: int, clients: int) -> float:
    """Asks a second of so many actors on disk with full durability, by so many clients at a time."""
    message = Add(1)
    with tempfile.TemporaryDirectory() as folder:
        async with Runtime(f"sqlite:///{folder}/a.db", actors=[Account], limits=Limits(resident_max=20_000)) as runtime:
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
            return max([await round_(asks) for _ in range(3)])


def peer(python: str, name: str) -> tuple[str, str, str]:
    """One row, measured in the environment of that interpreter."""
    command = [python, str(Path(__file__).with_name("peer_actors.py")), name, str(TELLS), str(ASKS), str(BURSTS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return name, "-", f"{type(error).__name__}: {error}"
    if done.returncode:
        return name, "-", (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    tells, asks = done.stdout.split()[-2:]
    return name, f"{float(tells):,.0f}", f"{float(asks):,.0f}"


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.messages", description=__doc__)
    parser.add_argument("--peers", metavar="PYTHON", default=sys.executable, help="an interpreter that has them installed")
    parser.add_argument("--memory-only", action="store_true", help="leave the durable actors out")
    arguments = parser.parse_args()
    table = Table(title="messages a second, one sender, one actor")
    for column in ("who", "tells", "asks"):
        table.add_column(column)
    tells, asks = asyncio.run(memory_only())
    table.add_row("actorflow, durable=False", f"{tells:,.0f}", f"{asks:,.0f}")
    for name in PEERS:
        table.add_row(*peer(arguments.peers, name))
    Console().print(table)
    if arguments.memory_only:
        return
    table = Table(title="asks a second of durable actors, full durability")
    for column in ("actors", "clients", "asks"):
        table.add_column(column)
    for actors, asked, clients in ((1, 3_000, 50), (100, 5_000, 500), (10_000, 10_000, 500)):
        table.add_row(f"{actors:,}", str(clients), f"{asyncio.run(durable(actors, asked, clients)):,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
