"""`MemoryStore`: the executable specification of `Store`. Plain dicts, each rule as plain as it can be said.

Every other store must agree with it under any sequence of calls (`actorflow.testing.store_contract`). It is also what fast
tests run on: the data may outlive a "crash", because opening again makes a new holder over the same data and leaves the
old one with a fence that is worth nothing.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeVar, assert_never

import anyio.lowlevel
from attrs import evolve, field, mutable

from actorflow.errors import FenceLost, StoreStopped
from actorflow.records import (
    ENDED,
    LOG_ONLY,
    URGENT,
    Address,
    Bury,
    Commit,
    Consume,
    Duplicate,
    Entry,
    Envelope,
    Event,
    Lease,
    Loaded,
    Prune,
    Refusal,
    Rejected,
    Run,
    RunQuery,
    SetAsideEntries,
    SetCursor,
    SetEnd,
    SetRound,
    SetState,
    SetView,
    Taken,
    Wake,
    Write,
)

T = TypeVar("T")


@mutable
class _Memory:
    """What a disk would hold."""

    store_id: str
    fence: int = 0
    runs: dict[int, Run] = field(factory=dict[int, Run])
    entries: dict[int, Entry] = field(factory=dict[int, Entry])  #: by seq, which only grows
    aside: set[int] = field(factory=set[int])
    messages: dict[int, Envelope] = field(factory=dict[int, Envelope])
    cursors: dict[tuple[int, int, str, int], SetCursor] = field(factory=dict[tuple[int, int, str, int], SetCursor])
    by_address: dict[Address, int] = field(factory=dict[Address, int])
    by_message_key: dict[tuple[int, str], int] = field(factory=dict[tuple[int, str], int])
    journals: dict[int, list[int]] = field(factory=dict[int, list[int]])  #: the seqs of a run's entries, in order
    seq_last: int = 0
    run_id_last: int = 0
    message_id_last: int = 0


class MemoryStore:
    """A store that is lost with the process.

    Args:
        share: Another one, whose data this one works on too: a second holder, as after a crash.
        store_id: What the store calls itself; by default something new.

    >>> first = MemoryStore()
    >>> second = MemoryStore(share=first)
    >>> lease = anyio.run(lambda: first.open(now=0.0))
    >>> lease.fence, anyio.run(lambda: second.open(now=0.0)).fence
    (1, 2)
    >>> anyio.run(lambda: first.commit([], fence=lease.fence))
    Traceback (most recent call last):
        ...
    actorflow.errors.FenceLost: the lease with fence 1 is lost: another process owns the store now. Nothing was written.
    """

    url = "memory://"

    def __init__(self, *, share: MemoryStore | None = None, store_id: str | None = None) -> None:
        self._memory: _Memory = share._memory if share else _Memory(store_id or uuid.uuid4().hex)  # noqa: SLF001  (its own class)
        self._opened = False

    @property
    def _data(self) -> _Memory:
        if not self._opened:
            raise StoreStopped("it is not open")
        return self._memory

    async def open(self, *, now: float, standby: bool = False) -> Lease:
        """A new holder, whoever held it before: there is no other process to be afraid of, so `standby` waits for nothing."""
        self._opened, data = True, self._memory
        data.fence += 1
        interrupted = 0
        for run in list(data.runs.values()):
            if run.status == "running":
                interrupted += 1
                data.runs[run.id] = evolve(run, status="waiting", crashes=run.crashes + 1, wake_at=0.0, updated_at=now)
            elif run.status == "undoing":
                data.runs[run.id] = evolve(run, wake_at=0.0, updated_at=now)
        return Lease(
            fence=data.fence,
            store_id=data.store_id,
            run_id_last=data.run_id_last,
            message_id_last=data.message_id_last,
            interrupted=interrupted,
        )

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        """See `Store.commit`. Leaves the loop one tick, as every store does, so that a busy writer starves nobody."""
        data = self._data
        if fence != data.fence:
            raise FenceLost(fence)
        answers = [_insert(data, commit) for commit in batch]
        changes = [write for commit, refusal in zip(batch, answers, strict=True) if not refusal for write in commit.writes]
        for write in changes:
            _apply(data, write)
        for write in changes:
            if isinstance(write, Bury):
                _bury(data, write.run)
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return answers

    async def load(self, run: int) -> Loaded | None:
        data = self._data
        if run not in data.runs:
            return None
        found = data.runs[run]
        return Loaded(
            run=found,
            entries=_replayed(data, found),
            mailbox=[message for message in _by_id(data.messages) if message.run == run and message.state == "pending"],
            cursors=[data.cursors[key] for key in sorted(data.cursors) if key[:2] == (run, found.round)],
            children=[
                _light(child)
                for child in _by_id(data.runs)
                if child.parent == run and child.status not in ENDED and not child.detached
            ],
        )

    async def find(self, address: Address) -> Run | None:
        return _find(self._data, address)

    async def get(self, run: int) -> Run | None:
        return self._data.runs.get(run)

    async def message(self, run: int, key: str) -> Envelope | None:
        return _message(self._data, run, key)

    async def due(self, *, after: tuple[float, int], limit: int) -> list[tuple[float, int]]:
        waiting = ((run.wake_at, run.id) for run in self._data.runs.values() if run.wake_at is not None)
        return sorted(moment for moment in waiting if moment > after)[:limit]

    async def runs(self, query: RunQuery) -> list[Run]:
        found = [_light(run) for run in reversed(_by_id(self._data.runs)) if _matches(run, query)]
        return found[: query.limit]

    async def counts(self) -> dict[str, int]:
        return dict(Counter(run.status for run in self._data.runs.values()))

    async def history(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        return _journal(self._data, run, lambda seq, _: seq > after)[:limit]

    async def events(self, *, after: int = 0, limit: int = 1_000) -> list[Event]:
        return _events(self._data, lambda seq, _: seq > after)[:limit]

    async def undoable(self, run: int, round: int) -> list[Event]:
        data = self._data

        def wanted(seq: int, entry: Entry) -> bool:
            of_step = entry.kind in ("step", "start") and entry.ref is not None
            return entry.round == round and seq not in data.aside and (of_step or entry.kind == "undo")

        return _journal(data, run, wanted)

    async def dead_letters(self, *, run: int | None = None, limit: int = 100) -> list[Envelope]:
        messages = _by_id(self._data.messages)
        return [message for message in messages if message.state == "dead" and run in (None, message.run)][:limit]

    async def tidy(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        self._opened = False


# --- the rows of a commit -------------------------------------------------------------------------------------------


def _insert(data: _Memory, commit: Commit) -> Refusal | None:
    """Insert a commit's rows, or say why it is refused, then having changed nothing but its chain."""
    chain = commit.chain
    if chain is not None and chain.broken:
        return Rejected("a commit that it follows from was refused")
    refusal = _conflict(data, commit.writes)
    if refusal is not None:
        if chain is not None:
            chain.broken = True
        return refusal
    for write in commit.writes:
        match write:
            case Run():
                data.runs[write.id] = write
                data.by_address[write.address] = write.id
                data.run_id_last = max(data.run_id_last, write.id)
            case Entry():
                data.seq_last += 1
                data.entries[data.seq_last] = write
                data.journals.setdefault(write.run, []).append(data.seq_last)
            case Envelope():
                data.messages[write.id] = write
                if write.key is not None:
                    data.by_message_key[write.run, write.key] = write.id
                data.message_id_last = max(data.message_id_last, write.id)
            case _:
                pass
    return None


