"""What grows with the number of runs, though nothing should: objects, memory, tasks, threads, open files.

`python -m tests.leaks --runs 100000` (or `make leaks`) lets one runtime perform many short runs of ten sorts, with actors that
come and go, and looks at itself after a warm-up, in the middle and at the end. What grew in both halves is a leak. The exit
code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sqlite3
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
from attrs import frozen

from actorflow import Abort, Actor, Limits, Message, Runtime, Workflow, checkpoint, gather, handler, step
from actorflow.stores import Store, open_store

AT_A_TIME = 40
SPARE_OBJECTS = 1_200
"""So many objects of a type may come with chance: a heap keeps up to 1,000 cancelled moments before it is cleared out."""
SPARE_HANDLES = 12
"""So many tasks and threads more may be idle: they are made when there is much to do at once."""
SPARE_BYTES = 3 << 20
"""So much may the memory of the process move, whatever is done with it."""
BYTES_A_RUN = 48
"""More than that a run must not leave in memory. An empty dict has 64."""
SETTLED_S = 30.0


# --- the load -----------------------------------------------------------------------------------------------------------


async def undo_work(n: int) -> None:
    """What was done is taken back."""


@step(undo=undo_work)
async def work(n: int) -> int:
    return n + 1


@step
def work_in_a_thread(n: int) -> int:
    return n + 1


@step
async def failing(n: int) -> int:
    raise LookupError(f"there is no {n}")


class Go(Message[None]):
    n: int


class Add(Message[int]):
    n: int


class Short(Actor, passivate_after="1ms"):
    """Handles a message or two, and leaves memory."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += await work(m.n)
        return self.total


class Child(Workflow[int]):
    n: int

    async def run(self) -> int:
        return await work(self.n)


class Job(Workflow[int]):
    """One of ten sorts, by its number."""

    n: int
    kept: int = 0

    async def run(self) -> int:
        match self.n % 10:
            case 0:
                return sum(await gather(work(self.n), work(self.n)))
            case 1:
                await self.sleep("1ms")
            case 2:
                return (await self.receive(Go)).n
            case 3:
                return await Short.at(f"s-{self.n}").ask(Add(1))
            case 4:
                child = await self.start(Child(self.n), key=f"c-{self.n}")
                return await child.result()
            case 5:
                await self.milestone()
            case 6:
                await work(self.n)
                raise Abort("no")
            case 7:
                return await work_in_a_thread(self.n)
            case 8:
                await self.each([1, 2, 3], work, key=str, batch=2)
            case _:
                return await self.caught()
        return self.kept

    async def caught(self) -> int:
        try:
            await gather(failing(self.n), self.sleep("1h"))
        except LookupError:
            return -1
        return 0

    @checkpoint
    async def milestone(self) -> None:
        self.kept = await work(self.n)


async def one(runtime: Runtime, number: int, room: anyio.CapacityLimiter) -> None:
    async with room:
        run = await runtime.start(Job(number), key=f"j-{number}")
        if number % 10 == 2:
            await run.tell(Go(number), key="go")
        try:
            await run.result()
        except Abort:
            assert number % 10 == 6


async def window(runtime: Runtime, first: int, runs: int, told: Callable[[int], object]) -> None:
    """So many runs, from that number on; then wait until nothing of them is in memory."""
    room = anyio.CapacityLimiter(AT_A_TIME)
    for begin in range(first, first + runs, 1_000):
        async with anyio.create_task_group() as group:
            for number in range(begin, min(begin + 1_000, first + runs)):
                group.start_soon(one, runtime, number, room)
        told(begin)
    host = runtime._running()
    with anyio.fail_after(SETTLED_S):
        while host.resident:  # noqa: ASYNC110  (real time, and no event for "nobody is left")
            await anyio.sleep(0.005)


# --- what is looked at --------------------------------------------------------------------------------------------------


@frozen
class Sample:
    """What there is at one moment."""

    rss: int  #: bytes
    files: int
    threads: int
    tasks: int
    objects: Counter[str]


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


STORED = frozenset(("Run", "Address", "Entry", "Envelope", "SetCursor"))
"""What a store in memory consists of: that grows, and it should."""
PLAIN = frozenset(("dict", "list", "tuple", "set", "Counter", "deque"))


