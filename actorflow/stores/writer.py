"""One batch, one transaction: what the writer does on its connection's thread.

The usual way takes all commits at once: a dozen statements, one COMMIT. If a row is refused (an address or key in use, a
value that cannot be stored, a payload for which there is no space), all of it is rolled back and done again the careful way:
commit by commit inside one transaction, each behind a savepoint, so that only the one at fault is refused. What follows from
a refused commit (its chain) is refused with it.

No space is different: SQLite then rolls back the whole transaction, savepoints and all. If the commit at fault is a large one
and a usual one still fits, it is left out and the rest is done again; otherwise the disk is full and nothing is written.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence

from attrs import field, frozen

from actorflow.crashpoints import crashpoint
from actorflow.errors import FenceLost, Undecodable
from actorflow.records import Address, Chain, Commit, Duplicate, Envelope, Refusal, Rejected, Run, Taken, Write
from actorflow.stores import statements
from actorflow.stores.changes import Rows, changes_of, rows_of
from actorflow.stores.rows import envelope_of, run_of
from actorflow.stores.statements import SQL
from actorflow.stores.trouble import Trouble, kind_of
from actorflow.stores.updates import apply, bury
from actorflow.value import Value

LARGE_BYTES = 131_072
"""A commit with more payload than this may be refused for lack of space; smaller ones wait until there is some."""

Answers = list[Refusal | None]

_NO_SPACE = Rejected("it is too large for the space that is left on the disk")


Progress = tuple[int, int | None]
"""How far a store has come: its commit counter, and the sum of the highest numbers given to rows. Every batch raises one."""


class Unknown(Exception):
    """COMMIT raised: the batch may be in or not. It is if the store has come further than *before*."""

    def __init__(self, before: Progress, answers: Answers) -> None:
        self.before: Progress = before
        self.answers: Answers = answers
        super().__init__(before)


class _Refused(Exception):
    """This commit stops the careful way."""

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(index)


@frozen(kw_only=True)
class Writer(Value):
    """Writes batches under one fence. Called on the connection's thread only."""

    fence: int
    busy_s_max: float  #: how long another program's write lock is waited for, all in all
    settle: Callable[[int], None] = field(repr=False)  #: last look before a batch of so many is acknowledged; may raise

    def write(self, db: sqlite3.Connection, batch: Sequence[Commit], *, without_large: bool = False) -> Answers:
        """Make a batch durable. Raises what SQLite raises, `FenceLost`, or `Unknown`; but for the last nothing was written.

        Args:
            db: The writer's connection.
            batch: What to write.
            without_large: There was no space for all of it: refuse the commits over `LARGE_BYTES`, write the others.
        """
        crashpoint("commit.begin")
        try:
            answers = self._carefully(db, batch, _too_large(batch)) if without_large else self._write(db, batch)
        except Unknown:
            raise
        except BaseException:
            roll_back(db)
            raise
        break_chains(batch, answers)
        self.settle(len(batch))
        return answers

    def _write(self, db: sqlite3.Connection, batch: Sequence[Commit]) -> Answers:
        answers: Answers = [
            Rejected("a commit that it follows from was refused") if commit.chain is not None and commit.chain.broken else None
            for commit in batch
        ]
        try:
            self._at_once(db, [commit for commit, answer in zip(batch, answers, strict=True) if answer is None], answers)
        except (sqlite3.Error, ValueError, OverflowError, TypeError) as error:
            if kind_of(error) not in (Trouble.DATA, Trouble.FULL):
                raise
            roll_back(db)
            return self._carefully(db, batch, {})
        return answers

    def _at_once(self, db: sqlite3.Connection, commits: Sequence[Commit], answers: Answers) -> None:
        rows = rows_of(commits)
        before = self._begin(db)
        _insert(db, rows)
        crashpoint("commit.rows")
        _change(db, rows.others)
        self._commit(db, before, answers, numbered=bool(rows.entries))

    def _begin(self, db: sqlite3.Connection) -> Progress:
        begin_immediate(db, busy_s_max=self.busy_s_max)
        return progress(db, self.fence)

    def _commit(self, db: sqlite3.Connection, before: Progress, answers: Answers, *, numbered: bool) -> None:
        """Commit a batch that can be told from its absence: by the number of a new row, as SQLite notes that on a page that is
        then written anyway (entries always get one: *numbered*); else by the counter, which is a page more."""
        if not numbered:
            db.execute(SQL["count_commit"], {"numbers": before[1]})
        try:
            crashpoint("commit.before")
            db.execute("commit")
            crashpoint("commit.after")
        except BaseException as error:
            raise Unknown(before, answers) from error

    # --- the careful way ---------------------------------------------------------------------------------------------

    def _carefully(self, db: sqlite3.Connection, batch: Sequence[Commit], at_fault: dict[int, Rejected]) -> Answers:
        """Commit by commit, again without the one that stopped it, until none does. Ends: each turn refuses one for good."""
        while True:
            try:
                return self._try_without(db, batch, at_fault)
            except _Refused as refused:
                roll_back(db)
                error = refused.__cause__
                assert error is not None
                if kind_of(error) is Trouble.FULL and not self._only_too_large(db, batch[refused.index]):
                    raise error from None
                at_fault[refused.index] = _rejected(error)

    def _try_without(self, db: sqlite3.Connection, batch: Sequence[Commit], at_fault: dict[int, Rejected]) -> Answers:
        before = self._begin(db)
        answers: Answers = []
        broken: set[Chain] = set()
        for index, commit in enumerate(batch):
            answer: Refusal | None = at_fault.get(index)
            if commit.chain is not None and (commit.chain.broken or commit.chain in broken):
                answer = Rejected("a commit that it follows from was refused")
            if answer is None:
                answer = _insert_one(db, index, commit)
            if answer is not None and commit.chain is not None:
                broken.add(commit.chain)
            answers.append(answer)
        _change_each(db, [(index, commit) for index, commit in enumerate(batch) if answers[index] is None])
        self._commit(db, before, answers, numbered=False)
        return answers

    def _only_too_large(self, db: sqlite3.Connection, commit: Commit) -> bool:
        """Whether a commit that found no space is to blame itself: it is large, and one that is not would still fit."""
        if not is_large(commit):
            return False
        try:
            db.execute(SQL["write_probe"], {"size": LARGE_BYTES})
            db.execute(SQL["drop_probe"])
        except sqlite3.Error:
            roll_back(db)
            return False
        return True


