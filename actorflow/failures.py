"""Failures: exceptions to bytes and back, so that `except OutOfStock` catches on replay what it caught live.

Stored are module, qualified name, `args`, the attributes, and, as text, message, causes and the end of the traceback.
An exception is *rebuilt* only if everything about it comes back equal: its class is a subclass of `Exception` found under
the recorded name in the recorded module, and its `args` and attributes are values that need no annotation (`Loose`). The
`__init__` of users is not run again; that of built-in exceptions is, since it alone fills fields such as
`UnicodeDecodeError.start`. What cannot be rebuilt is a `StepFailed` with type and text, live as on replay.

A rebuilt exception has its recorded causes as `__cause__`: a chain of `StepFailed`, for reading only. The traceback stays
text, see `describe_failure` and `traceback_of`: source lines, never the values of variables.
"""

from __future__ import annotations

import builtins
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import islice
from typing import Any, Literal, TypeVar, cast

from attrs import field, frozen

from actorflow.codec import Coder, Loose, coder
from actorflow.errors import NotEncodable, StepFailed
from actorflow.value import Value

MESSAGE_BYTES_MAX = 10_000
"""More is no message but data, and belongs into an attribute."""
STATE_BYTES_MAX = 64_000
"""`args` and attributes; with more, an exception is kept as its text."""
CAUSES_MAX = 10
CAUSE_BYTES_MAX = 1_000
FRAMES_MAX = 20
TRACEBACK_BYTES_MAX = 8_000

FAILED = b"!"
"""What the stored answer of a message begins with if it is a failure."""

E = TypeVar("E", bound=Exception)

_loose: Coder[Any] = coder(Loose)


@frozen
class Cause(Value):
    """One exception of the chain below a failure, as text."""

    type: str
    message: str


@frozen(kw_only=True)
class Failure(Value):
    """An exception at rest. With `args` and `state` it can be rebuilt; without, it is its text."""

    module: str
    qualname: str
    message: str
    args: str | None = field(default=None, repr=False)  #: JSON text of a tuple, as `Loose` writes it
    state: str | None = field(default=None, repr=False)  #: JSON text of a dict, the same
    causes: tuple[Cause, ...] = ()
    traceback: str = field(default="", repr=False)

    @property
    def type(self) -> str:
        return self.qualname if self.module == "builtins" else f"{self.module}.{self.qualname}"


_failure: Coder[Failure] = coder(Failure)


def encode_failure(error: BaseException) -> bytes:
    """*error* as bytes. Never raises, whatever its methods do.

    >>> describe_failure(encode_failure(ValueError("no such order")))
    'ValueError: no such order'
    """
    return copy_failure(error)[0]


def copy_failure(error: BaseException) -> tuple[bytes, Exception]:
    """The bytes, and the exception as replay will raise it: rebuilt, or a `StepFailed`. Never raises.

    >>> copy_failure(KeyError("o1"))[1]
    KeyError('o1')
    """
    try:
        text = _as_text(error)
        return _rebuildable(error, text) or (_failure.encode(text, "failure"), _failed(text))
    except Exception:  # noqa: BLE001  (a class that lies about itself)
        text = Failure(module="builtins", qualname="Exception", message="(an exception that cannot be read)")
        return _failure.encode(text, "failure"), _failed(text)


def decode_failure(payload: bytes) -> Exception:
    """The exception that was written as *payload*; a `StepFailed` with its type and text if its class is gone.

    Raises:
        Undecodable: *payload* is no failure.
    """
    failure = _failure.decode(payload, "failure")
    return _rebuild(failure) or _failed(failure)


def describe_failure(payload: bytes) -> str:
    """One line: "Type: message".

    Raises:
        Undecodable: *payload* is no failure.
    """
    failure = _failure.decode(payload, "failure")
    message = " ".join(failure.message.split())
    return f"{failure.qualname}: {message}" if message else failure.qualname


def traceback_of(payload: bytes) -> str:
    """The end of the recorded traceback, as text; empty if there was none.

    Raises:
        Undecodable: *payload* is no failure.
    """
    return _failure.decode(payload, "failure").traceback


def text_of(error: BaseException) -> str:
    """What it says; a group also says what is in it. Never raises.

    >>> text_of(ExceptionGroup("both", [KeyError("a"), ExceptionGroup("inner", [ValueError("b")])]))
    "both (2 sub-exceptions): KeyError: 'a'; ValueError: b"
    """
    try:
        if not isinstance(error, BaseExceptionGroup):
            return str(error)
        group = cast("BaseExceptionGroup[BaseException]", error)
        return f"{group}: " + "; ".join(in_words(each) for each in islice(_inside(group), CAUSES_MAX))
    except BaseException as other:  # noqa: BLE001  (a `__str__` that raises; what it raises is no signal to us)
        return f"(no text: its __str__ raised {type(other).__qualname__})"


def in_words(error: BaseException) -> str:
    """Its type and what it says. Never raises: to print what users raise is to call their code.

    >>> in_words(KeyError("a"))
    "KeyError: 'a'"
    """
    return f"{type(error).__qualname__}: {text_of(error)}"


# --- answers ----------------------------------------------------------------------------------------------------------


def failed_answer(error: BaseException) -> bytes:
    """*error* as the stored answer of a message. Never raises.

    What the codec writes is JSON, and no JSON begins with "!".
    """
    return FAILED + encode_failure(error)


def split_answer(answer: bytes) -> tuple[Literal["ok", "failed"], bytes]:
    """What a stored answer says: a value, or a failure for `decode_failure`.

    >>> split_answer(b'{"total":3}')
    ('ok', b'{"total":3}')
    >>> status, payload = split_answer(failed_answer(ValueError("no such order")))
    >>> status, decode_failure(payload)
    ('failed', ValueError('no such order'))
    """
    return ("failed", answer[len(FAILED) :]) if answer.startswith(FAILED) else ("ok", answer)