def _dead_cursors(each: object) -> int:
    """Weak references that a connection keeps to cursors that are gone: CPython drops them after every 200."""
    if not isinstance(each, sqlite3.Connection):
        return 0
    kept = [reference for part in gc.get_referents(each) if type(part) is list for reference in part]
    return sum(type(reference) is weakref.ref and reference() is None for reference in kept)


def sample(*, in_memory: bool) -> Sample:
    """Look, once what is garbage has gone."""
    for _ in range(3):
        gc.collect()
    there = gc.get_objects()
    objects = Counter(type(each).__qualname__ for each in there)
    objects["ReferenceType"] -= sum(map(_dead_cursors, there))
    for name in STORED | PLAIN if in_memory else ():
        del objects[name]
    return Sample(_rss(), len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), _tasks(), objects)


def leaks(
    first: Sample, middle: Sample, last: Sample, *, runs: int, memory: bool = False, spare: int = SPARE_OBJECTS
) -> list[str]:
    """What grew in both halves, of so many runs each. Empty if all is well.

    Args:
        first, middle, last: After the warm-up, one half, and the other.
        runs: Of each half.
        memory: Judge the memory of the process, too: means something over tens of thousands of runs, and on disk.
        spare: So many objects of a type may be more by chance.
    """
    found: list[str] = []
    for name in last.objects:
        halves = middle.objects[name] - first.objects[name], last.objects[name] - middle.objects[name]
        if min(halves) > spare:
            found.append(f"objects of type {name}: {halves[0]} and {halves[1]} more after {runs} runs each")
    for name in ("files", "threads", "tasks"):
        counts = [getattr(each, name) for each in (first, middle, last)]
        if min(counts[1] - counts[0], counts[2] - counts[1]) > SPARE_HANDLES:
            found.append(f"{name}: {counts[0]}, {counts[1]}, {counts[2]}")
    allowed = SPARE_BYTES + BYTES_A_RUN * runs
    if memory and min(middle.rss - first.rss, last.rss - middle.rss) > allowed:
        found.append(f"memory: {', '.join(f'{each.rss / 1e6:.1f} MB' for each in (first, middle, last))} ({runs} runs each)")
    return found


async def measured(url: str | Store, *, runs: int, told: Callable[[int], object] = lambda _: None) -> list[Sample]:
    """Samples after a tenth of the runs, and after each half of the rest."""
    in_memory = not str(url).startswith("sqlite")
    warm, half = runs // 10, (runs - runs // 10) // 2
    samples: list[Sample] = []
    store = open_store(url, durability="normal") if isinstance(url, str) else url
    async with Runtime(store=store, actors=[Job, Child, Short], limits=Limits(passivate_after_s=0.0)) as runtime:
        first = 0
        for count in (warm, half, half):
            await window(runtime, first, count, told)
            first += count
            samples.append(sample(in_memory=in_memory))
    return samples


# --- the command --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000, help="of each store")
    parser.add_argument("--store", choices=["memory", "sqlite", "both"], default="both")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    given = parser.parse_args(arguments)
    logging.getLogger("actorflow").setLevel(logging.ERROR)  # To look at all objects holds the loop, and the watchdog says so.
    found: list[str] = []
    for name in ("memory", "sqlite") if given.store == "both" else (given.store,):
        with tempfile.TemporaryDirectory() as folder:
            url = "memory://" if name == "memory" else f"sqlite:///{folder}/leaks.db"
            began = time.monotonic()

            def told(done: int, name: str = name, began: float = began) -> None:
                print(f"{name}: run {done} and on, {time.monotonic() - began:.0f} s, {_rss() / 1e6:.1f} MB", flush=True)

            samples = anyio.run(partial(measured, url, runs=given.runs, told=told), backend=given.backend)
            half = (given.runs - given.runs // 10) // 2
            found += [f"{name}: {line}" for line in leaks(*samples, runs=half, memory=name == "sqlite")]
            for at, each in zip(("after the warm-up", "in the middle", "at the end"), samples, strict=True):
                print(f"{name}, {at}: {_shown(each)}")
    print("\n".join(found) or f"nothing grew over {given.runs} runs")
    return 1 if found else 0


def _shown(each: Sample) -> str:
    counts = f"{sum(each.objects.values())} objects, {each.tasks} tasks, {each.threads} threads, {each.files} files"
    return f"{each.rss / 1e6:.1f} MB, {counts}"


if __name__ == "__main__":
    sys.exit(main())