def progress(db: sqlite3.Connection, fence: int) -> Progress:
    """How far the store has come.

    Raises:
        FenceLost: Another holder has it.
    """
    rows: list[Progress] = db.execute(SQL["read_progress"], {"fence": fence}).fetchall()
    if not rows:
        raise FenceLost(fence)
    return rows[0]


def begin_immediate(db: sqlite3.Connection, *, busy_s_max: float) -> None:
    """Take SQLite's write lock. At once: a lock taken while reading cannot be waited for (BUSY_SNAPSHOT).

    SQLite waits its `timeout` for another program each time; after *busy_s_max* seconds its error is let through.
    """
    deadline = time.monotonic() + busy_s_max
    while True:
        try:
            db.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if kind_of(error) is not Trouble.BUSY or time.monotonic() >= deadline:
                raise
        else:
            return


def roll_back(db: sqlite3.Connection) -> None:
    """Leave the transaction, if there still is one: some errors have ended it already."""
    if db.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            db.execute("rollback")


def break_chains(batch: Sequence[Commit], answers: Answers) -> None:
    """What follows from a refused commit will be refused. Done on this thread, so that it holds even if nobody waits any more."""
    for commit, answer in zip(batch, answers, strict=True):
        if answer is not None and commit.chain is not None:
            commit.chain.broken = True


# --- rows -----------------------------------------------------------------------------------------------------------


def _insert(db: sqlite3.Connection, rows: Rows) -> None:
    if rows.runs:
        statements.INSERT_RUN.run(db, rows.runs)
    if rows.entries:
        statements.INSERT_ENTRY.run(db, rows.entries)
    if rows.messages:
        statements.INSERT_MESSAGE.run(db, rows.messages)


