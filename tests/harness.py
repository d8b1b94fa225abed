"""What many tests share: both loops, a runtime in virtual time, and an actor that writes down what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from attrs import field

from actorflow import Actor, Message, RunPaused, Runtime, handler
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from actorflow.testing.faults import Fault, FaultStore, PowerCut

did: list[Any] = []  #: what steps and handlers did, in order; each test begins with none
world: dict[str, Any] = {}  #: what they find outside; likewise

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@asynccontextmanager
async def runtime(*actors: type[Actor], store: Any = None, **options: Any) -> AsyncIterator[Runtime]:
    """In virtual time, over a store in memory unless another one is given."""
    with anyio.fail_after(1_000_000):
        async with Runtime(
            store=MemoryStore() if store is None else store, actors=actors, clock=LoopClock(), **options
        ) as opened:
            yield opened


def virtual(backend: Backend, fn: Callable[[], Awaitable[Any]]) -> Any:
    return run_virtual(fn, backend=backend)


async def life(
    memory: MemoryStore,
    *actors: type[Actor],
    script: Callable[[Runtime], Awaitable[Any]],
    cut_s: float | None = None,
    faults: Sequence[Fault] = (),
    **options: Any,
) -> Any:
    """One life of a process over what *memory* remembers: what its script came to, or nothing if the power went.

    It goes after *cut_s*, or as *faults* say.
    """
    store, result = FaultStore(type(memory)(share=memory), faults), None

    async def cut(after_s: float) -> None:
        await anyio.sleep(after_s)
        raise store.cut()

    try:
        async with runtime(*actors, store=store, **options) as opened:
            if cut_s is None:
                return await script(opened)
            async with anyio.create_task_group() as group:
                group.start_soon(cut, cut_s)
                result = await script(opened)
                group.cancel_scope.cancel()
    except (PowerCut, Exception, BaseExceptionGroup):
        if not store.dead:
            raise
    return result


def because(paused: RunPaused, reason: str) -> None:
    """It paused for that reason, and no other."""
    assert paused.reason == reason, paused


class Note(Message[None]):
    n: int


class Read(Message[list[int]]): ...


class Log(Actor):
    """Writes down what it is told."""

    noted: list[int] = field(factory=list[int])

    @handler
    async def note(self, m: Note) -> None:
        self.noted.append(m.n)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.noted
