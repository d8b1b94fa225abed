"""What a batch changes, gathered so that few statements do it: rows to insert, and the last word on each run and message.

Pure. A statement costs the connection's thread the interpreter's lock, which beside a busy loop may take 5 ms to get back:
a batch of 500 commits must be a dozen statements, not 500. So writes that overwrite each other are resolved here, in order,
and what is left touches each row once. The flat lists hold values in the order of the statement's question marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Literal, NamedTuple
from zlib import crc32

from attrs import fields

from actorflow.records import (
    URGENT,
    Bury,
    Commit,
    Consume,
    Entry,
    Envelope,
    Expire,
    Prune,
    Revive,
    Run,
    SetAsideEntries,
    SetCursor,
    SetDead,
    SetEnd,
    SetRound,
    SetState,
    SetView,
    Wake,
    Write,
    made,
)

RUN_COLUMNS = tuple(each.name for each in fields(Run))
RUN_PAYLOADS = RUN_COLUMNS[-5:]  #: input, fields, view, outcome, report: each has a checksum column, in this order
_run_values = attrgetter(*RUN_COLUMNS)


def checksum(payload: bytes | None) -> int | None:
    """CRC-32 of a payload, None of none: finds a byte that changed on disk, not a forger."""
    return None if payload is None else crc32(payload)


def entry_checksum(entry: Entry) -> int:
    """One number for both payloads of an entry."""
    return crc32(entry[11] or b"", crc32(entry[10] or b""))


def message_checksum(envelope: Envelope) -> int:
    """The body's; the answer has its own, as it comes later."""
    return crc32(envelope.body)


class Rows:
    """What commits insert, and their other writes in order."""

    __slots__ = ("entries", "messages", "others", "runs")

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.entries: list[Any] = []
        self.messages: list[Any] = []
        self.others: list[Write] = []


def rows_of(commits: Iterable[Commit]) -> Rows:
    """Part the writes of *commits* into rows, flattened for `Bulk.run`, and the rest."""
    rows = Rows()
    entries, others = rows.entries, rows.others
    for writes, _ in commits:
        for write in writes:
            if type(write) is Entry:  # Nearly all are: this path is written out.
                entries += write
                entries.append(crc32(write[11] or b"", crc32(write[10] or b"")))
            elif type(write) is Run:
                _add_run(rows.runs, write)
            elif type(write) is Envelope:
                _add_message(rows.messages, write)
            else:
                others.append(write)
    return rows


def _add_run(flat: list[Any], run: Run) -> None:
    values = _run_values(run)
    flat += values
    flat += [None if payload is None else crc32(payload) for payload in values[-5:]]


def _add_message(flat: list[Any], message: Envelope) -> None:
    flat += message
    flat += (message_checksum(message), checksum(message.answer))


class Letter(NamedTuple):
    """What becomes of a message that is pending or dead, after some `SetDead` and `Revive`. The last of them says the state.

    The answer depends on where it stood before, which only the database knows: one word for each case, "kept" or an answer.
    """

    state: Literal["dead", "pending"]
    kept: bool
    answer: bytes | None
    dead_kept: bool
    dead_answer: bytes | None
    line: int | None = None  #: its place in the mailbox, if it is another one now
    dead_line: int | None = None

    def dead(self, answer: bytes | None) -> Letter:
        """Then it was given up."""
        if self.state == "dead" or answer is None:
            return self._replace(state="dead")
        return Letter("dead", False, answer, False, answer, self.line, self.dead_line)

    def pending(self, line: int) -> Letter:
        """Then it was revived."""
        return self if self.state == "pending" else Letter("pending", False, None, False, None, line, line)


