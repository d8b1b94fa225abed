"""What a client does while nobody holds the store: look without the lock, or take it for one act and be the one writer.

Nothing is run here. An act leaves the rows as the next holder wants to find them: a new run waits and is due, a cancel lies in
the mailbox, a pause is a state. Runs that were in a turn when the last holder died are counted as crashed by whoever opens the
store for writing next, which may be this client; they are counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import anyio
from anyio.abc import TaskGroup
from attrs import evolve

from actorflow.clock import Chance, SystemClock
from actorflow.errors import InvalidState, MailboxFull, NotRunning, RunEnded, RunPaused
from actorflow.failures import decode_failure
from actorflow.kind import Kind
from actorflow.operations import TreeNode
from actorflow.policies.limits import Limits
from actorflow.records import ENDED, Address, Envelope, Lease, Loaded, Run, SetState, Wake, Write
from actorflow.runtime import actors, reports
from actorflow.runtime.door import Door
from actorflow.runtime.host import Host
from actorflow.runtime.loading import Loading
from actorflow.runtime.loops import current_loop
from actorflow.runtime.operators import Operators
from actorflow.runtime.place import Place
from actorflow.runtime.wire import Act
from actorflow.stores import Store
from actorflow.stores.sqlite import SqliteStore
from actorflow.stores.view import SqliteView

READS = frozenset(("query", "status", "history", "latest", "why", "runs", "counts", "dead_letters", "tree"))


class NobodyRuns(Exception):
    """What is waited for needs a holder that runs it."""


async def look(place: Place, act: Act, values: Mapping[str, Any], *, kinds: dict[str, Kind], limits: Limits) -> Any:
    """Perform a reading act (or the look of `result`), without the lock, also while somebody holds the store.

    Raises:
        NobodyRuns: The run has not ended.
        Exception: What the act raises.
    """
    return await _perform(SqliteView(place.path), act, values, kinds, limits)


async def write(place: Place, act: Act, values: Mapping[str, Any], *, kinds: dict[str, Kind], limits: Limits) -> Any:
    """Take the store, perform one act, give it back.

    Raises:
        StoreBusy: Somebody holds it.
        StoreUnavailable: Its schema is not today's: only a service, never a client, makes or upgrades a store.
        Exception: What the act raises.
    """
    view = SqliteView(place.path)
    await view.open(now=0.0)
    await view.close()
    return await _perform(SqliteStore(place.path), act, values, kinds, limits)


async def _perform(store: Store, act: Act, values: Mapping[str, Any], kinds: dict[str, Kind], limits: Limits) -> Any:
    lease = await store.open(now=SystemClock().wall())
    try:
        outcome: list[Any] = []
        error: Exception | None = None
        async with anyio.create_task_group() as group:
            host = _Unattended(store, lease, kinds=kinds, limits=limits, group=group)
            group.start_soon(host.committer.run)
            try:
                outcome.append(await getattr(_Alone(host), act.name)(**values))
            except Exception as raised:  # noqa: BLE001  (raised below, where no group wraps it)
                error = raised
            group.cancel_scope.cancel()
        if error is not None:
            raise error
        return outcome[0]
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


class _Unattended(Host):
    """A host that loads and runs nothing."""

    def __init__(self, store: Store, lease: Lease, *, kinds: dict[str, Kind], limits: Limits, group: TaskGroup) -> None:
        clock, chance, loop = SystemClock(), Chance(), current_loop()
        super().__init__(store=store, lease=lease, kinds=kinds, limits=limits, clock=clock, chance=chance, loop=loop, group=group)
        self.loading = _Asleep(self)

    def new_run(
        self, to: Address, fields: bytes, *, deadline_at: float | None, parent: int | None = None, detached: bool = False
    ) -> Run:
        """One that waits and is due: "running" would mean that a process died at it."""
        return evolve(super().new_run(to, fields, deadline_at=deadline_at, parent=parent, detached=detached), status="waiting")


class _Asleep(Loading):
    """Loads nothing: the next holder finds what is due."""

    def wake(self, run: int, envelope: Envelope | None = None) -> None:
        pass

    def expect(self, due: float, run: int) -> None:
        pass

    def enter(self, loaded: Loaded, arrivals: list[Envelope], *, why: str | None = None) -> None:
        pass


class _Alone(Operators):
    """The acts that would need a live run, done to its rows."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.door = _Slot(self)

    async def cancel(self, to: Address, *, why: str) -> bool:
        run = await self.run(to)
        if run.status in ENDED:
            return False
        actors.refuse("cancel", run)
        if run.status != "undoing" and run.reason != "undo":
            writes: list[Write] = [self.host.envelope(run.id, "~cancel", why.encode(), sender=""), Wake(run.id, 0.0)]
            if run.status == "paused":  # Only what waits is looked at by the next holder.
                now = self.host.clock.wall()
                writes.append(SetState(run=run.id, status="waiting", reason=None, wake_at=0.0, crashes=0, at=now))
            await self.write(writes)
        return True

    async def pause(self, to: Address) -> None:
        run = await self.run(to)
        if run.status in ENDED:
            raise RunEnded(to, run.status)
        if run.status == "undoing":
            raise InvalidState("pause", to, "undoing", "Nobody runs it now; pause it when its service is up.")
        if run.status != "paused":
            await self.write(self.host.set_aside(run, "operator", "an operator paused it"))

    async def result(self, to: Address, *, wait_paused: bool) -> bytes:
        """Of a run that has ended, or is paused."""
        run = await self.run(to, whole=True)
        actors.refuse("result", run)
        if run.status == "completed":
            return run.outcome or b"null"
        if run.status in ENDED:
            raise decode_failure(run.outcome or b"null")
        if run.status == "paused" and not wait_paused:
            raise RunPaused(to, run.reason or "", reports.decode(run.report))
        raise NobodyRuns

    async def reset(self, to: Address) -> None:
        run = await self.run(to)
        if run.actor and run.status != "paused":
            raise InvalidState("reset", to, "not paused", "Nobody runs it now: `pause` it first, or start its service.")
        await super().reset(to)

    async def tree(self) -> TreeNode:
        what = "nobody runs this store now, so there is no live tree"
        raise NotRunning(f"{what}: start its service. `actorflow actors list` shows the actors that are stored.")


class _Slot(Door):
    """A door whose mailboxes are rows."""

    async def accepting(self, to: Address, *, ask: bool) -> Run:
        run = await super().accepting(to, ask=ask)
        loaded = await self.host.store.load(run.id)
        waiting = math.inf if loaded is None else len(loaded.mailbox)
        if waiting >= self.host.mailbox_max(to.kind):
            raise MailboxFull(to, self.host.mailbox_max(to.kind))
        return run
