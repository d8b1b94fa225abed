"""Every act of a client or operator, with typed input and output: one protocol, two sides.

The runtime serves it in its own process; `Client` serves it over a socket. Payloads are bytes as the codec wrote them, so
that neither side needs the classes of the other; the handles (`Address`, `Run`) encode and decode.
"""

from __future__ import annotations

from typing import Literal, Protocol

from attrs import frozen

from actorflow.policies.cursor import BadItem
from actorflow.policies.failure import FailureReport
from actorflow.records import Address, RunQuery
from actorflow.value import Value

OnConflict = Literal["join", "reject"]


@frozen(kw_only=True)
class LoopInfo(Value):
    """How far an `each` of a run is."""

    branch: str
    n: int
    done: int
    set_aside: int
    repeated: int
    total: int | None
    rate_per_s: float
    eta_s: float | None
    bad: tuple[BadItem, ...] = ()


@frozen(kw_only=True)
class TimerInfo(Value):
    """A message that an actor sends itself later. Moments are seconds since the epoch."""

    name: str
    type: str
    due_at: float
    every_s: float | None = None  #: again after that many seconds


@frozen(kw_only=True)
class ActorInfo(Value):
    """What an actor is at, as of its last durable turn. Moments are seconds since the epoch."""

    mailbox: int  #: messages that wait to be handled, the one under way included; timers are not among them
    oldest_at: float | None = None  #: when the oldest of them was sent
    handling: str | None = None  #: the message of the turn that is open: it waits for a step or an ask
    waits_for: tuple[str, ...] = ()  #: what that turn has asked for
    timers: tuple[TimerInfo, ...] = ()  #: the next one first
    last: str | None = None  #: the message it handled or gave up last
    last_at: float | None = None


@frozen(kw_only=True)
class RunInfo(Value):
    """What there is to say of a run or actor without loading it. Moments are seconds since the epoch."""

    kind: str
    key: str
    status: str  #: an actor for which nothing waits is "idle"
    reason: str | None
    round: int
    crashes: int
    created_at: float
    updated_at: float
    ended_at: float | None
    wake_at: float | None  #: when it goes on by itself
    deadline_at: float | None
    parent: str | None
    report: FailureReport | None
    loops: tuple[LoopInfo, ...] = ()
    what: Literal["run", "actor"] = "run"
    actor: ActorInfo | None = None  #: what an actor is at; None of a run, and in lists


@frozen(kw_only=True)
class Page(Value):
    """Some runs or actors, and where the next page begins (None: there is none). A page may be shorter than its limit."""

    runs: tuple[RunInfo, ...]
    next: int | None


@frozen(kw_only=True)
class HistoryEntry(Value):
    """One event of a run, as a person reads it."""

    seq: int
    at: float
    round: int
    kind: str
    call: str  #: "branch:name#n"
    status: str
    attempt: int
    due_at: float | None
    input: str
    outcome: str


@frozen(kw_only=True)
class DeadLetter(Value):
    """A message that nobody handled. It is kept until it is sent again, or its run is pruned."""

    id: int  #: its number, which it keeps when it is sent again
    to: str  #: "kind/key"
    type: str
    key: str | None  #: the sender's idempotency key
    sender: str  #: "kind/key", or "" for a client
    sent_at: float
    body: str  #: for people: a long one is cut
    why: str  #: what became of it
    report: FailureReport | None = None  #: if its handler failed


@frozen(kw_only=True)
class Letters(Value):
    """Some dead letters, and where the next page begins (None: there is none)."""

    letters: tuple[DeadLetter, ...]
    next: int | None


@frozen(kw_only=True)
class Decision(Value):
    """What an operator knows of an interrupted step."""

    act: Literal["landed", "run_again", "give_up"]
    value: bytes | None = None  #: with "landed": the outcome, encoded


