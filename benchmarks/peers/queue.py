"""No actors at all: a bounded `asyncio.Queue` and a task that reads it. The floor of what asyncio costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.peers.bursts import Best
from benchmarks.suite import Contender, Measured, Sizes, serve

CONTENDERS = {"W10": (Contender("queue", __name__, "in memory", peer=True),)}
BOX = 1_000


def messages(folder: Path, sizes: Sizes) -> Measured:  # noqa: ARG001  (nothing is written)
    """W10: a tell puts a number into the queue, an ask a number and a future."""
    return asyncio.run(measure(sizes))


async def measure(sizes: Sizes) -> Measured:
    box: asyncio.Queue[tuple[int, asyncio.Future[int] | None]] = asyncio.Queue(BOX)

    async def serve_box() -> None:
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

    server = asyncio.create_task(serve_box())
    try:
        return await Best(sizes).awaited(lambda: box.put((1, None)), ask)
    finally:
        server.cancel()


if __name__ == "__main__":
    serve({"queue": messages})
