"""`Runtime`: the durable part of a service, as one `async with` block."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup, TaskStatus

from actorflow.actor import Actor, Kind
from actorflow.clock import Chance, Clock, SystemClock
from actorflow.errors import BadDefinition, OutsideTurn, StoreStopped
from actorflow.operations import Operations
from actorflow.policies.limits import Limits
from actorflow.records import Commit, Write
from actorflow.runtime.calls import Abandonable
from actorflow.runtime.front import Front
from actorflow.runtime.host import Host
from actorflow.runtime.loops import current_loop
from actorflow.runtime.operators import Operators
from actorflow.runtime.place import Announces
from actorflow.runtime.socket import Server, take
from actorflow.stores import Durability, Store, open_store

log: logging.Logger = logging.getLogger("actorflow")


class Runtime(Front):
    """Runs workflows over one store, from `async with` to its end.

    On entry it takes the store (one holder at a time), and every run that was under way goes on by itself. On exit nothing
    new begins, running steps get `limits.drain_s` to finish, and the rest is left to the next holder.

    Args:
        url: `sqlite:///file.db`, `sqlite:////absolute/file.db` or `memory://`.
        actors: The classes it runs.
        durability: "full" survives a power cut, "normal" only the process.
        standby: If another process holds the store, wait for it instead of raising `StoreBusy`.
        limits: Every bound.
        clock, chance: Time and chance, for tests.
        store: A store object instead of the one that *url* names.
        socket: Whether a `Client` in another process can reach it (a store in a file only).

    Raises (on entry):
        BadDefinition: A class cannot be stored as it is.
        StoreBusy, StoreBroken, StoreTooNew, StoreUnavailable: The store cannot be had; nothing was written.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        actors: Sequence[type[Actor]],
        durability: Durability = "full",
        standby: bool = False,
        limits: Limits | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
        store: Store | None = None,
        socket: bool = True,
    ) -> None:
        self._store = store if store is not None else open_store(url, durability=durability)
        self._kinds = _registered(actors)
        self._standby = standby
        self._limits = limits or Limits()
        self._clock: Clock = clock or SystemClock()
        self._chance = chance or Chance()
        self._host: Host | None = None
        self._operators: Operators | None = None
        self._group: TaskGroup | None = None
        self._held: anyio.CancelScope  #: made on entry: a Runtime may be built where no loop runs
        self._socket = socket
        self._server: Server | None = None

    # --- life -----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise BadDefinition("a Runtime is entered once; make another one.")
        lease = await take(self._store, now=self._clock.wall(), standby=self._standby)
        self._held = anyio.CancelScope(shield=True)
        outer = self._group = anyio.create_task_group()
        await outer.__aenter__()
        group: TaskGroup = await outer.start(self._hold)
        host = self._host = Host(
            store=self._store,
            lease=lease,
            kinds=self._kinds,
            limits=self._limits,
            clock=self._clock,
            chance=self._chance,
            loop=current_loop(),
            group=group,
        )
        self._operators = Operators(host)
        try:
            await host.loading.look_ahead()
            await self._listen(self._operators, group)
        except BaseException:
            self._close_door()
            self._held.cancel()
            await outer.__aexit__(None, None, None)
            raise
        for serve in (host.committer.run, host.timers.run, host.deadlines.run, host.loading.run):
            host.loop.undisturbed(serve)
            group.start_soon(serve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._group is not None
        assert self._host is not None
        self._close_door()
        try:
            with anyio.CancelScope(shield=True):
                await self._drain(self._host)
        finally:
            self._held.cancel()
            if not isinstance(error, anyio.get_cancelled_exc_class()):
                # The body's own error passes as it is; the group would wrap it.
                kind = error = traceback = None
            await self._group.__aexit__(kind, error, traceback)

    async def _hold(self, *, task_status: TaskStatus[TaskGroup]) -> None:
        """Hold all that the runtime runs.

        Shielded: whoever cancels the service around it wants it to drain, and to drain it needs its writer, its timers and
        the steps that shall finish. The store is given back here and not by the service's own task, which asyncio lets
        anybody cancel again and again, shielded or not.
        """
        try:
            with self._held:
                async with anyio.create_task_group() as group:
                    task_status.started(group)
                    await anyio.sleep_forever()
        except BaseExceptionGroup as failures:
            if len(failures.exceptions) == 1:  # The outer group wraps it again.
                raise failures.exceptions[0] from None
            raise
        finally:
            with anyio.CancelScope(shield=True):
                if self._host is not None:
                    self._host.committer.stop(StoreStopped("the runtime has shut down"))
                await self._store.close()

    async def _listen(self, operators: Operators, group: TaskGroup) -> None:
        """Let clients in, or say that none can come."""
        if not isinstance(self._store, Announces):
            return
        if self._socket:
            self._server = Server(operators, self._store, group)
            await self._server.open()
        else:
            await self._store.announce(socket=None)

    def _close_door(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _drain(self, host: Host) -> None:
        """Begin nothing new; let running steps finish and record them; leave the rest to the next holder."""
        host.closing = True
        working: list[Abandonable] = []
        left = set(host.resident.values())
        for activation in list(left):
            calls = (*activation.calls.values(), *activation.halted)
            working.extend(call for call in calls if isinstance(call, Abandonable))
            if activation.stopping in (None, "restart"):
                activation.halt("drain", [], lambda activation=activation: left.discard(activation))  # type: ignore[misc]
            # Others are about to be paused or ended, or undo something, and then leave memory by themselves.
        for timeout_s in (self._limits.drain_s, 1.0):
            with anyio.move_on_after(timeout_s):
                while left and host.committer.stopped is None:
                    await anyio.sleep(0.005)
                    left &= set(host.resident.values())
            if left:
                for call in working:
                    call.drain()
        released: list[Write] = []
        for activation in host.resident.values():
            if activation.status == "running":
                released.append(activation.state("waiting", wake_at=0.0))
            elif activation.status == "undoing":
                released.append(host.ending.released(activation))
        if released and host.committer.stopped is None:
            host.committer.submit(Commit(tuple(released)), lambda _: None)
        await host.committer.drain(within_s=self._limits.drain_s)
        for activation in list(host.resident.values()):
            host.remove(activation)
        if host.threads.abandoned:
            log.warning("%d threads of abandoned steps still run; the process may end only when they do", host.threads.abandoned)
        for waiters in (*host.results.values(), *host.replies.values()):
            for waiter in waiters:
                waiter.status = "stopped"
                waiter.signal.set()

    def _running(self) -> Host:
        if self._host is None or self._operators is None:
            raise OutsideTurn("a Runtime that was not entered (`async with Runtime(...)`)")
        return self._host

    # --- what a service does --------------------------------------------------------------------------------------------

    @property
    def operations(self) -> Operations:
        self._running()
        assert self._operators is not None
        return self._operators


def _registered(actors: Sequence[type[Actor]]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for cls in actors:
        if not (isinstance(cls, type) and issubclass(cls, Actor)):  # type: ignore[redundant-expr]
            raise BadDefinition(f"Runtime(actors=[...]) takes classes derived from Workflow, not {cls!r}.")
        kind = cls.__kind_info__()
        if kind.name in kinds:
            raise BadDefinition(f"two classes are called {kind.name!r}: give one of them another `kind=`.")
        kinds[kind.name] = kind
    return kinds
