"""xoscar with its actors in the process of the caller (`n_process=0`), on uvloop: its fastest way."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.bursts import Best
from benchmarks.suite import Contender, Measured, Sizes, serve

CONTENDERS = {"W10": (Contender("xoscar", __name__, "in memory", peer=True, sizes={"bursts": 5}),)}


def messages(folder: Path, sizes: Sizes) -> Measured:  # noqa: ARG001  (nothing is written)
    """W10: `actor.add.tell(1)` and `actor.add(1)`."""
    import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    import xoscar  # type: ignore[import-not-found]  # noqa: PLC0415

    class Counter(xoscar.Actor):  # type: ignore[misc]
        total = 0

        async def add(self, n: int) -> int:
            self.total += n
            return self.total

    async def measure() -> Measured:
        pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
        counter = await xoscar.create_actor(Counter, address=pool.external_address)
        try:
            return await Best(sizes).awaited(lambda: counter.add.tell(1), lambda: counter.add(1))
        finally:
            await pool.stop()

    return uvloop.run(measure())


if __name__ == "__main__":
    serve({"xoscar": messages})
