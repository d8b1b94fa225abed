"""Pykka: an actor is a thread with a queue."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.bursts import Best
from benchmarks.suite import Contender, Measured, Sizes, serve

CONTENDERS = {"W10": (Contender("pykka", __name__, "in memory", peer=True),)}


def messages(folder: Path, sizes: Sizes) -> Measured:  # noqa: ARG001  (nothing is written)
    """W10: tells and asks of one `ThreadingActor`."""
    import pykka  # type: ignore[import-not-found]  # noqa: PLC0415

    class Counter(pykka.ThreadingActor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.total = 0

        def on_receive(self, message: int) -> int:
            self.total += message
            return self.total

    counter = Counter.start()
    try:
        return Best(sizes).blocking(lambda: counter.tell(1), lambda: counter.ask(1))
    finally:
        counter.stop()


if __name__ == "__main__":
    serve({"pykka": messages})
