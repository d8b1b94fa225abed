"""LangGraph with its SQLite checkpointer: a graph whose nodes are the steps, each durable before the next one starts.

`durability="sync"` is the mode in which its documentation promises that. There are two checkpointers: one for synchronous
graphs, which run one after the other, since threads beside each other wait for its lock; and one over aiosqlite. The first is
the faster one for one run, so it stands for LangGraph; with many runs it was now the one, now the other, so W2 has both. Both
switch SQLite to WAL themselves.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.suite import FULL, Contender, Measured, Sizes, Watch, cold, quantile, rss_mb, serve

DURABILITY = f"{FULL}; SqliteSaver"
FIRST_RUNS = 20
"""Short runs before those that are measured."""

CLIENTS = 50
"""So many runs at a time, over aiosqlite."""


def only(sizes: Sizes) -> tuple[Contender, ...]:
    """The one contender."""
    return (Contender("langgraph", __name__, DURABILITY, peer=True, sizes=sizes, repeats=3),)


CONTENDERS = {
    "W1": only({}),
    "W2": (
        *only({"runs": 200}),
        Contender(
            "langgraph, async",
            __name__,
            f"{FULL}; AsyncSqliteSaver",
            peer=True,
            sizes={"runs": 200},
            repeats=3,
            quick=False,
        ),
    ),
    "W5": only({}),
    "W7": only({"starts": 3}),
}


class State(TypedDict):
    """What a checkpoint keeps."""

    value: int
    length: int


Update = dict[str, int]


def built(node: Callable[[State], object]) -> Any:
    """A graph that goes through that one node again and again, until `value` is `length`; without a checkpointer yet."""
    from langgraph.graph import END, START, StateGraph  # type: ignore[import-not-found]  # noqa: PLC0415

    def onward(state: State) -> str:
        return "node" if state["value"] < state["length"] else str(END)

    building = StateGraph(State)
    building.add_node("node", node)
    building.add_edge(START, "node")
    building.add_conditional_edges("node", onward, ["node", END])
    return building


@contextmanager
def graph(folder: Path, node: Callable[[State], Update]) -> Iterator[Any]:
    """Such a graph, with the synchronous checkpointer."""
    from langgraph.checkpoint.sqlite import SqliteSaver  # type: ignore[import-not-found]  # noqa: PLC0415

    with SqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        saver.setup()
        yield built(node).compile(checkpointer=saver)


def thread(number: int, steps: int) -> dict[str, Any]:
    """Which run it is, and how long it may be."""
    return {"configurable": {"thread_id": str(number)}, "recursion_limit": steps + 1}


def add(state: State) -> Update:
    """The step."""
    return {"value": state["value"] + 1}


def measured(done: int, watch: Watch) -> Measured:
    """What is told of so many steps."""
    return {"steps_per_s": done / watch.s(), "cpu_us_per_step": watch.cpu_s() / done * 1e6, "rss_mb": rss_mb()}


def lines(folder: Path, sizes: Sizes) -> Measured:
    """W1 and W2: so many runs of so many steps."""
    runs, steps = int(sizes["runs"]), int(sizes["steps"])
    with graph(folder, add) as compiled:

        def line(number: int, length: int) -> None:
            ended = compiled.invoke({"value": 0, "length": length}, thread(number, length), durability="sync")
            assert ended["value"] == length

        for number in range(FIRST_RUNS):
            line(runs + number, min(steps, 5))
        watch = Watch()
        for number in range(runs):
            line(number, steps)
        told = measured(runs * steps, watch)
        kept = sum(1 for _ in compiled.get_state_history(thread(0, steps)))
    # One for the input, one before the first step, one after each.
    assert kept == steps + 2
    return told


async def lines_async(folder: Path, sizes: Sizes) -> Measured:
    """W2 over aiosqlite."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # type: ignore[import-not-found]  # noqa: PLC0415

    runs, steps = int(sizes["runs"]), int(sizes["steps"])

    async def add_async(state: State) -> Update:
        return add(state)

    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        await saver.setup()
        compiled = built(add_async).compile(checkpointer=saver)

        async def client(numbers: Iterator[int], length: int) -> None:
            for number in numbers:
                ended = await compiled.ainvoke({"value": 0, "length": length}, thread(number, length), durability="sync")
                assert ended["value"] == length

        await client(iter(range(runs, runs + FIRST_RUNS)), min(steps, 5))
        numbers = iter(range(runs))
        watch = Watch()
        await asyncio.gather(*(client(numbers, steps) for _ in range(CLIENTS)))
        return measured(runs * steps, watch)


def round_trips(folder: Path, sizes: Sizes) -> Measured:
    """W5: a run is interrupted, and resumed with a question; it answers, and is interrupted again.

    A run that waits is not in memory: each question loads it from its last checkpoint.
    """
    from langgraph.types import Command, interrupt  # type: ignore[import-not-found]  # noqa: PLC0415

    rounds = int(sizes["rounds"])

    def answer(_: State) -> Update:
        return {"value": interrupt("question") + 1}

    taken = []
    with graph(folder, answer) as compiled:
        config = thread(0, rounds)
        compiled.invoke({"value": 0, "length": rounds}, config, durability="sync")
        for number in range(rounds):
            begun = time.perf_counter()
            answered = compiled.invoke(Command(resume=number), config, durability="sync")
            taken.append(time.perf_counter() - begun)
            assert answered["value"] == number + 1
        assert compiled.get_state(config).next == ()
    return {"p50_ms": quantile(taken, 50) * 1e3, "p99_ms": quantile(taken, 99) * 1e3}


FIRST_STEP = """
import time
begun = time.perf_counter()
import sys
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

class State(TypedDict):
    value: int

def add(state: State) -> State:
    return {"value": state["value"] + 1}

building = StateGraph(State)
building.add_node("add", add)
building.add_edge(START, "add")
building.add_edge("add", END)
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    graph = building.compile(checkpointer=saver)
    ended = graph.invoke({"value": 1}, {"configurable": {"thread_id": "one"}}, durability="sync")
    assert ended["value"] == 2
    print((time.perf_counter() - begun) * 1e3)
"""


def body(folder: Path, sizes: Sizes, *, over_aiosqlite: bool = False) -> Measured:
    """Whichever workload is asked for."""
    # Traces go to a service on the network where somebody's environment says so.
    os.environ.update(LANGSMITH_TRACING="false", LANGCHAIN_TRACING_V2="false")
    match int(sizes["workload"]):
        case 2 if over_aiosqlite:
            return asyncio.run(lines_async(folder, sizes))
        case 1 | 2:
            return lines(folder, sizes)
        case 5:
            return round_trips(folder, sizes)
        case 7:
            return cold(folder, sizes, "import langgraph.graph, langgraph.checkpoint.sqlite", FIRST_STEP)
        case other:
            raise ValueError(f"LangGraph has no part in W{other}")


if __name__ == "__main__":
    serve({"langgraph": body, "langgraph, async": partial(body, over_aiosqlite=True)})
