"""`@checkpoint`: a method that is one milestone, recorded with the fields it changed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast, overload

from attrs import frozen

from actorflow.actor import Actor
from actorflow.codec import RecordCoder
from actorflow.errors import BadDefinition
from actorflow.kernel.branches import driver
from actorflow.kernel.requests import Asked, Checkpoint, Closing, State
from actorflow.records import Entry
from actorflow.steps import Step

P = ParamSpec("P")
T = TypeVar("T")


@frozen
class _Closed(Closing):
    """A checkpoint succeeded: its outcome and the fields that it changed."""

    checkpoint: _CheckpointCall
    payload: bytes
    dropped: tuple[Asked, ...]
    kind = "checkpoint"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.checkpoint.name

    @property
    def was(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.checkpoint.was

    def input(self) -> bytes:
        return self.checkpoint.input()

    def outcome(self) -> bytes:
        return self.payload

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        return self.checkpoint.answer(entry)


class _CheckpointCall(Checkpoint):
    """Durable code calls a checkpoint."""

    def __init__(self, declared: _Declared, instance: Actor, arguments: dict[str, Any], state: State | None) -> None:
        self.name, self.was, self.function = declared.step.name, declared.step.was, declared.step.fn
        self._declared, self._instance, self._state = declared, instance, state
        self._input = declared.step.coder.encode(arguments, f"argument of checkpoint {self.name}")

    def input(self) -> bytes:
        return self._input

    def same_input(self, recorded: bytes | None) -> bool:
        if recorded == self._input:
            return True
        coder_ = self._declared.step.coder
        what = f"recorded input of checkpoint {self.name}"
        return recorded is not None and coder_.decode(recorded, what) == coder_.decode(self._input, what)

    def run(self) -> Coroutine[Any, Any, Any]:
        arguments = self._declared.step.coder.decode(self._input, f"argument of checkpoint {self.name}")
        return cast("Coroutine[Any, Any, Any]", self._declared.step.call({**arguments, self._declared.receiver: self._instance}))

    def close(self, value: Any, changed: dict[str, bytes] | None, dropped: tuple[Asked, ...]) -> Closing:
        encoded = self._declared.step.outcome.encode(value, f"outcome of checkpoint {self.name}")
        payload = _closing.encode({_FIELDS: {name: part.decode() for name, part in (changed or {}).items()}}, "fields")
        return _Closed(self, b'{"value":' + encoded + b"," + payload[1:], dropped)

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        payload = entry.outcome or b"null"
        # The fields are written last and hold their encodings as text, where every quote is escaped: the last match is the
        # right one, and neither part is decoded by the other's types.
        at = payload.rindex(b',"~fields":')
        fields = _closing.decode(b"{" + payload[at + 1 :], f"fields of checkpoint {self.name}")[_FIELDS]
        if fields and self._state is not None:
            self._state.assign({name: part.encode() for name, part in fields.items()})
        value = self._declared.step.outcome.decode(payload[len(b'{"value":') : at], f"outcome of checkpoint {self.name}")
        return value, None


_FIELDS = "~fields"  #: no value of a user can have that name: it is the last key at the top
_closing = RecordCoder({_FIELDS: dict[str, str]})


class _Declared:
    """The declaration behind a checkpoint method."""

    def __init__(self, method: Callable[..., Any], name: str | None, was: tuple[str, ...]) -> None:
        qualname = name or method.__qualname__.rpartition("<locals>.")[2]
        if "/" in qualname or "#" in qualname:
            raise BadDefinition(f'a checkpoint cannot be named {qualname!r}: "/" and "#" are taken.')
        self.receiver = next(iter(inspect.signature(method).parameters), "self")
        self.step = Step(method, qualname, was=was, receiver=self.receiver)


@overload
def checkpoint(method: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[object, None, T]]: ...
@overload
def checkpoint(
    *, name: str | None = None, was: tuple[str, ...] = ()
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[object, None, T]]]: ...
def checkpoint(method: Callable[..., Any] | None = None, /, *, name: str | None = None, was: tuple[str, ...] = ()) -> Any:
    """A method that is one milestone: its outcome and the fields it changed are recorded together, and what it consisted
    of is folded away. On resume a finished one is not entered. One that raises records nothing and is entered again.
    """
    if method is None:
        return functools.partial(_checkpoint, name=name, was=was)
    return _checkpoint(method, name=name, was=was)


def _checkpoint(method: Callable[..., Any], *, name: str | None, was: tuple[str, ...]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(method):
        raise BadDefinition(f"@checkpoint {getattr(method, '__qualname__', method)} must be an `async def` method of a Workflow.")
    declared = _Declared(method, name, was)

    @functools.wraps(method)
    async def wrapper(self: Actor, *args: Any, **kwargs: Any) -> Any:
        state = driver(f"@checkpoint {declared.step.name}").state  # Not the turn: its own code must not keep it alive.
        arguments = declared.step.bind((self, *args), kwargs)
        arguments[declared.receiver] = None  # The instance is no input.
        return await _CheckpointCall(declared, self, arguments, state)

    return wrapper
