"""`Life`: one process under test, from its start to its orderly end or its death."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import anyio
from attrs import define, field

from actorflow.actor import Actor
from actorflow.clock import Chance, Clock
from actorflow.errors import StoreUnavailable
from actorflow.kind import Kind
from actorflow.operations import Operations
from actorflow.policies.limits import Limits
from actorflow.records import Address, Commit, Refusal, RunQuery
from actorflow.runtime.loops import Loop
from actorflow.runtime.performing import Stage
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore
from actorflow.supervisor import Supervisor
from actorflow.testing import words
from actorflow.testing.bodies import Around, Bodies, Body
from actorflow.testing.faults import Fault, FaultStore, PowerCut
from actorflow.testing.points import Lived
from actorflow.testing.scenario import Mortal, World

LATE = ("lost_ack", "unavailable", "delay")  #: faults after which the same process goes on, later


@define(eq=False)
class LifeStore(FaultStore):
    """A store with faults to come that knows what they hit."""

    batch: Sequence[Commit] = field(default=(), init=False)  #: the latest that it was given
    latest: str | None = field(default=None, init=False)  #: what was recorded last, in words

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        self.batch = batch
        answers = await super().commit(batch, fence=fence)
        self.latest = words.of_commit(batch)
        return answers


class _Traced:
    """A loop that lets somebody look at every stretch of durable code."""

    def __init__(self, loop: Loop, around: Around) -> None:
        self._loop, self._around = loop, around

    def hidden(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Drive durable code, as the loop does it."""
        turn = getattr(fn, "__self__", None)
        whose: Any = cast("Any", type)(getattr(turn, "instance", None))
        name = f"{whose.__name__}.run" if hasattr(whose, "run") else f"a handler of {whose.__name__}"
        return self._around(name, None, lambda: self._loop.hidden(fn, *args))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class _Runtime(Mortal):
    """One that a test drives."""

    def __init__(self, *, stage: Stage, **options: Any) -> None:
        super().__init__(**options)
        self._stage = stage

    def trace(self, around: Around) -> None:
        """Show every stretch of durable code."""
        host = self._running()
        host.loop = cast("Loop", _Traced(host.loop, around))

    def learn(self, kind: Kind) -> None:
        """Know a class more."""
        if kind.name not in self._kinds:
            self._resources.bind(kind.name, kind.cls.__qualname__, kind.resources)
            self._kinds[kind.name] = kind


class Life:
    """One process."""

    def __init__(
        self,
        *,
        number: int,
        world: World,
        bodies: Bodies,
        faults: Sequence[Fault],
        actors: Sequence[type[Actor]],
        resources: Sequence[object],
        tree: Sequence[Supervisor],
        limits: Limits,
        chance: Chance,
        clock: Clock,
        on_late: Callable[[], object],
        on_up: Callable[[], object],
    ) -> None:
        self.number: int = number
        self.up: bool = False
        self.events: list[str] = []  #: what was done to it, in words
        self.ended: anyio.Event = anyio.Event()
        self._world, self._bodies, self._on_late, self._on_up = world, bodies, on_late, on_up
        self._leaving = anyio.Event()
        self._scope = anyio.CancelScope()
        self._callers: set[anyio.CancelScope] = set()
        self._began_at = 0
        self._awaits = 0
        memory = MemoryStore(share=world.memory)
        self.store: LifeStore = LifeStore(cast("Store", memory), faults, on_fault=self._hit)
        world.store = self.store
        self._runtime = _Runtime(
            stage=bodies.stage(life=number, alive=lambda: not self.died, begins=self._begins),
            actors=actors,
            resources=resources,
            tree=tree,
            limits=limits,
            chance=chance,
            clock=clock,
            store=cast("Store", self.store),  # What only reads goes through its `__getattr__`.
        )

    @property
    def died(self) -> bool:
        """It did not end in order."""
        return self.store.dead

    @property
    def over(self) -> bool:
        """It takes nothing more."""
        return self.store.dead or self._leaving.is_set()

    @property
    def operations(self) -> Operations:
        """What can be done to it."""
        return self._runtime.operations

    async def standing(self) -> str:
        """What every run that goes on waits for: a line each."""
        page = await self.operations.runs(RunQuery())
        going_on = [info for info in page.runs if info.ended_at is None and (info.what == "run" or info.status != "idle")]
        lines = [await self.operations.why(Address(info.kind, info.key)) for info in going_on]
        return "\n".join(lines) or "No run is under way."

    def learn(self, kind: Kind) -> None:
        """Know a class more."""
        self._runtime.learn(kind)

    async def run(self) -> None:
        """From its start to its end.

        Raises:
            BaseException: It ended otherwise than it was told to.
        """
        self._began_at = self._world.ticks.count
        for fault in self.store.faults:
            if fault.mode == "await":
                self._world.ticks.arm(fault.at, self.kill)
        try:
            with self._scope:
                async with self._runtime:
                    if self._bodies.around is not None:
                        self._runtime.trace(self._bodies.around)
                    self.up = True
                    self._on_up()
                    await self._leaving.wait()
        except (PowerCut, Exception, BaseExceptionGroup) as error:
            if isinstance(error, StoreUnavailable) and not self.up:
                self.kill("so the service did not start, and was started again")
            if not self.store.dead:
                raise
        finally:
            self.leave()
            self._disconnect()

    @contextmanager
    def connected(self) -> Generator[None]:
        """A call to it: the block ends when the process does."""
        with anyio.CancelScope() as scope:
            self._callers.add(scope)
            try:
                yield
            finally:
                self._callers.discard(scope)

    def _disconnect(self) -> None:
        for caller in list(self._callers):
            caller.cancel()

    @property
    def lived(self) -> Lived:
        """How long it was, once it is over."""
        return Lived(self.store.batches, self._awaits)

    def leave(self) -> None:
        """End in order."""
        if not self._leaving.is_set():
            self._awaits = self._world.ticks.count - self._began_at
            self._leaving.set()

    def kill(self, why: str | None = None) -> None:
        """Die now: nothing reaches the store any more, and nothing goes on. *why* is in words; by default, what it was at."""
        if not self.store.dead:
            said = words.of_await(self._bodies.open, self._unrecorded(), self.store.latest) if why is None else why
            self.events += [said] if said else []
            self.store.cut()
            self._runtime.end_at_once()
            self._scope.cancel()
            self.leave()
            self._disconnect()

    def _unrecorded(self) -> list[Body]:
        ended = (body for body in reversed(self._bodies.began) if body.life == self.number and body.ended)
        latest = next(ended, None)
        return [] if latest is None or self._world.recorded(latest.key) else [latest]

    def _hit(self, fault: Fault) -> None:
        self.events.append(words.of_fault(fault.mode, self.store.batch))
        if fault.mode in LATE:
            self._on_late()

    def _begins(self, body: Body) -> None:
        if self._world.recorded(body.key):
            self._world.recorded_first.append(f"`{body.step.name}` ran again, although its outcome was recorded")
