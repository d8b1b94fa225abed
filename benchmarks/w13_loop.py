"""W13: what a busy runtime does to the service around it: the loop's longest stall, and the latency of a web handler.

On one loop: a runtime that runs W2 again and again, an HTTP server with a handler that does nothing, and a task that sleeps a
millisecond again and again and notes how much too late it woke. A client in another process asks the server over the loopback,
on a few connections, each at its own pace. "Bare" is the same loop without the runtime. The workflows are started by clients
of the loop, so many at a time: who starts 2,000 in one moment holds the loop himself ("at once" does so).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from actorflow import Runtime
from benchmarks import life
from benchmarks.peers import peers
from benchmarks.steps import Line
from benchmarks.suite import BARE, OURS, Body, Contender, Goal, Measured, Metric, Sizes, Watch, Workload, quantile, serve

MODULE = "benchmarks.w13_loop"
AT_ONCE = "actorflow, all at once"

WORKLOAD = Workload(
    id="W13",
    title="the loop beside a runtime that runs W2",
    metrics=(
        Metric("stall_ms", "ms, longest stall", "less", 1),
        Metric("p99_ms", "ms, a web handler, p99", "less", 1),
        Metric("p50_ms", "ms, a web handler, p50", "less", 2),
        Metric("stall_p99_ms", "ms, stalls, p99", "less", 1),
        Metric("steps_per_s", "steps/s meanwhile", "more"),
    ),
    full={"runs": 2_000, "steps": 5, "clients": 500, "seconds": 5},
    quick={"runs": 2_000, "steps": 5, "clients": 500, "seconds": 1},
    contenders=(
        Contender(BARE, __name__),
        Contender(OURS, __name__),
        Contender(AT_ONCE, __name__, sizes={"clients": 2_000}, quick=False),
        *peers("W13"),
    ),
    goals=(Goal("longest stall under 50 ms", "stall_ms", at_most=50),),
    repeats=3,
)

CONNECTIONS, PACE_S, NAP_S = 10, 0.05, 0.001
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Page(asyncio.Protocol):
    """The server's end of a connection: the smallest handler there is, answered where it is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert data == REQUEST
        self.transport.write(RESPONSE)


async def naps(late: list[float]) -> None:
    """Note how much too late each nap ended."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(NAP_S)
        late.append(time.perf_counter() - begun - NAP_S)


def client(_: Path, sizes: Sizes) -> Measured:
    """The process that asks. It says when it is connected, begins when it is told a line, and ends when it is told another."""
    taken: list[float] = []

    async def connection(number: int, begin: asyncio.Event, ready: asyncio.Barrier) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sizes["port"]))
        await ready.wait()
        await begin.wait()
        await asyncio.sleep(PACE_S * number / CONNECTIONS)
        while True:
            begun = time.perf_counter()
            writer.write(REQUEST)
            assert await reader.readexactly(len(RESPONSE)) == RESPONSE
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(PACE_S)

    async def ask() -> None:
        begin, ready = asyncio.Event(), asyncio.Barrier(CONNECTIONS + 1)
        tasks = [asyncio.create_task(connection(number, begin, ready)) for number in range(CONNECTIONS)]
        await ready.wait()
        sys.stdout.write("connected\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        begin.set()
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            assert not task.done(), task
            task.cancel()

    asyncio.run(ask())
    return {"p99_ms": quantile(taken, 99) * 1e3, "p50_ms": quantile(taken, 50) * 1e3, "requests": len(taken)}


async def beside(folder: Path, load: Callable[[], Awaitable[Measured]]) -> Measured:
    """Watch the loop while that load runs."""
    server = await asyncio.get_running_loop().create_server(Page, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = life.begin(MODULE, "client", {"port": port}, folder)
    assert process.stdin is not None
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "connected\n"
    late: list[float] = []
    process.stdin.write("begin\n")
    process.stdin.flush()
    watching = asyncio.create_task(naps(late))
    done = await load()
    assert not watching.done()
    watching.cancel()
    measured = await asyncio.to_thread(life.finish, process)
    server.close()
    assert measured["requests"] > 0
    stalls = {"stall_ms": max(late) * 1e3, "stall_p99_ms": quantile(late, 99) * 1e3}
    return {**stalls, **measured, **done}


async def workflows(runtime: Runtime, sizes: Sizes) -> Measured:
    """W2 again and again."""
    runs, steps, clients = int(sizes["runs"]), int(sizes["steps"]), int(sizes["clients"])
    watch, done = Watch(), 0
    while watch.s() < sizes["seconds"]:
        keys = iter([f"{done}-{number}" for number in range(runs)])

        async def client(keys: Iterator[str] = keys) -> None:
            for key in keys:
                run = await runtime.start(Line(steps), key=key)
                assert await run.result() == steps

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        done += runs
    return {"steps_per_s": done * steps / watch.s()}


def actorflow(folder: Path, sizes: Sizes) -> Measured:
    """With the runtime."""

    async def measure() -> Measured:
        async with Runtime(f"sqlite:///{folder}/a.db", actors=[Line], watchdog=None) as runtime:
            return await beside(folder, partial(workflows, runtime, sizes))

    return asyncio.run(measure())


def bare(folder: Path, sizes: Sizes) -> Measured:
    """Without one."""

    async def nothing() -> Measured:
        await asyncio.sleep(sizes["seconds"])
        return {}

    return asyncio.run(beside(folder, nothing))


BODIES: dict[str, Body] = {OURS: actorflow, AT_ONCE: actorflow, BARE: bare, "client": client}

if __name__ == "__main__":
    serve(BODIES)
