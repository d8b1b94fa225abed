"""Every error that actorflow raises: what happened, so what, and what to do now.

`ActorflowError` is the root of what a caller may want to catch. Its branches tell whose move it is: `Refused` is a
caller's mistake (nothing was stored), `StoreError` is trouble with the file, `RunError` is the state of a run.
What durable code must not swallow with `except Exception` (control flow, broken rules) is a `BaseException`: `Control`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ActorflowError(Exception):
    """Root of the errors that actorflow raises."""


def _short(value: object) -> str:
    """*value* for a message. An int of many thousand digits cannot even be printed."""
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001  (any `__repr__`)
        return f"a {type(value).__qualname__}"


# --- a caller's mistake ----------------------------------------------------------------------------------------------


class Refused(ActorflowError):
    """Bad input, refused at the door: nothing was stored."""


class BadDuration(Refused, ValueError):
    """Not a duration: seconds, a `timedelta`, or a text like "30s"; at least 0 and at most 100 years."""

    def __init__(self, value: object, why: str) -> None:
        self.value = value
        super().__init__(
            f"{_short(value)} is no duration: {why}. Write seconds (30, 1.5), a timedelta, or a number and one of "
            f'ms, s, m, h, d ("30s", "1.5h"); at least 0, at most 100 years.'
        )


class BadKey(Refused, ValueError):
    """A key that cannot address a run or an actor."""

    def __init__(self, key: object, why: str) -> None:
        self.key = key
        super().__init__(f"{_short(key)} cannot be a key: {why}. A key is 1 to 512 bytes of UTF-8 without control characters.")


class BadDefinition(Refused, TypeError):
    """A class or function that cannot be an actor, a message or a step: says which one, why, and the remedy."""


class NotEncodable(Refused, TypeError):
    """A value that cannot be stored, or would not come back as it was."""

    def __init__(self, path: str, value: object, why: str) -> None:
        self.path: str = path
        self.value_type: str = type(value).__qualname__
        super().__init__(f"{path} ({self.value_type}) cannot be stored: {why}")


class TooLarge(Refused, ValueError):
    """A payload over the limit."""

    def __init__(self, what: str, size: int, size_max: int) -> None:
        self.what: str = what
        self.size: int = size
        self.size_max: int = size_max
        super().__init__(
            f"{what} is {size:,} bytes, over the limit of {size_max:,}. Store it elsewhere and pass a reference, "
            f"or raise `payload_bytes_max`."
        )


class Undecodable(ActorflowError):
    """A stored value that today's classes cannot read."""

    call: str = ""  #: whose record it is, as "branch:name#n", if it is one's

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        super().__init__(f"{what} cannot be read with today's classes: {why}")


class UnknownKind(Refused, LookupError):
    """No class of that kind is registered with this runtime."""

    def __init__(self, kind: str, known: Sequence[str]) -> None:
        self.kind: str = kind
        self.known: tuple[str, ...] = tuple(known)
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"no actor class of kind {kind!r} is registered (known: {listed}). Add it to `Runtime(actors=[...])`.")


class UnknownMessage(Refused, LookupError):
    """The addressed actor or run cannot take a message of that type."""


class UnknownRun(Refused, LookupError):
    """There is no run under that address."""

    def __init__(self, address: object) -> None:
        self.address: str = str(address)
        super().__init__(f"there is no run {address}. Start it first, or look at `runs list` for what there is.")


class UnknownLetter(Refused, LookupError):
    """There is no dead letter of that number (any more)."""

    def __init__(self, letter: int) -> None:
        self.letter: int = letter
        super().__init__(f"there is no dead letter {letter}; it may have been sent again. See `dead list` for those there are.")


class KeyTaken(Refused):
    """The key was used before for something else; both are shown."""

    def __init__(self, what: object, recorded: str, given: str) -> None:
        self.what: str = str(what)
        self.recorded: str = recorded
        self.given: str = given
        super().__init__(
            f"{what} was used before with another content. Recorded: {recorded:.300}. Given: {given:.300}. "
            f"Use another key, or send what was sent before."
        )


