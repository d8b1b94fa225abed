"""What must be true of a store's rows after any crash, and of any run that has ended. A list of violations, empty if all is well.

Everything is read through the `Store` protocol, so the same look works on every store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import copy_context
from typing import Any

from attrs import frozen

from actorflow.actor import Actor
from actorflow.attempt import Mark, current
from actorflow.codec import Coder, coder
from actorflow.failures import encode_failure
from actorflow.kernel.journal import DELIVERED
from actorflow.kernel.requests import Broken, Finished, Stretch
from actorflow.kernel.turn import Turn
from actorflow.kind import Fields, Kind
from actorflow.policies.saga import MAY_HAVE_LANDED
from actorflow.records import ENDED, Entry, Envelope, Event, Loaded, Run, RunQuery
from actorflow.resources import Resources
from actorflow.stores import Store
from actorflow.stores.memory import MemoryStore
from actorflow.value import Value

OUTCOMES = frozenset(("ok", "failed", "timeout", "interrupted", "cancelled"))
LAST = frozenset(("completed", "failed", "cancelled"))
_text_coder: Coder[str] = coder(str)


@frozen
class Rows(Value):
    """All there is of one run."""

    run: Run
    past: Sequence[Event]
    loaded: Loaded
    set_aside: frozenset[int]  #: seqs of entries that an operator set aside

    def __str__(self) -> str:
        return str(self.run.address)


async def rows_of(store: Store, runs: Iterable[int] | None = None) -> list[Rows]:
    """The rows of those runs, by their numbers, or of every run, in an open store."""
    found: list[Rows] = []
    if runs is None:
        runs = [light.id for light in reversed(await store.runs(RunQuery(limit=1_000)))]
    for run in runs:
        loaded = await store.load(run)
        assert loaded is not None
        past = await store.history(run, limit=100_000)
        aside = _set_aside(past, loaded)
        if isinstance(store, MemoryStore):  # It knows them all; from rows, those inside folds cannot be told.
            aside = frozenset(store._memory.aside)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        found.append(Rows(loaded.run, past, loaded, aside))
    return found


def _set_aside(past: Sequence[Event], loaded: Loaded) -> frozenset[int]:
    """Entries of this round that replay would see if they had not been set aside; those inside folds cannot be told."""
    seen = {event.seq for event in loaded.entries}
    folds = [_scope(e) for e in loaded.entries if e.entry.kind == "checkpoint"]
    return frozenset(
        seq
        for seq, entry in past
        if entry.kind in DELIVERED and entry.round == loaded.run.round and seq not in seen and not _inside(entry.branch, folds)
    )


def _scope(event: Event) -> str:
    return f"{event.entry.branch}/{event.entry.name}#{event.entry.n}"


def _inside(branch: str, scopes: Iterable[str]) -> bool:
    return any(branch == scope or branch.startswith((scope + "/", scope + ".")) for scope in scopes)


def violations(rows: Sequence[Rows], actors: Sequence[type[Actor]] = ()) -> list[str]:
    """What must hold at any moment, just after a crash, too.

    Args:
        rows: Of all runs and actors.
        actors: Their classes. A message that waits may be stashed only where a handler of its class stashes.
    """
    stashing = {actor.__kind_info__().name for actor in actors if _stashes(actor.__kind_info__())}
    rules = (_in_order, _twice, _tries, _undone, _after_close, _after_end, _asleep, _turns, _handled)
    found = [f"{each}: {line}" for each in rows for rule in rules for line in rule(each)]
    found.extend(_from_nowhere(rows))
    found.extend(f"{each}: {line}" for each in rows if each.run.kind not in stashing for line in _forgotten(each))
    return found


async def lost(store: Store, accepted: Iterable[tuple[int, str]]) -> list[str]:
    """Messages that were accepted under a key, by receiver's number and key, and that are neither waiting, nor done, nor dead."""
    return [f"message {key!r} to run {run} is gone" for run, key in accepted if await store.message(run, key) is None]


def _stashes(kind: Kind) -> bool:
    return any("stash" in handler.fn.__code__.co_names for handler in (kind.handlers or {}).values())


def _in_order(rows: Rows) -> Iterable[str]:
    """The past is of this run and in one order, and what replay sees is part of it."""
    seqs = [seq for seq, _ in rows.past]
    if seqs != sorted(set(seqs)):
        yield f"its entries are in no order: {seqs}"
    if strange := [seq for seq, entry in rows.past if entry.run != rows.run.id]:
        yield f"entries {strange} are of another run"
    known = {event.seq: event.entry for event in rows.past}
    if torn := [event.seq for event in rows.loaded.entries if known.get(event.seq) != event.entry]:
        yield f"replay would see {torn}, which its past does not hold"


