"""W5: one client asks a waiting run 300 questions, one after the other: what a message there and its answer back cost.

The ceiling is one commit: a row, written and synced by the same driver. It is the least that a round trip can cost: that the
question was taken, and its answer, are durable before the client sees the answer.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiosqlite

from actorflow import Message, Runtime, Workflow
from benchmarks import bare
from benchmarks.peers import peers
from benchmarks.suite import BARE, OURS, Contender, Goal, Measured, Metric, Sizes, Workload, quantile, serve

WORKLOAD = Workload(
    id="W5",
    title="a message to a waiting run, and its answer",
    metrics=(Metric("p50_ms", "ms (p50)", "less", 2), Metric("p99_ms", "ms (p99)", "less", 2)),
    full={"rounds": 300},
    quick={"rounds": 300},
    contenders=(
        Contender(BARE, __name__, durability="SQLite, WAL, synchronous=FULL: one commit"),
        Contender(OURS, __name__),
        *peers("W5"),
    ),
    goals=(Goal("p50 at most 2.5 commits: 0.4 of the bare ceiling", "p50_ms", at_least=1 / 2.5, against=BARE),),
)


class Question(Message[int]):
    """What is one more?"""

    number: int


class Teller(Workflow[int]):
    """Answers so many questions."""

    rounds: int

    async def run(self) -> int:
        for _ in range(self.rounds):
            question = await self.receive(Question)
            self.reply(question, question.number + 1)
        return self.rounds


def measured(taken: list[float]) -> Measured:
    """What is told of so many rounds, in seconds."""
    return {"p50_ms": quantile(taken, 50) * 1e3, "p99_ms": quantile(taken, 99) * 1e3}


async def ask(url: str, rounds: int) -> list[float]:
    """Seconds of each round."""
    taken: list[float] = []
    async with Runtime(url, actors=[Teller]) as runtime:
        teller = await runtime.start(Teller(rounds), key="teller")
        for number in range(rounds):
            begun = time.perf_counter()
            answer = await teller.ask(Question(number))
            taken.append(time.perf_counter() - begun)
            assert answer == number + 1
        assert await teller.result() == rounds
    return taken


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    return measured(asyncio.run(ask(f"sqlite:///{folder}/a.db", int(sizes["rounds"]))))


async def commit(path: str, rounds: int) -> list[float]:
    """Seconds of each commit of one entry."""
    taken: list[float] = []
    async with aiosqlite.connect(path, isolation_level=None) as db:
        await db.execute("pragma journal_mode=wal")
        await db.execute("pragma synchronous=full")
        await db.executescript(bare.SCHEMA)
        for number in range(rounds):
            entry = (1, 0, "receive", "", "self.receive", number, "ok", 0, time.time(), None, b"{}", b"1", None, 1)
            begun = time.perf_counter()
            await db.execute(bare.ENTRY, entry)
            taken.append(time.perf_counter() - begun)
        async with db.execute("select count(*) from entry") as found:
            assert await found.fetchone() == (rounds,)
    return taken


def floor(folder: Path, sizes: Sizes) -> Measured:
    """Commits of one row, one after the other, in one hop to the driver's thread each."""
    return measured(asyncio.run(commit(f"{folder}/bare.db", int(sizes["rounds"]))))


if __name__ == "__main__":
    serve({OURS: actorflow, BARE: floor})