class Changes:
    """The last word on each row that other writes touch.

    Its parts touch different columns or tables, so their order is free, but for three: `letters` come before `consumed` (no
    message is given up or revived once it is done), and `expired` comes after it (a `Consume` after an `Expire` is of the
    next step).
    """

    __slots__ = (*("aside", "consumed", "cursors", "ends", "expired", "letters", "pruned", "rounds", "states", "views", "wakes"),)

    def __init__(self) -> None:
        self.states: dict[int, SetState] = {}
        self.wakes: dict[int, float] = {}
        self.views: dict[int, bytes] = {}
        self.rounds: dict[int, SetRound] = {}
        self.ends: dict[int, SetEnd] = {}
        self.letters: dict[int, Letter] = {}
        self.consumed: dict[int, bytes | None] = {}
        self.expired: dict[int, float] = {}
        self.cursors: dict[tuple[int, int, str, int], bytes | None] = {}
        self.aside: dict[int, int] = {}
        self.pruned: int | None = None  #: a run that is pruned after all that is above

    def set_state(self, write: SetState) -> None:
        self.wakes.pop(write.run, None)  # What woke it before is overwritten.
        self.states[write.run] = write

    def wake(self, write: Wake) -> None:
        run, at = write
        state = self.states.get(run)
        if state is None:
            self.wakes[run] = min(at, self.wakes.get(run, at))
        elif (state.status == "waiting" or (state.status == "paused" and at == URGENT)) and (
            state.wake_at is None or at < state.wake_at
        ):
            self.states[run] = state._replace(wake_at=at)

    def set_view(self, write: SetView) -> None:
        self.views[write.run] = write.view

    def set_round(self, write: SetRound) -> None:
        self.rounds[write.run] = write

    def set_end(self, write: SetEnd) -> None:
        earlier = self.ends.get(write.run)
        if earlier is not None:
            write = made(SetEnd, (old if new is None else new for old, new in zip(earlier, write, strict=True)))
        self.ends[write.run] = write

    def consume(self, write: Consume) -> None:
        self.consumed[write.id] = self.consumed.get(write.id) if write.answer is None else write.answer

    def set_dead(self, write: SetDead) -> None:
        id, answer = write
        if id not in self.consumed:
            letter = self.letters.get(id)
            self.letters[id] = Letter("dead", answer is None, answer, True, None) if letter is None else letter.dead(answer)

    def revive(self, write: Revive) -> None:
        id, line = write
        if id not in self.consumed:
            letter = self.letters.get(id)
            first = Letter("pending", True, None, False, None, None, line)
            self.letters[id] = first if letter is None else letter.pending(line)

    def expire(self, write: Expire) -> None:
        self.expired[write.run] = max(write.before, self.expired.get(write.run, write.before))

    def set_cursor(self, write: SetCursor) -> None:
        self.cursors[write[:4]] = write.state

    def set_aside(self, write: SetAsideEntries) -> None:
        self.aside.update(dict.fromkeys(write.seqs, write.run))


_TAKE: dict[type[Any], Callable[[Changes, Any], None]] = {
    SetState: Changes.set_state,
    Wake: Changes.wake,
    SetView: Changes.set_view,
    SetRound: Changes.set_round,
    SetEnd: Changes.set_end,
    Consume: Changes.consume,
    SetDead: Changes.set_dead,
    Revive: Changes.revive,
    Expire: Changes.expire,
    SetCursor: Changes.set_cursor,
    SetAsideEntries: Changes.set_aside,
}


def changes_of(writes: Iterable[Write]) -> tuple[list[Changes], list[int]]:
    """The changes of *writes*, in as few steps as their order allows, and the runs to bury after all of them.

    A `Prune` ends a step: what comes before it must be there to be pruned, and what comes after it must not. A `Consume` after
    an `Expire` begins one: what it takes was not done before.
    """
    steps = [Changes()]
    buried: dict[int, None] = {}
    for write in writes:
        if type(write) is Bury:
            buried[write.run] = None
        elif type(write) is Prune:
            steps[-1].pruned = write.run
            steps.append(Changes())
        else:
            if type(write) is Consume and steps[-1].expired:
                steps.append(Changes())
            _TAKE[type(write)](steps[-1], write)
    return steps, list(buried)