def _tries(rows: Rows) -> Iterable[str]:
    """The failed tries of a call are counted without gaps, and its outcome is that of a later attempt."""
    counted: dict[tuple[int, str, str, int], int] = {}
    for seq, entry in rows.past:
        call = (entry.round, entry.branch, entry.name, entry.n)
        if seq in rows.set_aside:
            counted.pop(call, None)
        elif entry.kind == "try":
            if entry.attempt not in (1, counted.get(call, 0) + 1):  # After a `retry` it is counted anew.
                yield f"try {entry.attempt} of {entry.identity} follows try {counted.get(call, 0)}"
            counted[call] = entry.attempt
        elif entry.kind == "step" and entry.status in ("ok", "failed", "timeout") and entry.attempt <= counted.get(call, 0):
            yield f"{entry.identity} has an outcome of attempt {entry.attempt}, after try {counted.get(call, 0)} had failed"


def _undone(rows: Rows) -> Iterable[str]:
    """What is undone was done before, or may have been, and the last is undone first."""
    done = {seq: entry for seq, entry in rows.past if entry.kind in ("step", "start") and entry.status in MAY_HAVE_LANDED}
    last: int | None = None
    for seq, entry in rows.past:
        if entry.kind != "undo" or entry.status == "failed" or entry.round != rows.run.round:
            continue
        of = int(entry.branch.rpartition("/")[2])
        if of not in done or of > seq:
            yield f"{entry.name} undoes entry {of}, which had not happened"
        if last is not None and of > last:
            yield f"entry {of} is undone after entry {last}, which came before it"
        last = of


def _from_nowhere(rows: Sequence[Rows]) -> Iterable[str]:
    """A message that a run sent is in its journal."""
    runs = {str(each): each for each in rows if not each.run.actor and each.run.input}
    for each in rows:
        for message in each.loaded.mailbox:
            sender = runs.get(message.sender)
            if sender is None or _of_the_system(message):
                continue
            told = b'{"to":' + _text_coder.encode(str(each), "address") + b',"message":' + message.body + b"}"
            if not any(
                entry.input == told if entry.kind == "tell" else entry.kind in ("intent", "ask") and _asks(entry, message)
                for _, entry in sender.past
            ):
                yield f"{each}: {message.type} says that it is from {sender}, whose journal knows nothing of it"


def _asks(entry: Entry, message: Envelope) -> bool:
    """An ask is known by its key, which ends with the identity of the call."""
    return message.key is not None and message.key.endswith(f"/{entry.round}/{entry.branch}/{entry.name}/{entry.n}")


def _turns(rows: Rows) -> Iterable[str]:
    """An actor has at most one open turn, and what is recorded of it comes after its beginning."""
    if not rows.run.actor:
        return
    of_round = [e for _, e in rows.loaded.entries]
    turns = [e for e in of_round if e.kind == "turn"]
    if len(turns) > 1:
        yield f"{len(turns)} turns are open: {', '.join(e.name for e in turns)}"
    if of_round and of_round[0].kind != "turn":
        yield f"{of_round[0].kind} {of_round[0].identity} is of no turn"


def _handled(rows: Rows) -> Iterable[str]:
    """A message with a key is handled once, and then waits no more."""
    if not rows.run.actor:
        return
    handled = Counter(e.ref for _, e in rows.past if e.kind == "handled" and e.ref is not None)
    yield from (f"message {key!r} was handled {count} times" for key, count in handled.items() if count > 1)
    yield from (f"message {e.key!r} was handled, and waits" for e in rows.loaded.mailbox if e.key in handled)


def _forgotten(rows: Rows) -> Iterable[str]:
    """Whoever has mail, and no turn under way, will look at it in time."""
    if not rows.run.actor or rows.run.status != "waiting" or any(e.kind == "turn" for _, e in rows.loaded.entries):
        return
    for message in rows.loaded.mailbox:
        if message.type == "~watch":
            continue
        if rows.run.wake_at is None or rows.run.wake_at > (message.due_at or 0.0):
            yield f"{message.type} waits since {message.sent_at} for {message.due_at}, and it would wake at {rows.run.wake_at}"


def _twice(rows: Rows) -> Iterable[str]:
    outcomes = Counter(
        (entry.round, entry.branch, entry.name, entry.n)
        for seq, entry in rows.past
        if (entry.kind in DELIVERED or (entry.kind == "undo" and entry.status != "failed"))
        and (entry.status in OUTCOMES or entry.kind == "undo")
        and seq not in rows.set_aside
        and entry.round == rows.run.round
    )
    return (f"{call} has {count} outcomes" for call, count in outcomes.items() if count > 1)


