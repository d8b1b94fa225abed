"""What durable code asks the driver for, and what a stretch of it comes to. Pure values.

A `Request` is what durable code awaits. Its answer is an `Entry`: found in the journal on replay, recorded by the shell
when live; `answer` turns either into what the code gets, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, frozen

from actorflow.errors import Control
from actorflow.records import Entry, Identity
from actorflow.value import Value

if TYPE_CHECKING:
    from actorflow.kernel.branches import Branch

Code = Coroutine[Any, Any, Any]


class Request(Value):
    """What durable code wants. Awaiting it yields it to the driver; what the driver sends back is the answer."""

    __slots__ = ()
    kind: str  #: of the entry that answers it
    name: str
    was: tuple[str, ...] = ()  #: earlier names
    waits = True  #: it is answered by an entry; False: the driver answers it itself
    ref: str | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)

    def input(self) -> bytes | None:
        """What is recorded as the input, and compared on replay."""
        return None

    def same_input(self, recorded: bytes | None) -> bool:
        return recorded == self.input()

    def answer(self, entry: Entry) -> tuple[Any, Exception | None]:
        """The value or the error that the code gets for this entry; the same live as on replay.

        Raises:
            Undecodable: Today's classes cannot read the entry.
        """
        raise NotImplementedError


class State(Protocol):
    """The fields of an actor, as the driver sees them."""

    def parts(self) -> dict[str, bytes]:
        """Each field as the codec writes it."""
        ...

    def frozen(self) -> bool:
        """True if no field holds anything that could be changed in place."""
        ...

    def assign(self, parts: dict[str, bytes]) -> None:
        """Fields from their encodings."""
        ...


# --- requests that the driver answers itself ---------------------------------------------------------------------------


@frozen
class Gather(Request):
    """Open a branch for each, and wait for all of them."""

    branches: tuple[Code, ...]
    settle: bool = False
    waits = False


@frozen
class Join(Request):
    """Wait for the end of a task."""

    task: Branch
    waits = False


class Closing(Request):
    """A request whose outcome the driver knows: record it, with the calls it cancels, as soon as those have stopped."""

    dropped: tuple[Asked, ...]

    def outcome(self) -> bytes | None:
        return None


@frozen
class GatherClosed(Closing):
    """A gather failed: its other branches are gone."""

    dropped: tuple[Asked, ...]
    error: Exception
    kind = "gather"
    name = "gather"

    def answer(self, entry: Entry) -> tuple[None, Exception]:
        return None, self.error


class Checkpoint(Request):
    """A method that is one milestone. `run` makes its body; `close` the closing entry's request."""

    name: str
    function: object = None  #: whose name it is
    kind = "checkpoint"
    waits = False  #: entered; only a recorded one is waited for

    def run(self) -> Code:
        raise NotImplementedError

    def close(self, value: Any, changed: dict[str, bytes] | None, dropped: tuple[Asked, ...]) -> Closing:
        """Args: value: what it returned. changed: fields to keep, None in a branch. dropped: calls that it leaves open."""
        raise NotImplementedError


class AgainRaised(Control):
    """`self.again()`: ends the round."""


# --- what a stretch comes to -------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class Asked:
    """To do: answer `request` by an entry under this identity."""

    identity: Identity
    request: Request
    context: Context

    def is_call(self, name: str, n: int) -> bool:
        """True if that is what it is recorded under, now or by an earlier name."""
        _, own_name, own_n = self.identity
        return n == own_n and (name == own_name or name in self.request.was)

    def __str__(self) -> str:
        return str(self.identity)


@frozen
class Note(Value):
    """Recorded on the spot: rides in the next commit."""

    kind: str
    identity: Identity
    outcome: bytes | None
    effect: Any = None  #: what the shell is to do in the same commit


@frozen
class Finished(Value):
    """The trunk ended. `recorded` names the entry that the error came from, if it came from one."""

    value: Any
    error: BaseException | None
    recorded: Entry | None
    dropped: tuple[Asked, ...]


@frozen
class Again(Value):
    """The round ended; the next begins with the fields as they are."""


@frozen
class Broken(Value):
    """Code and journal do not fit, or the code broke a rule. Nothing was started."""

    reason: BaseException


class Stretch:
    """What came of one stretch of durable code."""

    __slots__ = ("asks", "end", "notes")

    def __init__(self, end: Broken | None = None) -> None:
        self.notes: tuple[Note, ...] = ()
        self.asks: list[Asked] = []
        self.end: Finished | Again | Broken | None = end


NOTHING: Stretch = Stretch()  #: between two stretches
