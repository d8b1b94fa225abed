"""Branches of durable code, and which of them the calling thread is driving. Pure.

A branch is a line of code that waits for one thing at a time. The trunk is the main line of `run()`; `gather`, tasks and
checkpoints open others.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Container, Sequence
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from attrs import define

from actorflow.errors import Leaving, OutsideTurn
from actorflow.kernel.requests import Checkpoint, Code
from actorflow.records import Identity, made

if TYPE_CHECKING:
    from actorflow.kernel.turn import Turn


class _Here(threading.local):
    """Which durable code the calling thread is driving. The stretch is synchronous, so this is no context variable."""

    turn: Turn | None = None
    leaving: bool = False  #: that code is being dropped; `turn` is None then


here: _Here = _Here()


def driven() -> bool:
    """True if the caller is durable code.

    Raises:
        Leaving: That code is being dropped; no verb does anything any more.
    """
    if here.turn is not None:
        return True
    if here.leaving:
        raise Leaving
    return False


def driver(verb: str) -> Turn:
    """The turn that drives the caller.

    Raises:
        OutsideTurn: The caller is no durable code.
    """
    turn = here.turn
    if turn is None:
        raise Leaving if here.leaving else OutsideTurn(verb)
    return turn


_OPENED = re.compile(r"gather#\d+\.\d+|task[#:].*")  #: what a line of its own begins with; other parts of a path are checkpoints


def lines(path: str) -> tuple[str, ...]:
    """The lines of code that lead to a branch, the trunk first; a checkpoint belongs to the line that calls it.

    >>> lines("/Job.paid#0/gather#0.1/Job.ship#0")
    ('', '/Job.paid#0/gather#0.1')
    """
    parts = path.split("/")
    return ("", *("/".join(parts[: end + 1]) for end, part in enumerate(parts) if _OPENED.fullmatch(part)))


def follows(branch: str, cut: str, *, begun: Container[str] | None = None) -> bool:
    """True if what *branch* recorded after an entry of *cut* may follow from that: it is of the same line of code, of one
    above it, or of one that this line opened since.

    Args:
        branch: Where something was recorded later.
        cut: Where the entry is.
        begun: Lines that had recorded something before. None: take every task for one of them. (A gather opened by a line
            that then records something itself is over.)
    """
    of, at = lines(branch), lines(cut)
    if of[-1] in at:
        return True
    if of[: len(at)] != at:
        return False
    opened = of[len(at)]
    is_task = not opened.rpartition("/")[2].startswith("gather#")
    return not is_task or (begun is not None and opened not in begun)


NO_PATHS: frozenset[str] = frozenset()  #: one for all: Python makes a new one each time

_alive: set[Code] = set()
"""Coroutines that have not ended. Held here, they are closed by `leave` alone: the garbage collector, which may come to them
before it comes to their turn, would run their `finally` blocks with every verb as if live."""


@define(eq=False, repr=False)
class Group:
    """A gather that is under way."""

    parent: Branch
    scope: str  #: what the paths of its branches begin with
    results: list[Any]
    open: int
    settle: bool
    before: dict[str, bytes] | None  #: the fields when it began, if a branch could change them in place


@define(eq=False, repr=False)
class Scope:
    """A checkpoint that is under way."""

    parent: Branch
    request: Checkpoint
    identity: Identity
    before: dict[str, bytes] | None


class Branch:
    """A line of durable code: the trunk, an argument of `gather`, a task, or the body of a checkpoint."""

    __slots__ = ("calls", "context", "coro", "ended", "joiners", "keys", "owner", "path", "trunk")

    def __init__(
        self, path: str, coro: Code, context: Context, *, trunk: bool = False, owner: Group | Scope | None = None
    ) -> None:
        self.path: str = path
        self.coro: Code = coro
        self.context: Context = context
        self.trunk: bool = trunk  #: fields may be written here
        self.owner: Group | Scope | None = owner
        self.calls: dict[str, int] = {}
        self.ended: tuple[Any, BaseException | None] | None = None
        self.joiners: tuple[Branch, ...] = ()
        self.keys: tuple[str, ...] = ()  #: of tasks it started
        _alive.add(coro)

    def end(self, value: Any, error: BaseException | None) -> None:
        """Its code returned or raised."""
        self.ended = (value, error)
        _alive.discard(self.coro)

    def next(self, name: str) -> Identity:
        """The identity of the next call of *name* in this branch."""
        n = self.calls.get(name, 0)
        self.calls[name] = n + 1
        return made(Identity, (self.path, name, n))


def leave(branches: Sequence[Branch]) -> None:
    """Close their coroutines, with every verb refused on the way."""
    outer = here.turn, here.leaving
    here.turn, here.leaving = None, True
    try:
        for branch in reversed(branches):
            with suppress(BaseException):  # Whatever a dying frame raises concerns nobody.
                branch.coro.close()
            _alive.discard(branch.coro)
    finally:
        here.turn, here.leaving = outer
