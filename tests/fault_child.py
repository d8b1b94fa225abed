"""The victim of tests/test_process_faults.py: a service to which something is done, or which does it to itself.

Usage: fault_child.py WHAT DATABASE BACKEND; it prints what happens, and a line on its standard input lets it go on.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread

from actorflow import Limits, Retry, Runtime, StepFailed, Workflow, crashpoints, step
from actorflow.errors import ActorflowError, StoreUnavailable

BALLAST_BYTES = 2 << 20  #: more than is needed to end what is under way
MEMORY_BYTES = 128 << 20  #: more than what is there when the limit is set


def say(*words: object) -> None:
    print(*words, flush=True)


async def told() -> str:
    """The next line of the standard input."""
    return (await anyio.to_thread.run_sync(sys.stdin.readline)).strip()


@step
async def gate(at: int) -> int:
    say("working", at)
    await told()
    return at


@step(retry=Retry(attempts=1))
def greedy(size: int) -> int:
    return len(bytearray(size))


class Gated(Workflow[int]):
    async def run(self) -> int:
        return await gate(1) + await gate(2)


class Greedy(Workflow[str]):
    size: int

    async def run(self) -> str:
        try:
            return str(await greedy(self.size))
        except (MemoryError, StepFailed) as error:
            return f"{type(error).__name__}"


class Plain(Workflow[int]):
    load: bytes = b""

    async def run(self) -> int:
        return await greedy(1)


ACTORS = [Gated, Greedy, Plain]


async def gated(runtime: Runtime) -> None:
    """A step waits; then another one would follow."""
    run = await runtime.start(Gated(), key="g")
    say("result", await run.result())


async def stopped_inside(runtime: Runtime) -> None:
    """It stops itself in the middle of a transaction."""

    def stop() -> None:
        crashpoints.disarm()
        say("inside")
        # To this thread, which is thus stopped here and not a moment later.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    crashpoints.arm("commit.rows", stop)
    run = await runtime.start(Plain(), key="p")
    say("result", await run.result())


async def little_memory(runtime: Runtime) -> None:
    """A step asks for more than there is; others have what they need."""
    [taken] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]  # noqa: ASYNC240
    resource.setrlimit(resource.RLIMIT_AS, (int(taken) * 1024 + MEMORY_BYTES, resource.RLIM_INFINITY))
    greedy_run = await runtime.start(Greedy(8 * MEMORY_BYTES), key="g")
    say("result", await greedy_run.result(), await (await runtime.start(Plain(), key="p")).result())


def can_open() -> bool:
    try:
        os.close(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return error.errno != errno.EMFILE
    return True


async def no_descriptors(runtime: Runtime) -> None:
    """Nothing can be opened for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    assert not can_open()
    run = await runtime.start(Plain(), key="p")
    say("result", await run.result())
    await told()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    say("opened again")
    await told()


async def nowhere_to_log(runtime: Runtime) -> None:
    """Standard output and error are closed or full, and yet it logs."""
    logging.getLogger("actorflow").warning("a line for nobody")
    run = await runtime.start(Greedy(1 << 60), key="g")
    await run.result()
    logging.getLogger("actorflow").warning("another")


async def left_open(runtime: Runtime) -> None:
    """The interpreter ends in the middle of everything."""
    await runtime.start(Gated(), key="g")
    await anyio.sleep_forever()


async def started(runtime: Runtime, key: str) -> bool:
    try:
        await runtime.start(Plain(b""), key=key)
    except StoreUnavailable:
        return False
    return True


async def full_disk(runtime: Runtime) -> None:
    """It starts runs until its disk is full, then makes room and starts some more."""
    folder = Path(sys.argv[2]).parent
    ballast, saved = folder / "ballast", 0
    ballast.write_bytes(bytes(BALLAST_BYTES))
    said = ""
    while not said:
        try:
            await runtime.start(Plain(b"x" * 20_000), key=str(saved))
            saved += 1
        except StoreUnavailable as error:
            said = str(error)
    assert await runtime.run(Plain, "0").result() == 1  # What has ended can be read.
    ballast.unlink()
    for _ in range(5):
        # Refused at once while others wait for room; those find out by themselves that there is some.
        while not await started(runtime, str(saved)):  # noqa: ASYNC110  (the disk tells nobody)
            await anyio.sleep(0.01)
        saved += 1
    for key in range(saved):
        assert await runtime.run(Plain, str(key)).result() == 1
    say("result", saved, said)


WHAT: dict[str, Callable[[Runtime], Awaitable[None]]] = {
    each.__name__: each for each in (gated, stopped_inside, little_memory, no_descriptors, nowhere_to_log, full_disk, left_open)
}


async def main(what: str, database: str) -> None:
    async with Runtime(f"sqlite:///{database}", actors=ACTORS, limits=Limits(drain_s=5.0)) as runtime:
        await WHAT[what](runtime)


def errors_of(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [name for each in error.exceptions for name in errors_of(each)]
    return [type(error).__name__]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        anyio.run(main, sys.argv[1], sys.argv[2], backend=sys.argv[3])
    except (ActorflowError, BaseExceptionGroup) as error:
        say("ended", *errors_of(error))
