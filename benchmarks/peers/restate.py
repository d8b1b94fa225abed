"""Restate: its server beside a service of its Python SDK, on this machine alone.

The server keeps its log in RocksDB and syncs it before a step counts, as it does by default (`rocksdb-disable-wal-fsync` of
its log server is false). Some of its settings are ours, since they suit one machine better: one partition instead of 24, which
halves what a step costs here; a retry after 50 to 100 ms instead of 500 and more, so that it finds a service soon that was
started again; and as many invocations at a time as there are, instead of 1,000.

Where a peer may choose, it has what was fastest: granian within the service's own process (which granian calls experimental; its
command starts two), with HTTP/2 and uvloop, where hypercorn took nearly twice as much of the processors; plain services instead
of workflows with a key; signals for questions and answers, which took a fifth less time than durable promises; and clients that
speak HTTP to the server's socket without a library.

Processors and memory are those of the server and of the service; who drives them is left out. Memory is the sum of the most
that each process has had.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.peers.install import NPM
from benchmarks.peers.processes import LOCAL, Child, Costs, Ledger, cold, free_port, listening, memory, until
from benchmarks.suite import Body, Contender, Measured, Sizes, quantile, serve

LOG = "RocksDB, its log fsynced"
STEPS = 3
AT_A_TIME = 20_000
"""Invocations that the server and the service carry on at a time."""
FIRST = 20
"""Runs before those that are measured."""
CLIENTS = 100
"""From 50 to 500 at a time there was no difference to be seen; 1,000 were no faster."""

CONTENDERS = {
    "W1": (Contender("restate", __name__, LOG, peer=True, repeats=3),),
    "W2": (Contender("restate", __name__, LOG, peer=True, repeats=3),),
    "W3": (Contender("restate", __name__, LOG, peer=True, repeats=3),),
    "W4": (Contender("restate", __name__, LOG, peer=True, repeats=3, quick=False),),
    "W5": (Contender("restate", __name__, LOG, peer=True, repeats=3),),
    "W6": (Contender("restate", __name__, LOG, peer=True, repeats=1, quick=False),),
    "W7": (Contender("restate", __name__, LOG, peer=True, sizes={"starts": 3}, repeats=3, quick=False),),
}


async def add(value: int) -> int:
    return value + 1


# The service.

SERVICE = "from benchmarks.peers.restate import service; service({folder!r}, {port})"


def service(folder: str, port: int) -> None:
    """Serve all of it, until killed."""
    import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    from granian.constants import HTTPModes, Interfaces  # type: ignore[import-not-found]  # noqa: PLC0415
    from granian.http import HTTP2Settings  # type: ignore[import-not-found]  # noqa: PLC0415
    from granian.server.embed import Server  # type: ignore[import-not-found]  # noqa: PLC0415

    async def run() -> None:
        server = Server(
            app(Ledger(Path(folder))),
            address=LOCAL,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http2,
            http2_settings=HTTP2Settings(max_concurrent_streams=AT_A_TIME),
            websockets=False,
            backlog=1_024,
            backpressure=AT_A_TIME,
            log_level="warning",
        )
        await server.serve()

    uvloop.run(run())


def app(ledger: Ledger) -> Any:
    """All that is served."""
    import restate  # type: ignore[import-not-found]  # noqa: PLC0415

    bench = restate.Service("Bench")

    @bench.handler()  # type: ignore[untyped-decorator]
    async def line(ctx: Any, length: int) -> int:
        value = 0
        for _ in range(length):
            value = await ctx.run_typed("add", add, value=value)
        return value

    @bench.handler()  # type: ignore[untyped-decorator]
    async def child(ctx: Any, value: int) -> int:
        added: int = await ctx.run_typed("add", add, value=value)
        return added

    @bench.handler()  # type: ignore[untyped-decorator]
    async def parent(ctx: Any, children: int) -> int:
        calls = [ctx.service_call(child, arg=number) for number in range(children)]
        await restate.gather(*calls)
        return sum([await call for call in calls])

    @bench.handler()  # type: ignore[untyped-decorator]
    async def sleeper(ctx: Any, asked: list[float]) -> int:
        number, seconds = asked
        await ctx.sleep(timedelta(seconds=seconds))
        ledger.note("woke", int(number))
        return int(number)

    return restate.app([bench, answering(restate), waiting(restate, ledger)])


def answering(restate: Any) -> Any:
    """W5: a run that answers questions, and who puts them to it for the client."""
    teller = restate.Service("Teller")

    @teller.handler()  # type: ignore[untyped-decorator]
    async def run(ctx: Any, rounds: int) -> int:
        for number in range(rounds):
            question, asker = await ctx.signal(f"question {number}", type_hint=list)
            ctx.resolve_signal(asker, "answer", question + 1)
        return rounds

    @teller.handler()  # type: ignore[untyped-decorator]
    async def ask(ctx: Any, asked: list[Any]) -> int:
        question, run = asked
        answer = ctx.signal("answer", type_hint=int)
        ctx.resolve_signal(run, f"question {question}", [question, ctx.request().id])
        answered: int = await answer
        return answered

    return teller


def waiting(restate: Any, ledger: Ledger) -> Any:
    """W4: a workflow of some steps that then waits for a durable promise."""
    patient = restate.Workflow("Patient")

    async def noted(run: str, number: int) -> int:
        ledger.note("step", run, number)
        return number

    @patient.main()  # type: ignore[untyped-decorator]
    async def run(ctx: Any) -> int:
        total = 0
        for number in range(STEPS):
            total += await ctx.run_typed("noted", noted, run=ctx.key(), number=number)
        go = ctx.promise("go", type_hint=bool).value()
        ledger.note("waits", ctx.key())
        await go
        return total

    @patient.handler()  # type: ignore[untyped-decorator]
    async def go(ctx: Any) -> None:
        await ctx.promise("go", type_hint=bool).resolve(value=True)

    return patient


# The server.


class Client:
    """One connection to a socket of the server."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """What it answers.

        Raises:
            OSError: Nobody is there.
            RuntimeError: It refuses, and says why.
        """
        if self.streams is None:
            self.streams = await asyncio.open_unix_connection(str(self.socket))
        reader, writer = self.streams
        sent = b"" if body is None else json.dumps(body).encode()
        kind = "content-type: application/json\r\n" if sent else ""
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: bench\r\n{kind}content-length: {len(sent)}\r\n\r\n".encode() + sent)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if "transfer-encoding" in headers:
            got = await chunks(reader)
        else:
            got = await reader.readexactly(int(headers.get("content-length", 0)))
        if not status.split()[1].startswith("2"):
            raise RuntimeError(f"{method} {path}: {status}: {got.decode()}")
        return json.loads(got) if got else None

    async def post(self, path: str, body: object = None) -> Any:
        return await self.call("POST", path, body)


async def chunks(reader: asyncio.StreamReader) -> bytes:
    """A body that comes in parts."""
    got = b""
    while size := int(await reader.readline(), 16):
        got += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return got


def binary() -> Path:
    """The server, as npm has put it; its own launcher would be one process more.

    Raises:
        FileNotFoundError: It is not there.
    """
    for found in (NPM / "node_modules" / "@restatedev").glob("restate-server-*/bin/restate-server"):
        return found
    raise FileNotFoundError("Restate's server is not installed: npm was not there, or failed, in --install-peers")


class Restate:
    """A server and a service, all their files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.children: list[Child] = []

    def start(self) -> None:
        """Start both."""
        settings = {
            "BASE_DIR": self.folder / "data",
            "NODE_NAME": "bench",
            "LISTEN_MODE": "unix",
            "DEFAULT_NUM_PARTITIONS": 1,
            "DEFAULT_RETRY_POLICY__INITIAL_INTERVAL": "50ms",
            "DEFAULT_RETRY_POLICY__MAX_INTERVAL": "100ms",
            "WORKER__INVOKER__CONCURRENT_INVOCATIONS_LIMIT": AT_A_TIME,
            "DISABLE_TELEMETRY": "true",
            "LOG_FILTER": "warn",
            "LOG_DISABLE_ANSI_CODES": "true",
        }
        environment = {f"RESTATE_{name}": str(value) for name, value in settings.items()}
        server = (binary(), "--no-logo")
        code = SERVICE.format(folder=str(self.folder), port=self.port)
        self.children = [
            Child.python("service", code, self.folder),
            Child.start("restate-server", server, self.folder, environment),
        ]

    def client(self) -> Client:
        """One connection more."""
        return Client(self.folder / "data" / "bench" / "ingress.sock")

    async def serving(self) -> None:
        """Both are there and take what comes."""
        await until(lambda: listening(self.port), self.children)
        await until(lambda: healthy(self.client(), "/restate/health"), self.children)

    async def register(self) -> None:
        """Tell the server what is served, once."""
        admin = Client(self.folder / "data" / "bench" / "admin.sock")
        await until(lambda: healthy(admin, "/health"), self.children)
        await admin.post("/deployments", {"uri": f"http://{LOCAL}:{self.port}"})

    def kill(self) -> None:
        """SIGKILL to all."""
        for child in self.children:
            child.kill()