class RunPruned(Refused):
    """A run with that key ended and was pruned: the key is spent."""

    def __init__(self, address: object) -> None:
        self.address: str = str(address)
        super().__init__(f"{address} ended and was pruned; its key stays used. Start a run with another key.")


class OutsideTurn(Refused, RuntimeError):
    """A verb of durable code was called where no durable code runs."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        super().__init__(
            f"`{verb}` belongs to durable code (`run`, a `@checkpoint`, a branch, a `@handler`) and was called outside of it. "
            f"Inside a step use plain Python; in other code use `runtime.start(...)` and `runtime.at(...)`, and their verbs."
        )


class NotRunning(Refused, RuntimeError):
    """A runtime was used where it does not run: before it was entered, or in a process or thread where it cannot be called."""


class NoResource(Refused, AttributeError):
    """A `resource()` was wanted where there is none: says which one, why, and the remedy."""


class StepInsideStep(Refused, RuntimeError):
    """A step or a verb was called inside a step."""

    def __init__(self, inner: str, outer: str) -> None:
        self.inner: str = inner
        self.outer: str = outer
        super().__init__(
            f"`{inner}` was called inside step `{outer}`. Make the outer one a `@checkpoint`, or call "
            f"`plain({inner})(...)`: that records nothing, retries nothing and undoes nothing."
        )


class MailboxFull(Refused):
    """The mailbox is at its bound; the message was not accepted."""

    def __init__(self, address: object, depth_max: int) -> None:
        self.address: str = str(address)
        self.depth_max: int = depth_max
        super().__init__(
            f"the mailbox of {address} is full ({depth_max} messages), so this one was refused. Slow the sender, "
            f"raise `mailbox=`, or split the work over more keys."
        )


class TooManyCalls(Refused):
    """The bound of what the holder of a store does for its clients at a time."""

    def __init__(self, what: str, count_max: int) -> None:
        self.what: str = what
        self.count_max: int = count_max
        super().__init__(
            f"there are too many {what} ({count_max} is the bound), so this was refused. Wait for some of them to end."
        )


class InvalidState(Refused):
    """The verb does not apply to the state that the run is in."""

    def __init__(self, verb: str, address: object, status: str, remedy: str) -> None:
        self.verb: str = verb
        self.address: str = str(address)
        self.status: str = status
        super().__init__(f"cannot {verb} {address}: it is {status}. {remedy}")


# --- the state of a run ----------------------------------------------------------------------------------------------


class RunError(ActorflowError):
    """What became of a run."""


class RunEnded(RunError):
    """The run has ended: it takes nothing more."""

    def __init__(self, address: object, status: str) -> None:
        self.address: str = str(address)
        self.status: str = status
        super().__init__(f"{address} has ended ({status}). Ended is ended: go on with `fork`, or start another run.")


class RunEnding(RunError):
    """The run is undoing what it did: it takes nothing more."""

    def __init__(self, address: object) -> None:
        self.address: str = str(address)
        super().__init__(f"{address} is undoing what it did and takes nothing more.")


class RunPaused(RunError):
    """The run stopped with a report; nothing is lost or undone."""

    def __init__(self, address: object, reason: str, report: Any) -> None:
        self.address: str = str(address)
        self.reason: str = reason
        self.report: Any = report
        why = f" ({reason})" if reason else ""
        super().__init__(f"{address} is paused{why}: {report}" if report is not None else f"{address} is paused{why}.")


class ActorPaused(RunPaused):
    """An ask reached a paused actor: it would not be answered."""


class RunCancelled(RunError):
    """The run was cancelled by an operator, its parent or its deadline."""

    def __init__(self, address: object, why: str = "cancelled") -> None:
        self.address: str = str(address)
        self.why: str = why
        super().__init__(f"{address} was cancelled ({why}).")


class RunTimedOut(RunCancelled):
    """The run's deadline passed: it was cancelled and undone."""

    def __init__(self, address: object, why: str = "its deadline passed") -> None:
        super().__init__(address, why)


