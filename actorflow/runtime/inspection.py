"""Looking at runs: queries, status, history, and why one waits. Reads what is durable; loads and changes nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from actorflow.clock import moment
from actorflow.codec import coder
from actorflow.errors import ActorflowError, Undecodable, UnknownKind, UnknownMessage
from actorflow.failures import describe_failure
from actorflow.kernel.journal import Journal
from actorflow.operations import HistoryEntry, LoopInfo, RunInfo
from actorflow.policies import cursor as cursors
from actorflow.policies.cursor import Cursor
from actorflow.policies.failure import FailureReport
from actorflow.records import ENDED, Entry, Event, Identity, Loaded, Run, SetCursor
from actorflow.runtime import actors, reports
from actorflow.runtime.activation import Activation
from actorflow.runtime.answers import open_call
from actorflow.runtime.calls import Call
from actorflow.runtime.looping import Looping
from actorflow.runtime.sources import called
from actorflow.verbs import Ask, Receive, ResultOf

if TYPE_CHECKING:
    from actorflow.runtime.host import Host

_cursor = coder(Cursor)


def query(host: Host, run: Run, name: str, arguments: bytes) -> bytes:
    """Answer a `@query` from the last durable view."""
    kind = host.kinds.get(run.kind)
    if kind is None:
        raise UnknownKind(run.kind, list(host.kinds))
    question = kind.queries.get(name)
    if question is None:
        raise UnknownMessage(f"{run.kind} has no query {name!r} (it has: {', '.join(kind.queries) or 'none'}).")
    instance = kind.build(run.view or run.fields or run.input, key=run.key)
    method = question.fn.__get__(instance)
    values = question.coder.decode(arguments, f"argument of query {name}")
    args, kwargs = question.split({**values})
    answer = called(lambda given: method(*args[1:], **given), kwargs)
    return question.outcome.encode(answer, f"answer of query {name}")


async def info(host: Host, run: Run, *, more: bool = True) -> RunInfo:
    """What there is to say of a run or actor; without *more* (what its mailbox and loops say) from its row alone."""
    parent = None
    if run.parent is not None:
        found = await host.store.get(run.parent)
        parent = None if found is None else str(found.address)
    return RunInfo(
        kind=run.kind,
        key=run.key,
        status=actors.standing(host, run),
        reason=run.reason,
        round=run.round,
        crashes=run.crashes,
        created_at=run.created_at,
        updated_at=run.updated_at,
        ended_at=run.ended_at,
        wake_at=run.wake_at or None,
        deadline_at=run.deadline_at,
        parent=parent,
        report=_report(run),
        loops=await _loops(host, run) if more and not run.actor else (),
        what="actor" if run.actor else "run",
        actor=await actors.info(host, run) if more and run.actor else None,
    )


def _report(run: Run) -> FailureReport | None:
    try:
        return reports.decode(run.report)
    except ActorflowError:
        return None  # A report of another version: the rest of the page is still served.


async def _loops(host: Host, run: Run) -> tuple[LoopInfo, ...]:
    activation = host.resident.get(run.id)
    live = {}
    if activation is not None:
        live = {(c.asked.identity.branch, c.asked.identity.n): c for c in activation.calls.values() if isinstance(c, Looping)}
    loaded = None
    if activation is None:
        with suppress(Undecodable):  # Its report says so; how far its loops were is not known then.
            loaded = await host.store.load(run.id)
    if activation is not None:
        stored = [SetCursor(run.id, run.round, *key, state) for key, state in activation.cursors.items()]
    else:
        stored = list(loaded.cursors) if loaded is not None else []
    return tuple(_loop(host, c, live.get((c.branch, c.n))) for c in stored if c.state is not None)


def _loop(host: Host, stored: SetCursor, live: Looping | None) -> LoopInfo:
    at = live.cursor if live is not None else _cursor.decode(stored.state or b"null", "cursor")
    now = host.clock.wall()
    shown = live.progress() if live is not None else cursors.progress(at, now=now, since=at.begun_at, finished_before=0)
    return LoopInfo(
        branch=stored.branch,
        n=stored.n,
        done=at.done,
        set_aside=at.set_aside,
        repeated=at.repeated,
        total=at.total,
        rate_per_s=shown.rate_per_s,
        eta_s=shown.eta_s if live is not None else None,
        bad=at.bad[-20:],
    )


def shown(event: Event) -> HistoryEntry:
    """An event for a person."""
    seq, entry = event
    failed = entry.status not in ("ok", "") or entry.kind in ("failed", "cancelled")
    outcome = ""
    if entry.outcome is not None:
        outcome = _outcome(entry, failed=failed)
    return HistoryEntry(
        seq=seq,
        at=entry.at,
        round=entry.round,
        kind=entry.kind,
        call=str(Identity(entry.branch, entry.name, entry.n)),
        status=entry.status,
        attempt=entry.attempt,
        due_at=entry.due_at,
        input=reports.shown(entry.input),
        outcome=outcome,
    )


def _outcome(entry: Entry, *, failed: bool) -> str:
    payload = entry.outcome or b""
    if entry.kind == "paused" or (entry.kind == "dead" and entry.n):  # Without a number it is one that nobody was found for.
        report = reports.decode(payload)
        return "" if report is None else report.what
    return describe_failure(payload) if failed and entry.kind != "set_aside" else reports.shown(payload)


async def why(host: Host, run: Run) -> str:
    """One sentence: what it waits for and what comes next."""
    who = str(run.address)
    if run.status in ENDED:
        said = f": {describe_failure(run.outcome)}" if run.status != "completed" and run.outcome else ""
        return f"{who} {run.status} at {moment(run.ended_at or run.updated_at):%Y-%m-%d %H:%M:%S} UTC{said}."
    if run.status == "paused":
        report = reports.decode(run.report)
        return f"{who} is paused ({run.reason}): {report}" if report is not None else f"{who} is paused ({run.reason})."
    if run.status == "undoing":
        return f"{who} is undoing what it did; then it ends."
    if run.actor:
        return await actors.why(host, run)
    activation = host.resident.get(run.id)
    if activation is not None and activation.calls:
        waits = "; ".join(_waits(call) for call in activation.calls.values())
        return f"{who} {waits}."
    loaded = await host.store.load(run.id)
    would = _would_wait(host, loaded) if loaded is not None else []
    if would:
        return f"{who} {'; '.join(would)}."
    journal = Journal(loaded.entries if loaded is not None else ())
    last = journal.order[-1] if journal.order else None
    until = f" until {moment(run.wake_at):%Y-%m-%d %H:%M:%S} UTC" if run.wake_at else ""
    waits_for = "waits" if run.status == "waiting" else "is about to go on"
    return f"{who} {waits_for}{until}; its last entry is {f'{last.kind} {last.identity}' if last else 'its start'}."


def _would_wait(host: Host, loaded: Loaded) -> list[str]:
    """What a run that is not in memory waits for: its code is driven over its journal, which is pure, and dropped."""
    kind = host.kinds.get(loaded.run.kind)
    if kind is None:
        return []
    activation = Activation(host, loaded, kind)
    try:
        stretch = activation.replay()
    except ActorflowError:
        return []
    calls = [open_call(activation, asked) for asked in stretch.asks]
    for call in calls:
        call.opening()
    waits = [_waits(call) for call in calls]
    host.loop.hidden(activation.turn.drop)
    return waits


def _waits(call: Call) -> str:
    request, what = call.asked.request, f"{call.asked.request.kind} {call.asked.identity}"
    until = f" until {moment(call.due_at):%Y-%m-%d %H:%M:%S} UTC" if call.due_at is not None else ""
    match request:
        case Receive():
            types = " or ".join(t.__qualname__ for t in request.types)
            return f"waits for a message {types}{until} ({what})"
        case ResultOf():
            return f"waits for the end of {request.of} ({what})"
        case Ask():
            return f"waits for the reply of {request.to}{until} ({what})"
        case _ if call.working:
            number = getattr(call, "number", 0)
            return f"runs {what}" + (f", attempt {number}" if number else "")
        case _ if request.kind == "sleep":
            return f"sleeps{until} ({what})"
        case _:
            return f"waits{until} before the next attempt of {what}"