# --- to bytes ---------------------------------------------------------------------------------------------------------


def _as_text(error: BaseException) -> Failure:
    cls = type(error)
    return Failure(
        module=_clean(str(cls.__module__), 500),
        qualname=_clean(str(cls.__qualname__), 500),
        message=_message(error, MESSAGE_BYTES_MAX),
        causes=tuple(Cause(type=_clean(type(c).__qualname__, 500), message=_message(c, CAUSE_BYTES_MAX)) for c in _causes(error)),
        traceback=_traceback(error),
    )


def _rebuildable(error: BaseException, text: Failure) -> tuple[bytes, Exception] | None:
    """Bytes with arguments and attributes, if what they are rebuilt to is equal; else None."""
    if not isinstance(error, Exception) or "<locals>" in text.qualname:
        return None
    try:
        args, state = _parts(error)
        failure = Failure(
            module=text.module,
            qualname=text.qualname,
            message=text.message,
            args=_loose.encode(args, "args").decode(),
            state=_loose.encode(state, "state").decode(),
            causes=text.causes,
            traceback=text.traceback,
        )
        payload = _failure.encode(failure, "failure")
        rebuilt = _rebuild(_failure.decode(payload, "failure"))
        if rebuilt is None or type(rebuilt) is not type(error) or _message(rebuilt, MESSAGE_BYTES_MAX) != text.message:
            return None
        args_again, state_again = _parts(rebuilt)
        same = (_loose.encode(args_again, "args").decode(), _loose.encode(state_again, "state").decode())
    except Exception:  # noqa: BLE001  (methods of the user; then it is kept as text)
        return None
    return (payload, rebuilt) if same == (failure.args, failure.state) else None


def _parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`args`, and the attributes: of the built-in part (`ImportError.name`), in slots, and in `__dict__`."""
    reduced: Any = _builtin(type(error)).__reduce__(error)
    args: tuple[Any, ...] = reduced[1]
    state: dict[str, Any] = dict(reduced[2] or {}) if len(reduced) > 2 else {}
    if args != error.args:
        state["args"] = error.args  # `OSError` is made from more (its file name) than it shows.
    for cls in type(error).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(error, name) and name not in ("__dict__", "__weakref__"):
                state[name] = getattr(error, name)
    if len(_loose.encode([args, state], "state of the exception")) > STATE_BYTES_MAX:
        raise NotEncodable("state of the exception", state, "it is too large")
    return args, state


def _builtin(cls: type[BaseException]) -> Any:
    """The most derived class of the language itself among its bases."""
    return next(base for base in cls.__mro__ if base.__module__ == "builtins" and vars(builtins).get(base.__name__) is base)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    for _ in range(CAUSES_MAX):
        below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if below is None or id(below) in seen:
            return
        yield below
        seen.add(id(below))
        error = below


def _message(error: BaseException, bytes_max: int) -> str:
    if isinstance(error, StepFailed) and bytes_max == CAUSE_BYTES_MAX:
        return _clean(error.message, bytes_max)
    return _clean(text_of(error), bytes_max)


def _inside(group: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, and of the groups in it, in order."""
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(reversed(cast("BaseExceptionGroup[BaseException]", error).exceptions))
        else:
            yield error


def _traceback(error: BaseException) -> str:
    try:
        frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)
        text = "".join(frames.format())
    except Exception:  # noqa: BLE001  (a source file that cannot be read)
        return ""
    kept = text.encode(errors="backslashreplace")[-TRACEBACK_BYTES_MAX:]
    return kept.decode(errors="ignore")


def _clean(text: str, bytes_max: int) -> str:
    """Encodable and bounded."""
    raw = text[:bytes_max].encode(errors="backslashreplace")
    cut = len(raw) > bytes_max or len(text) > bytes_max
    return raw[: bytes_max - 3].decode(errors="ignore") + "..." if cut else raw.decode()


# --- and back ---------------------------------------------------------------------------------------------------------


def _failed(failure: Failure) -> StepFailed:
    return _with_causes(StepFailed(failure.type, failure.message), failure)


def _rebuild(failure: Failure) -> Exception | None:
    cls = _find(failure.module, failure.qualname) if failure.args is not None and failure.state is not None else None
    if cls is None or failure.args is None or failure.state is None:
        return None
    try:
        args: tuple[Any, ...] = _loose.decode(failure.args.encode(), "args")
        state: Mapping[str, Any] = _loose.decode(failure.state.encode(), "state")
        rebuilt: Exception = cls.__new__(cls, *args)
        _builtin(cls).__init__(rebuilt, *args)
        for name, value in state.items():
            object.__setattr__(rebuilt, name, value)  # Also of a frozen class.
    except Exception:  # noqa: BLE001  (a `__new__` of the user that wants something else today)
        return None
    return _with_causes(rebuilt, failure)


def _with_causes(error: E, failure: Failure) -> E:
    below: BaseException = error
    for cause in failure.causes:
        below.__cause__ = StepFailed(cause.type, cause.message)
        below = below.__cause__
    return error


def _find(module: str, qualname: str) -> type[Exception] | None:
    """The exception class of that name in that module, looked up without running anything but the module's import."""
    if not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        return None
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in qualname.split("."):
            found = found.__dict__[part]
    except (Exception, SystemExit):  # noqa: BLE001  (whatever importing a module can raise)
        return None
    if isinstance(found, type) and issubclass(found, Exception) and (found.__module__, found.__qualname__) == (module, qualname):
        return found
    return None
