"""Temporal: its development server on SQLite, and a worker of its Python SDK. A cluster is another thing, and faster.

It is told to keep its file with a write-ahead log and to sync each commit, as the others do. The worker has the autoscaling
pollers that its documentation recommends and room for all workflows, and runs them without a sandbox, which costs time and
guards against nothing here. A step is an activity, or a local activity, which runs within a task of its workflow and is
recorded at the task's end: for "temporal, local activities" a step is not yet durable when the next one begins.

Processors and memory are those of the server and of the worker; the client is left out. Memory is the sum of the most that
each process has had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.install import HOME
from benchmarks.peers.processes import LOCAL, Child, Costs, Ledger, cold, free_port, memory, unless_ended, until
from benchmarks.suite import Body, Contender, Measured, Sizes, quantile, serve

FILE = "development server on SQLite, WAL, synchronous=FULL"
LOCAL_ACTIVITIES = f"{FILE}; steps at the end of their task"
QUEUE = "bench"
FIRST = 20
"""Workflows before those that are measured."""
CLIENTS = 100
AT_A_TIME = 10_000


def contender(name: str, sizes: Sizes, repeats: int = 1) -> Contender:
    """It takes seconds to start, so it is left out of what is to be quick."""
    durability = LOCAL_ACTIVITIES if "local" in name else FILE
    return Contender(name, __name__, durability, peer=True, sizes=sizes, repeats=repeats, quick=False)


CONTENDERS = {
    "W1": (contender("temporal", {"steps": 200}), contender("temporal, local activities", {}, 2)),
    "W2": (contender("temporal", {"runs": 100}), contender("temporal, local activities", {"runs": 200})),
    "W3": (contender("temporal", {"children": 100}, 3),),
    "W4": (contender("temporal", {"runs": 100}),),
    "W5": (contender("temporal", {}, 2),),
    "W6": (contender("temporal", {"timers": 200}),),
    "W7": (contender("temporal", {"starts": 3}, 2),),
}

WORKER = "from benchmarks.peers.temporal import worker; worker({port}, {folder!r})"


def worker(port: int, folder: str) -> None:
    """Work for that server, until killed."""
    from temporalio.client import Client  # type: ignore[import-not-found]  # noqa: PLC0415
    from temporalio.worker import (  # type: ignore[import-not-found]  # noqa: PLC0415
        PollerBehaviorAutoscaling,
        UnsandboxedWorkflowRunner,
        Worker,
    )

    from benchmarks.peers.temporal_flows import WORKFLOWS, Noting, add  # noqa: PLC0415

    async def work() -> None:
        client = await connected(Client, port)
        await Worker(
            client,
            task_queue=QUEUE,
            workflows=WORKFLOWS,
            activities=[add, Noting(Ledger(Path(folder))).noted],
            workflow_runner=UnsandboxedWorkflowRunner(),
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
            activity_task_poller_behavior=PollerBehaviorAutoscaling(),
            max_cached_workflows=AT_A_TIME,
        ).run()

    asyncio.run(work())


async def connected(kind: Any, port: int) -> Any:
    """A client, as soon as the server is there."""
    found: list[Any] = []

    async def connects() -> bool:
        try:
            found.append(await kind.connect(f"{LOCAL}:{port}"))
        except RuntimeError:
            return False
        return True

    await until(connects)
    return found[0]


class Temporal:
    """A server and a worker, all their files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.children: list[Child] = []

    def start(self) -> None:
        """Start both."""
        server = (
            *(HOME / "bin" / "temporal", "server", "start-dev", "--headless", "--log-level", "error"),
            *("--ip", LOCAL, "--port", self.port, "--db-filename", self.folder / "temporal.db"),
            *("--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=FULL"),
        )
        code = WORKER.format(port=self.port, folder=str(self.folder))
        self.children = [Child.python("worker", code, self.folder), Child.start("temporal", server, self.folder)]

    async def client(self) -> Any:
        """Connected, as soon as the server is there."""
        from temporalio.client import Client  # noqa: PLC0415

        client = await connected(Client, self.port)
        for child in self.children:
            child.check()
        return client

    def kill(self) -> None:
        """SIGKILL to all."""
        for child in self.children:
            child.kill()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Temporal, Any]]:
    """Started, with a client; a first workflow of one step has run. Killed afterwards."""
    from benchmarks.peers.temporal_flows import Line  # noqa: PLC0415

    temporal = Temporal(folder)
    temporal.start()
    try:
        client = await temporal.client()
        first = client.execute_workflow(Line.run, args=[1, False], id="first", task_queue=QUEUE)
        assert await unless_ended(temporal.children, first) == 1
        assert (folder / "temporal.db-wal").exists(), "the server did not take the pragmas"
        yield temporal, client
    finally:
        temporal.kill()