async def healthy(client: Client, path: str) -> bool:
    """Whether it says so of itself."""
    try:
        await client.call("GET", path)
    except RuntimeError:
        return False
    return True


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Restate]:
    """Started and ready; killed afterwards."""
    restate = Restate(folder)
    restate.start()
    try:
        await restate.serving()
        await restate.register()
        yield restate
    finally:
        restate.kill()


async def all_of(count: int, restate: Restate, one: Callable[[Client, int], Awaitable[None]]) -> None:
    """That for each number, by as many clients as suit the server best."""
    numbers = iter(range(count))

    async def client() -> None:
        mine = restate.client()
        for number in numbers:
            await one(mine, number)

    await asyncio.gather(*(client() for _ in range(min(count, CLIENTS))))


# The workloads.


async def line(folder: Path, sizes: Sizes) -> Measured:
    """W1 and W2: so many runs of so many steps."""
    runs, steps = int(sizes["runs"]), int(sizes["steps"])

    async def first(client: Client, number: int) -> None:  # noqa: ARG001
        assert await client.post("/Bench/line", 5) == 5

    async def one(client: Client, number: int) -> None:  # noqa: ARG001
        assert await client.post("/Bench/line", steps) == steps

    async with running(folder) as restate:
        await all_of(FIRST, restate, first)
        costs = Costs(restate.children)
        await all_of(runs, restate, one)
        return costs.measured(runs * steps)