def _insert_one(db: sqlite3.Connection, index: int, commit: Commit) -> Refusal | None:
    db.execute("savepoint one")
    try:
        _insert(db, rows_of([commit]))
    except (sqlite3.Error, ValueError, OverflowError, TypeError) as error:
        kind = kind_of(error)
        if kind is not Trouble.DATA:
            raise _Refused(index) if kind is Trouble.FULL else error from error
        db.execute("rollback to one")
        return _conflict(db, commit) or _rejected(error)
    finally:
        if db.in_transaction:
            db.execute("release one")
    return None


def _conflict(db: sqlite3.Connection, commit: Commit) -> Refusal | None:
    """What stands in the way of a commit's rows, if something does: runs are looked at first, then messages."""
    try:
        for write in commit.writes:
            if type(write) is Run and (refusal := _run_in_the_way(db, write)):
                return refusal
        for write in commit.writes:
            if type(write) is Envelope and (refusal := _message_in_the_way(db, write)):
                return refusal
    except (
        Undecodable,
        ValueError,
        OverflowError,
        TypeError,
    ) as error:  # The other one is damaged, or this one cannot be looked for.
        return Rejected(str(error))
    return None


def _run_in_the_way(db: sqlite3.Connection, run: Run) -> Refusal | None:
    if (other := find_run(db, run.address)) is not None:
        return Taken(other)
    in_use = db.execute(SQL["run_by_id"], {"id": run.id}).fetchone()
    return Rejected(f"the run number {run.id} is in use") if in_use else None


def _message_in_the_way(db: sqlite3.Connection, message: Envelope) -> Refusal | None:
    if message.key is not None and (earlier := find_message(db, message.run, message.key)) is not None:
        return Duplicate(earlier)
    in_use = db.execute(SQL["message_by_id"], {"id": message.id}).fetchone()
    return Rejected(f"the message number {message.id} is in use") if in_use else None


def find_run(db: sqlite3.Connection, address: Address) -> Run | None:
    """The run under an address, with all it has."""
    row = db.execute(SQL["run_by_address"], {"kind": address.kind, "key": address.key}).fetchone()
    return None if row is None else run_of(row)


def find_message(db: sqlite3.Connection, run: int, key: str) -> Envelope | None:
    """The message that a run accepted under a key."""
    row = db.execute(SQL["message_by_key"], {"run": run, "key": key}).fetchone()
    return None if row is None else envelope_of(row)


def _rejected(error: BaseException) -> Rejected:
    if kind_of(error) is Trouble.FULL:
        return _NO_SPACE
    return Rejected(f"a value in it cannot be stored: {error}")


def is_large(commit: Commit) -> bool:
    """Whether it is the first to go when space runs out."""
    return _payload_bytes(commit) > LARGE_BYTES


def _too_large(batch: Sequence[Commit]) -> dict[int, Rejected]:
    return {index: _NO_SPACE for index, commit in enumerate(batch) if is_large(commit)}


def _payload_bytes(commit: Commit) -> int:
    return sum(len(value) for write in commit.writes for value in _values(write) if isinstance(value, bytes))


def _values(write: Write) -> Sequence[object]:
    if isinstance(write, tuple):
        return write
    return [getattr(write, name, None) for name in ("input", "fields", "view", "outcome", "report")]


# --- the other writes -------------------------------------------------------------------------------------------------


def _change(db: sqlite3.Connection, writes: Sequence[Write]) -> None:
    if not writes:
        return
    steps, buried = changes_of(writes)
    for changes in steps:
        apply(db, changes)
    bury(db, buried)


def _change_each(db: sqlite3.Connection, commits: Sequence[tuple[int, Commit]]) -> None:
    """The same, one commit after the other, to learn which one cannot be applied."""
    buried: list[int] = []
    for index, commit in commits:
        try:
            steps, ended = changes_of(rows_of([commit]).others)
            buried += ended
            for changes in steps:
                apply(db, changes)
        except (sqlite3.Error, ValueError, OverflowError, TypeError) as error:
            if kind_of(error) in (Trouble.DATA, Trouble.FULL):
                raise _Refused(index) from error
            raise
    bury(db, list(dict.fromkeys(buried)))