def _after_close(rows: Rows) -> Iterable[str]:
    closed: list[str] = []
    for event in rows.past:
        seq, entry = event
        if entry.round != rows.run.round or seq in rows.set_aside:
            continue
        if entry.kind in DELIVERED and _inside(entry.branch, closed):
            yield f"entry {seq} ({entry.kind} {entry.identity}) comes after its scope was closed"
        if entry.kind in ("gather", "checkpoint") and entry.status == "ok":
            closed.append(_scope(event))


def _after_end(rows: Rows) -> Iterable[str]:
    ends = [event for event in rows.past if event.entry.kind in LAST]
    if rows.run.status not in ENDED:
        if ends:
            yield f"it is {rows.run.status}, and yet entry {ends[0].seq} says {ends[0].entry.kind}"
        return
    if [event.entry.kind for event in ends] != [rows.run.status]:
        yield f"it is {rows.run.status}, and its log says {[event.entry.kind for event in ends]}"
    elif rows.past[-1] is not ends[0] and rows.past[-1].entry.kind != "dead":
        yield f"{rows.past[-1].entry.kind} {rows.past[-1].entry.identity} was recorded after it ended"
    if rows.run.wake_at is not None:
        yield f"it has ended and would wake at {rows.run.wake_at}"
    if pending := [message for message in rows.loaded.mailbox if not _of_the_system(message)]:
        yield f"it has ended with {len(pending)} pending messages"
    if rows.run.outcome is None:
        yield "it has ended without an outcome"


def _of_the_system(message: Envelope) -> bool:
    return message.type.startswith("~")


def _asleep(rows: Rows) -> Iterable[str]:
    if rows.run.status in ("running", "undoing", "pending") and rows.run.wake_at is None:
        yield f"it is {rows.run.status} and nothing would wake it"
    # The branches of a gather that failed are gone, and so is what they waited for.
    broken = [_scope(event) for event in rows.past if event.entry.kind == "gather" and event.entry.round == rows.run.round]
    timers = [
        e.due_at
        for _, e in rows.loaded.entries
        if e.kind == "timer" and e.due_at is not None and not _inside(e.branch, broken) and not _answered(rows, e.identity)
    ]
    if rows.run.status == "waiting" and timers and (rows.run.wake_at is None or rows.run.wake_at > min(timers)):
        yield f"it waits for {min(timers)} and would wake at {rows.run.wake_at}"


def _answered(rows: Rows, identity: object) -> bool:
    return any(e.identity == identity and e.kind in DELIVERED for _, e in rows.loaded.entries) or any(
        e.identity == identity and e.kind in DELIVERED for _, e in rows.past
    )


def replays(rows: Sequence[Rows], actors: Sequence[type[Actor]], resources: Resources | None = None) -> list[str]:
    """Runs that completed, or failed by their code, driven once more: each must come to the same end, asking for nothing."""
    kinds = {actor.__kind_info__().name: actor.__kind_info__() for actor in actors}
    given = resources or Resources()
    return [
        f"{each}: {line}"
        for each in rows
        if each.run.status in ("completed", "failed")
        for line in _replay(each, kinds[each.run.kind], given.fields(each.run.kind))
    ]


def driven(run: Run, events: Sequence[Event], kind: Kind, resources: dict[str, Any] | None = None) -> Stretch:
    """What the code of a run comes to when it is driven from its top over those entries. No step runs."""
    instance = kind.build(run.fields if run.fields is not None else run.input, key=run.key, resources=resources)
    context = copy_context()
    context.run(current.set, Mark())
    seed = f"{run.seed}/{run.round}"
    turn = Turn(instance.run(), context, events, state=Fields(kind, instance), instance=instance, seed=seed)
    return turn.begin()


def _replay(rows: Rows, kind: Kind, resources: dict[str, Any] | None) -> Iterable[str]:
    run = rows.run
    if any(event.entry.kind == "cancelling" for event in rows.past):
        return  # Its code was dropped somewhere on its way.
    stretch = driven(run, rows.loaded.entries, kind, resources)
    if stretch.notes:
        yield f"replay notes {stretch.notes[0]}, which was not recorded"
    match stretch.end:
        case Finished(value, None) if run.status == "completed":
            again = kind.outcome.encode(value, "result")
            if again != run.outcome:
                yield f"replay gives {again!r}, live gave {run.outcome!r}"
        case Finished(_, Exception() as error) if run.status == "failed":
            if (again_text := _text(encode_failure(error))) != (first := _text(run.outcome or b"")):
                yield f"replay fails with {again_text!r}, live failed with {first!r}"
        case Broken(reason):
            yield f"it {run.status}, and replay breaks with {type(reason).__name__}: {reason}"
        case end:
            yield f"it {run.status}, and replay comes to {end!r} and asks for {[str(asked) for asked in stretch.asks]}"


def _text(failure: bytes) -> str:
    """Its type and message: a traceback may differ in its lines."""
    from actorflow.failures import describe_failure  # noqa: PLC0415

    return describe_failure(failure)
