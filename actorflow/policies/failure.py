"""What kind of failure it is, and the report a person gets. Pure.

The class decides what happens next, so it is decided in one place: *transient* may pass by itself, *data* never will,
*business* is the code's own decision, *bug* is everything that nobody expected.
"""

from __future__ import annotations

from typing import Literal, cast

from attrs import field, frozen

from actorflow.errors import (
    Abort,
    Divergence,
    Fatal,
    GaveUp,
    NotEncodable,
    RunCancelled,
    StepInterrupted,
    StepTimeout,
    TooLarge,
    Transient,
    Undecodable,
)
from actorflow.records import PauseReason
from actorflow.value import Value

FailureClass = Literal["transient", "data", "bug", "business", "timeout", "interrupted", "cancelled"]

GROUPS_MAX = 8  #: groups within groups that are looked into

_STATUSES = frozenset((429, 500, 502, 503, 504))


def classify(error: BaseException, fails: tuple[type[BaseException], ...] = ()) -> FailureClass:
    """The class of a failure.

    A group, as a task group raises it, may pass by itself if all that is in it may.

    >>> classify(ConnectionResetError()), classify(ValueError("x")), classify(Abort("no"))
    ('transient', 'bug', 'business')
    >>> classify(ExceptionGroup("two requests", [ConnectionResetError(), TimeoutError()]))
    'transient'
    """
    match error:
        case Abort():
            return "business"
        case _ if fails and isinstance(error, fails):
            return "business"
        case StepTimeout():
            return "timeout"
        case StepInterrupted() | GaveUp():
            return "interrupted"
        case RunCancelled():
            return "cancelled"
        case Fatal() | NotEncodable() | TooLarge() | Undecodable():
            return "data"
        case Transient() | ConnectionError() | TimeoutError() | InterruptedError() | BlockingIOError():
            return "transient"
        case BaseExceptionGroup():
            return "transient" if _passes(error, GROUPS_MAX) else "bug"
        case _:
            return "transient" if _http_status(error) in _STATUSES else "bug"


def _passes(group: BaseExceptionGroup[BaseException], deep: int) -> bool:
    """True if all in it is transient; what is nested deeper than anybody would is not looked at."""
    return deep > 0 and all(
        _passes(cast("BaseExceptionGroup[BaseException]", each), deep - 1)
        if isinstance(each, BaseExceptionGroup)
        else classify(each) in ("transient", "timeout")
        for each in group.exceptions
    )


def _http_status(error: BaseException) -> int | None:
    """The status of an HTTP client's error, as httpx, requests and aiohttp carry it."""
    try:
        for holder in (getattr(error, "response", None), error):
            for name in ("status_code", "status"):
                status = getattr(holder, name, None)
                if isinstance(status, int):
                    return status
    except Exception:  # noqa: BLE001  (properties of a foreign class: looking at a failure must not be another one)
        return None
    return None


@frozen(kw_only=True)
class FailureReport(Value):
    """What stopped a run or ended it, and what to do now."""

    failure: FailureClass
    reason: PauseReason | None  #: why the run is paused; None if it ended
    what: str  #: one sentence: "ValueError: no such customer"
    where: str  #: the call, as "branch:name#n", or the line
    attempt: int = 0  #: the last one, from 1; 0 if there were no attempts
    input: str = ""  #: what the call was given, shortened
    causes: tuple[str, ...] = ()  #: the chain of causes, nearest first
    attempts: tuple[str, ...] = ()  #: earlier failures of the same call, oldest first
    last_good: str = ""  #: the last checkpoint or outcome before it
    remedy: str = ""  #: what to do now
    not_undone: tuple[str, ...] = field(factory=tuple)  #: effects that may stand and have no undo that fits

    def __str__(self) -> str:
        return f"{self.what} (at {self.where}). {self.remedy}".strip()


REMEDIES: dict[str, str] = {
    "operator": "An operator paused it: `resume` goes on.",
    "failure": "When the cause is mended, `retry` performs the failed call again; `skip` records a value in its place.",
    "bug": "Fix the code and deploy it, then `resume`; it goes on from its journal.",
    "interrupted": "It ended its process several times. Look at what the step does, then `resume` gives it a new budget.",
    "ask": "Find out whether the effect happened, then `decide`: it landed (with its value), run it again, or give it up.",
    "diverged": "Put the change behind `self.patched(...)`, name the old step in `was=`, or deploy the old code; then `resume`.",
    "unregistered": "Add the class to `Runtime(actors=[...])`, or give a renamed class its old `kind=`; then `resume`.",
    "undecodable": "Deploy classes that can read what is stored, then `resume`. Or, if a call is named: `retry`, or `skip` it.",
    "budget": "Look at the items set aside; `resume` gives a new budget.",
    "undo": "An undo failed for good: mend its cause and `retry`, or `skip` it; both are recorded.",
}


def pause_reason(error: BaseException) -> PauseReason:
    """Why a run is paused whose code broke a rule, could not be driven, or ended with what was never recorded."""
    match error:
        case Divergence():
            return "diverged"
        case Undecodable():
            return "undecodable"
        case NotEncodable() | TooLarge():
            return "failure"
        case _:
            return "bug"
