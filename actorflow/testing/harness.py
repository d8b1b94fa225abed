"""`Harness`: a service under test, over a store in memory and in virtual time, whose process can die and come back.

It has the verbs of a runtime, and hands them to the process that lives now. What it hands out outlives crashes: a verb that is
under way when the process dies is repeated in the next life with the same key, as a good client does. What a test gives it
(resources, mocks) stands for the world outside, and outlives crashes, too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, Self, TypeVar

import anyio
from anyio.abc import TaskGroup
from attrs import evolve

from actorflow.actor import Actor
from actorflow.clock import Chance, Duration, seconds
from actorflow.errors import BadDefinition, InvalidState, RunEnded, RunPruned, StoreError, StoreUnavailable
from actorflow.operations import Operations
from actorflow.policies.limits import Limits
from actorflow.runtime.front import Front
from actorflow.runtime.wire import Act, Calls
from actorflow.supervisor import Supervisor
from actorflow.testing.bodies import NOTHING, Bodies, Mock, function_of
from actorflow.testing.clock import Backend, LoopClock, Ticks, run_virtual
from actorflow.testing.faults import PowerCut
from actorflow.testing.life import Life
from actorflow.testing.moments import Elsewhen, in_prose
from actorflow.testing.points import CALM, Schedule
from actorflow.testing.scenario import World

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("actorflow")
LIVES_MAX = 40  #: of one test: more is a process that comes to nothing
PATIENCE_S = 2 * 366 * 86_400.0
"""How long a verb may wait, in virtual time, before the test is told what it waits for: two years."""

REPEAT_S = 0.1  #: before a store that took nothing is asked again
SETTLE_S = 1e-5  #: all that is ready at a moment goes before what comes so much later
SLACK_S = 3.0  #: how much longer `skip` takes for each fault, so that those who were late by it are through

DONE_BEFORE = (InvalidState, RunEnded, RunPruned)
"""What says to a repeated `retry`, `skip`, `decide`, `prune` or `reset` that the first one was done."""


class Stuck(AssertionError):
    """The test waits for what never comes; says what everybody waits for."""


class Harness(Front):
    """What the fixture `actorflow` gives: a service, its crashes, its time, and what its steps did.

    Use it inside the test that asks for it. Every verb of a `Runtime` is here (`start`, `at`, `run`, `runs`, ...), and the
    process begins with the first one.
    """

    def __init__(self) -> None:
        """One whose process never dies by itself."""
        self.world: World = World()
        self.world.memory._memory.store_id = "test"  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # The same each time.
        self.bodies: Bodies = Bodies()
        self.redeployed: bool = False  #: a class took the place of another one
        self.lives: list[Life] = []
        self.answers: list[tuple[str, str]] = []  #: what the test was told: (which call, the value or the error)
        self.at_once: set[str] = set()  #: calls of which several were under way: who is first is nobody's promise
        self._under_way: Counter[str] = Counter()
        self.on_end: Callable[[Life], Awaitable[object]] | None = None  #: awaited when a life has ended, before the next begins
        self.classes: list[type[Actor]] = []  #: of its actors and workflows
        self.resources: list[object] = []
        self._tree: list[Supervisor] = []
        self._limits = Limits()
        self._schedule = CALM
        self._probe = False
        self._chance = Chance(7)
        self._calls: Operations = Calls.on(self._call)
        self._group: TaskGroup | None = None
        self._changed: anyio.Event  #: made in the loop
        self._began = False
        self._closing = False
        self._late = 0  #: faults that made somebody late, and that `skip` has not made up for
        self._keys = 0
        self._downtime_s = 0.0
        self._test: Awaitable[object] | None = None

    def begin(self, schedule: Schedule, ticks: Ticks, *, probe: bool = False) -> None:
        """What is to happen to it: said before the test begins, by who runs it.

        Args:
            schedule: The faults of its lives.
            ticks: Of the loop that it will run on.
            probe: Whether it is another time, with other dice.
        """
        self._schedule, self.world.ticks, self._probe = schedule, ticks, probe
        self._chance = Chance(8 if probe else 7)

    # --- what is under test ---------------------------------------------------------------------------------------------

    def use(
        self,
        *actors: type[Actor],
        resources: Sequence[object] = (),
        tree: Sequence[Supervisor] = (),
        limits: Limits | None = None,
    ) -> Self:
        """Say what the service is made of: what a `Runtime` is given. May be called again, for more.

        Classes that the test itself starts or writes to need not be named. A class whose kind is in use takes its place in the
        next life: `use(NewCheckout)` and then `restart()` is a deploy.
        """
        for actor in actors:
            self._met(actor)
        self.resources += resources
        self._tree += tree
        self._limits = limits or self._limits
        return self

    def _met(self, actor: type[Actor]) -> None:
        given: Any = actor
        if not (isinstance(given, type) and issubclass(given, Actor)):
            raise BadDefinition(f"use takes classes derived from Actor or Workflow, not {actor!r:.80}.")
        if actor in self.classes:
            return
        kind = actor.__kind_info__()
        others = [other for other in self.classes if other.__kind_info__().name != kind.name]
        self.redeployed = self.redeployed or len(others) < len(self.classes)
        self.classes = [*others, actor]
        if self.lives and not self.lives[-1].over:
            self.lives[-1].learn(kind)

    def mock(
        self,
        step: Callable[P, Awaitable[T]],
        *,
        returns: T = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        side_effect: Callable[P, Any] | Iterable[Any] | None = None,
    ) -> None:
        """Replace what a step does, for this test. It is recorded, retried, timed out and undone as the real one.

        Args:
            step: The step; also one that is an `undo`, or the plain function of an `each`.
            returns: What it gives.
            raises: What it raises, at every attempt.
            side_effect: A function (async or not) that is called with its arguments, and gives its value unless *returns*
                does; or several outcomes, one for each attempt, of which exceptions are raised.

        Raises:
            BadDefinition: It is no step.
        """
        self.bodies.mocks[function_of(step)] = Mock(returns, raises, side_effect)

    # --- what happens to it ---------------------------------------------------------------------------------------------

    async def skip(self, duration: Duration) -> None:
        """Let time pass: "3d" or "3 days", 1.5 (seconds), a `timedelta`.

        What is due meanwhile is done, and on return so is what becomes ready in the last moment, as far as it goes at once.

        Raises:
            BadDuration: It is none.
        """
        length_s = seconds(in_prose(duration))
        await self._alive()
        await anyio.sleep(length_s + SETTLE_S)
        while self._late:
            late, self._late = self._late, 0
            await anyio.sleep(SLACK_S * late)

    async def crash(self, *, downtime: Duration = 0) -> None:
        """The process dies, as by SIGKILL; on return the next one is up, over what was durable.

        Args:
            downtime: How long nobody runs.
        """
        life = await self._alive()
        self._downtime_s = seconds(downtime)
        life.kill("the test killed the process")
        await life.ended.wait()
        await self._alive()

    async def restart(self, *, downtime: Duration = 0) -> None:
        """The process ends in order, as for a deploy, and the next one begins, with what `use` said meanwhile."""
        life = await self._alive()
        self._downtime_s = seconds(downtime)
        life.leave()
        await life.ended.wait()
        await self._alive()

    @property
    def crashes(self) -> int:
        """How often the process died so far."""
        return self.world.crashes

    # --- what its steps did -----------------------------------------------------------------------------------------------

    def calls(self, step: Callable[..., Any]) -> int:
        """How often that step's function (or its mock) was called, in all lives, retries and repetitions after a crash counted.

        Raises:
            BadDefinition: It is no step.
        """
        return len(self.bodies.of(step))

    def arguments(self, step: Callable[..., Any]) -> list[dict[str, Any]]:
        """With what arguments it was called, by their names, in order."""
        return [body.arguments for body in self.bodies.of(step)]

    # --- verbs ------------------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> Operations:
        """All acts of clients and operators, done by the process that lives when they are done."""
        return self._calls

    async def _call(self, act: Act, values: dict[str, Any]) -> Any:
        if act.name in ("tell", "ask") and values.get("key") is None and self._durable(values["to"].kind):
            self._keys += 1
            values["key"] = f"{act.name}-{self._keys}"
        with anyio.move_on_after(PATIENCE_S), self._listening(act, values) as told:
            try:
                value = await self._until_done(act, values)
            except Exception as error:
                told(f"{type(error).__qualname__}: {error}")
                raise
            told(value.decode() if isinstance(value, bytes) else repr(value))
            return value
        raise Stuck(f"{act.name} has waited two years for an answer, in virtual time. {await self._standing()}")

    @contextmanager
    def _listening(self, act: Act, values: dict[str, Any]) -> Generator[Callable[[str], object]]:
        """Note what the test is told."""
        if act.name not in ("result", "ask"):
            yield lambda _: None
            return
        call = f"{act.name} of {values['to']}"
        self._under_way[call] += 1
        if act.name == "ask" and self._under_way[call] > 1:
            self.at_once.add(call)
        try:
            yield lambda said: self.answers.append((call, said))
        finally:
            self._under_way[call] -= 1

    def _durable(self, kind: str) -> bool:
        return all(actor.__kind_info__().durable for actor in self.classes if actor.__kind_info__().name == kind)

    async def _until_done(self, act: Act, values: dict[str, Any]) -> Any:
        repeated = False
        until = anyio.current_time() + values.get("within_s", 0.0)
        while True:
            life = await self._alive()
            if repeated and "within_s" in values:
                values = {**values, "within_s": max(0.0, until - anyio.current_time())}
            try:
                with life.connected():
                    value = await getattr(life.operations, act.name)(**values)
                    if not life.over:
                        return value  # A process that is dead tells nobody anything.
            except StoreUnavailable:
                await anyio.sleep(REPEAT_S)
            except DONE_BEFORE:
                if not repeated or act.name not in ("retry", "skip", "decide", "prune", "reset"):
                    raise
                return None
            except (Exception, PowerCut) as error:
                if not life.over:
                    raise
                if not isinstance(error, (StoreError, PowerCut)):
                    raise
            repeated = True

    async def _standing(self) -> str:
        return await self.lives[-1].standing() if self.lives else "Nothing was started."

    # --- lives ------------------------------------------------------------------------------------------------------------

    async def _alive(self) -> Life:
        """The process that lives; the first one begins here."""
        if self._group is None:
            raise BadDefinition("the fixture `actorflow` lives inside its test: use it in the `async def` that asks for it.")
        if not self._began:
            self._began = True
            self._group.start_soon(self._keep_alive)
        while not self.lives or self.lives[-1].over or not self.lives[-1].up:
            await self._changed.wait()
        return self.lives[-1]

    def _change(self) -> None:
        """Another process is up, or has ended."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _keep_alive(self) -> None:
        """Run one process after the other, as a service manager does."""
        while not self._closing and len(self.lives) < LIVES_MAX:
            life = self._new_life()
            self.lives.append(life)
            await life.run()
            if life.died:
                self.world.crashes += 1
                self._is_late()
            if self.on_end is not None:
                await self.on_end(life)
            life.ended.set()
            downtime_s, self._downtime_s = self._downtime_s, 0.0
            await anyio.sleep(downtime_s)
        if not self._closing:
            raise Stuck(f"the process has died {LIVES_MAX} times: the service comes to nothing. {await self._standing()}")

    def _new_life(self) -> Life:
        number = len(self.lives)
        clock = LoopClock()
        return Life(
            number=number,
            world=self.world,
            bodies=self.bodies,
            faults=next(iter(self._schedule[number:]), ()),
            actors=list(self.classes),
            resources=self.resources,
            tree=self._tree,
            limits=evolve(self._limits, crashes_max=self._limits.crashes_max + len(self._schedule)),
            chance=self._chance,
            clock=Elsewhen(clock) if self._probe else clock,
            on_late=self._is_late,
            on_up=self._change,
        )

    def _is_late(self) -> None:
        self._late += 1

    def kill(self, why: str) -> None:
        """The process that lives dies now; nothing if none does."""
        if self.lives and not self.lives[-1].over:
            self.lives[-1].kill(why)

    def play(self, test: Callable[[Self], Awaitable[object]], *, backend: Backend = "asyncio") -> None:
        """Run an async function of this harness in virtual time: where there is no fixture, as in a test with `@given`.

        Raises:
            BaseException: What it raised.
        """
        run_virtual(lambda: self.around(lambda: test(self)), backend=backend)

    def variables(self) -> dict[str, Any]:
        """The variables of the test, while it is under way."""
        frame = getattr(self._test, "cr_frame", None)
        return {} if frame is None else dict(frame.f_locals)

    async def around(self, test: Callable[[], Awaitable[object]]) -> None:
        """Run a test, and end the process behind it.

        Raises:
            BaseException: What the test raised, or what ended the process otherwise than by a planned death.
        """
        error: BaseException | None = None
        _log.addFilter(self._worth_logging)
        try:
            async with anyio.create_task_group() as group:
                self._group, self._changed = group, anyio.Event()
                try:
                    self._test = test()
                    await self._test
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as raised:  # noqa: BLE001  (raised below, where no group wraps it)
                    error = raised
                await self._end(in_order=error is None)
                group.cancel_scope.cancel()
        except BaseExceptionGroup as several:
            if len(several.exceptions) > 1:
                raise
            error = next(iter(several.exceptions))
        finally:
            self._group = None
            _log.removeFilter(self._worth_logging)
        if error is not None:
            raise error

    def _worth_logging(self, _: logging.LogRecord) -> bool:
        """A process that was killed logs nothing."""
        return not self.lives or not self.lives[-1].died

    async def _end(self, *, in_order: bool) -> None:
        """The last process ends."""
        if self._began:
            life = await self._alive()
            self._closing = True
            life.leave() if in_order else life.kill("")
            await life.ended.wait()