def _conflict(data: _Memory, writes: Iterable[Write]) -> Refusal | None:
    """What stands in the way of a commit's rows: runs are looked at first, then messages, then the commit itself."""
    runs = [write for write in writes if isinstance(write, Run)]
    messages = [write for write in writes if isinstance(write, Envelope)]
    for run in runs:
        if (other := _find(data, run.address)) is not None:
            return Taken(other)
        if run.id in data.runs:
            return Rejected(f"the run number {run.id} is in use")
    for message in messages:
        if message.key is not None and (earlier := _message(data, message.run, message.key)) is not None:
            return Duplicate(earlier)
        if message.id in data.messages:
            return Rejected(f"the message number {message.id} is in use")
    keys = [(message.run, message.key) for message in messages if message.key is not None]
    numbers = [message.id for message in messages]
    if any(_repeats(each) for each in ([run.id for run in runs], [run.address for run in runs], keys, numbers)):
        return Rejected("the commit has the same address, key or number twice")
    return None


def _repeats(values: Sequence[Any]) -> bool:
    return len(set(values)) < len(values)


# --- its other writes -----------------------------------------------------------------------------------------------


def _apply(data: _Memory, write: Write) -> None:
    match write:
        case Run() | Entry() | Envelope() | Bury():
            pass  # Rows went in first, a Bury comes last.
        case SetState(status=status, reason=reason, wake_at=wake_at, crashes=crashes, at=at):
            _change(data, write.run, status=status, reason=reason, wake_at=wake_at, crashes=crashes, updated_at=at)
        case SetView(view=view):
            _change(data, write.run, view=view)
        case SetRound(round=round, fields=fields):
            _change(data, write.run, round=round, fields=fields)
        case SetEnd(outcome=outcome, report=report, ended_at=ended_at):
            given = {"outcome": outcome, "report": report, "ended_at": ended_at}
            _change(data, write.run, **{name: value for name, value in given.items() if value is not None})
        case Wake(run=number, at=at):
            run = data.runs.get(number)
            if run is not None and (run.status == "waiting" or (run.status == "paused" and at == URGENT)):
                _change(data, number, wake_at=at if run.wake_at is None else min(run.wake_at, at))
        case Consume():
            _consume(data, write)
        case SetCursor(state=None):
            data.cursors.pop(write[:4], None)
        case SetCursor():
            data.cursors[write[:4]] = write
        case SetAsideEntries(run=number, seqs=seqs):
            data.aside.update(seq for seq in seqs if seq in data.entries and data.entries[seq].run == number)
        case Prune(run=number):
            _prune(data, number)
        case _:
            assert_never(write)


