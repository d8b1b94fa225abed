"""The service of tests/test_client.py, in this process or in a child of its own.

Usage of the child: serve DATABASE (until it is killed), or order DATABASE KEY (as a client: start, tell, wait, print).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio

from actorflow import Abort, Actor, Client, Fatal, Message, Runtime, Workflow, handler, query, step


class OutOfStock(Abort):
    def __init__(self, sku: str) -> None:
        self.sku = sku
        super().__init__(f"{sku} is out of stock")


class Add(Message[int]):
    amount: int


class Finish(Message[None]):
    pass


class Fail(Message[None]):
    sku: str


@step
async def double(amount: int) -> int:
    return 2 * amount


@step
async def fragile() -> int:
    raise ValueError("no such customer")


class Order(Workflow[int]):
    """Adds up what it is told."""

    total: int = 0

    async def run(self) -> int:
        while True:
            message = await self.receive(Add, Finish, Fail)
            match message:
                case Add(amount):
                    self.total += await double(amount)
                    self.reply(message, self.total)
                case Finish():
                    return self.total
                case Fail(sku):
                    raise OutOfStock(sku)

    @query
    def so_far(self) -> int:
        return self.total


class Broken(Workflow[int]):
    """Stops at its first step."""

    async def run(self) -> int:
        return await fragile()


class Put(Message[int]):
    amount: int


class Box(Actor):
    """Adds up what it is given, and takes nothing away."""

    total: int = 0

    @handler
    async def put(self, m: Put) -> int:
        if m.amount < 0:
            raise Fatal(f"{m.amount} is less than nothing")
        self.total += m.amount
        return self.total

    @query
    def so_far(self) -> int:
        return self.total


ACTORS = [Order, Broken, Box]


async def serve(url: str) -> None:
    async with Runtime(url, actors=ACTORS):
        print("up", flush=True)
        await anyio.sleep_forever()


async def order(url: str, key: str) -> None:
    async with Client(url) as client:
        run = await client.start(Order(), key=key)
        await run.tell(Add(4))
        await run.tell(Finish())
        print(await run.result())


def main() -> None:
    match sys.argv[1:]:
        case ["serve", url]:
            anyio.run(serve, url)
        case ["order", url, key]:
            anyio.run(order, url, key)


def child(*arguments: str) -> subprocess.Popen[str]:
    """This program in a process of its own."""
    program = "from tests.client_shop import main; main()"
    root = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *arguments], cwd=root, stdout=subprocess.PIPE, text=True
    )
