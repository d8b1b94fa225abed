"""DBOS on SQLite, as its documentation recommends: async workflows of async steps, and a 1 ms poll where a poll is waited for.

DBOS finds messages and events by polling: once a second as shipped, and its configuration allows 1 ms at the least. Both take
part in W5. The other workloads run with its default, because each poll asks the database about each workflow that waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue as Queue
from typing import Any

from benchmarks.suite import Contender, Measured, Sizes, Watch, cold, quantile, rss_mb, serve

AS_SHIPPED = "SQLite, rollback journal, synchronous=FULL (as shipped)"
WAL = "SQLite, WAL, synchronous=FULL (switched by us)"
FASTEST_POLL_S = 0.001
"""The least that its configuration's documentation allows."""

FIRST_RUNS = 20
"""Short workflows before those that are measured."""

CLIENTS = 50
"""So many workflows at a time: more were not faster."""

STEPS = 3
"""Of a workflow of W4, before it waits."""


def pair(sizes: Sizes, repeats: int = 3, *, quick: bool = True) -> tuple[Contender, Contender]:
    """As shipped, and with SQLite's write-ahead log."""
    return (
        Contender("dbos", __name__, AS_SHIPPED, peer=True, sizes=sizes, repeats=repeats, quick=quick),
        Contender("dbos, WAL", __name__, WAL, peer=True, sizes=sizes, repeats=repeats, quick=False),
    )


CONTENDERS = {
    "W1": pair({}),
    "W2": pair({"runs": 200}),
    "W3": pair({}, 2, quick=False),
    "W4": pair({}, 1, quick=False),
    "W5": (
        Contender("dbos", __name__, AS_SHIPPED, peer=True, sizes={"rounds": 10}, repeats=1, quick=False),
        Contender("dbos, 1 ms polling", __name__, AS_SHIPPED, peer=True, sizes={"rounds": 100}, repeats=3),
        Contender("dbos, WAL, 1 ms polling", __name__, WAL, peer=True, sizes={"rounds": 100}, repeats=3, quick=False),
    ),
    "W6": pair({"timers": 1_000}, 2, quick=False),
    "W7": (Contender("dbos", __name__, AS_SHIPPED, peer=True, sizes={"starts": 3}, repeats=3),),
}


def configured(folder: Path, polling_s: float | None = None) -> Any:
    """The DBOS of this process, which is to be launched when its workflows are defined."""
    from dbos import DBOS  # type: ignore[import-not-found]  # noqa: PLC0415

    config: dict[str, Any] = {"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos.db", "log_level": "ERROR"}
    if polling_s is not None:
        config["notification_listener_polling_interval_sec"] = polling_s
    DBOS(config=config)
    return DBOS


async def lines(folder: Path, sizes: Sizes) -> Measured:
    """W1 and W2: so many workflows of so many steps."""
    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    dbos = configured(folder)

    @dbos.step()  # type: ignore[untyped-decorator]
    async def add(value: int) -> int:
        return value + 1

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def line(length: int) -> int:
        value = 0
        for _ in range(length):
            value = await add(value)
        return value

    dbos.launch()

    async def client(lengths: Iterator[int]) -> None:
        for length in lengths:
            handle = await dbos.start_workflow_async(line, length)
            assert await handle.get_result() == length

    await client(iter([min(steps, 5)] * FIRST_RUNS))
    lengths = iter([steps] * runs)
    watch = Watch()
    await asyncio.gather(*(client(lengths) for _ in range(min(runs, CLIENTS))))
    done = runs * steps
    return {"steps_per_s": done / watch.s(), "cpu_us_per_step": watch.cpu_s() / done * 1e6, "rss_mb": rss_mb()}


async def children(folder: Path, sizes: Sizes) -> Measured:
    """W3: a parent starts so many children, each of one step, and gathers their results."""
    count = int(sizes["children"])
    dbos = configured(folder)

    @dbos.step()  # type: ignore[untyped-decorator]
    async def add(value: int) -> int:
        return value + 1

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def child(value: int) -> int:
        return int(await add(value))

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def parent(count: int) -> int:
        handles = await asyncio.gather(*(dbos.start_workflow_async(child, number) for number in range(count)))
        return sum(await asyncio.gather(*(handle.get_result() for handle in handles)))

    dbos.launch()
    watch = Watch()
    handle = await dbos.start_workflow_async(parent, count)
    assert await handle.get_result() == count * (count + 1) // 2
    return {"taken_s": watch.s()}