async def children(folder: Path, sizes: Sizes) -> Measured:
    """W3: one handler calls so many others and gathers what they return."""
    count = int(sizes["children"])
    async with running(folder) as restate:
        client = restate.client()
        assert await client.post("/Bench/parent", 1) == 1
        begun = time.perf_counter()
        assert await client.post("/Bench/parent", count) == count * (count + 1) // 2
        return {"taken_s": time.perf_counter() - begun}


async def restart(folder: Path, sizes: Sizes) -> Measured:
    """W4: a run is live when its handler was driven over its steps again and awaits its promise."""
    runs = int(sizes["runs"])
    ledger = Ledger(folder)

    async def start(client: Client, number: int) -> None:
        await client.post(f"/Patient/{number}/run/send")

    async def finish(client: Client, number: int) -> None:
        await client.post(f"/Patient/{number}/go")
        assert await client.call("GET", f"/restate/workflow/Patient/{number}/attach") == sum(range(STEPS))

    async def all_wait(offset: int) -> bool:
        return len(ledger.counted("waits", offset)) == runs

    async with running(folder) as restate:
        await all_of(runs, restate, start)
        await until(lambda: all_wait(0), restate.children)
        restate.kill()
        at = ledger.size()
        begun = time.perf_counter()
        restate.start()
        await restate.serving()
        up_s = time.perf_counter() - begun
        await until(lambda: all_wait(at), restate.children)
        live_s = time.perf_counter() - begun
        told = time.perf_counter()
        await all_of(runs, restate, finish)
        done_s = time.perf_counter() - told
    steps = ledger.counted("step")
    assert len(steps) == STEPS * runs, f"{len(steps)} different steps ran, of {STEPS * runs}"
    return {"live_s": live_s, "done_s": done_s, "twice": steps.total() - len(steps), "up_s": up_s}


async def round_trip(folder: Path, sizes: Sizes) -> Measured:
    """W5: from the client's call to its answer."""
    rounds, taken = int(sizes["rounds"]), []
    async with running(folder) as restate:
        client = restate.client()
        run = (await client.post("/Teller/run/send", rounds))["invocationId"]
        for number in range(rounds):
            begun = time.perf_counter()
            answer = await client.post("/Teller/ask", [number, run])
            taken.append(time.perf_counter() - begun)
            assert answer == number + 1
        assert await client.call("GET", f"/restate/invocation/{run}/attach") == rounds
    return {"p50_ms": quantile(taken, 50) * 1e3, "p99_ms": quantile(taken, 99) * 1e3}


async def timers(folder: Path, sizes: Sizes) -> Measured:
    """W6: the last one is due that long after the server took it; it is done when it has woken."""
    count, seconds = int(sizes["timers"]), sizes["seconds"]
    ledger = Ledger(folder)

    async def start(client: Client, number: int) -> None:
        await client.post("/Bench/sleeper/send", [number, seconds])

    async def all_woke() -> bool:
        return len(ledger.counted("woke")) == count

    async with running(folder) as restate:
        begun = time.perf_counter()
        await all_of(count, restate, start)
        due = time.perf_counter() + seconds
        await until(all_woke, restate.children)
        done = time.perf_counter()
        assert ledger.counted("woke").total() == count
        return {"late_s": done - due, "taken_s": done - begun, **memory(restate.children)}


async def first_step_ms(folder: Path) -> float:
    """From nothing to the answer of a first handler of one step."""
    begun = time.perf_counter()
    async with running(folder) as restate:
        assert await restate.client().post("/Bench/line", 1) == 1
        return (time.perf_counter() - begun) * 1e3


async def start(folder: Path, sizes: Sizes) -> Measured:
    return await cold(folder, sizes, "restate", first_step_ms)


WORKLOADS = {1: line, 2: line, 3: children, 4: restart, 5: round_trip, 6: timers, 7: start}


def restate(folder: Path, sizes: Sizes) -> Measured:
    return asyncio.run(WORKLOADS[int(sizes["workload"])](folder, sizes))


BODIES: dict[str, Body] = {"restate": restate}

if __name__ == "__main__":
    serve(BODIES)
