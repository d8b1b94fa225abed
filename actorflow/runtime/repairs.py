"""Repairs of paused runs: resume, retry, skip, decide, fork. One commit each, then the run is loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from actorflow.errors import GaveUp, InvalidState, KeyTaken, RunCancelled, RunEnded, Undecodable
from actorflow.failures import encode_failure, failed_answer
from actorflow.kernel.branches import follows, lines
from actorflow.kernel.journal import DELIVERED, NOT_COMPARED, SPOT
from actorflow.kernel.journal import entry as new_entry
from actorflow.operations import Decision
from actorflow.policies.failure import FailureReport
from actorflow.policies.saga import UNDO_BRANCH
from actorflow.records import (
    ENDED,
    LOG_ONLY,
    URGENT,
    Address,
    Bury,
    Entry,
    EntryStatus,
    Event,
    Identity,
    Loaded,
    PauseReason,
    Run,
    RunQuery,
    RunStatus,
    SetAsideEntries,
    SetCursor,
    SetEnd,
    SetState,
    Taken,
    Wake,
    Write,
)
from actorflow.runtime import reports
from actorflow.runtime.mail import given_up
from actorflow.steps import steps_called

if TYPE_CHECKING:
    from actorflow.runtime.operators import Operators

HISTORY_MAX = 1_000_000


def _state(operators: Operators, run: Run, status: RunStatus, reason: PauseReason | None = None) -> SetState:
    at = operators.host.clock.wall()
    return SetState(run=run.id, status=status, reason=reason, wake_at=0.0, crashes=0, at=at)


def _log(operators: Operators, run: Run, kind: str, name: str = "") -> Entry:
    at = operators.host.clock.wall()
    return new_entry(run.id, run.round, kind, Identity("", name, 0), at=at, status="")


def _paused(run: Run, verb: str) -> FailureReport:
    """Its report.

    Raises:
        InvalidState: It is not paused, or has no failed call to repair.
    """
    if run.status in ENDED:
        raise InvalidState(verb, run.address, run.status, "Ended is ended: use `fork`.")
    if run.status != "paused":
        raise InvalidState(verb, run.address, run.status, "Only a paused run can be repaired; `pause` it first.")
    report = reports.decode(run.report)
    if report is None:
        raise InvalidState(verb, run.address, "paused without a report", "Use `resume`.")
    return report


def _go_on(operators: Operators, run: Run) -> None:
    operators.host.forget_bugs(run.id)
    operators.host.loading.wake(run.id)


async def resume(operators: Operators, run: Run) -> None:
    """Go on from the journal, with a new budget."""
    if run.status in ENDED:
        raise RunEnded(run.address, run.status)
    if run.status != "paused":
        return
    status: RunStatus = "undoing" if run.reason == "undo" else "waiting"
    writes: list[Write] = [_state(operators, run, status), _log(operators, run, "resumed"), SetEnd(run=run.id, report=b"")]
    if run.reason == "bug" and (closings := _last_closings(await _entries(operators, run))):
        writes.append(SetAsideEntries(run.id, closings))
    await operators.write(writes)
    _go_on(operators, run)


def _last_closings(events: Sequence[Event]) -> tuple[int, ...]:
    """The gathers that an error of the code itself closed, with what they cancelled.

    Such an error is not journaled: mended code does not raise it, and asks for no such end. Code that is as it was closes
    them once more.
    """
    seqs: list[int] = []
    for seq, entry in reversed(events):
        if entry.kind == "gather" or entry.status == "cancelled":
            seqs.append(seq)
        elif entry.kind in DELIVERED:
            break
    return tuple(sorted(seqs))


async def _entries(operators: Operators, run: Run) -> list[Event]:
    loaded = await operators.host.store.load(run.id)
    return list(loaded.entries) if loaded is not None else []


def _named(events: Sequence[Event], report: FailureReport) -> Event | None:
    """The failed entry that the report names."""
    for event in reversed(events):
        if str(event.entry.identity) == report.where and event.entry.kind in DELIVERED:
            return event
    return None


def _after(events: Sequence[Event], past: Sequence[Event], failed: Event) -> tuple[int, ...]:
    """The failed entry, all in *past* (inside of folds, too) that followed from it, and every cancelled entry."""
    branch = failed.entry.branch
    followed = {seq for seq, e in past if seq > failed.seq and e.kind not in LOG_ONLY and follows(e.branch, branch)}
    cancelled = {seq for seq, e in events if e.status == "cancelled"}
    own = {seq for seq, e in events if e.identity == failed.entry.identity and e.kind in ("try", "intent")}
    return tuple(sorted({failed.seq, *followed, *cancelled, *own}))


async def _past(operators: Operators, run: Run) -> list[Event]:
    """All that its current round recorded, folded and set aside, too."""
    past = await operators.host.store.history(run.id, limit=HISTORY_MAX)
    return [event for event in past if event.entry.round == run.round]


async def retry(operators: Operators, run: Run) -> None:
    """Set the failed call aside, and what followed from it; go on before it."""
    if run.status == "undoing":
        run = await operators.stop_undo(run)
    report = _paused(run, "retry")
    writes: list[Write] = [_log(operators, run, "retried", report.where), SetEnd(run=run.id, report=b"")]
    if run.reason == "undo":
        branch = report.where.partition(":")[0]
        spent = [
            seq
            for seq, e in await operators.host.store.undoable(run.id, run.round)
            if e.branch == branch and e.status == "failed"
        ]
        writes.extend((SetAsideEntries(run.id, tuple(spent)), _state(operators, run, "undoing")))
    else:
        events = await _entries(operators, run)
        failed = _named(events, report)
        if failed is None and run.reason not in ("failure", "ask", "bug"):
            raise InvalidState("retry", run.address, f"paused ({run.reason}) without a failed call", "Use `resume`.")
        if failed is not None:
            writes.append(SetAsideEntries(run.id, _after(events, await _past(operators, run), failed)))
        writes.append(_state(operators, run, "waiting"))
    await operators.write(writes)
    _go_on(operators, run)


async def skip(operators: Operators, run: Run, value: bytes) -> None:
    """Record a value for the failed call; go on after it."""
    if run.status == "undoing":
        run = await operators.stop_undo(run)
    report = _paused(run, "skip")
    if run.reason == "undo":
        branch, _, name = report.where.partition(":")
        writes: list[Write] = [_state(operators, run, "undoing")]
        identity = Identity(branch, name.rpartition("#")[0], 0)
        at = operators.host.clock.wall()
        writes.append(new_entry(run.id, run.round, "undo", identity, at=at, status="", outcome=b'"skipped"'))
        assert branch.startswith(UNDO_BRANCH)
    else:
        events = await _entries(operators, run)
        failed = _named(events, report)
        if failed is None:
            raise InvalidState("skip", run.address, f"paused ({run.reason}) without a failed call", "Use `resume` or `retry`.")
        _check_value(failed.entry, value)
        aside = _after(events, await _past(operators, run), failed)
        writes = [SetAsideEntries(run.id, aside), _state(operators, run, "waiting")]
        writes.append(failed.entry._replace(status="ok", outcome=value, at=operators.host.clock.wall()))
    writes.extend((_log(operators, run, "skipped", report.where), SetEnd(run=run.id, report=b"")))
    await operators.write(writes)
    _go_on(operators, run)


async def decide(operators: Operators, run: Run, call: str, decision: Decision) -> None:
    """Say what became of an interrupted step."""
    report = _paused(run, "decide")
    if run.reason != "ask" or report.where != call:
        raise InvalidState(
            "decide", run.address, f"paused ({run.reason}) at {report.where}", f"No step {call} waits for a decision."
        )
    events = await _entries(operators, run)
    intent = next((e for e in reversed(events) if e.entry.kind == "intent" and str(e.entry.identity) == call), None)
    if intent is None:
        raise InvalidState("decide", run.address, "paused without an interrupted attempt", "Use `resume`.")
    writes: list[Write] = [_state(operators, run, "waiting"), _log(operators, run, "decided", f"{call} {decision.act}")]
    match decision.act:
        case "run_again":
            writes.append(SetAsideEntries(run.id, (intent.seq,)))
        case "landed":
            _check_value(intent.entry, decision.value or b"null")
            writes.append(_decided(operators, intent.entry, "ok", decision.value or b"null"))
        case "give_up":
            writes.append(_decided(operators, intent.entry, "interrupted", encode_failure(GaveUp(call))))
    writes.append(SetEnd(run=run.id, report=b""))
    await operators.write(writes)
    _go_on(operators, run)


def _check_value(call: Entry, value: bytes) -> None:
    """See that a value can be the outcome of that call, as far as this process knows the step.

    Raises:
        Undecodable: It cannot.
    """
    declared = steps_called(call.name) if call.kind in ("step", "intent") else []
    unreadable: Undecodable | None = None
    for step in declared:
        try:
            step.outcome.decode(value, f"a value in place of the outcome of step {step.name}")
        except Undecodable as error:
            unreadable = error
        else:
            return
    if unreadable is not None:
        raise unreadable


def _decided(operators: Operators, intent: Entry, status: EntryStatus, outcome: bytes) -> Entry:
    return intent._replace(kind="step", status=status, outcome=outcome, at=operators.host.clock.wall())


async def cancel_paused(operators: Operators, run: Run, why: str) -> None:
    """Load it to end it; what its code would ask now may have begun, and is undone, too.

    One whose rows cannot be read ends without: nobody can tell what to undo.
    """
    host = operators.host
    try:
        loaded = await host.store.load(run.id)
    except Undecodable:
        children = await host.store.runs(RunQuery(parent=run.id, limit=host.limits.children_cancelled_max))
        known = Loaded(run=run, children=[child for child in children if child.status not in ENDED and not child.detached])
        outcome = encode_failure(RunCancelled(run.address, why))
        ends = _ends(operators, known, why, outcome)
        await operators.write(ends, durable=lambda: host.ended_at_rest(run.id, "cancelled", outcome))
        return
    if loaded is not None and loaded.run.status == "paused":
        operators.host.loading.enter(loaded, [], why=why)
        await operators.settled()


def _ends(operators: Operators, loaded: Loaded, why: str, outcome: bytes) -> list[Write]:
    """A paused run is cancelled without being undone: whoever waits for it or belongs to it is told, as of any end."""
    host, run, at = operators.host, loaded.run, operators.host.clock.wall()
    identity = Identity("", why[:200], 0)
    writes: list[Write] = [
        SetState(run=run.id, status="cancelled", reason=None, wake_at=None, crashes=0, at=at),
        SetEnd(run=run.id, outcome=outcome, ended_at=at),
        new_entry(run.id, run.round, "cancelled", identity, at=at, outcome=outcome),
    ]
    for child in loaded.children:
        cancel = host.envelope(child.id, "~cancel", b"its parent ended", sender=str(run.address))
        writes.extend((cancel, Wake(child.id, URGENT)))
    answer = failed_answer(RunEnded(run.address, "cancelled"))
    for envelope in loaded.mailbox:
        writes.extend(given_up(host, envelope, answer))
    writes.append(Bury(run.id))
    watching = [e.reply_to for e in loaded.mailbox if e.type == "~watch" and e.reply_to is not None]
    for waiting in (*watching, *(() if run.parent is None else (run.parent,))):
        writes.extend(host.notice("~child", waiting, str(run.address), "cancelled", outcome))
    return writes


async def fork(operators: Operators, run: Run, key: str, at: int | None, input: bytes | None, *, keep: bool) -> None:
    """A new run from the entries before *at*, plus later successes of other branches."""
    host = operators.host
    if run.status not in ENDED and run.status != "paused":
        raise InvalidState("fork", run.address, run.status, "`pause` or `cancel` it first.")
    loaded = await host.store.load(run.id)
    current = _not_set_aside(await host.store.history(run.id, limit=HISTORY_MAX), loaded)
    cut = next((event for event in current if event.seq == at), None)
    if at is not None and cut is None:
        raise InvalidState("fork", run.address, f"without event {at} in its current round", "Take `seq` from its history.")
    target = Address(run.kind, key)
    new = host.new_run(target, input if input is not None else (run.fields or run.input), deadline_at=None)
    new = evolve(new, seed=run.seed, round=run.round)
    writes: list[Write] = [
        new,
        host.begun(new),
        new_entry(new.id, run.round, "forked", Identity("", str(run.address), 0), at=new.created_at),
    ]
    writes.extend(_inherited(current, cut, new.id, compare=input is None))
    if loaded is not None:
        writes.extend(SetCursor(new.id, c.round, c.branch, c.n, c.state) for c in loaded.cursors)
    why, durable = f"forked as {target}", None
    if run.status == "paused" and not keep and loaded is not None:
        outcome = encode_failure(RunCancelled(run.address, why))
        writes.extend(_ends(operators, loaded, why, outcome))
        durable = partial(host.ended_at_rest, run.id, "cancelled", outcome)
    refusal = await operators.write(writes, durable=durable)
    if isinstance(refusal, Taken):
        raise KeyTaken(target, "a run that exists", f"a fork of {run.address}")
    host.loading.wake(new.id)


def _not_set_aside(past: Sequence[Event], loaded: Loaded | None) -> list[Event]:
    """Events of the current round, folded ones too, without what a `retry` or `skip` set aside.

    Outside of folds, what replay sees is known. Inside, what was set aside was asked again: the last of its identity counts.
    """
    assert loaded is not None
    seen = {event.seq for event in loaded.entries}
    folds = [f"{e.branch}/{e.name}#{e.n}" for _, e in loaded.entries if e.kind == "checkpoint"]

    def folded(branch: str) -> bool:
        return any(branch == fold or branch.startswith(f"{fold}/") for fold in folds)

    current = [event for event in past if event.entry.round == loaded.run.round]
    last = {(event.entry.kind, event.entry.identity): event.seq for event in current}
    logged = [event for event in current if event.entry.kind in LOG_ONLY]
    kept = [e for e in current if e.seq in seen or (folded(e.entry.branch) and last[e.entry.kind, e.entry.identity] == e.seq)]
    return sorted((*kept, *logged))


def _inherited(events: Sequence[Event], cut: Event | None, run: int, *, compare: bool) -> list[Write]:
    """Copies of the entries that the fork begins with; not undone by it, so without their `ref`.

    What was cancelled is no outcome: the fork performs it.
    """
    kept: list[Write] = []
    begun = {line for seq, entry in events if cut is not None and seq < cut.seq for line in lines(entry.branch)}
    for seq, entry in events:
        before = cut is None or seq < cut.seq
        elsewhere = cut is not None and not follows(entry.branch, cut.entry.branch, begun=begun) and entry.status == "ok"
        if entry.kind in (*DELIVERED, *SPOT, "patch") and entry.status != "cancelled" and (before or elsewhere):
            taken = entry.kind == "receive"  # Its number is what `reply` answers; whoever asked is answered by the original.
            input_ = (entry.input or b"").partition(b" ")[0] or None if taken else entry.input if compare else NOT_COMPARED
            kept.append(entry._replace(run=run, ref=entry.ref if taken else None, input=input_))
    return kept
