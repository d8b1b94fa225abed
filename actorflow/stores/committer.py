"""The one writer. Whatever is ready goes out as one transaction; while it is written the next batch gathers.

Nobody inside the runtime waits for a commit. A commit says whom to tell, and after the batch is durable one synchronous
call per commit, in commit order, tells them; after a few of them others on the loop get a turn.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVarTuple, Unpack

import anyio
import anyio.lowlevel

from actorflow.errors import StoreError, StoreStopped, StoreUnavailable
from actorflow.records import Commit, Refusal
from actorflow.stores import Store

Ts = TypeVarTuple("Ts")

Answer = Refusal | StoreError | None
"""None when the commit is durable, else why it was not taken."""

Pending = tuple[Commit, Callable[..., object], tuple[Any, ...], bool]
"""What is to become true, whom to tell, with what, and whether it came from a caller who can be refused."""

WAIT_S_FIRST, WAIT_S_MAX = 0.05, 2.0  #: between tries while the store cannot take writes

SLICE = 64  #: writes whose owners are told before the loop gets a turn: what follows, as 32 runs that start, takes some 4 ms


class Event(Protocol):
    """Something to wait for that happens once."""

    def set(self) -> None: ...
    async def wait(self) -> None: ...


class Committer:
    """Group commit over one store."""

    def __init__(
        self,
        store: Store,
        fence: int,
        batch_max: int,
        on_stop: Callable[[StoreError], object],
        before: Callable[[], object] = lambda: None,
        *,
        event: Callable[[], Event] = anyio.Event,
    ) -> None:
        self.store = store
        self.fence = fence
        self.batch_max = batch_max
        self.on_stop = on_stop
        self.before = before  #: called before each batch is taken: what it submits is in that batch
        self._event = event  #: makes what it waits for when there is nothing to write, as after each lone commit
        self._pending: deque[Pending] = deque()
        self._wake: Event | None = None
        self._idle: anyio.Event | None = None
        self._writing: bool = False
        self.stopped: StoreError | None = None
        self.unavailable: StoreUnavailable | None = None
        self.batches: int = 0

    def submit(
        self,
        commit: Commit,
        told: Callable[[Answer, Unpack[Ts]], object],
        args: tuple[*Ts] = (),  # type: ignore[assignment]
        *,
        door: bool = False,
    ) -> None:
        """Send a commit after all that were submitted before.

        Args:
            commit: What is to become true.
            told: Called once, on the loop, with how it went and *args*.
            door: It comes from a caller who can be refused: while the store takes no writes it is, at once. Others wait.
        """
        if self.stopped is not None:
            told(self.stopped, *args)
            return
        if door and self.unavailable is not None:
            told(self.unavailable, *args)
            return
        self._pending.append((commit, told, args, door))
        if self._wake is not None:
            self.look()

    def look(self) -> None:
        """There is something to write, or soon will be."""
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    async def run(self) -> None:
        """Write for ever, or until the store stops."""
        try:
            await self._serve()
        except BaseException:
            # Nobody writes from here on: who waits for a commit, or wants to drain, must not wait for ever.
            self.stop(StoreStopped("its writer has ended"))
            raise

    async def _serve(self) -> None:
        while True:
            self.before()
            if not self._pending:
                if self._idle is not None:
                    self._idle.set()
                    self._idle = None
                self._wake = wake = self._event()
                await wake.wait()
                continue
            if len(self._pending) <= self.batch_max:
                batch, self._pending = self._pending, deque()
            else:
                batch = deque(self._pending.popleft() for _ in range(self.batch_max))
            self._writing = True
            try:
                await self._write(batch)
            except BaseException:
                self._pending.extendleft(reversed(batch))  # Untold; whoever was told has been taken out.
                raise
            finally:
                self._writing = False

    async def _write(self, batch: deque[Pending]) -> None:
        """Write them, and tell each; whoever was told is taken out of *batch*."""
        try:
            await self._until_written(batch)
        finally:
            # With nobody left who waits for the store to come back, the next caller finds out whether it has.
            self.unavailable = None

    async def _until_written(self, batch: deque[Pending]) -> None:
        wait_s = WAIT_S_FIRST
        while batch:
            try:
                answers = await self.store.commit([pending[0] for pending in batch], fence=self.fence)
            except StoreUnavailable as error:
                self.unavailable = error
                self._refuse_callers(batch, error)
                await anyio.sleep(wait_s)
                wait_s = min(WAIT_S_MAX, wait_s * 2)
                continue
            except StoreError as error:
                self._pending.extendleft(reversed(batch))
                batch.clear()
                self.stop(error)
                return
            self.unavailable = None
            self.batches += 1
            assert len(answers) == len(batch)
            written = 0
            for answer in answers:
                commit, told, args, _ = batch.popleft()
                told(answer, *args)
                written += len(commit.writes)
                if written >= SLICE:
                    written = 0
                    # It is durable, and whoever looks into the store sees it already: nobody may be left untold.
                    await anyio.lowlevel.cancel_shielded_checkpoint()

    def _refuse_callers(self, batch: deque[Pending], error: StoreUnavailable) -> None:
        """Tell those who can be refused, in *batch* and behind it; the others keep their places."""
        for waiting in (batch, self._pending):
            for _ in range(len(waiting)):  # What is submitted meanwhile comes behind.
                pending = waiting.popleft()
                _, told, args, door = pending
                if door:
                    told(error, *args)
                else:
                    waiting.append(pending)

    def stop(self, error: StoreError) -> None:
        """Take no more; everybody who waits is told *error*."""
        if self.stopped is None:
            self.stopped = error
            while self._pending:
                _, told, args, _ = self._pending.popleft()
                told(error, *args)
            if self._idle is not None:
                self._idle.set()
            self.on_stop(error)

    @property
    def idle(self) -> bool:
        """True if all that was submitted is durable, or was refused."""
        return not (self._pending or self._writing)

    async def drain(self, *, within_s: float = math.inf) -> None:
        """Wait until all that was submitted is durable."""
        with anyio.move_on_after(within_s):
            while not self.idle and self.stopped is None:
                self._idle = self._idle or anyio.Event()
                await self._idle.wait()
