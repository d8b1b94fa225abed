"""What travels between the holder of a store and its clients: lines, and one table of calls for both sides.

A frame is a line, `number word body`, whose body is JSON (which never holds a line feed). A client numbers its calls from 1
and asks `7 status {"to":{"kind":"Checkout","key":"o1"}}`; the answers come in any order:

    7 ok <value>         what the call returned
    7 failed <failure>   what it raised
    7 paused <report>    it raised `RunPaused` (whose report is a value of its own)
    7 leaving null       nothing was done: the holder is on its way out, ask the next one once this connection is closed

`7 forget null` says that nobody waits for 7 any more. Frames with the number 0 are about the connection: the client opens with
`0 hello`, the holder answers so, or says `0 failed` as its last words.

The words of calls are the methods of `Operations`, and how their arguments and values are written follows from its signatures.
Payloads are JSON already, so they travel as text.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast, get_type_hints

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream
from attrs import frozen

from actorflow.codec import Coder, RecordCoder, coder
from actorflow.errors import ActorPaused, NotEncodable, RunPaused
from actorflow.failures import decode_failure, encode_failure
from actorflow.operations import Operations
from actorflow.policies.failure import FailureReport
from actorflow.policies.limits import checked_key
from actorflow.records import Address
from actorflow.value import Value

VERSION = 1

FORGET = "forget"  #: the one word of a client, but hello, that is no operation

ANSWER_BYTES_MAX = 64 << 20
"""One answer. A page of a thousand runs with long reports has some megabytes; what is over this is no page for a person."""

CHUNK_BYTES = 1 << 18  #: sent at a time: many small frames, or one large one

_NUMBER_DIGITS_MAX = 18


def frame_bytes_max(payload_bytes_max: int) -> int:
    """How long a client's frame may be: one payload as text (quoting may double it), and what stands around it."""
    return 2 * payload_bytes_max + 65_536


