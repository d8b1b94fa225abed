"""Handlers: the methods of an actor that its mailbox is read for, one for each type of message.

A handler is durable code: plain Python between its verbs, effects in steps. Its turn is one transaction: the state, the
acknowledgement of the message, what it sends, its timers and its reply become durable together, or not at all.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar, get_type_hints, overload

from attrs import define, field

from actorflow.clock import Duration, seconds
from actorflow.codec import Coder, coder
from actorflow.errors import BadDefinition
from actorflow.message import Message, reply_type

S = TypeVar("S")
M = TypeVar("M", bound=Message[Any])
R = TypeVar("R")

TIMEOUT_S = 30.0
"""How long a handler may take unless it says otherwise: the messages behind it wait."""


class HandlerMaker(Protocol):
    """What `handler(readonly=True)` returns."""

    def __call__(self, fn: Callable[[S, M], Coroutine[Any, Any, R]], /) -> Callable[[S, M], Coroutine[Any, Any, R]]: ...


class TypedHandlerMaker(Protocol[R]):
    """What `handler(Deposit)` returns: a checker compares the type of the reply."""

    def __call__(self, fn: Callable[[S, M], Coroutine[Any, Any, R]], /) -> Callable[[S, M], Coroutine[Any, Any, R]]: ...


@define(eq=False, repr=False)
class Handler:
    """A handler of a registered class."""

    name: str
    fn: Callable[[Any, Any], Coroutine[Any, Any, Any]]
    readonly: bool
    timeout_s: float
    _replies: dict[type[Any], Coder[Any]] = field(factory=dict[type[Any], Coder[Any]])

    def reply(self, message: type[Any]) -> Coder[Any]:
        """The coder of what it answers to a message of that type."""
        found = self._replies.get(message)
        if found is None:
            found = self._replies[message] = coder(reply_type(message))
        return found


@define(eq=False, repr=False)
class _Mark:
    """What the decorator leaves on a method."""

    message: type[Message[Any]] | None
    readonly: bool
    timeout_s: float


@overload
def handler(fn: Callable[[S, M], Coroutine[Any, Any, R]], /) -> Callable[[S, M], Coroutine[Any, Any, R]]: ...
@overload
def handler(message: type[Message[R]], /, *, readonly: bool = False, timeout: Duration = TIMEOUT_S) -> TypedHandlerMaker[R]: ...
@overload
def handler(*, readonly: bool = False, timeout: Duration = TIMEOUT_S) -> HandlerMaker: ...
def handler(given: Any = None, /, *, readonly: bool = False, timeout: Duration = TIMEOUT_S) -> Any:
    """Declare a method the handler of the messages that its parameter is annotated with (or that are named here).

    What it returns is the reply. It is durable when the asker sees it. The state is changed by `self.balance += 1`; what is
    sent by `tell` leaves when the turn is over. An `Abort` undoes the turn and is what the asker gets. Any other exception
    is tried again twice; then the message is a dead letter, and the actor restarts.

    Args:
        given: The message, if the parameter's annotation shall not say it: `@handler(Deposit)`.
        readonly: It only reads: it runs beside a turn that waits, from the last durable state, and calls no step.
        timeout: How long a turn may take, its steps and asks included.
    """
    message = _message(given)
    mark = _Mark(message, readonly, seconds(timeout))
    if given is None or message is not None:
        return functools.partial(_marked, mark=mark)
    if isinstance(given, type):
        raise BadDefinition(f"@handler({given.__qualname__}): that is no message; derive it from `Message`.")
    return _marked(given, mark)


def _message(given: Any) -> type[Message[Any]] | None:
    return given if isinstance(given, type) and issubclass(given, Message) else None  # pyright: ignore[reportUnknownVariableType]


def _marked(fn: Any, mark: _Mark) -> Any:
    name = getattr(fn, "__qualname__", repr(fn))
    if not inspect.iscoroutinefunction(fn):
        raise BadDefinition(f"@handler {name} must be an `async def` method; for reading without waiting there is @query.")
    parameters = list(inspect.signature(fn).parameters.values())
    if len(parameters) != 2 or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise BadDefinition(f"@handler {name} must take exactly (self, message): one message is handled at a time.")
    if mark.message is None and parameters[1].annotation is inspect.Parameter.empty:
        raise BadDefinition(
            f"@handler {name}: its parameter {parameters[1].name!r} has no annotation, so it is not known which messages it "
            f"handles. Write `{parameters[1].name}: Deposit`, or @handler(Deposit)."
        )
    fn.__actorflow_handler__ = mark
    return fn


def has_handlers(cls: type) -> list[str]:
    """Names of the handlers that the body of *cls* declares."""
    return [name for name, member in vars(cls).items() if hasattr(member, "__actorflow_handler__")]


def handlers_of(cls: type, localns: dict[str, Any] | None) -> dict[type[Message[Any]], Handler]:
    """The handlers of a class and its bases, by type of message.

    Raises:
        BadDefinition: Two handle one type, a type is no message, or a reply does not fit; says which and the remedy.
    """
    found: dict[type[Message[Any]], Handler] = {}
    for name, fn in inspect.getmembers(cls, inspect.isfunction):
        mark: _Mark | None = getattr(fn, "__actorflow_handler__", None)
        if mark is None:
            continue
        declared = Handler(name, fn, mark.readonly, mark.timeout_s)
        hints = _hints(cls, name, fn, localns)
        parameter = list(inspect.signature(fn).parameters)[1]
        for message in (mark.message,) if mark.message is not None else map(_message, _forms(hints.get(parameter))):
            where = f"@handler {cls.__qualname__}.{name}"
            if message is None:
                raise BadDefinition(f"{where}: what it takes is no message; derive its class from `Message`.")
            if message in found:
                raise BadDefinition(
                    f"{where}: {message.__qualname__} is handled by {cls.__qualname__}.{found[message].name} already. One type "
                    f"has one handler: merge them, or derive another message."
                )
            _check_reply(where, message, hints.get("return"))
            found[message] = declared
    return found


def _hints(cls: type, name: str, fn: Callable[..., Any], localns: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return get_type_hints(fn, localns=localns)
    except NameError as error:
        raise BadDefinition(
            f"@handler {cls.__qualname__}.{name}: its annotations cannot be read ({error}). Import the type where the class "
            f"is, or write @handler(Message)."
        ) from error


def _forms(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _forms(each)
    else:
        yield annotation


def _check_reply(where: str, message: type[Message[Any]], returns: Any) -> None:
    """Refuse a reply type that is plainly another than the message promises; generic forms are left to type checkers."""
    if returns is None:
        return  # Not annotated.
    promised = reply_type(message)
    promised = type(None) if promised is None else promised
    if returns == promised or Any in (promised, returns):
        return
    plain = isinstance(returns, type) and isinstance(promised, type)
    nothing = type(None) in (returns, promised) and type(None) not in (*typing.get_args(returns), *typing.get_args(promised))
    if nothing or (plain and not issubclass(returns, promised)):
        raise BadDefinition(
            f"{where} returns {getattr(returns, '__qualname__', returns)}, but {message.__qualname__} is answered by "
            f"{getattr(promised, '__qualname__', promised)}. Make them the same: `class {message.__name__}(Message[...])`."
        )
