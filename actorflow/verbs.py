"""What the verbs of durable code ask for: one request each, and how its entry becomes an answer."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any

from attrs import evolve, frozen

from actorflow.clock import moment
from actorflow.codec import coder
from actorflow.errors import Divergence
from actorflow.failures import decode_failure
from actorflow.kernel.requests import Request
from actorflow.message import Message, decode_message
from actorflow.policies.cursor import Progress, SetAside
from actorflow.records import Address, Entry
from actorflow.resources import injected
from actorflow.steps import Step, declaration

_progress = coder(Progress)
_text = coder(str)


def _failed(entry: Entry) -> Exception:
    return decode_failure(entry.outcome or b"null")


@frozen
class Sleep(Request):
    """Wait for a length of time, or until a moment."""

    for_s: float | None
    until: float | None = None
    kind = "sleep"
    name = "self.sleep"

    def input(self) -> bytes:
        return repr(self.for_s if self.until is None else self.until).encode()

    def due_at(self, now: float) -> float:
        return self.until if self.until is not None else now + (self.for_s or 0.0)

    def answer(self, entry: Entry) -> tuple[None, None]:
        return None, None


@frozen
class Receive(Request):
    """Take the oldest waiting message of some types."""

    types: tuple[type[Message[Any]], ...]
    where: Callable[[Any], bool] | None
    within_s: float | None
    kind = "receive"
    name = "self.receive"

    def same_input(self, recorded: bytes | None) -> bool:
        return True  # What was taken must fit what is asked for; the rest of the question may change.

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        if entry.outcome is None:
            if self.within_s is None:
                raise Divergence("receive without `within`", ["a receive that timed out"])
            return None, None
        message = decode_message(entry.ref or "", entry.outcome)
        if not isinstance(message, self.types):
            raise Divergence(f"receive of {', '.join(t.__qualname__ for t in self.types)}", [f"a {type(message).__qualname__}"])
        object.__setattr__(
            message, "__actorflow_id__", int((entry.input or b"0").partition(b" ")[0])
        )  # So that `reply` knows what it answers.
        return message, None


@frozen
class Tell(Request):
    """Put a message into a mailbox."""

    to: Address
    type: str
    body: bytes
    key: str | None
    after_s: float | None
    kind = "tell"
    name = "at.tell"

    def input(self) -> bytes:
        return b'{"to":' + _text.encode(str(self.to), "address") + b',"message":' + self.body + b"}"

    def answer(self, entry: Entry) -> tuple[None, Exception | None]:
        return None, None if entry.status == "ok" else _failed(entry)


@frozen
class Ask(Request):
    """Put a message into a mailbox and wait for the reply."""

    to: Address
    type: str
    body: bytes
    within_s: float
    returns: Any
    kind = "ask"
    name = "at.ask"

    def input(self) -> bytes:
        return b'{"to":' + _text.encode(str(self.to), "address") + b',"message":' + self.body + b"}"

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        if entry.status != "ok":
            return None, _failed(entry)
        return coder(self.returns).decode(entry.outcome or b"null", f"reply of {self.to}"), None


@frozen
class Start(Request):
    """Start a child."""

    to: Address
    fields: bytes
    detached: bool
    deadline_s: float | None
    ref: str | None
    handle: Any  #: what the code gets
    kind = "start"
    name = "self.start"

    def input(self) -> bytes:
        return b'{"run":' + _text.encode(str(self.to), "address") + b',"input":' + self.fields + b"}"

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        return (self.handle, None) if entry.status == "ok" else (None, _failed(entry))


@frozen
class ResultOf(Request):
    """Wait for the end of a child."""

    of: Address
    returns: Any
    kind = "result"
    name = "run.result"

    def input(self) -> bytes:
        return _text.encode(str(self.of), "address")

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        if entry.status != "ok":
            return None, _failed(entry)
        return coder(self.returns).decode(entry.outcome or b"null", f"result of {self.of}"), None


def callee(do: Callable[[Any], Any]) -> Step:
    """The declaration behind what a loop does with an item: a step, a step with its first arguments filled in, or a plain
    function.
    """
    if not isinstance(do, partial):
        return declaration(do) or Step(injected(do), str(getattr(do, "__qualname__", "item")))
    inner = declaration(do.func)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    if inner is None:
        return Step(do, str(getattr(do.func, "__qualname__", "item")))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return evolve(inner, fn=partial(inner.fn, *do.args, **do.keywords))


Source = Iterable[Any] | AsyncIterable[Any] | Callable[..., Iterable[Any] | AsyncIterable[Any]]


@frozen
class Each(Request):
    """A loop over many items, with a cursor."""

    items: Source
    do: Callable[[Any], Any]
    key: Callable[[Any], str | int]
    parallel: int
    batch: int
    flush_s: float
    on_error: SetAside | None
    total: int | None
    kind = "each"
    name = "self.each"

    def same_input(self, recorded: bytes | None) -> bool:
        return True

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        if entry.status != "ok":
            return None, _failed(entry)
        return _progress.decode(entry.outcome or b"null", "progress of a loop"), None


def as_datetime(at: bytes | None) -> datetime:
    """The recorded answer of `now()`."""
    return moment(float(at or b"0"))
