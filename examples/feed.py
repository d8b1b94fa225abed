"""A price feed that crashes and recovers: three actors in a row, under a supervisor that restarts what depends on what broke.

    python examples/feed.py

The feed asks an exchange, the normalizer reads what that says, the publisher passes it on. With "rest_for_one" a crash
restarts the one that crashed and those that started after it. First the exchange hangs up, and a new start of the feed
connects again; then it sends nonsense, which the normalizer cannot read. The tree is shown before, during and after.
Messages wait while their receiver is down: every price that could be read is published once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio

from actorflow import Actor, Backoff, Child, Message, Runtime, Supervisor, handler, resource, step
from actorflow.operations import TreeNode

PAIR = "EURUSD"


class HungUp(Exception):  # noqa: N818
    """The exchange ended the session."""


class Exchange:
    """Stands for the client of a real one. It can be told to misbehave."""

    def __init__(self) -> None:
        self.connected = False
        self.nonsense = False  #: the next answer is
        self.sent = 0

    async def connect(self) -> None:
        """Begin a session."""
        self.connected = True

    async def quote(self, pair: str) -> str:
        """What a pair costs now."""
        if not self.connected:
            raise HungUp(f"no session, so no {pair}")
        self.sent += 1
        price = "n/a" if self.nonsense else f"{1.08 + self.sent % 7 / 10_000:.4f}"
        self.nonsense = False
        return f"{pair} {price}"


# --- the actors --------------------------------------------------------------------------------------------------------


class Tick(Message[None]):
    """Time to ask again."""


class Line(Message[None]):
    """What the exchange said."""

    text: str


class Price(Message[None]):
    """What it meant, in hundredths of a cent."""

    pair: str
    points: int


class Published(Message[int]):
    """How many prices were published so far?"""


@step
async def connect(*, exchange: Exchange = resource()) -> None:
    """Begin a session."""
    await exchange.connect()


@step
async def quote(pair: str, *, exchange: Exchange = resource()) -> str:
    """Ask for a price."""
    return await exchange.quote(pair)


class Feed(Actor):
    """Asks the exchange, ten times a second."""

    async def on_start(self) -> None:
        """Also after a crash: that is how a lost session is mended."""
        await connect()
        self.every("100ms", Tick(), name="tick")

    @handler
    async def ask(self, m: Tick) -> None:
        """A failure is tried again twice; then the actor restarts."""
        await Normalizer.at(self.me.key).tell(Line(await quote(PAIR)))


class Normalizer(Actor):
    """Reads lines. One that cannot be read becomes a dead letter: it is kept, and those behind it are handled."""

    @handler
    async def read(self, m: Line) -> None:
        """Parse it and pass it on."""
        pair, _, price = m.text.partition(" ")
        await Publisher.at(self.me.key).tell(Price(pair, round(float(price) * 10_000)))


class Publisher(Actor):
    """Tells all who listen to the topic "prices"."""

    published: int = 0  #: state: it outlives crashes and restarts

    @handler
    async def price(self, m: Price) -> None:
        """The count, the acknowledgement and the messages to the listeners are one commit."""
        self.published += 1
        self.publish("prices", m)

    @handler(readonly=True)
    async def count(self, m: Published) -> int:
        """How many."""
        return self.published


TREE = Supervisor(
    "prices",
    strategy="rest_for_one",
    restarts=5,
    within="60s",
    backoff=Backoff("500ms", "30s"),
    children=[Child(Feed, "main"), Child(Normalizer, "main"), Child(Publisher, "main")],
)


# --- the program -------------------------------------------------------------------------------------------------------


def lines(node: TreeNode, indent: str = "") -> Iterator[str]:
    """The tree as text, a line for each supervisor and actor."""
    facts = [node.state, f"{node.restarts} restarts"]
    if node.restarts_left is not None:
        facts = [node.state, f"{node.restarts_left} restarts left"]
    if node.mailbox:
        facts.append(f"{node.mailbox} messages wait")
    if node.last_failure:
        facts.append(node.last_failure)
    yield f"{indent}{node.name:<{20 - len(indent)}}{', '.join(facts)}"
    for child in node.children:
        yield from lines(child, indent + "  ")


def show(title: str, runtime: Runtime) -> None:
    """Print the tree."""
    print(f"\n{title}")
    for supervisor in runtime.tree().children:
        print(*lines(supervisor, "  "), sep="\n")


async def demo(runtime: Runtime, exchange: Exchange) -> None:
    """Break it twice, and look at it."""

    def states() -> list[str]:
        return [child.state for child in runtime.tree().children[0].children]

    async def until(holds: Callable[[], bool]) -> None:
        while not holds():
            await anyio.sleep(0.005)

    async def works() -> None:
        """All are up, and some more was sent."""
        goal = exchange.sent + 5
        await until(lambda: exchange.sent >= goal and states() == ["running"] * 3)

    await works()
    show("All is well.", runtime)
    exchange.connected = False
    await until(lambda: states() != ["running"] * 3)
    show("The exchange hung up. All depend on the feed, so all are down.", runtime)
    await works()
    show("The feed has connected again.", runtime)
    exchange.nonsense = True
    await until(lambda: states() != ["running"] * 3)
    show("It sent nonsense. The feed does not depend on the normalizer, and goes on.", runtime)
    await works()
    show("The line that cannot be read was put aside.", runtime)

    exchange.connected = False  # No more, so that they can be counted.
    publisher = runtime.at(Publisher, "main")
    while await publisher.ask(Published()) < exchange.sent - 1:
        await anyio.sleep(0.01)
    print(f"\n{exchange.sent} lines were sent, one of them nonsense, and {await publisher.ask(Published())} prices published.")


async def main(out: Path) -> None:
    """Run it over a database."""
    exchange = Exchange()
    url = f"sqlite:///{out / 'feed.db'}"
    async with Runtime(url, actors=[], tree=[TREE], resources=[exchange]) as runtime:
        await demo(runtime, exchange)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A supervised price feed that crashes and recovers.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the database")
    given: Path = parser.parse_args().out.absolute()
    given.mkdir(parents=True, exist_ok=True)
    anyio.run(main, given)
