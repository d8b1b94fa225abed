"""Workflows: actors with a `run()` of their own, and the verbs that durable code is written with."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Generator, Iterable
from datetime import UTC, datetime
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypeVar, cast, final, overload
from uuid import UUID

from attrs import frozen

from actorflow import records
from actorflow.actor import Actor
from actorflow.address import Run
from actorflow.clock import Duration, seconds
from actorflow.codec import coder
from actorflow.errors import BadDefinition, BadDuration, UnknownMessage
from actorflow.kernel.branches import Branch as Line
from actorflow.kernel.branches import driver
from actorflow.kernel.requests import Gather, Join
from actorflow.message import Message, reply_type
from actorflow.policies.cursor import Progress, SetAside
from actorflow.steps import Step, find_step
from actorflow.value import Value
from actorflow.verbs import Each, Receive, Sleep, Start, as_datetime, callee

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
W = TypeVar("W", bound="Workflow[Any]")
P = ParamSpec("P")
M1 = TypeVar("M1", bound=Message[Any])
M2 = TypeVar("M2", bound=Message[Any])
M3 = TypeVar("M3", bound=Message[Any])
M4 = TypeVar("M4", bound=Message[Any])


class Branch(Generic[T]):
    """A line of durable code that runs beside the one that started it; `await` joins it."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __await__(self) -> Generator[Any, Any, T]:
        driver("await branch")
        return (yield Join(self._line))  # type: ignore[no-any-return]


@frozen
class Answered(Value):
    """Effect of `reply`: the message with that number is answered in the next commit."""

    message: int
    value: bytes


