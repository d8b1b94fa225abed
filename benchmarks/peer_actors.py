"""Other actors, and a bare queue: `python peer_actors.py NAME TELLS ASKS BURSTS` prints tells and asks a second, best bursts.

Run it where the peer is installed; it needs nothing of actorflow. Each handles an addition, and a burst of tells ends with
an ask. Thespian runs on its simplest system (all in one process), xoscar with its actors in the process of the caller: these
are their fastest ways.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any


class Best:
    """The best burst of several."""

    def __init__(self, tells: int, asks: int, bursts: int) -> None:
        self.tells, self.asks, self.bursts = tells, asks, bursts
        self.rates = [0.0, 0.0]

    def took(self, which: int, begun: float) -> None:
        """That burst is over."""
        count = (self.tells, self.asks)[which]
        self.rates[which] = max(self.rates[which], count / (time.perf_counter() - begun))

    def blocking(self, tell: Callable[[], object], ask: Callable[[], object]) -> None:
        """Measure calls that block."""
        for _ in range(self.bursts):
            begun = time.perf_counter()
            for _ in range(self.tells):
                tell()
            ask()
            self.took(0, begun)
            begun = time.perf_counter()
            for _ in range(self.asks):
                ask()
            self.took(1, begun)

    async def awaited(self, tell: Callable[[], Any], ask: Callable[[], Any]) -> None:
        """Measure calls that are awaited."""
        for _ in range(self.bursts):
            begun = time.perf_counter()
            for _ in range(self.tells):
                await tell()
            await ask()
            self.took(0, begun)
            begun = time.perf_counter()
            for _ in range(self.asks):
                await ask()
            self.took(1, begun)


def pykka(best: Best) -> None:
    """A thread an actor."""
    import pykka  # type: ignore[import-not-found]  # noqa: PLC0415  (a peer, not a dependency)

    class Counter(pykka.ThreadingActor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.total = 0

        def on_receive(self, message: int) -> int:
            self.total += message
            return self.total

    counter = Counter.start()
    best.blocking(lambda: counter.tell(1), lambda: counter.ask(1))
    counter.stop()


def thespian(best: Best) -> None:
    """All in one process."""
    from thespian.actors import ActorSystem, ActorTypeDispatcher  # type: ignore[import-not-found]  # noqa: PLC0415

    class Counter(ActorTypeDispatcher):  # type: ignore[misc]
        total = 0

        def receiveMsg_int(self, message: int, sender: object) -> None:  # noqa: N802
            self.total += abs(message)
            if message < 0:
                self.send(sender, self.total)

    system = ActorSystem("simpleSystemBase")
    counter = system.createActor(Counter)
    best.blocking(lambda: system.tell(counter, 1), lambda: system.ask(counter, -1, 5))
    system.shutdown()


def xoscar(best: Best) -> None:
    """Actors in the process of the caller."""
    import xoscar  # type: ignore[import-not-found]  # noqa: PLC0415

    class Counter(xoscar.Actor):  # type: ignore[misc]
        total = 0

        async def add(self, n: int) -> int:
            self.total += n
            return self.total

    async def measure() -> None:
        pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
        counter = await xoscar.create_actor(Counter, address=pool.external_address)
        await best.awaited(lambda: counter.add.tell(1), lambda: counter.add(1))
        await pool.stop()

    asyncio.run(measure())


def queue(best: Best) -> None:
    """No actors: a bounded queue and a task that reads it. The floor of what asyncio costs."""

    async def measure() -> None:
        box: asyncio.Queue[tuple[int, asyncio.Future[int] | None]] = asyncio.Queue(1_000)

        async def serve() -> None:
            total = 0
            while True:
                n, reply = await box.get()
                total += n
                if reply is not None:
                    reply.set_result(total)

        async def ask() -> int:
            reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            await box.put((1, reply))
            return await reply

        server = asyncio.create_task(serve())
        await best.awaited(lambda: box.put((1, None)), ask)
        server.cancel()

    asyncio.run(measure())


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    measured = Best(*map(int, numbers))
    {"pykka": pykka, "thespian": thespian, "xoscar": xoscar, "queue": queue}[name](measured)
    print(*measured.rates)
    sys.stdout.flush()
