"""`Tables`: what `MemoryStore` holds, and the rules by which writes change it. Plain dicts, each rule as plain as it can be said.

These rules are the specification of `Store.commit`; how the same is done with few statements is `changes` and `writer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, assert_never

from attrs import evolve, field, mutable

from actorflow.records import (
    ENDED,
    URGENT,
    Address,
    Bury,
    Commit,
    Consume,
    Duplicate,
    Entry,
    Envelope,
    Expire,
    Prune,
    Refusal,
    Rejected,
    Revive,
    Run,
    SetAsideEntries,
    SetCursor,
    SetDead,
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
class Tables:
    """What a disk would hold."""

    store_id: str
    fence: int = 0
    runs: dict[int, Run] = field(factory=dict[int, Run])
    entries: dict[int, Entry] = field(factory=dict[int, Entry])  #: by seq, which only grows
    aside: set[int] = field(factory=set[int])
    messages: dict[int, Envelope] = field(factory=dict[int, Envelope])
    cursors: dict[tuple[int, int, str, int], SetCursor] = field(factory=dict[tuple[int, int, str, int], SetCursor])
    by_address: dict[Address, int] = field(factory=dict[Address, int])
    lines: dict[int, int] = field(factory=dict[int, int])  #: where dead letters that were revived stand in their mailboxes
    by_message_key: dict[tuple[int, str], int] = field(factory=dict[tuple[int, str], int])
    journals: dict[int, list[int]] = field(factory=dict[int, list[int]])  #: the seqs of a run's entries, in order
    seq_last: int = 0
    run_id_last: int = 0
    message_id_last: int = 0

    def find(self, address: Address) -> Run | None:
        return self.runs.get(self.by_address.get(address, 0))

    def message(self, run: int, key: str) -> Envelope | None:
        return self.messages.get(self.by_message_key.get((run, key), 0))

    def mailbox(self, run: int) -> list[Envelope]:
        waiting = [message for message in self.messages.values() if message.run == run and message.state == "pending"]
        return sorted(waiting, key=lambda message: (self.lines.get(message.id, message.id), message.id))


def by_id(rows: dict[int, T]) -> list[T]:
    """In the order of their numbers."""
    return [rows[id] for id in sorted(rows)]


# --- the rows of a commit -------------------------------------------------------------------------------------------


def insert(data: Tables, commit: Commit) -> Refusal | None:
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


def _conflict(data: Tables, writes: Iterable[Write]) -> Refusal | None:
    """What stands in the way of a commit's rows: runs are looked at first, then messages, then the commit itself."""
    runs = [write for write in writes if isinstance(write, Run)]
    messages = [write for write in writes if isinstance(write, Envelope)]
    for run in runs:
        if (other := data.find(run.address)) is not None:
            return Taken(other)
        if run.id in data.runs:
            return Rejected(f"the run number {run.id} is in use")
    for message in messages:
        if message.key is not None and (earlier := data.message(message.run, message.key)) is not None:
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


def apply(data: Tables, write: Write) -> None:
    """One write that is no row; a `Bury` waits for `bury`."""
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
        case SetDead():
            _set_dead(data, write)
        case Revive():
            _revive(data, write)
        case Expire():
            _expire(data, write)
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


def _change(data: Tables, run: int, **values: Any) -> None:
    if run in data.runs:
        data.runs[run] = evolve(data.runs[run], **values)


def _consume(data: Tables, consume: Consume) -> None:
    message = data.messages.get(consume.id)
    if message is None:
        return
    if message.key is None and message.reply_to is None:
        _drop(data, message)
    else:
        data.messages[message.id] = message._replace(state="done", answer=_later(consume.answer, message.answer))


def _set_dead(data: Tables, write: SetDead) -> None:
    message = data.messages.get(write.id)
    if message is not None and message.state == "pending":
        data.messages[message.id] = message._replace(state="dead", answer=_later(write.answer, message.answer))


def _revive(data: Tables, write: Revive) -> None:
    message = data.messages.get(write.id)
    if message is not None and message.state == "dead":
        data.messages[message.id] = message._replace(state="pending", answer=None, expires_at=None)
        data.lines[message.id] = write.line


def _expire(data: Tables, write: Expire) -> None:
    for message in by_id(data.messages):
        if message.run == write.run and message.state == "done" and message.sent_at < write.before:
            _drop(data, message)


def _later(answer: bytes | None, earlier: bytes | None) -> bytes | None:
    return earlier if answer is None else answer


def bury(data: Tables, run: int) -> None:
    """What a `Bury` says, after all other writes of its batch."""
    for message in by_id(data.messages):
        if message.run == run and message.state == "pending":
            if message.type.startswith("~"):
                _drop(data, message)
            else:
                data.messages[message.id] = message._replace(state="dead")


def _drop(data: Tables, message: Envelope) -> None:
    del data.messages[message.id]
    data.lines.pop(message.id, None)
    if message.key is not None:
        del data.by_message_key[message.run, message.key]


def _prune(data: Tables, number: int) -> None:
    run = data.runs.get(number)
    if run is None or run.status not in ENDED:
        return
    data.entries = {seq: entry for seq, entry in data.entries.items() if entry.run != number}
    data.aside &= data.entries.keys()
    data.journals.pop(number, None)
    data.messages = {id: message for id, message in data.messages.items() if message.run != number}
    data.lines = {id: line for id, line in data.lines.items() if id in data.messages}
    data.by_message_key = {key: id for key, id in data.by_message_key.items() if key[0] != number}
    data.cursors = {key: cursor for key, cursor in data.cursors.items() if cursor.run != number}
    kept = ("id", "kind", "key", "status", "actor", "created_at", "updated_at", "ended_at")
    data.runs[number] = Run(**{name: getattr(run, name) for name in kept})