# W4. Two lives of one service: the first is killed, and the second begins with its first line of Python.

FIRST = "from benchmarks.peers.dbos import first; first({folder!r}, {runs})"
SECOND = "import time; begun = time.perf_counter(); from benchmarks.peers.dbos import second; second(begun, {folder!r}, {runs})"


def patient(dbos: Any, folder: Path) -> tuple[Callable[..., Any], Queue[str], Queue[str]]:
    """A workflow that does its steps, each of which says so in a file, then waits for a message.

    DBOS does not tell who is loaded. A workflow is live when its own code, run again after a restart, has come by its
    recorded steps to the call that receives.

    Returns:
        The workflow, the ids of those that came to wait in this process, and of those that then had their message.
    """
    ledger = os.open(folder / "ledger.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    # Those that are recovered run in a thread of DBOS.
    waiting: Queue[str] = Queue()
    woken: Queue[str] = Queue()

    @dbos.step()  # type: ignore[untyped-decorator]
    async def noted(number: int) -> int:
        os.write(ledger, f"{dbos.workflow_id} {number}\n".encode())
        return number

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def patient() -> int:
        total = sum([int(await noted(number)) for number in range(STEPS)])
        waiting.put(dbos.workflow_id)
        message = await dbos.recv_async("go", timeout_seconds=3_600)
        woken.put(dbos.workflow_id)
        return total + int(message)

    return patient, waiting, woken


async def out_of(queue: Queue[str], count: int) -> set[str]:
    """So many different things out of that queue."""
    found = await asyncio.to_thread(lambda: {queue.get() for _ in range(count)})
    assert len(found) == count
    return found


async def until_all_wait(folder: Path, runs: int) -> None:
    dbos = configured(folder)
    workflow, waiting, _ = patient(dbos, folder)
    dbos.launch()
    await asyncio.gather(*(dbos.start_workflow_async(workflow) for _ in range(runs)))
    await out_of(waiting, runs)
    print("all wait", flush=True)
    await asyncio.Event().wait()


def first(folder: str, runs: int) -> None:
    """Start the workflows, say when all of them wait, and live until killed."""
    asyncio.run(until_all_wait(Path(folder), runs))


async def go_on(begun: float, folder: Path, runs: int) -> Measured:
    from dbos import SendMessage  # noqa: PLC0415

    dbos = configured(folder)
    _, waiting, woken = patient(dbos, folder)
    dbos.launch()
    up_s = time.perf_counter() - begun
    ids = await out_of(waiting, runs)
    live_s = time.perf_counter() - begun

    told = time.perf_counter()
    await dbos.send_bulk_async([SendMessage(id, 10, topic="go") for id in ids])
    await out_of(woken, runs)
    # What is left is the last of their outcomes.
    while await dbos.list_workflows_async(status=["PENDING", "ENQUEUED"], limit=1):  # noqa: ASYNC110  (no event says so)
        await asyncio.sleep(0.01)
    done_s = time.perf_counter() - told
    results = [done.output for done in await dbos.list_workflows_async(status="SUCCESS")]
    assert results == [sum(range(STEPS)) + 10] * runs
    return {"live_s": live_s, "done_s": done_s, "up_s": up_s}


def second(begun: float, folder: str, runs: int) -> None:
    """Go on after the kill, to the end of all workflows, and print what that took.

    Args:
        begun: When the first line of this process ran, by `time.perf_counter`.
        folder: Where the database is.
        runs: How many workflows there are.
    """
    print(json.dumps(asyncio.run(go_on(begun, Path(folder), runs))), flush=True)
    os._exit(0)


def restart(folder: Path, sizes: Sizes) -> Measured:
    """W4: both lives, and what the file says of their steps."""
    runs = int(sizes["runs"])
    command = [sys.executable, "-c", FIRST.format(folder=str(folder), runs=runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
    if said != "all wait\n":
        sys.exit("the service ended before all its workflows waited")
    command = [sys.executable, "-c", SECOND.format(folder=str(folder), runs=runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        # It has said why.
        sys.exit(done.returncode)
    ran = Counter((folder / "ledger.txt").read_text("utf-8").splitlines())
    assert len(ran) == STEPS * runs, f"{len(ran)} different steps ran, of {STEPS * runs}"
    return {**json.loads(done.stdout.splitlines()[-1]), "twice": ran.total() - len(ran)}


async def round_trips(folder: Path, sizes: Sizes, polling_s: float | None) -> Measured:
    """W5: a client sends, the workflow answers with an event, and the client waits for that event."""
    rounds = int(sizes["rounds"])
    dbos = configured(folder, polling_s)

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def teller(rounds: int) -> int:
        for number in range(rounds):
            question = await dbos.recv_async("question", timeout_seconds=3_600)
            await dbos.set_event_async(f"answer {number}", question + 1)
        return rounds

    dbos.launch()
    handle = await dbos.start_workflow_async(teller, rounds)
    to = handle.get_workflow_id()
    taken = []
    for number in range(rounds):
        begun = time.perf_counter()
        await dbos.send_async(to, number, "question")
        answer = await dbos.get_event_async(to, f"answer {number}", timeout_seconds=60)
        taken.append(time.perf_counter() - begun)
        assert answer == number + 1
    assert await handle.get_result() == rounds
    return {"p50_ms": quantile(taken, 50) * 1e3, "p99_ms": quantile(taken, 99) * 1e3}


async def timers(folder: Path, sizes: Sizes) -> Measured:
    """W6: so many workflows that sleep, started as fast as they are taken. When the last was due is what the database says."""
    count, seconds = int(sizes["timers"]), sizes["seconds"]
    dbos = configured(folder)

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def sleeper(number: int, seconds: float) -> int:
        await dbos.sleep_async(seconds)
        return number

    dbos.launch()

    async def client(number: int) -> int:
        handle = await dbos.start_workflow_async(sleeper, number, seconds)
        return int(await handle.get_result())

    watch = Watch()
    results = await asyncio.gather(*(client(number) for number in range(count)))
    done, taken_s, most_mb = time.time(), watch.s(), rss_mb()
    assert results == list(range(count))
    db = sqlite3.connect(folder / "dbos.db")
    due = [json.loads(row[0]) for row in db.execute("select output from operation_outputs where function_name = 'DBOS.sleep'")]
    db.close()
    assert len(due) == count
    return {"late_s": done - max(due), "rss_mb": most_mb, "taken_s": taken_s}


FIRST_STEP = """
import time
begun = time.perf_counter()
import asyncio
import os
import sys

from dbos import DBOS

@DBOS.step()
async def add(value: int) -> int:
    return value + 1

@DBOS.workflow()
async def one(value: int) -> int:
    return await add(value)

async def main():
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{sys.argv[1]}", "log_level": "ERROR"})
    DBOS.launch()
    assert await one(1) == 2
    print((time.perf_counter() - begun) * 1e3, flush=True)

asyncio.run(main())
os._exit(0)
"""


def body(folder: Path, sizes: Sizes, *, wal: bool = False, polling_s: float | None = None) -> Measured:
    """Whichever workload is asked for."""
    if wal:
        db = sqlite3.connect(folder / "dbos.db")
        db.execute("pragma journal_mode=wal")
        db.close()
    match int(sizes["workload"]):
        case 1 | 2:
            return asyncio.run(lines(folder, sizes))
        case 3:
            return asyncio.run(children(folder, sizes))
        case 4:
            return restart(folder, sizes)
        case 5:
            return asyncio.run(round_trips(folder, sizes, polling_s))
        case 6:
            return asyncio.run(timers(folder, sizes))
        case 7:
            return cold(folder, sizes, "import dbos", FIRST_STEP)
        case other:
            raise ValueError(f"DBOS has no part in W{other}")


if __name__ == "__main__":
    serve(
        {
            "dbos": body,
            "dbos, WAL": partial(body, wal=True),
            "dbos, 1 ms polling": partial(body, polling_s=FASTEST_POLL_S),
            "dbos, WAL, 1 ms polling": partial(body, wal=True, polling_s=FASTEST_POLL_S),
        }
    )