def _change(data: _Memory, run: int, **values: Any) -> None:
    if run in data.runs:
        data.runs[run] = evolve(data.runs[run], **values)


def _consume(data: _Memory, consume: Consume) -> None:
    message = data.messages.get(consume.id)
    if message is None:
        return
    if message.key is None and message.reply_to is None:
        _drop(data, message)
    else:
        answer = message.answer if consume.answer is None else consume.answer
        data.messages[consume.id] = message._replace(state="done", answer=answer)


def _bury(data: _Memory, run: int) -> None:
    for message in _by_id(data.messages):
        if message.run == run and message.state == "pending":
            if message.type.startswith("~"):
                _drop(data, message)
            else:
                data.messages[message.id] = message._replace(state="dead")


def _drop(data: _Memory, message: Envelope) -> None:
    del data.messages[message.id]
    if message.key is not None:
        del data.by_message_key[message.run, message.key]


def _prune(data: _Memory, number: int) -> None:
    run = data.runs.get(number)
    if run is None or run.status not in ENDED:
        return
    data.entries = {seq: entry for seq, entry in data.entries.items() if entry.run != number}
    data.aside &= data.entries.keys()
    data.journals.pop(number, None)
    data.messages = {id: message for id, message in data.messages.items() if message.run != number}
    data.by_message_key = {key: id for key, id in data.by_message_key.items() if key[0] != number}
    data.cursors = {key: cursor for key, cursor in data.cursors.items() if cursor.run != number}
    kept = ("id", "kind", "key", "status", "created_at", "updated_at", "ended_at")
    data.runs[number] = Run(**{name: getattr(run, name) for name in kept})


# --- what is read ---------------------------------------------------------------------------------------------------


def _replayed(data: _Memory, run: Run) -> list[Event]:
    """Entries of the current round that replay sees: no log, not set aside, and not inside a finished checkpoint.

    A `checkpoint` entry closes the scope `<branch>/<name>#<n>`. What lies in there is folded, a patch excepted: its answer
    holds for the whole round.
    """

    def current(seq: int, entry: Entry) -> bool:
        return entry.round == run.round and entry.kind not in LOG_ONLY and seq not in data.aside

    events = _journal(data, run.id, current)
    closed = [
        f"{entry.branch}/{entry.name}#{entry.n}" for _, entry in events if entry.kind == "checkpoint" and entry.status == "ok"
    ]

    def folded(entry: Entry) -> bool:
        inside = any(entry.branch == scope or entry.branch.startswith(scope + "/") for scope in closed)
        return inside and entry.kind != "patch"

    return [event for event in events if not folded(event.entry)]


def _events(data: _Memory, wanted: Callable[[int, Entry], bool]) -> list[Event]:
    return [Event(seq, entry) for seq, entry in data.entries.items() if wanted(seq, entry)]


def _journal(data: _Memory, run: int, wanted: Callable[[int, Entry], bool]) -> list[Event]:
    return [Event(seq, data.entries[seq]) for seq in data.journals.get(run, ()) if wanted(seq, data.entries[seq])]


def _find(data: _Memory, address: Address) -> Run | None:
    return data.runs.get(data.by_address.get(address, 0))


def _message(data: _Memory, run: int, key: str) -> Envelope | None:
    return data.messages.get(data.by_message_key.get((run, key), 0))


def _by_id(rows: dict[int, T]) -> list[T]:
    return [rows[id] for id in sorted(rows)]


def _light(run: Run) -> Run:
    return evolve(run, input=b"", fields=None, view=None, outcome=None)


def _matches(run: Run, query: RunQuery) -> bool:
    equal = all(
        wanted is None or wanted == attrgetter(name)(run)
        for name, wanted in (("kind", query.kind), ("status", query.status), ("reason", query.reason), ("parent", query.parent))
    )
    return (
        equal
        and (query.key_prefix is None or run.key.startswith(query.key_prefix))
        and (query.created_after is None or run.created_at > query.created_after)
        and (query.created_before is None or run.created_at < query.created_before)
        and (query.before_id is None or run.id < query.before_id)
    )