# --- the table ----------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Act(Value):
    """One method of `Operations`, as it is written on the wire."""

    name: str
    order: tuple[str, ...]  #: of its arguments, for those given by position
    payloads: frozenset[str]  #: arguments that are bytes
    arguments: RecordCoder
    value: Coder[Any]
    value_is_payload: bool

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a call by name."""
        return dict(zip(self.order, args, strict=False)) | dict(kwargs)

    def ask(self, values: Mapping[str, Any]) -> bytes:
        """The body of a call.

        Raises:
            NotEncodable: An argument has not the type that the protocol says.
        """
        texts = {name: _text(values[name], f"{name} of {self.name}") for name in self.payloads & values.keys()}
        return self.arguments.encode({**values, **texts}, f"arguments of {self.name}")

    def asked(self, body: bytes) -> dict[str, Any]:
        """The arguments in the body of a call.

        Raises:
            Undecodable: They are not what the protocol says.
            BadKey: A key cannot be one.
        """
        values = self.arguments.decode(body, f"arguments of {self.name}")
        for name, value in values.items():
            if name in self.payloads and value is not None:
                values[name] = value.encode()
            elif isinstance(value, Address):
                checked_key(value.key)
            elif name == "key" and value is not None:
                checked_key(value)
        return values

    def answer(self, value: Any) -> bytes:
        """The body of an answer."""
        what = f"answer of {self.name}"
        return self.value.encode(_text(value, what) if self.value_is_payload else value, what)

    def answered(self, body: bytes) -> Any:
        """The value in the body of an answer."""
        value = self.value.decode(body, f"answer of {self.name}")
        return value.encode() if self.value_is_payload else value


def _text(payload: Any, what: str) -> Any:
    if not isinstance(payload, bytes):
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise NotEncodable(what, payload, f"payloads are JSON as the codec writes it, and this is not ({error})") from None


_AS_TEXT: dict[Any, Any] = {bytes: str, bytes | None: str | None}


def _act(name: str, method: Callable[..., Any]) -> Act:
    forms = get_type_hints(method)
    value = forms.pop("return")
    return Act(
        name=name,
        order=tuple(inspect.signature(method).parameters)[1:],
        payloads=frozenset(name for name, form in forms.items() if form in _AS_TEXT),
        arguments=RecordCoder({name: _AS_TEXT.get(form, form) for name, form in forms.items()}),
        value=coder(_AS_TEXT.get(value, value)),
        value_is_payload=value in _AS_TEXT,
    )


@cache
def acts() -> dict[str, Act]:
    """All of them, by name. Made when the first client comes: most processes have none."""
    methods = {name: method for name, method in vars(Operations).items() if not name.startswith("_")}
    return {name: _act(name, method) for name, method in methods.items() if inspect.isfunction(method)}


class Calls:
    """`Operations` on the other side of *call*: every method of the protocol is handed on."""

    def __init__(self, call: Callable[[Act, dict[str, Any]], Any]) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        act = acts().get(name)
        if act is None:
            raise AttributeError(name)
        return lambda *args, **kwargs: self._call(act, act.named(args, kwargs))

    @classmethod
    def on(cls, call: Callable[[Act, dict[str, Any]], Any]) -> Operations:
        """As the protocol whose methods it has."""
        return cast("Operations", cls(call))


# --- hello and errors -----------------------------------------------------------------------------------------------------

HELLO = RecordCoder({"version": int, "token": str, "frame_bytes_max": int}, defaults={"token": str, "frame_bytes_max": int})

_paused = RecordCoder({"actor": bool, "address": str, "reason": str, "report": FailureReport | None})


def encode_error(error: Exception) -> tuple[str, bytes]:
    """The word and body that tell *error*."""
    match error:
        case RunPaused(report=None | FailureReport()):
            facts = {"address": error.address, "reason": error.reason, "report": error.report}
            return "paused", _paused.encode({"actor": isinstance(error, ActorPaused), **facts}, "report")
        case _:
            return "failed", encode_failure(error)


def decode_error(word: str, body: bytes) -> Exception:
    """The error that was told."""
    if word != "paused":
        return decode_failure(body)
    values = _paused.decode(body, "report")
    cls = ActorPaused if values.pop("actor") else RunPaused
    return cls(**values)


# --- frames -----------------------------------------------------------------------------------------------------------------


class Garbled(Exception):
    """What came is no frame: the rest of the stream cannot be read either."""


class Frame(NamedTuple):
    """One line."""

    number: int
    word: str
    body: bytes


class Inbox:
    """Frames as they come."""

    def __init__(self, stream: ByteReceiveStream, bytes_max: int) -> None:
        from anyio.streams.buffered import BufferedByteReceiveStream  # noqa: PLC0415  (for who has connections)

        self._stream = BufferedByteReceiveStream(stream)
        self.bytes_max = bytes_max

    async def next(self) -> Frame | None:
        """The next frame, or None at the end of the stream.

        Raises:
            Garbled: It is none, or longer than it may be.
        """
        try:
            line = await self._stream.receive_until(b"\n", self.bytes_max)
        except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return None
        except anyio.DelimiterNotFound:
            raise Garbled(f"a frame is over {self.bytes_max:,} bytes") from None
        if len(line) > self.bytes_max:  # The buffer may have had the end of it.
            raise Garbled(f"a frame is over {self.bytes_max:,} bytes")
        number, _, rest = line.partition(b" ")
        word, space, body = rest.partition(b" ")
        if not (number.isdigit() and len(number) <= _NUMBER_DIGITS_MAX and word.isascii() and space):
            raise Garbled(f"this is no frame: {line[:40]!r}")
        return Frame(int(number), word.decode(), body)


class Outbox:
    """Frames on their way out, in order. Whoever puts one in does not wait; one task sends.

    So a caller that is cancelled never leaves half a frame behind.
    """

    def __init__(self, stream: ByteSendStream) -> None:
        self._stream = stream
        self._frames: deque[bytes] = deque()
        self._wake: anyio.Event | None = None
        self._empty: anyio.Event | None = None
        self.unsent_bytes: int = 0
        self.frames: int = 0  #: put so far

    def put(self, number: int, word: str, body: bytes) -> None:
        """Send a frame after all that were put before."""
        frame = b"%d %s %s\n" % (number, word.encode(), body)
        self._frames.append(frame)
        self.frames += 1
        self.unsent_bytes += len(frame)
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    async def run(self) -> None:
        """Send for ever, or until the other side is gone."""
        try:
            while True:
                if not self._frames:
                    if self._empty is not None:
                        self._empty.set()
                    self._wake = wake = anyio.Event()
                    await wake.wait()
                chunk: list[bytes] = []
                size = 0
                while self._frames and size < CHUNK_BYTES:
                    chunk.append(self._frames.popleft())
                    size += len(chunk[-1])
                await self._stream.send(b"".join(chunk))
                self.unsent_bytes -= size
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # Whoever reads from this stream learns it, too, and ends the connection.

    async def flush(self, *, within_s: float) -> None:
        """Wait until all is sent, but not for long."""
        with anyio.move_on_after(within_s):
            while self.unsent_bytes:
                self._empty = self._empty or anyio.Event()
                await self._empty.wait()
                self._empty = None