async def all_of(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """That for each number, so many at a time."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(some() for _ in range(min(count, CLIENTS))))


# The workloads.


async def line(folder: Path, sizes: Sizes, *, local: bool = False) -> Measured:
    """W1 and W2: so many workflows of so many steps."""
    from benchmarks.peers.temporal_flows import Line  # noqa: PLC0415

    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    async with running(folder) as (temporal, client):

        async def first(number: int) -> None:
            assert await client.execute_workflow(Line.run, args=[1, local], id=f"first-{number}", task_queue=QUEUE) == 1

        async def one(number: int) -> None:
            assert await client.execute_workflow(Line.run, args=[steps, local], id=f"line-{number}", task_queue=QUEUE) == steps

        await all_of(FIRST, first)
        costs = Costs(temporal.children)
        await all_of(runs, one)
        return costs.measured(runs * steps)


async def children(folder: Path, sizes: Sizes) -> Measured:
    """W3: one workflow starts so many others and gathers what they return."""
    from benchmarks.peers.temporal_flows import Parent  # noqa: PLC0415

    count = int(sizes["children"])
    async with running(folder) as (_, client):
        begun = time.perf_counter()
        total = await client.execute_workflow(Parent.run, count, id="parent", task_queue=QUEUE)
        taken_s = time.perf_counter() - begun
        assert total == count * (count + 1) // 2
        return {"taken_s": taken_s}


async def restart(folder: Path, sizes: Sizes) -> Measured:
    """W4: a workflow is live when it was replayed, so that it answers a query."""
    from benchmarks.peers.temporal_flows import STEPS, Patient  # noqa: PLC0415

    runs = int(sizes["runs"])
    ledger = Ledger(folder)
    async with running(folder) as (temporal, before):

        async def start(number: int) -> None:
            run = await before.start_workflow(Patient.run, id=f"patient-{number}", task_queue=QUEUE)
            await until(lambda: run.query(Patient.waiting))

        await all_of(runs, start)
        temporal.kill()
        begun = time.perf_counter()
        temporal.start()
        client = await temporal.client()

        async def load(number: int) -> None:
            assert await client.get_workflow_handle(f"patient-{number}").query(Patient.waiting)

        async def finish(number: int) -> None:
            run = client.get_workflow_handle(f"patient-{number}")
            await run.signal(Patient.go)
            assert await run.result() == sum(range(STEPS))

        await unless_ended(temporal.children, load(0))
        up_s = time.perf_counter() - begun
        await all_of(runs, load)
        live_s = time.perf_counter() - begun
        told = time.perf_counter()
        await all_of(runs, finish)
        done_s = time.perf_counter() - told
    steps = ledger.counted("step")
    assert len(steps) == STEPS * runs, f"{len(steps)} different steps ran, of {STEPS * runs}"
    return {"live_s": live_s, "done_s": done_s, "twice": steps.total() - len(steps), "up_s": up_s}


async def round_trip(folder: Path, sizes: Sizes) -> Measured:
    """W5: an update, from the client's call to its answer."""
    from benchmarks.peers.temporal_flows import Teller  # noqa: PLC0415

    rounds, taken = int(sizes["rounds"]), []
    async with running(folder) as (_, client):
        run = await client.start_workflow(Teller.run, rounds, id="teller", task_queue=QUEUE)
        for number in range(rounds):
            begun = time.perf_counter()
            answer = await run.execute_update(Teller.ask, number)
            taken.append(time.perf_counter() - begun)
            assert answer == number + 1
        assert await run.result() == rounds
    return {"p50_ms": quantile(taken, 50) * 1e3, "p99_ms": quantile(taken, 99) * 1e3}


async def timers(folder: Path, sizes: Sizes) -> Measured:
    """W6: the last one is due that long after the server took its workflow; it is done when its client has the result."""
    from benchmarks.peers.temporal_flows import Sleeper  # noqa: PLC0415

    count, seconds = int(sizes["timers"]), sizes["seconds"]
    async with running(folder) as (temporal, client):
        runs: list[Any] = [None] * count

        async def start(number: int) -> None:
            runs[number] = await client.start_workflow(
                Sleeper.run, args=[number, seconds], id=f"sleeper-{number}", task_queue=QUEUE
            )

        async def end(number: int) -> None:
            assert await runs[number].result() == number

        begun = time.perf_counter()
        await all_of(count, start)
        due = time.perf_counter() + seconds
        await all_of(count, end)
        done = time.perf_counter()
        return {"late_s": done - due, "taken_s": done - begun, **memory(temporal.children)}


async def first_step_ms(folder: Path) -> float:
    """From nothing to the result of a first workflow of one step."""
    begun = time.perf_counter()
    async with running(folder):
        return (time.perf_counter() - begun) * 1e3


async def start(folder: Path, sizes: Sizes) -> Measured:
    return await cold(folder, sizes, "temporalio.client, temporalio.worker", first_step_ms)


WORKLOADS = {1: line, 2: line, 3: children, 4: restart, 5: round_trip, 6: timers, 7: start}


def activities(folder: Path, sizes: Sizes) -> Measured:
    return asyncio.run(WORKLOADS[int(sizes["workload"])](folder, sizes))


def local_activities(folder: Path, sizes: Sizes) -> Measured:
    return asyncio.run(line(folder, sizes, local=True))


BODIES: dict[str, Body] = {"temporal": activities, "temporal, local activities": local_activities}

if __name__ == "__main__":
    serve(BODIES)
