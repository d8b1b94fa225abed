"""What the exit code of a command means, and how an error is told: one paragraph, its facts escaped, no traceback."""

from __future__ import annotations

from enum import IntEnum
from typing import cast

from actorflow.errors import (
    ActorflowError,
    FateUnknown,
    RunCancelled,
    RunPaused,
    RunPruned,
    StoreError,
    UnknownKind,
    UnknownLetter,
    UnknownRun,
)


class Exit(IntEnum):
    """The exit codes; scripts may rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PAUSED = 3
    CANCELLED = 4
    NOT_FOUND = 5
    TIMED_OUT = 6
    STORE = 7
    BUG = 70
    INTERRUPTED = 130
    CLOSED = 141


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done; for `wait`: the run completed",
    Exit.FAILED: "the run failed; for `ask`: the handler failed, or said no",
    Exit.USAGE: "wrong usage, bad input, or a verb that does not fit the run's status",
    Exit.PAUSED: "the run or actor is paused",
    Exit.CANCELLED: "the run was cancelled",
    Exit.NOT_FOUND: "there is no such run, actor or dead letter",
    Exit.TIMED_OUT: "timed out waiting",
    Exit.STORE: "trouble with the store: missing, busy, broken, unavailable",
    Exit.BUG: "a bug of actorflow",
    Exit.INTERRUPTED: "interrupted from the keyboard",
    Exit.CLOSED: "whoever read the output has gone",
}


class UsageError(Exception):
    """The command line asks for something that cannot be done; says what to write instead."""


def of_status(status: str) -> Exit:
    """The code for a run that stands there.

    >>> of_status("completed"), of_status("paused")
    (<Exit.OK: 0>, <Exit.PAUSED: 3>)
    """
    ends = {"failed": Exit.FAILED, "paused": Exit.PAUSED, "cancelled": Exit.CANCELLED}
    return ends.get(status, Exit.OK)


def of_error(error: BaseException) -> Exit:
    """The code for an error that ended a command.

    >>> of_error(UnknownRun("Checkout/o-1"))
    <Exit.NOT_FOUND: 5>
    """
    match error:
        case UnknownRun() | RunPruned() | UnknownKind() | UnknownLetter():
            return Exit.NOT_FOUND
        case StoreError() | FateUnknown():
            return Exit.STORE
        case RunPaused():
            return Exit.PAUSED
        case RunCancelled():
            return Exit.CANCELLED
        case TimeoutError():
            return Exit.TIMED_OUT
        case UsageError() | ActorflowError():
            return Exit.USAGE
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case BrokenPipeError():
            return Exit.CLOSED
        case _:
            return Exit.BUG


def innermost(error: BaseException) -> BaseException:
    """The one error that a group of task groups was wrapped around; the group itself if there are several."""
    inner = error
    while isinstance(inner, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", inner).exceptions
        if len(members) != 1:
            return error
        inner = members[0]
    return inner


def sentence(error: BaseException) -> str:
    """What to tell a person."""
    match error:
        case UsageError() | ActorflowError():
            return str(error)
        case KeyboardInterrupt():
            return "interrupted"
        case _:
            text = f"{type(error).__name__}: {error}"
            return f"{text}. This is a bug of actorflow: please report it with what `--debug` prints."