class Workflow(Actor, Generic[R_co]):
    """A job as a class: fields are its input and its state, `run()` is its code.

    On resume `run()` starts again from the top with the fields it was started with; what is finished returns its recorded
    outcome. So durable code is plain Python between its verbs, and all that touches the world is a step.
    """

    async def run(self) -> R_co:
        """The code. Returning ends the run as completed; `raise Abort(...)` ends it as failed, undoing its steps."""
        raise NotImplementedError

    # --- waiting --------------------------------------------------------------------------------------------------------

    @overload
    async def receive(self, a: type[M1], /, *, where: Callable[[M1], bool] | None = None) -> M1: ...
    @overload
    async def receive(self, a: type[M1], /, *, where: Callable[[M1], bool] | None = None, within: Duration) -> M1 | None: ...
    @overload
    async def receive(self, a: type[M1], b: type[M2], /, *, where: Callable[[M1 | M2], bool] | None = None) -> M1 | M2: ...
    @overload
    async def receive(
        self, a: type[M1], b: type[M2], /, *, where: Callable[[M1 | M2], bool] | None = None, within: Duration
    ) -> M1 | M2 | None: ...
    @overload
    async def receive(
        self, a: type[M1], b: type[M2], c: type[M3], /, *, where: Callable[[M1 | M2 | M3], bool] | None = None
    ) -> M1 | M2 | M3: ...
    @overload
    async def receive(
        self, a: type[M1], b: type[M2], c: type[M3], /, *, where: Callable[[M1 | M2 | M3], bool] | None = None, within: Duration
    ) -> M1 | M2 | M3 | None: ...
    @overload
    async def receive(
        self,
        a: type[M1],
        b: type[M2],
        c: type[M3],
        d: type[M4],
        /,
        *,
        where: Callable[[M1 | M2 | M3 | M4], bool] | None = None,
    ) -> M1 | M2 | M3 | M4: ...
    @overload
    async def receive(
        self,
        a: type[M1],
        b: type[M2],
        c: type[M3],
        d: type[M4],
        /,
        *,
        where: Callable[[M1 | M2 | M3 | M4], bool] | None = None,
        within: Duration,
    ) -> M1 | M2 | M3 | M4 | None: ...
    @final
    async def receive(
        self, *types: type[Message[Any]], where: Callable[[Any], bool] | None = None, within: Duration | None = None
    ) -> Any:
        """Take the oldest waiting message of one of the types for which *where* is true; others stay where they are.

        A message that came before is taken at once. With *within*, None if none came in that time: recorded, and final. A
        message that is there beats the clock. `where` must be pure: it is not called on replay.
        """
        driver("self.receive")
        for of in types:
            if not issubclass(of, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  # Not everybody checks types.
                raise UnknownMessage(f"receive takes classes derived from Message, not {of!r}.")
        return await Receive(types, where, None if within is None else seconds(within))

    @final
    async def sleep(self, for_: Duration) -> None:
        """Wait; it costs a row, not memory, and survives restarts."""
        driver("self.sleep")
        await Sleep(seconds(for_))

    @final
    async def sleep_until(self, when: datetime) -> None:
        """Wait until a moment; one that has passed is no wait.

        Raises:
            BadDuration: *when* has no time zone, or is over 100 years away.
        """
        now = driver("self.sleep_until").now()
        if when.tzinfo is None:
            raise BadDuration(when, "it has no time zone; write datetime(..., tzinfo=UTC)")
        until = when.astimezone(UTC).timestamp()
        if until > now:
            seconds(until - now)
        await Sleep(None, until)

    # --- time and chance ------------------------------------------------------------------------------------------------

    @final
    def now(self) -> datetime:
        """The moment, as it was when this was first asked."""
        turn = driver("self.now")
        return as_datetime(turn.spot("now", "self.now", lambda: repr(turn.now()).encode()))

    @final
    def random(self) -> float:
        """A number in [0, 1): the same on every replay."""
        return int.from_bytes(self._chance("self.random")[:7], "big") / (1 << 56)

    @final
    def uuid(self) -> UUID:
        """A version 4 UUID: the same on every replay."""
        return UUID(bytes=self._chance("self.uuid")[:16], version=4)

    def _chance(self, verb: str) -> bytes:
        from hashlib import blake2b  # noqa: PLC0415  (it loads OpenSSL, and most runs throw no dice)

        turn = driver(verb)
        identity = turn.branch.next(verb)
        seed = f"{turn.seed}/{identity}"
        return blake2b(seed.encode(), digest_size=16).digest()

    @final
    def patched(self, flag: str) -> bool:
        """False if this round began with code that did not know *flag*, else True: one answer a round, for all branches.

        Write `if self.patched("vat-2027"): new() else: old()` to change the path of jobs that are already running.
        """
        return driver("self.patched").patched(flag)

    @final
    def again(self) -> NoReturn:
        """Start over from the top, with the fields as they are now and nothing to replay: `return self.again()`."""
        driver("self.again").again()
        raise AssertionError  # pragma: no cover  (`again` always raises)

    # --- branches and children ------------------------------------------------------------------------------------------

    @final
    def task(self, call: Awaitable[T], /, *, key: str | None = None) -> Branch[T]:
        """Start a branch that outlives this line; `await` it to join. Open branches are cancelled when the run ends."""
        return Branch(driver("self.task").task(_coroutine(call), key))

    @final
    async def start(
        self,
        child: W,
        *,
        key: str,
        detached: bool = False,
        undo: Callable[..., Any] | None = None,
        deadline: Duration | None = None,
    ) -> Run[W]:
        """Start a child run; `await (await self.start(...)).result()` waits for it.

        It ends with its parent unless *detached*. A failure is raised at `result()` as `ChildFailed`. *undo* is a step that
        is called with the child's key when this run is undone.
        """
        driver("self.start")
        kind = type(child).__kind_info__()
        ref = None
        if undo is not None:
            declared = getattr(undo, "__actorflow_step__", None)
            if not isinstance(declared, Step):
                raise BadDefinition("undo= of self.start takes a @step with one parameter, the child's key.")
            ref = declared.ref
            assert find_step(ref) is not None
        handle = Run(type(child), key)
        at = records.Address(kind.name, handle.key)
        await Start(at, kind.encode(child), detached, None if deadline is None else seconds(deadline), ref, handle)
        return handle

    @final
    def reply(self, message: Message[T], value: T) -> None:
        """Answer a received message; the answer leaves with the next commit.

        Raises:
            BadDefinition: It was answered before, or was not received by this run.
        """
        turn = driver("self.reply")
        number = getattr(message, "__actorflow_id__", None)
        if number is None:
            raise BadDefinition("self.reply answers a message that this run received.")
        if getattr(message, "__actorflow_replied__", False):
            raise BadDefinition(f"this {type(message).__qualname__} was answered before.")
        object.__setattr__(message, "__actorflow_replied__", True)
        payload = coder(reply_type(type(message))).encode(value, f"reply to {type(message).__qualname__}")
        turn.spot("reply", "self.reply", lambda: payload, Answered(number, payload))

    # --- loops ----------------------------------------------------------------------------------------------------------

    @final
    async def each(
        self,
        items: Iterable[T] | AsyncIterable[T] | Callable[..., Iterable[T] | AsyncIterable[T]],
        do: Callable[[T], object],
        /,
        *,
        key: Callable[[T], str | int],
        parallel: int = 1,
        batch: int = 500,
        flush: Duration = "1s",
        on_error: SetAside | None = None,
        total: int | None = None,
    ) -> Progress:
        """Do something with every item, at least once, with a cursor that survives a crash.

        Args:
            items: A callable that gives the items (or a generator not yet begun): the same ones in the same order each
                time. It is iterated outside of `run`, a sync one in a thread. With a parameter `after` it is called with
                the key of the last finished item, or None.
            do: A step or plain function of one item; its result is not kept.
            key: Names the item. Its idempotency key (`current_step().key`) ends with `<index>:<key>`.
            parallel: How many items are in work at a time.
            batch, flush: The cursor is written after so many items or so much time: what a crash may repeat.
            on_error: How many bad items may be set aside; without it the first one pauses the run.
            total: How many there are, if known: gives an ETA. A sized source says so itself.
        """
        driver("self.each")
        if parallel < 1 or batch < 1:
            raise BadDefinition(f"each: parallel ({parallel}) and batch ({batch}) are at least 1.")
        step = callee(do)
        if step.on_interrupt != "retry":
            raise BadDefinition(f"each: a crash repeats items, but step {step.name} has on_interrupt={step.on_interrupt!r}.")
        return cast("Progress", await Each(items, do, key, parallel, batch, seconds(flush), on_error, total))


def _coroutine(call: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    if inspect.iscoroutine(call):
        return call

    async def awaiting() -> Any:
        return await call

    return awaiting()


B1 = TypeVar("B1")
B2 = TypeVar("B2")
B3 = TypeVar("B3")
B4 = TypeVar("B4")
B5 = TypeVar("B5")
B6 = TypeVar("B6")


@overload
async def gather(a: Awaitable[B1], /) -> tuple[B1]: ...
@overload
async def gather(a: Awaitable[B1], b: Awaitable[B2], /) -> tuple[B1, B2]: ...
@overload
async def gather(a: Awaitable[B1], b: Awaitable[B2], c: Awaitable[B3], /) -> tuple[B1, B2, B3]: ...
@overload
async def gather(a: Awaitable[B1], b: Awaitable[B2], c: Awaitable[B3], d: Awaitable[B4], /) -> tuple[B1, B2, B3, B4]: ...
@overload
async def gather(
    a: Awaitable[B1], b: Awaitable[B2], c: Awaitable[B3], d: Awaitable[B4], e: Awaitable[B5], /
) -> tuple[B1, B2, B3, B4, B5]: ...
@overload
async def gather(
    a: Awaitable[B1], b: Awaitable[B2], c: Awaitable[B3], d: Awaitable[B4], e: Awaitable[B5], f: Awaitable[B6], /
) -> tuple[B1, B2, B3, B4, B5, B6]: ...
@overload
async def gather(branches: Iterable[Awaitable[T]], /) -> list[T]: ...
@overload
async def gather(branches: Iterable[Awaitable[T]], /, *, settle: Literal[True]) -> list[T | Exception]: ...
async def gather(*branches: Any, settle: bool = False) -> Any:
    """Run several calls at a time, each in a branch of its own; their values in the order of the arguments.

    The first failure (in journal order) cancels the others, waits for them, and is raised. With `settle=True` all are
    waited for, and a failure takes the place of its value.
    """
    driver("gather")
    several = len(branches) != 1 or hasattr(branches[0], "__await__")
    calls = branches if several else tuple(branches[0])
    if not all(hasattr(call, "__await__") for call in calls):
        raise BadDefinition("gather takes calls of steps, checkpoints or verbs (without `await`), or one iterable of them.")
    values = await Gather(tuple(_coroutine(call) for call in calls), settle)
    return values if several else list(values)
