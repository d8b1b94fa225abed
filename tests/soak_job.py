"""The service of tests/soak.py: a mixed load over one file, window after window, until it is told that this one is the last.

Usage: soak_job.py FOLDER BACKEND

What callers were told, and every effect of a step, is a line in FOLDER/ledger, outside of the store. A life that begins repeats
the window that was not finished, key by key. What each job must come to is a pure function of its number, `expected`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from actorflow import (
    Abort,
    Actor,
    Limits,
    Message,
    NotRunning,
    Retry,
    Runtime,
    StoreStopped,
    Transient,
    Workflow,
    checkpoint,
    current_step,
    gather,
    handler,
    step,
)

WINDOW = 60
"""Jobs under way at a time."""
COUNTERS = 8
PATIENCE = "10m"
"""Of asks: the service dies meanwhile, and the machine may be slow."""
SORTS = 9

_ledger = -1


def note(*words: object) -> None:
    """One line, in one write: a kill leaves no half of it."""
    os.write(_ledger, (" ".join(map(str, words)) + "\n").encode())


# --- what the jobs are made of -------------------------------------------------------------------------------------------


async def take_back(n: int, what: str) -> None:
    note("undo", n, what)


@step(undo=take_back)
async def book(n: int, what: str) -> str:
    note("effect", current_step().key)
    return what


@step
async def add(n: int, at: int, total: int) -> int:
    note("step", n, at)
    note("effect", current_step().key)
    await anyio.sleep(0.002 * (n % 7))
    return total + at


@step
def add_in_a_thread(n: int, at: int, total: int) -> int:
    note("step", n, at)
    return total + at


@step(retry=Retry(attempts=3, first="10ms", jitter=0.0))
async def shaky(n: int) -> int:
    if current_step().attempt < 2:
        raise Transient("not yet")
    return n


class Go(Message[None], kind="soak-go"):
    n: int


class Add(Message[int], kind="soak-add"):
    n: int


class Counter(Actor, kind="SoakCounter"):
    """Counts what it is told, and reminds itself."""

    total: int = 0
    ticks: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        if self.total % 5 == 0:
            await add(-1, 0, 0)
        return self.total

    @handler
    async def go(self, m: Go) -> None:
        self.ticks += m.n


class Leaf(Workflow[int], kind="SoakLeaf"):
    n: int

    async def run(self) -> int:
        return await add(self.n, 1, 0)


class Job(Workflow[int], kind="SoakJob"):
    """One of nine sorts, by its number."""

    n: int
    kept: int = 0

    async def run(self) -> int:
        sorts: list[Callable[[], Any]] = [
            self.steps, self.timer, self.asks, self.tells, self.loop, self.children, self.undone, self.messages, self.branches
        ]  # fmt: skip
        return int(await sorts[self.n % SORTS]())

    async def steps(self) -> int:
        total = 0
        for at in range(6):
            performed = add_in_a_thread if at == 3 else add
            total = await performed(self.n, at, total)
        return total

    async def timer(self) -> int:
        begun = self.now()
        await self.sleep(0.05 * (self.n % 20))
        return int((self.now() - begun).total_seconds() >= 0.05 * (self.n % 20) - 0.001)

    async def asks(self) -> int:
        left = await Counter.at(f"c-{self.n % COUNTERS}").ask(Add(1), within=PATIENCE)
        return int(left > 0)

    async def tells(self) -> int:
        await Counter.at(f"c-{self.n % COUNTERS}").tell(Go(1), key=f"t-{self.n}")
        return 1

    async def loop(self) -> int:
        done = await self.each(range(20), shaky, key=str, batch=5, parallel=3)
        return done.done

    async def children(self) -> int:
        started = [await self.start(Leaf(self.n), key=f"leaf-{self.n}-{at}") for at in range(3)]
        return sum(await gather(*(child.result() for child in started)))

    async def undone(self) -> int:
        await book(self.n, "first")
        await book(self.n, "second")
        raise Abort("rejected")

    async def messages(self) -> int:
        return sum([(await self.receive(Go)).n for _ in range(3)])

    async def branches(self) -> int:
        kept = self.task(self.milestone())
        both = await gather(add(self.n, 1, 0), self.sleep("20ms"), shaky(self.n))
        return int(both[0]) + await kept

    @checkpoint
    async def milestone(self) -> int:
        return await add(self.n, 2, await add(self.n, 1, 0))


def expected(n: int) -> str:
    """What the job of that number comes to."""
    results = ("15", "1", "1", "1", "20", "3", "Abort", "6", "4")
    return results[n % SORTS]


ACTORS: list[type[Actor]] = [Job, Leaf, Counter]

# --- the service -----------------------------------------------------------------------------------------------------------


async def one(runtime: Runtime, n: int) -> None:
    """Start a job, tell it what it waits for, see its end."""
    run = await runtime.start(Job(n), key=str(n))
    note("accepted", n)
    if n % SORTS == 7:
        for message in range(1, 4):
            await run.tell(Go(message), key=f"m-{message}")
    try:
        said = str(await run.result())
    except Abort as refusal:
        said = type(refusal).__name__
    note("seen", n, said)
    left = await runtime.at(Counter, f"c-{n % COUNTERS}").ask(Add(1), key=f"a-{n}", within=PATIENCE)
    note("answered", n, left)


async def load(runtime: Runtime, folder: Path) -> None:
    """Window after window; the last one is that in which the file `stop` appears."""
    at = sum(line.startswith("done") for line in (folder / "ledger").read_text().splitlines())
    while True:
        async with anyio.create_task_group() as group:
            for n in range(at * WINDOW, (at + 1) * WINDOW):
                group.start_soon(one, runtime, n)
        note("done", at)
        note("memory", os.getpid(), rss())
        at += 1
        if await anyio.Path(folder / "stop").exists():
            return


def rss() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def is_end(error: BaseException) -> bool:
    """True if it says no more than that the service is on its way out."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_end, error.exceptions))
    return isinstance(error, StoreStopped | NotRunning)


async def main(folder: Path) -> None:
    # Here it is not a job that ends the process: no run is to be set aside for that.
    limits = Limits(crashes_max=1_000_000, drain_s=5.0, passivate_after_s=0.5)
    async with Runtime(f"sqlite:///{folder / 'soak.db'}", actors=ACTORS, standby=True, limits=limits) as runtime:
        note("life", os.getpid())
        (folder / "life").write_text(str(os.getpid()))
        async with anyio.create_task_group() as group:

            async def serve() -> None:
                await runtime.serve()
                note("drained", os.getpid())
                group.cancel_scope.cancel()

            group.start_soon(serve)
            try:
                await load(runtime, folder)
            except BaseException as error:
                if not is_end(error):
                    raise
            else:
                note("finished", os.getpid())
                group.cancel_scope.cancel()


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    at = Path(sys.argv[1])
    _ledger = os.open(at / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    anyio.run(main, at, backend=sys.argv[2])