class ChildFailed(RunError):
    """A child run did not complete; the cause is its failure."""

    def __init__(self, address: str, status: str, why: str) -> None:
        self.address: str = address
        self.status: str = status
        self.why: str = why
        super().__init__(f"child {address} ended as {status}: {why}")


class AskTimeout(ActorflowError, TimeoutError):
    """No answer in time. What became of the message is unknown: the same call with the same key gets the first answer."""

    def __init__(self, address: object, within_s: float) -> None:
        self.address: str = str(address)
        self.within_s: float = within_s
        super().__init__(
            f"{address} gave no answer within {within_s:g} s. The message may still be handled: ask again with the "
            f"same key to get the first answer."
        )


class FateUnknown(ActorflowError):
    """The process that was asked to do it ended before it answered."""

    def __init__(self, verb: str, address: object) -> None:
        self.verb: str = verb
        self.address: str = str(address)
        super().__init__(
            f"the process that runs {address} ended before it answered `{verb}`; whether that was done is unknown. Look at its "
            f"`history`, and do it again if it is not there."
        )


class CallCycle(ActorflowError):
    """This ask would close a circle of runs that wait for each other."""

    def __init__(self, path: Sequence[str]) -> None:
        self.path: tuple[str, ...] = tuple(path)
        super().__init__(f"this ask would close a cycle: {' -> '.join(path)}. Use `tell`, or answer before asking.")


class AskExpired(ActorflowError, TimeoutError):
    """The ask waited in the mailbox until its time was over: it was not handled, and will not be."""

    def __init__(self, address: object) -> None:
        self.address: str = str(address)
        super().__init__(f"{address} did not come to this ask in time; it was not handled. Ask again, with more time.")


class HandlerFailed(ActorflowError):
    """The actor could not handle the message: all tries failed, and it is a dead letter now."""

    def __init__(self, address: object, message: str, why: str) -> None:
        self.address: str = str(address)
        self.message: str = message
        self.why: str = why
        super().__init__(
            f"{address} could not handle {message}: {why}. It is a dead letter; send it again when the cause is mended."
        )


class HandlerTimeout(ActorflowError, TimeoutError):
    """A handler took longer than its timeout, its steps and asks included."""

    def __init__(self, handler: str, timeout_s: float) -> None:
        self.handler: str = handler
        self.timeout_s: float = timeout_s
        super().__init__(f"handler {handler} took longer than {timeout_s:g} s. Make it shorter, or raise its `timeout=`.")


# --- failures of steps -----------------------------------------------------------------------------------------------


class Transient(Exception):
    """Raise it (or a subclass) in a step for trouble that may pass: the step is tried again within its budget."""


class WorkerDied(Transient):
    """The process that performed a step (`run_in="process"`) ended before the step did: killed, out of memory, crashed.

    Whether the step had its effect is unknown: with `on_interrupt="fail"` or "ask" the attempt was interrupted, else it is
    tried again.
    """

    def __init__(self, step: str) -> None:
        self.step: str = step
        super().__init__(f"the process of step {step} ended before the step did: it was killed, ran out of memory or crashed.")


class Fatal(Exception):
    """Raise it (or a subclass) in a step for data that no retry will mend."""


class Abort(Exception):
    """A business failure: the run ends as failed, its `undo`s run in reverse order."""


class StepFailed(ActorflowError):
    """A recorded failure whose exception cannot be rebuilt: its type and text."""

    def __init__(self, type: str, message: str) -> None:
        self.type: str = type
        self.message: str = message
        super().__init__(f"{type}: {message}")


class StepTimeout(ActorflowError, TimeoutError):
    """A step took longer than its timeout; whether it had its effect is unknown."""

    def __init__(self, step: str, timeout_s: float) -> None:
        self.step: str = step
        self.timeout_s: float = timeout_s
        super().__init__(f"step {step} took longer than {timeout_s:g} s; whether it had its effect is unknown.")


