"""What the programs of the cases tell about themselves while they run. It survives a crash, and the process cannot unsay it.

The journal says what is recorded: outcomes, failed tries, timers. It does not say that a step, a checkpoint or a wait *began*;
the programs do, here. A mark knows how much of the journal there was when it was made, which gives both one order. Durable code
is given an outcome when it is submitted, a moment before it is durable; so its marks also know which outcome that was.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from attrs import frozen

from actorflow.attempt import current_step
from actorflow.kernel.branches import driver
from actorflow.kernel.journal import DELIVERED, SPOT
from actorflow.testing.scenario import World, effect, world

P = ParamSpec("P")
T = TypeVar("T")

Json = dict[str, Any]

OVER = "over"
"""The last mark."""


@frozen
class Mark:
    """Something that was seen to happen."""

    what: str
    scope: str  #: of whom: a step's identity, a checkpoint's or gather's scope, a callback's number
    after: int  #: the last entry of the journal then
    more: Json
    handed: tuple[int, int] = (0, 0)  #: of durable code: so many outcomes past that entry were handed to it by then


def marks(of: World) -> list[Mark]:
    return of.marks


def last_seq(of: World) -> int:
    return max(of.memory._memory.entries, default=0)


def note(of: World, what: str, scope: str = "", *, handed: tuple[int, int] = (0, 0), **more: Any) -> None:
    """Written down unless the process is dead, or the play is over: its checks drive the code once more."""
    if not of.store.dead and not (of.marks and of.marks[-1].what == OVER):
        of.marks.append(Mark(what, scope, last_seq(of), more, handed))


def _first(what: str, scope: str, **more: Any) -> None:
    """Durable code comes along here again on every replay; what it says is news once."""
    here = world()
    if not any(mark.what == what and mark.scope == scope for mark in marks(here)):
        note(here, what, scope, handed=_handed(here), **more)


def _handed(of: World) -> tuple[int, int]:
    """The last outcome that this code was loaded with, and how many it was handed since."""
    turn = driver("note")
    loaded = turn.journal.order
    since = next((seq for seq, entry in of.memory._memory.entries.items() if loaded and entry is loaded[-1]), 0)
    return since, turn.delivered - len(loaded)


def settled_after(of: World, mark: Mark, run: int) -> int:
    """The last entry that was true when the mark was made, those included that were on their way to the disk."""
    since, count = mark.handed
    entries = of.memory._memory.entries.items()
    outcomes = [seq for seq, entry in entries if entry.run == run and seq > since and entry.kind in DELIVERED | SPOT]
    return max(mark.after, outcomes[:count][-1] if count > 0 and outcomes else 0)


# --- steps -------------------------------------------------------------------------------------------------------------


def began() -> int:
    """First line of every step: an attempt runs. Returns its number.

    An attempt that a crash cut short runs again under its number, and that is one beginning; without a crash, it is two.
    """
    effect()
    here, info = world(), current_step()
    path, name, n = info.key.split("/", 4)[4].rsplit("/", 2)
    scope = f"{path}:{name}#{n}"
    crashes = sum(mark.what == "crash" for mark in marks(here))
    began = [mark.more for mark in marks(here) if mark.what == "step" and mark.scope == scope]
    cut_short = any(each["attempt"] == info.attempt and each["crashes"] < crashes for each in began)
    if not cut_short:
        note(here, "step", scope, attempt=info.attempt, crashes=crashes)
    return info.attempt


def crash() -> None:
    """In a step: the process dies here, once in the life of the case."""
    here = world()
    if any(mark.what == "crash" for mark in marks(here)):
        return
    note(here, "crash")
    raise here.store.cut()


def log(text: str) -> None:
    """A line in the log: once for each time that this code runs."""
    note(world(), "log", text=text)


# --- contexts ----------------------------------------------------------------------------------------------------------


def context(kind: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Below `@checkpoint`: its body tells when it is entered and when it raises. That it succeeded is in the journal."""

    def decorate(body: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(body)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            scope = driver("context").branch.path
            _entered(kind, scope)
            try:
                return await body(*args, **kwargs)
            except Exception as error:
                _first("context failed", scope, error=error)
                raise

        return wrapper

    return decorate


def _entered(kind: str, scope: str) -> None:
    here = world()
    recorded = (e for e in here.memory._memory.entries.values() if e.kind == "checkpoint")
    if any(f"{entry.branch}/{entry.name}#{entry.n}" == scope for entry in recorded):
        note(here, "context", scope, kind=kind)  # It is finished, and was entered again: seen as one event too many.
    _first("context", scope, kind=kind)


async def joined(kind: str, gathering: Callable[[], Awaitable[T]]) -> T:
    """A gather, told of as a context: it has no entry of its own unless it fails."""
    branch = driver("joined").branch
    scope = f"{branch.path}/gather#{branch.calls.get('gather', 0)}"
    _first("context", scope, kind=kind)
    try:
        values = await gathering()
    except Exception as error:
        _first("context failed", scope, error=error)
        raise
    _first("context succeeded", scope)
    return values


def callback_began(line: str, type: str, *, heartbeat: bool) -> None:
    _first("callback", line, type=type, heartbeat=heartbeat)
