"""Who runs on the loop at this instant: read off the frames of the loop's thread, when somebody has a reason to ask.

Nothing is noted while all is well, so being able to answer costs nothing. What names a piece of work is an object of ours on
the stack below it: the job of a step, the turn of durable code, a call that looks at a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from traceback import FrameSummary, StackSummary
from types import FrameType
from typing import Any

from attrs import frozen

from actorflow.attempt import StepInfo, current
from actorflow.policies.saga import Undo
from actorflow.runtime.attempts import Attempt
from actorflow.runtime.hands import Hand, TaskHand
from actorflow.runtime.loops import innermost
from actorflow.runtime.workers import Job, Tell
from actorflow.value import Value

FRAMES_MAX = 20  #: of a stack that is shown: the innermost
SERVICE = "the service's own code"
_DRIVERS = frozenset(("asyncio.events", "asyncio.runners", "trio._core._run"))  #: what calls whatever runs on a loop
_LOOPS = frozenset(("asyncio", "trio", "anyio", "uvloop"))


Named = tuple[str, str]  #: who, and what to do about it


@frozen(kw_only=True)
class Blamed(Value):
    """Who runs, and where."""

    who: str  #: "Checkout/o1 in step charge"
    remedy: str  #: what to do if it should not run here for so long
    stack: tuple[FrameSummary, ...]  #: of the user's code, outermost first
    nobody: bool = False  #: it is none of ours, and nothing tells it from others of its kind
    entrance: int = 0  #: which frame of the service's own code the loop called: many of its tasks may be in the same lines

    def same(self, earlier: Blamed) -> bool:
        """True if this is still that piece of work: the loop cannot have come to it twice without turning."""
        if self.nobody or earlier.nobody or self.who != earlier.who:
            return False
        return self.entrance == earlier.entrance

    def shown(self) -> str:
        """The stack as in a traceback. Source lines are read from their files."""
        return "".join(StackSummary.from_list(self.stack).format())


def blamed(thread: int) -> Blamed | None:
    """Who runs in that thread at this instant; None if the thread has ended."""
    frame = innermost(thread)  # No frame is held for longer than this call.
    if frame is None:
        return None
    frames = _frames(frame)
    for depth, each in enumerate(frames):
        named = _named(each, frames[:depth])
        if named is not None:
            who, remedy = named
            return Blamed(who=who, remedy=remedy, stack=_summaries(reversed(frames[:depth])))
    called = _of_the_service(frames)
    stack = _summaries(called)
    nobody = not stack or _package(frame) in {"actorflow", *_LOOPS}
    return Blamed(who=SERVICE, remedy=ASYNC, stack=stack, nobody=nobody, entrance=id(called[0]) if called else 0)


def step_of(job: Job, told: Tell | None = None) -> str:
    """The step that a job performs, and whose it is: "Checkout/o1 in step charge".

    Args:
        job: Which one.
        told: Whom it told, or would have, if it has ended.
    """
    return _told_to(told or job.tell) or _known_inside(job)


def _told_to(tell: Any) -> str:
    owner: Any = getattr(tell, "__self__", None)
    if isinstance(undo := getattr(owner, "undo", None), Undo):
        return f"{owner.activation} in the undo of {undo.entry.name}"
    match owner:
        case Attempt() as attempt:
            return f"{attempt.activation} in step {attempt.step.name}"
        case TaskHand() as hand if hasattr(hand, "item"):
            return f"{_of(hand)} in step {hand.bench.step.name}, item {hand.item.key!r}"
        case Hand() as hand:
            return f"{_of(hand)} in step {hand.bench.step.name}"
        case _:
            return ""


def _of(hand: Hand) -> str:
    return str(getattr(hand.bench, "activation", hand.bench.key))


def _known_inside(job: Job) -> str:
    """Nobody waits for it any more; what it knows of itself is left."""
    info = job.context.get(current)
    return f"an abandoned step {info.name} ({info.key})" if isinstance(info, StepInfo) else "an abandoned step"


# --- from frames to names -----------------------------------------------------------------------------------------------

ASYNC = "Await instead of blocking, or do it in a thread (`anyio.to_thread.run_sync`)."
_STEP = "Await instead of blocking, or write the step as a plain `def`: that runs in a thread."
_DURABLE = "Durable code decides and does not work: do it in a step."
_SMALL = "Make it cheap: it runs for every message."
_STORED = "Keep what is stored small."


def _named(frame: FrameType, above: Sequence[FrameType]) -> Named | None:
    """Who it is, if this frame knows that; *above* are the frames that it called, innermost first."""
    if _package(frame) != "actorflow":
        return None
    code = frame.f_code
    know = _KNOWING.get(code.co_qualname.partition(".")[0])
    # Locals are read of these alone: to read them keeps what they hold until the frame ends, and others never end.
    if know is None:
        return None
    try:
        return know(frame.f_locals, above)
    except (KeyError, AttributeError):  # A closure in one of its methods, or an object that is half made.
        return None


def _job(local: Any, _: Sequence[FrameType]) -> Named:
    return step_of(local["self"]), _STEP


def _attempt(local: Any, _: Sequence[FrameType]) -> Named:
    attempt = getattr(local["self"], "attempt", local["self"])
    return f"{attempt.activation} in the arguments or the outcome of step {attempt.step.name}", _STORED


def _performance(local: Any, above: Sequence[FrameType]) -> Named:
    entering = bool(above) and above[-1].f_code.co_qualname.startswith("StepCall.")
    return _attempt(local, above) if entering else _job(local, above)


def _activation(local: Any, above: Sequence[FrameType]) -> Named:
    inside = {frame.f_code.co_qualname.partition(".")[0] for frame in above if _package(frame) == "actorflow"}
    if "Receiving" in inside:
        return f"{local['self']} in a `where` of receive", _SMALL
    if "Turn" in inside:
        return f"{local['self']} in durable code", _DURABLE
    return f"{local['self']} in what it stores (its fields, results and messages)", _STORED


def _actor(local: Any, above: Sequence[FrameType]) -> Named:
    turn = local.get("turn")
    if turn is None or turn.handler is None:
        return _activation(local, above)
    return f"{local['self']} in handler {turn.handler.name}", _DURABLE


def _read(local: Any, _: Sequence[FrameType]) -> Named:
    return f"{local['of'].address} in handler {local['handler'].name}", _SMALL


def _looping(local: Any, _: Sequence[FrameType]) -> Named:
    looping = local["self"]
    return f"{looping.activation} in the items or the `key` of each({looping.step.name})", ASYNC


def _undoing(local: Any, _: Sequence[FrameType]) -> Named:
    undoing = local["self"]
    return f"{undoing.activation} in the undo of {undoing.undo.entry.name}", _STEP


def _query(local: Any, _: Sequence[FrameType]) -> Named:
    return f"{local['run'].address} in query {local['name']}", "Make it cheap: it runs on the event loop."


_KNOWING: dict[str, Callable[[Any, Sequence[FrameType]], Named]] = {
    "Job": _job,
    "Attempt": _attempt,
    "Performance": _performance,
    "Activation": _activation,
    "ActorActivation": _actor,
    "read": _read,
    "Looping": _looping,
    "_Undoing": _undoing,
    "query": _query,
}
"""By the first part of a frame's qualified name. Tests block in each of them, so a new name here is missed by nobody."""


def _frames(frame: FrameType | None) -> list[FrameType]:
    """Innermost first."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _of_the_service(frames: Sequence[FrameType]) -> Sequence[FrameType]:
    """Outermost first, from where the loop called it."""
    depth = next((n for n, frame in enumerate(frames) if frame.f_globals.get("__name__") in _DRIVERS), len(frames))
    called = list(reversed(frames[:depth]))
    while called and _package(called[0]) in _LOOPS:
        called.pop(0)
    return called


def _summaries(frames: Iterable[FrameType]) -> tuple[FrameSummary, ...]:
    summaries = [
        FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname, lookup_line=False)
        for frame in frames
        if _package(frame) != "actorflow"
    ]
    return tuple(summaries[-FRAMES_MAX:])


def _package(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]
