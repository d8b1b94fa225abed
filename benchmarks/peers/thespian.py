"""Thespian on its simplest system, where all actors are in the process of the caller: its fastest way.

A tell to that system runs the actor before it returns; so does an ask, which then takes the reply out of a queue.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.bursts import Best
from benchmarks.suite import Contender, Measured, Sizes, serve

CONTENDERS = {"W10": (Contender("thespian", __name__, "in memory, a call without a queue", peer=True),)}


def messages(folder: Path, sizes: Sizes) -> Measured:  # noqa: ARG001  (nothing is written)
    """W10: tells and asks from outside of the system; a negative number wants an answer."""
    from thespian.actors import ActorSystem, ActorTypeDispatcher  # type: ignore[import-not-found]  # noqa: PLC0415

    class Counter(ActorTypeDispatcher):  # type: ignore[misc]
        total = 0

        def receiveMsg_int(self, message: int, sender: object) -> None:  # noqa: N802
            self.total += abs(message)
            if message < 0:
                self.send(sender, self.total)

    system = ActorSystem("simpleSystemBase")
    try:
        counter = system.createActor(Counter)
        return Best(sizes).blocking(lambda: system.tell(counter, 1), lambda: system.ask(counter, -1, 5))
    finally:
        system.shutdown()


if __name__ == "__main__":
    serve({"thespian": messages})
