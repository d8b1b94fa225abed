"""The nouns that travel between rooms, and the writes a commit is made of. Pure values, no behaviour.

Payloads (`input`, `outcome`, `body`, ...) are bytes as the codec wrote them: the store never looks inside. Moments
(`*_at`) are wall-clock seconds since the epoch. Runs are known by a number inside (narrow rows, narrow indexes) and by
their `Address` outside.

`Entry` and `Envelope` are named tuples, not attrs classes: they are the rows that every step and message writes, in the
order of their columns, and a tuple is made three times faster. Annotations are evaluated here: as texts, `NamedTuple` would
compile each of them, at each start.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

from attrs import field, frozen

from actorflow.value import Value

T = TypeVar("T")


class _Made(Protocol):
    def __call__(self, of: type[T], values: Iterable[Any], /) -> T: ...


made: _Made = cast("_Made", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
"""A named tuple of all its values, in order: for those that every step makes. The constructor, which knows names and defaults,
takes three times as long."""

RunStatus = Literal["pending", "running", "waiting", "paused", "undoing", "completed", "failed", "cancelled"]
PauseReason = Literal[
    "operator", "failure", "bug", "interrupted", "ask", "diverged", "unregistered", "undecodable", "budget", "undo"
]
EntryStatus = Literal["ok", "failed", "timeout", "interrupted", "cancelled", ""]
MessageState = Literal["pending", "done", "dead"]

ENDED: frozenset[str] = frozenset(("completed", "failed", "cancelled"))

LOG_ONLY: frozenset[str] = frozenset(
    (
        "started", "paused", "resumed", "retried", "skipped", "decided", "cancelling", "again", "forked",
        "completed", "failed", "cancelled", "accepted", "handled", "dead", "resent", "reset", "set_aside",
    )
)  # fmt: skip
"""Kinds of entries that tell a reader of the log what happened and that replay never asks for: `Store.load` leaves them out."""

KEY_BYTES_MAX = 512


class Address(NamedTuple):
    """Where an actor or run is found: the registered name of its class, and which one."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


class Identity(NamedTuple):
    """Which call of a run: its branch, the name of what was called, and the how-manieth call of that name there."""

    branch: str  #: "" is the trunk
    name: str
    n: int  #: counts from 0

    def __str__(self) -> str:
        return f"{self.branch}:{self.name}#{self.n}"


class Entry(NamedTuple):
    """One row of a run's journal, and one event of the store's log: they are the same thing.

    `kind` tells what it is. What code asks for and replay hands back: step, receive, sleep, tell, ask, start, result,
    checkpoint, gather, each, and the ones answered on the spot: now, reply. What belongs to such a call but ends nothing:
    try (a failed attempt; `due_at` is when the next begins), intent (an attempt or ask begins), timer (a wait began;
    `due_at` is when it ends), heartbeat, set_aside (an item of `each`). Flags: patch. Undoing: undo. The life of a run: started,
    paused, resumed, retried, skipped, decided, cancelling, again, forked, completed, failed, cancelled. Messages: accepted,
    handled, dead (given up; `n` is the message's number), resent (a dead letter is in the mailbox again; `n` likewise). Actors:
    turn (one waits for a step or an ask), reset (its state became that of a new one; `input` is what it was).
    """

    run: int
    round: int  #: which round of `again` it belongs to, from 0
    kind: str
    branch: str
    name: str
    n: int
    status: EntryStatus  #: how it ended; "" if it is no outcome
    attempt: int  #: from 1; 0 where there are no attempts
    at: float
    due_at: float | None
    input: bytes | None
    outcome: bytes | None
    ref: str | None  #: "module:qualname" of a step that has an `undo`; the key of a message; else None

    @property
    def identity(self) -> Identity:
        return Identity(self.branch, self.name, self.n)


class Event(NamedTuple):
    """An entry with its place in the store's one order."""

    seq: int  #: grows with every event of the store; gaps mean nothing
    entry: Entry


TIMER = "~timer/"
"""The sender of what a timer sends begins with it, and ends with the timer's name."""
EVERY = "~every/"
"""Likewise of a timer that fires again and again; between is its interval in seconds."""


class Envelope(NamedTuple):
    """A message in the mailbox of a run."""

    id: int  #: given by the runtime, growing: the order of acceptance
    run: int  #: to whom
    type: str  #: the message's tag; those of the system begin with "~"
    key: str | None  #: the sender's idempotency key; unique within the receiver
    body: bytes
    sender: str  #: an address as text, or "" for a client
    sent_at: float
    due_at: float | None  #: not to be seen before; None is at once
    reply_to: int | None  #: the run that asked, if a run did
    state: MessageState = "pending"
    answer: bytes | None = None  #: the first answer, kept for who asks again with the same key; a failure begins with b"!"
    expires_at: float | None = None  #: an ask's deadline: past it, it is answered `AskExpired` and not run


@frozen(kw_only=True)
class Run(Value):
    """A run as it is stored. Its key is its idempotency key."""

    id: int
    kind: str
    key: str
    status: RunStatus
    reason: PauseReason | None = None  #: why it is paused
    round: int = 0
    crashes: int = 0  #: unclean ends in a turn since the last recorded outcome
    seed: int = 0  #: what `random()` and `uuid()` derive from
    wake_at: float | None = None  #: when it wants attention: 0 is now, None is never by itself
    deadline_at: float | None = None
    parent: int | None = None  #: the run that started it
    detached: bool = False  #: outlives its parent
    actor: bool = False  #: an actor, whose class has handlers; else a run of a workflow
    created_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
    input: bytes = field(default=b"", repr=False)  #: the fields it was first started with
    fields: bytes | None = field(default=None, repr=False)  #: those that this round started with, if not `input`
    view: bytes | None = field(default=None, repr=False)  #: the fields to look at, as of the last suspension or end
    outcome: bytes | None = field(default=None, repr=False)  #: result or failure, once ended (or decided, while undoing)
    report: bytes | None = field(default=None, repr=False)  #: the failure report

    @property
    def address(self) -> Address:
        return made(Address, (self.kind, self.key))