class StepInterrupted(ActorflowError):
    """An attempt began and its outcome is unknown; `on_interrupt="fail"` forbids another."""

    def __init__(self, step: str, why: str) -> None:
        self.step: str = step
        self.why: str = why
        super().__init__(f"step {step} was interrupted ({why}); whether it had its effect is unknown.")


class GaveUp(ActorflowError):
    """An operator decided, for an interrupted step, to give it up."""

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(f"step {step} was interrupted, and an operator gave it up.")


# --- trouble with the store ------------------------------------------------------------------------------------------


class StoreError(ActorflowError):
    """Trouble with the store."""


class StoreBusy(StoreError):
    """Another process holds the store."""

    def __init__(self, path: str, holder: str) -> None:
        self.path: str = path
        self.holder: str = holder
        super().__init__(
            f"{path} is held by {holder}. One process owns a store at a time: stop that one, reach it with "
            f"`Client(...)`, or wait for it with `Runtime(..., standby=True)`."
        )


class StoreUnavailable(StoreError):
    """The store cannot take writes now; nothing was written. Safe to call again when its cause is mended."""


class StoreBroken(StoreError):
    """The file is not what it should be: not a database, another store, damaged or replaced. Nothing was written."""


class StoreTooNew(StoreError):
    """The file was written by a newer actorflow."""

    def __init__(self, path: str, found: int, known: int) -> None:
        self.path: str = path
        self.found: int = found
        self.known: int = known
        super().__init__(
            f"{path} has schema {found}, this actorflow knows up to {known}. Install a newer actorflow; nothing was changed."
        )


class FenceLost(StoreError):
    """Another holder owns the store now: this one may write nothing more."""

    def __init__(self, fence: int) -> None:
        self.fence = fence
        super().__init__(f"the lease with fence {fence} is lost: another process owns the store now. Nothing was written.")


class StoreStopped(StoreError):
    """The runtime is shutting down or its store stopped: nothing was written."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the store takes no more writes: {why}")


# --- control: what no `except Exception` of durable code may swallow --------------------------------------------------


class Control(BaseException):
    """Root of what passes through durable code without being its business."""


class Leaving(Control):
    """Raised by every verb while durable code is being dropped: a `finally` may guard memory only."""

    def __init__(self) -> None:
        super().__init__("this durable code is leaving memory; no verb does anything here")


class Divergence(Control):
    """Today's code does not ask for what was recorded. Nothing new was started."""

    def __init__(self, asked: str, recorded: Sequence[str]) -> None:
        self.asked: str = asked
        self.recorded: tuple[str, ...] = tuple(recorded)
        listed = ", ".join(self.recorded) or "nothing more"
        super().__init__(
            f"the code asks for {asked}, but recorded is {listed}. Put the change behind `self.patched(...)`, name the "
            f"old step in `was=`, or deploy the old code again; then `resume`."
        )


class ForeignAwait(Control):
    """Durable code awaited something that is not journaled."""

    def __init__(self, where: str, what: str) -> None:
        self.where: str = where
        self.what: str = what
        super().__init__(
            f"{where} awaits {what}, which is not journaled. Durable code awaits steps and verbs only: move it into a "
            f"`@step`; to wait use `self.sleep`, `self.receive(..., within=...)` or `gather`."
        )


class FieldWriteInBranch(Control):
    """A field was written in a branch."""

    def __init__(self, field: str, branch: str) -> None:
        self.field: str = field
        self.branch: str = branch
        super().__init__(f"field {field!r} was written in branch {branch}. A branch returns its result; the trunk stores it.")


class StepNameTaken(Control):
    """Two functions of one run have one step name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"two different functions of this run are called {name!r}: give one of them `name=`.")


class AgainMisplaced(Control):
    """`again()` was called in a branch, in a checkpoint, or with open branches."""

    def __init__(self, why: str) -> None:
        super().__init__(f"`again()` ends a round only in the trunk, outside a checkpoint, with no open branch: {why}.")
