"""`Runtime`: the durable part of a service, as one `async with` block."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from actorflow import records
from actorflow.actor import Actor, Kind
from actorflow.address import Address, Run
from actorflow.clock import Chance, Clock, Duration, SystemClock, seconds
from actorflow.errors import BadDefinition, OutsideTurn, StoreStopped
from actorflow.operations import OnConflict, Operations, Page
from actorflow.policies.limits import Limits, checked_key
from actorflow.records import Commit, RunQuery, Write
from actorflow.runtime.attempts import Attempt
from actorflow.runtime.host import Host
from actorflow.runtime.loops import current_loop
from actorflow.runtime.operators import Operators
from actorflow.stores import Durability, Store, open_store
from actorflow.workflow import Workflow

log = logging.getLogger("actorflow")

A = TypeVar("A", bound=Actor)
W = TypeVar("W", bound=Workflow[Any])


class Runtime:
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

    # --- life -----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise BadDefinition("a Runtime is entered once; make another one.")
        lease = await self._store.open(now=self._clock.wall(), standby=self._standby)
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
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
        except BaseException:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)
            await self._store.close()
            raise
        for serve in (host.committer.run, host.timers.run, host.deadlines.run, host.loading.run):
            group.start_soon(serve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._group is not None
        assert self._host is not None
        try:
            with anyio.CancelScope(shield=True):
                await self._drain(self._host)
            self._group.cancel_scope.cancel()
        finally:
            try:
                if not isinstance(error, anyio.get_cancelled_exc_class()):
                    # The body's own error passes as it is; the group would wrap it.
                    kind = error = traceback = None
                await self._group.__aexit__(kind, error, traceback)
            finally:
                with anyio.CancelScope(shield=True):
                    self._host.committer.stop(StoreStopped("the runtime has shut down"))
                    await self._store.close()

    async def _drain(self, host: Host) -> None:
        """Begin nothing new; let running steps finish and record them; leave the rest to the next holder."""
        host.closing = True
        attempts: list[Attempt] = []
        left = set(host.resident.values())
        for activation in list(left):
            attempts.extend(call for call in activation.calls.values() if isinstance(call, Attempt))
            if activation.stopping is None:
                activation.halt("drain", [], lambda activation=activation: left.discard(activation))  # type: ignore[misc]
            else:
                left.discard(activation)
        for timeout_s in (self._limits.drain_s, 1.0):
            with anyio.move_on_after(timeout_s):
                while left and host.committer.stopped is None:
                    await anyio.sleep(0.005)
            if left:
                for attempt in attempts:
                    attempt.drain()
        released: list[Write] = []
        for activation in host.resident.values():
            if activation.status == "running":
                released.append(activation.state("waiting", wake_at=0.0))
        if released and host.committer.stopped is None:
            host.committer.submit(Commit(tuple(released)), lambda _: None)
        await host.committer.drain(within_s=self._limits.drain_s)
        for activation in list(host.resident.values()):
            host.remove(activation)
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
        """All acts of clients and operators, by encoded values: what handles and sockets speak to."""
        self._running()
        assert self._operators is not None
        return self._operators

    async def start(
        self, workflow: W, *, key: str, on_conflict: OnConflict = "join", deadline: Duration | None = None
    ) -> Run[W]:
        """Accept a run; it is durable on return and will come to its end, whatever happens to this process.

        Args:
            workflow: An instance as a template: its fields are encoded now, and a fresh copy runs.
            key: Names the run, and makes this call repeatable.
            on_conflict: A used key with equal input: "join" returns that run, "reject" raises.
            deadline: Cancel it (and undo) when that time has passed, restarts included.

        Raises:
            KeyTaken: The key was used for another input.
            RunPruned: It was used for a run that is gone.
            UnknownKind, BadKey, NotEncodable, TooLarge: Refused at the door.
        """
        kind = type(workflow).__kind_info__()
        at = records.Address(kind.name, checked_key(key))
        deadline_s = None if deadline is None else seconds(deadline)
        fields = kind.encode(workflow)
        request = uuid.uuid4().hex if on_conflict == "reject" else ""
        await self.operations.start(at, input=fields, on_conflict=on_conflict, deadline_s=deadline_s, request=request)
        return Run(type(workflow), key, self.operations)

    def at(self, actor: type[A], key: str) -> Address[A]:
        """The actor of that class with that key."""
        return Address(actor, key, self.operations)

    def run(self, workflow: type[W], key: str) -> Run[W]:
        """The run of that class with that key; whether there is one is found out by the first verb."""
        return Run(workflow, key, self.operations)

    async def runs(self, query: RunQuery | None = None, /, **filters: Any) -> Page:
        """Runs that match, newest first, a page at a time: pass `before_id=page.next` for the next one.

        Filters: kind, status, reason, key_prefix, created_after, created_before, limit (up to 1,000).
        """
        return await self.operations.runs(query or RunQuery(**filters))

    async def counts(self) -> dict[str, int]:
        """How many runs there are in each status."""
        return await self.operations.counts()


def _registered(actors: Sequence[type[Actor]]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for cls in actors:
        if not issubclass(cls, Actor):
            raise BadDefinition(f"Runtime(actors=[...]) takes classes derived from Workflow, not {cls!r}.")
        kind = cls.__kind_info__()
        if kind.name in kinds:
            raise BadDefinition(f"two classes are called {kind.name!r}: give one of them another `kind=`.")
        kinds[kind.name] = kind
    return kinds