# --- writes: what a commit is made of ---------------------------------------------------------------------------------


class SetState(NamedTuple):
    """Where a run stands. Clears nothing else."""

    run: int
    status: RunStatus
    reason: PauseReason | None
    wake_at: float | None
    crashes: int
    at: float


class SetView(NamedTuple):
    """The fields to look at from now on."""

    run: int
    view: bytes


class SetRound(NamedTuple):
    """`again`: a new round begins with these fields. Entries of earlier rounds are history."""

    run: int
    round: int
    fields: bytes


class SetEnd(NamedTuple):
    """How a run ends, or, with status "undoing" or "paused" set beside it, how it will end or why it stopped.

    A field that is None is left as it is.
    """

    run: int
    outcome: bytes | None = None
    report: bytes | None = None
    ended_at: float | None = None


URGENT = -1.0
"""The moment of a `Wake` that reaches a paused run, too: it is cancelled from elsewhere, and no crash may keep that from it."""


class Wake(NamedTuple):
    """Somebody wrote to a run that may not be in memory: it wants attention at *at*, if it waits and nothing is earlier.

    Only a run whose status is "waiting" is touched (or "paused", if *at* is `URGENT`): `wake_at = min(wake_at, at)`, with no
    wake_at counting as later.
    """

    run: int
    at: float


class Consume(NamedTuple):
    """A message was taken (or answered). Without a key and without an asker its row goes; else it keeps state and answer."""

    id: int
    answer: bytes | None  #: None leaves an earlier answer as it is


class SetDead(NamedTuple):
    """A pending message was given up: it becomes a dead letter. No effect on a message that is not pending."""

    id: int
    answer: bytes | None  #: a failure, for who asks again with the same key; None leaves an earlier answer as it is


class Revive(NamedTuple):
    """A dead letter is pending again: its answer and its deadline are forgotten. No effect on a message that is not dead."""

    id: int
    line: int  #: its place in the mailbox from now on: that of a message with this number


class Expire(NamedTuple):
    """Messages of a run that are done and were sent before that moment are deleted, and their keys are free again.

    For now and then: a `Consume` that follows in the same batch costs statements of its own.
    """

    run: int
    before: float


class Bury(NamedTuple):
    """All pending messages of an ended run become dead letters, those of the system ("~...") are dropped."""

    run: int


class SetCursor(NamedTuple):
    """The one row of an `each`: where it stands. None deletes it."""

    run: int
    round: int
    branch: str
    n: int
    state: bytes | None


class SetAsideEntries(NamedTuple):
    """`retry`: these entries are history from now on; replay does not see them."""

    run: int
    seqs: tuple[int, ...]


class Prune(NamedTuple):
    """Delete all of an ended run but its address, a tombstone."""

    run: int


Write = (
    Run
    | Entry
    | Envelope
    | SetState
    | SetView
    | SetRound
    | SetEnd
    | Wake
    | Consume
    | SetDead
    | Revive
    | Expire
    | Bury
    | SetCursor
    | SetAsideEntries
    | Prune
)
"""A `Run` in a commit is a new run, an `Entry` is appended, an `Envelope` is accepted."""


class Chain:
    """Commits that follow from each other. When one is refused, every later one of the chain is refused too."""

    __slots__ = ("broken",)

    def __init__(self) -> None:
        self.broken: bool = False


class Commit(NamedTuple):
    """Writes that become true together or not at all."""

    writes: tuple[Write, ...]
    chain: Chain | None = None


# --- refusals: why one commit of a batch was not taken, while the others were ------------------------------------------


@frozen
class Taken(Value):
    """A new run's address is in use."""

    run: Run


@frozen
class Duplicate(Value):
    """A message key was used before with that receiver."""

    envelope: Envelope


@frozen
class Rejected(Value):
    """The store could not take this commit (too large for the space left, chain broken): nothing of it was written."""

    why: str


Refusal = Taken | Duplicate | Rejected


# --- what is read -----------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Lease(Value):
    """What opening a store for writing gives: the right to write, and where its counters stand."""

    fence: int
    store_id: str
    run_id_last: int
    message_id_last: int
    interrupted: int  #: runs that were in a turn when the last holder ended uncleanly; each now has one crash more


@frozen(kw_only=True)
class Loaded(Value):
    """All that resuming a run needs.

    `entries` are those of the current round that replay sees, in order: not set aside, and not inside a checkpoint that
    has a `checkpoint` entry (folded). `mailbox` is what is pending, in order. `children` are runs started by this one that
    have not ended and are not detached.
    """

    run: Run
    entries: Sequence[Event] = ()
    mailbox: Sequence[Envelope] = ()
    cursors: Sequence[SetCursor] = ()
    children: Sequence[Run] = ()


@frozen(kw_only=True)
class RunQuery(Value):
    """Which runs, newest first."""

    kind: str | None = None
    status: str | None = None
    reason: str | None = None
    key_prefix: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    parent: int | None = None
    actor: bool | None = None  #: only actors, or only runs of workflows
    before_id: int | None = None  #: cursor: only runs with a smaller id
    limit: int = 50


@frozen(kw_only=True)
class Counts(Value):
    """How many runs there are in each status."""

    by_status: tuple[tuple[str, int], ...]
