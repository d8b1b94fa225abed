"""Where durable code touched the event loop: the line, and whether an error is the loop's refusal. Pure.

While durable code runs, the loop's current task is hidden, so scopes, timeouts and nurseries of asyncio, anyio and trio
refuse to open there. They do so with ordinary errors that explain nothing; this module recognises and translates them.
"""

from __future__ import annotations

from typing import Any

from actorflow.errors import ForeignAwait

_LOOPS = frozenset(("asyncio", "trio", "anyio", "sniffio", "uvloop"))
_BETWEEN = frozenset(("contextlib", "weakref"))  #: stand between the user's line and the loop's, or below the loop's


def waiting_line(coro: Any) -> str:
    """The innermost line of the user's own code that waits: "file:line (function)"."""
    where = "durable code"
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        if _library(frame) not in _LOOPS | _BETWEEN:
            where = _place(frame)
        coro = coro.cr_await
    return where


def foreign_error(error: BaseException) -> ForeignAwait | None:
    """The error that says what happened, if *error* was raised by a loop library for want of a task; else None."""
    traceback, where, refused_by = error.__traceback__, "durable code", None
    while traceback is not None:
        frame = traceback.tb_frame
        library = _library(frame)
        if library in _LOOPS:
            refused_by = f"{library}'s {frame.f_code.co_qualname}"
        elif library not in _BETWEEN:
            where, refused_by = f"{frame.f_code.co_filename}:{traceback.tb_lineno} ({frame.f_code.co_qualname})", None
        traceback = traceback.tb_next
    if refused_by is None or not isinstance(error, (RuntimeError, TypeError, LookupError, AttributeError)):
        return None
    return ForeignAwait(where, refused_by)


def _library(frame: Any) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _place(frame: Any) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