@frozen(kw_only=True)
class TreeNode(Value):
    """A supervisor or an actor, as it is now. Lengths in seconds."""

    name: str  #: of a supervisor; of an actor its address, "kind/key"
    what: Literal["runtime", "supervisor", "actor"]
    state: str = "running"
    restarts: int = 0  #: how often it was started again by its supervisor
    restarts_left: int | None = None  #: of a supervisor: how many more it allows now
    mailbox: int = 0  #: messages that wait
    oldest_s: float | None = None  #: how long the oldest of them has waited
    waits_for: tuple[str, ...] = ()  #: the steps and asks of the turn that is open
    snapshot_bytes: int = 0  #: of its durable fields
    last_failure: str | None = None
    children: tuple[TreeNode, ...] = ()


class Addressed(Protocol):
    """What has an address: a handle of an actor or run, awaited or blocking."""

    @property
    def address(self) -> Address:
        """Where it is found."""
        ...


class Operations(Protocol):
    """What can be done to runs from outside. What returns has become durable.

    Raises (all of them): `UnknownKind`, `UnknownRun`, `RunPruned`, and `StoreError`s when nothing could be written.
    """

    async def start(self, to: Address, *, input: bytes, on_conflict: OnConflict, deadline_s: float | None, request: str) -> None:
        """Accept a run, or join the one that has the key. *request* makes the same call repeatable under "reject"."""
        ...

    async def tell(self, to: Address, *, type: str, body: bytes, key: str | None, after_s: float | None) -> None:
        """Accept a message."""
        ...

    async def ask(self, to: Address, *, type: str, body: bytes, key: str | None, within_s: float) -> bytes:
        """Accept a message and wait for its reply, which is durable. Without a key it may be accepted with its reply only."""
        ...

    async def result(self, to: Address, *, wait_paused: bool) -> bytes:
        """The encoded result of a run that completed; raises what it ended with, or `RunPaused`."""
        ...

    async def query(self, to: Address, *, name: str, arguments: bytes) -> bytes:
        """The encoded answer of a `@query`, read from the last durable view."""
        ...

    async def status(self, to: Address) -> RunInfo:
        """What there is to say of a run."""
        ...

    async def cancel(self, to: Address, *, why: str) -> bool:
        """Cancel it; False if it had ended. What it did is undone after this returns."""
        ...

    async def pause(self, to: Address) -> None:
        """Nothing new starts; running steps finish and are recorded."""
        ...

    async def resume(self, to: Address) -> None:
        """Go on from the journal, with a new budget."""
        ...

    async def retry(self, to: Address) -> None:
        """Set the failed call aside and go on before it."""
        ...

    async def skip(self, to: Address, *, value: bytes) -> None:
        """Record a value for the failed call and go on after it."""
        ...

    async def decide(self, to: Address, *, call: str, decision: Decision) -> None:
        """Say what became of an interrupted step."""
        ...

    async def fork(self, to: Address, *, key: str, at: int | None, input: bytes | None, keep: bool) -> None:
        """A new run with its own key, from the entries before *at*."""
        ...

    async def history(self, to: Address, *, after: int, limit: int) -> tuple[HistoryEntry, ...]:
        """What happened to it, in order."""
        ...

    async def why(self, to: Address) -> str:
        """One sentence: what it waits for and what comes next."""
        ...

    async def latest(self, to: Address, *, limit: int) -> tuple[HistoryEntry, ...]:
        """The last of what happened to it, in order."""
        ...

    async def runs(self, query: RunQuery) -> Page:
        """Runs and actors that match, newest first. The status "idle" is that of actors for which nothing waits."""
        ...

    async def counts(self, *, actor: bool | None) -> dict[str, int]:
        """How many runs (or actors, or both) there are in each status; an actor that is not at work is "idle"."""
        ...

    async def prune(self, to: Address) -> None:
        """Delete an ended run but its key."""
        ...

    async def reset(self, to: Address) -> None:
        """The state of an actor becomes that of a new one; its mailbox and timers stay."""
        ...

    async def dead_letters(self, to: Address | None, *, after: int, limit: int) -> Letters:
        """Messages that nobody handled, oldest first: those with a larger number than *after*."""
        ...

    async def resend(self, letter: int) -> Address:
        """Put a dead letter back into its mailbox, last in line; returns whose that is."""
        ...

    async def tree(self) -> TreeNode:
        """The live tree of supervisors."""
        ...
