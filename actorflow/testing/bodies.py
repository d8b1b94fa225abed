"""The functions of steps, while they are tested: each run of one is counted, and may be replaced by a mock.

A runtime that has these for a stage performs every step on the event loop, so that virtual time knows what it does: an `async
def` as it is, a plain `def` in place, wherever it would run otherwise.
"""

from __future__ import annotations

import inspect
import sysconfig
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from pathlib import Path
from types import coroutine
from typing import Any, TypeGuard, cast

from attrs import define, field

from actorflow.attempt import current_step
from actorflow.errors import BadDefinition
from actorflow.steps import Step, declaration
from actorflow.testing.faults import PowerCut

NOTHING: Any = object()  #: no value was given


@define(eq=False)
class Body:
    """One run of a step's function."""

    step: Step
    key: str  #: its idempotency key
    attempt: int
    arguments: dict[str, Any]
    life: int  #: of which process, from 0
    ended: bool = False  #: it came to its end: returned, or raised
    coro: Any = None  #: what runs, if it is async

    def line(self) -> str | None:
        """Where it waits: the innermost line of it, or of what it calls, that is no library's."""
        found, coro = None, self.coro
        while coro is not None:
            frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None) or getattr(coro, "gi_frame", None)
            if frame is not None and is_users(frame.f_code.co_filename):
                found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
        return found


Around = Callable[[str, "Body | None", Callable[[], Any]], Any]
"""Calls the last of its arguments: a stretch of the step that a body runs, or (None) of durable code. The first says whose."""


@define(eq=False)
class Mock:
    """What stands for the function of a step."""

    returns: Any = NOTHING
    raises: Any = None
    side_effect: Any = None
    _left: Iterator[Any] | None = None
    _given: dict[tuple[str, int], Any] = field(factory=dict[tuple[str, int], Any])

    def __call__(self, body: Body) -> Any:
        """What it gives; an awaitable, if its side effect is an async function."""
        if self.raises is not None:
            raise self.raises
        if callable(self.side_effect):
            args, kwargs = body.step.split(body.arguments)
            given = self.side_effect(*args, **kwargs)
            return given if self.returns is NOTHING else self.returns
        if self.side_effect is not None:
            given = self._next(body)
            if _raisable(given):
                raise given
            return given
        return None if self.returns is NOTHING else self.returns

    def _next(self, body: Body) -> Any:
        """The next of several; an attempt that a crash cut short, and that is repeated, gets the one that it had."""
        call = (body.key, body.attempt)
        if call not in self._given:
            self._left = iter(cast("Iterable[Any]", self.side_effect)) if self._left is None else self._left
            try:
                self._given[call] = next(self._left)
            except StopIteration:
                raise AssertionError(
                    f"the mock of step {body.step.name} was given {len(self._given)} outcomes, and it runs once more"
                ) from None
        return self._given[call]


@define(eq=False)
class Bodies:
    """All that ran, in all lives, and what stands for what."""

    began: list[Body] = field(factory=list[Body])  #: in order
    open: list[Body] = field(factory=list[Body])  #: those that run now
    mocks: dict[Callable[..., Any], Mock] = field(factory=dict[Callable[..., Any], Mock])
    around: Around | None = None  #: every stretch of them passes through this, if it is there

    def of(self, step: Callable[..., Any]) -> list[Body]:
        """Those of that step, in order.

        Raises:
            BadDefinition: It is no step.
        """
        fn = function_of(step)
        return [body for body in self.began if body.step.fn is fn]

    def stage(self, *, life: int, alive: Callable[[], bool], begins: Callable[[Body], object]) -> OnStage:
        """Who performs the steps of one life of the process."""
        return OnStage(self, life, alive, begins)


@define(eq=False)
class OnStage:
    """A `Stage` of one life: when that is over no function goes on."""

    bodies: Bodies
    life: int
    alive: Callable[[], bool]
    begins: Callable[[Body], object]  #: told of each

    async def perform(self, step: Step, arguments: dict[str, Any]) -> Any:
        """Call the function of that step, or its mock, here."""
        if not self.alive():
            raise PowerCut("a dead process begins no step")
        info = current_step()
        body = Body(step, info.key, info.attempt, dict(arguments), self.life)
        self.bodies.began.append(body)
        self.bodies.open.append(body)
        try:
            self.begins(body)
            mock = self.bodies.mocks.get(step.fn)
            given = self._stretch(body, lambda: step.call(arguments) if mock is None else mock(body))
            if inspect.iscoroutine(given):
                body.coro = given
                given = await self._driven(body, given)
            elif inspect.isawaitable(given):
                given = await given
        except BaseException:
            body.ended = self.alive()
            raise
        else:
            body.ended = True
            return given
        finally:
            self.bodies.open.remove(body)

    def _stretch(self, body: Body, go_on: Callable[[], Any]) -> Any:
        around = self.bodies.around
        return go_on() if around is None else around(body.step.name, body, go_on)

    @coroutine
    def _driven(self, body: Body, coro: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await it, but let it not go on in a process that has died meanwhile."""
        resume: Callable[[Any], Any] = coro.send
        value: Any = None
        while True:
            if resume == coro.send and not self.alive():
                resume, value = coro.throw, PowerCut("a dead process does not go on")
            try:
                wanted = self._stretch(body, lambda resume=resume, value=value: resume(value))  # type: ignore[misc]
            except StopIteration as stop:
                return stop.value
            try:
                value = yield wanted
                resume = coro.send
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as thrown:  # noqa: BLE001  (the loop's cancellation goes into the step)
                resume, value = coro.throw, thrown


def _raisable(given: Any) -> TypeGuard[BaseException]:
    cls: Any = given if isinstance(given, type) else type(given)
    return issubclass(cls, BaseException)


LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
HERE = str(Path(__file__).parent.parent)


def is_users(path: str) -> bool:
    """True if that file is neither of Python, of an installed package, nor of actorflow."""
    return not path.startswith((*LIBRARIES, HERE, "<"))


def function_of(step: Any) -> Callable[..., Any]:
    """The function behind a step; a plain function, as `each` and `undo` take them, is its own.

    Raises:
        BadDefinition: It is neither.
    """
    declared = declaration(step)
    if declared is not None:
        return declared.fn
    if not inspect.isfunction(step) or hasattr(step, "__actorflow_query__"):
        raise BadDefinition(f"{step!r:.80} is no step: name a function that is decorated with @step.")
    return cast("Callable[..., Any]", step)
