"""Faults of a store, on purpose: the power goes at the N-th commit, an acknowledgement is lost, another holder takes over.

`FaultStore` wraps any store. After a `PowerCut` nothing of that process reaches the data any more, whatever its tasks still
do on their way out; a test then makes another store over the same data and another runtime, as the next process would.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import anyio
import anyio.lowlevel
from attrs import define, field, frozen

from actorflow.errors import StoreUnavailable
from actorflow.records import Commit, Lease, Refusal
from actorflow.stores import Store
from actorflow.value import Value

T = TypeVar("T")
Mode = Literal[
    "before", "after", "torn", "unavailable", "busy", "lost_ack", "delay", "zombie", "stop", "await", "cancel", "drain", "pause"
]
"""What happens, at a commit if nothing else is said.

before, after: the power goes, and the batch is not, or is, on the disk.
torn: half of its commits are, each of them whole: `Store` promises no more.
unavailable: nothing is written, and it may be repeated. busy: likewise, and that is found out after a while.
lost_ack: it is written, and that is found out after a while, as by a store that has to look its commit up.
delay: it is written after a while.
zombie: another holder took the store.
stop: the process stands still for a while, and whoever takes the store meanwhile (see `FaultStore.on_fault`) has it.
await: the process dies when its loop lets something go on for the N-th time. cancel: somebody cancels the service then.
drain: after *delay_s* of its life the process is told to end, and ends in order.
pause: after *delay_s* an operator pauses all runs, and resumes them a second later.
"""


Committed = Callable[[Sequence[Commit], list[Refusal | None]], Awaitable[object]]

READ_TICKS = 3
"""Turns of the loop between a read and its answer: enough for a commit to come between."""


class PowerCut(BaseException):
    """The process is dead from here on. No `Exception`: nothing may handle it."""


@frozen
class Fault(Value):
    """What happens at which commit call, counted from 1."""

    at: int
    mode: Mode
    delay_s: float = 1.0

    def __str__(self) -> str:
        match self.mode:
            case "drain" | "pause":
                return f"{self.mode} after {self.delay_s:g} s"
            case "await" | "cancel":
                return f"{'dead' if self.mode == 'await' else 'cancelled'} at await {self.at}"
            case _:
                return f"{self.mode} commit {self.at}"


BESIDE = frozenset(("await", "cancel", "drain", "pause"))
"""Modes that do not belong to a commit."""


@define(eq=False)
class FaultStore:
    """A store with faults to come. Everything else goes through."""

    store: Store
    faults: Sequence[Fault] = ()
    on_fault: Callable[[Fault], object] = lambda _: None  #: called when one of a commit happens
    on_commit: Committed | None = None  #: called when a batch is durable, before anybody else knows
    batches: list[int] = field(factory=list[int], init=False)  #: how many commits each call of `commit` brought
    dead: bool = field(default=False, init=False)  #: the power has gone

    @property
    def commits(self) -> int:
        """Calls of `commit` so far."""
        return len(self.batches)

    @property
    def url(self) -> str:
        return self.store.url

    def cut(self) -> PowerCut:
        """From now on nothing reaches the data; raise what this returns."""
        self.dead = True
        return PowerCut(f"the power went at commit {len(self.batches)}")

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        return await self.store.open(now=now, standby=standby)

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        """See `Store.commit`; or what was planned for this call."""
        if self.dead:
            raise self.cut()
        self.batches.append(len(batch))
        fault = next((fault for fault in self.faults if fault.at == len(self.batches) and fault.mode not in BESIDE), None)
        if fault is not None:
            self.on_fault(fault)
        match fault:
            case Fault(mode="before"):
                raise self.cut()
            case Fault(mode="after"):
                await self._write(batch, fence)
                raise self.cut()
            case Fault(mode="torn"):
                await self._write(batch[: len(batch) // 2], fence)
                raise self.cut()
            case Fault(mode="unavailable"):
                raise StoreUnavailable("the disk is full, says the fault injector. Nothing was written.")
            case Fault(mode="busy", delay_s=delay_s):
                await anyio.sleep(delay_s)
                raise StoreUnavailable("the file is busy, says the fault injector. Nothing was written.")
            case Fault(mode="lost_ack"):
                answers = await self._write(batch, fence)
                await anyio.sleep(fault.delay_s)
                return self._alive(answers)
            case Fault(mode="delay" | "stop", delay_s=delay_s):
                await anyio.sleep(delay_s)
                self._alive(None)
            case Fault(mode="zombie"):
                await self.store.open(now=0.0)  # Raises the fence: ours is worth nothing from here on.
            case _:
                pass
        return await self._write(batch, fence)

    async def _write(self, batch: Sequence[Commit], fence: int) -> list[Refusal | None]:
        answers = await self.store.commit(batch, fence=fence)
        if self.on_commit is not None:
            await self.on_commit(batch, answers)
        return answers

    def _alive(self, answer: T) -> T:
        """The answer, to who has lived to hear it."""
        if self.dead:
            raise self.cut()
        return answer

    async def close(self) -> None:
        if not self.dead:
            await self.store.close()

    def __getattr__(self, name: str) -> Any:
        """All that only reads. The answer takes a while to arrive, as from a database: by then it may be old."""
        read = getattr(self.store, name)

        async def reading(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise self.cut()
            answer = await read(*args, **kwargs)
            for _ in range(READ_TICKS):
                await anyio.lowlevel.checkpoint()
            return self._alive(answer)

        return reading
