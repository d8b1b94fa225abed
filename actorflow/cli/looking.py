"""Commands that look and change nothing: `runs list`, `runs count`, `runs show`, `runs history` and `why`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

from attrs import evolve
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Table
from rich.text import Text

from actorflow.cli.connect import perform
from actorflow.cli.exits import Exit
from actorflow.cli.options import DEFAULTS, Options, RunName, address, flag, since_at
from actorflow.cli.printer import COLORS, Printer, cell, grid, line
from actorflow.cli.text import length, plain, relative, short, when
from actorflow.operations import ActorInfo, HistoryEntry, LoopInfo, Operations, Page, RunInfo
from actorflow.policies.failure import FailureReport
from actorflow.records import Address, PauseReason, RunQuery, RunStatus

PAGE_MAX = 1_000  #: runs or entries asked for at a time
TIME_NEEDS_COLUMNS = 40  #: a terminal of 80 has room for one time beside each run, one of 120 for two
BAD_SHOWN_MAX = 5  #: items of a loop that are shown; JSON has more
TIMERS_SHOWN_MAX = 10  #: of an actor, the next ones; JSON has all

Kind = Annotated[str | None, Parameter(help="Only those of that class.")]
Status = Annotated[RunStatus | None, Parameter(help="Only runs that stand there.")]
ActorStatus = Annotated[
    Literal["idle", "waiting", "running", "paused"] | None,
    Parameter(help="Only actors that stand there; one for which nothing waits is idle."),
]
Reason = Annotated[PauseReason | None, Parameter(help="Only those that are paused for that reason.")]
KeyPrefix = Annotated[str | None, Parameter(help="Only those whose key begins so.")]
AtLeastOne: Number = Number(gte=1)


async def found(operations: Operations, query: RunQuery, *, limit: int | None) -> AsyncIterator[Page]:
    """Pages of runs that match, newest first, up to *limit* of them."""
    left = limit
    while True:
        page = await operations.runs(evolve(query, limit=PAGE_MAX if left is None else min(left, PAGE_MAX)))
        left = None if left is None else left - len(page.runs)
        yield page
        if page.next is None or left == 0:
            return
        query = evolve(query, before_id=page.next)


def address_of(info: RunInfo) -> Address:
    """Where that run is found."""
    return Address(info.kind, info.key)


# --- list ----------------------------------------------------------------------------------------------------------------


def list_runs(
    *,
    kind: Kind = None,
    status: Status = None,
    reason: Reason = None,
    key_prefix: KeyPrefix = None,
    since: Annotated[str | None, Parameter(help="Only runs started since then: 2h, 3d, or a date.")] = None,
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many.")] = 50,
    all: Annotated[bool, flag("All of them, page by page.", "--all")] = False,
    options: Options = DEFAULTS,
) -> int:
    """List runs, newest first."""
    created_after = None if since is None else since_at(since)
    query = RunQuery(kind=kind, status=status, reason=reason, key_prefix=key_prefix, created_after=created_after, actor=False)
    return listed(query, "runs", limit=None if all else limit, options=options)


def list_actors(
    *,
    kind: Kind = None,
    status: ActorStatus = None,
    reason: Reason = None,
    key_prefix: KeyPrefix = None,
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many.")] = 50,
    all: Annotated[bool, flag("All of them, page by page.", "--all")] = False,
    options: Options = DEFAULTS,
) -> int:
    """List actors, newest first."""
    query = RunQuery(kind=kind, status=status, reason=reason, key_prefix=key_prefix, actor=True)
    return listed(query, "actors", limit=None if all else limit, options=options)


def listed(query: RunQuery, what: str, *, limit: int | None, options: Options) -> int:
    """Print those that match."""
    printer = Printer(options)

    async def act(operations: Operations) -> int:
        runs: list[RunInfo] = []
        following: int | None = None
        async for page in found(operations, query, limit=limit):
            following = page.next
            if options.output == "ids":
                printer.ids(address_of(info) for info in page.runs)
            else:
                runs.extend(page.runs)
        match options.output:
            case "json":
                printer.json_array(runs)
            case "table" if runs:
                printer.show(_table(runs, time.time(), columns=printer.columns))
            case "table":
                printer.note(f"No {what} match." if query != RunQuery(actor=query.actor) else f"There are no {what}.")
            case _:
                pass
        if following is not None and limit is not None:
            printer.note(f"There are more: --limit {limit * 10} or --all shows them.")
        return Exit.OK

    return perform(options.db, act)


def _table(runs: Sequence[RunInfo], now: float, *, columns: int) -> Table:
    """Times are left out before there is no room for the rest."""
    times = ("STARTED", "CHANGED")[: columns // TIME_NEEDS_COLUMNS - 1]
    table = grid("RUN", "STATUS", *times, "WHAT", giving_way=("RUN", "WHAT"))
    for info in runs:
        moments = (relative(info.created_at, now), relative(info.ended_at or info.updated_at, now))
        table.add_row(cell(str(address_of(info))), standing(info), *moments[: len(times)], _what(info, now))
    return table


def standing(info: RunInfo) -> Text:
    """Its status, and why it is paused."""
    return cell(f"{info.status} ({info.reason})" if info.reason else info.status, COLORS.get(info.status, "cyan"))


def _what(info: RunInfo, now: float) -> Text:
    if info.report is not None:
        text = info.report.what
    elif info.wake_at is not None and info.status == "waiting":
        text = f"goes on {relative(info.wake_at, now)}"
    else:
        text = ""
    return line(text, "dim")


def count_runs(*, options: Options = DEFAULTS) -> int:
    """Say how many runs there are in each status."""
    return _counted("runs", options)


def count_actors(*, options: Options = DEFAULTS) -> int:
    """Say how many actors there are in each status."""
    return _counted("actors", options)


def _counted(what: str, options: Options) -> int:
    printer = Printer(options)

    async def counted(operations: Operations) -> int:
        counts = dict(sorted((await operations.counts(actor=what == "actors")).items()))
        if options.output != "table":
            printer.json(counts)
        elif counts:
            table = grid("STATUS", what.upper())
            for status, number in counts.items():
                table.add_row(cell(status, COLORS.get(status, "cyan")), f"{number:,}")
            printer.show(table)
        else:
            printer.note(f"There are no {what}.")
        return Exit.OK

    return perform(options.db, counted)


# --- show ----------------------------------------------------------------------------------------------------------------


def show_run(
    run: RunName,
    /,
    *,
    history: Annotated[int, Parameter(validator=Number(gte=0), help="How many of its last events.")] = 10,
    options: Options = DEFAULTS,
) -> int:
    """Show where a run or actor stands: its status, what stopped it and what to do now, its loops or its mailbox and timers,
    its last events."""
    to, printer = address(run), Printer(options)

    async def shown(operations: Operations) -> int:
        info = await operations.status(to)
        events: Sequence[HistoryEntry] = ()
        if options.output != "ids" and history:
            events = await operations.latest(to, limit=history)
        match options.output:
            case "json":
                printer.json({**plain(info), "history": list(events)})
            case "ids":
                printer.ids([to])
            case "table":
                printer.show(*_page(info, events, time.time()))
        return Exit.OK

    return perform(options.db, shown)


async def events_of(operations: Operations, to: Address, *, after: int) -> AsyncIterator[Sequence[HistoryEntry]]:
    """What happened to a run, in order, page by page."""
    while True:
        page = await operations.history(to, after=after, limit=PAGE_MAX)
        yield page
        if len(page) < PAGE_MAX:
            return
        after = page[-1].seq


def _page(info: RunInfo, events: Sequence[HistoryEntry], now: float) -> list[Table | Text]:
    parts: list[Table | Text] = [_facts(info, now)]
    if info.actor is not None:
        parts += [Text(), Text("Mailbox", "bold"), _mailbox(info.actor, now)]
    if info.loops:
        parts += [Text(), Text("Loops", "bold"), *(_loop(loop) for loop in info.loops)]
    if info.report is not None:
        parts += [Text(), Text("Report", "bold"), report_table(info.report)]
    if events:
        parts += [Text(), Text("Last events", "bold"), events_table(events, now)]
    return parts


def pairs_table(pairs: dict[str, str | Text]) -> Table:
    """Names and values, the empty ones left out. A long value is folded, not cut."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        if value:
            table.add_row(name, value if isinstance(value, Text) else cell(value))
    return table


def _facts(info: RunInfo, now: float) -> Table:
    return pairs_table(
        {
            info.what: cell(str(address_of(info)), "bold"),
            "status": standing(info),
            "started": when(info.created_at, now),
            "changed": when(info.updated_at, now),
            "ended": when(info.ended_at, now),
            "goes on": when(info.wake_at, now) if info.status == "waiting" else "",
            "deadline": when(info.deadline_at, now) if info.ended_at is None else "",
            "parent": info.parent or "",
            "round": str(info.round) if info.round else "",
            "crashes": str(info.crashes) if info.crashes else "",
        }
    )


def _mailbox(actor: ActorInfo, now: float) -> Table:
    oldest = "" if actor.oldest_at is None else f", the oldest sent {relative(actor.oldest_at, now)}"
    pairs: dict[str, str | Text] = {
        "messages": f"{actor.mailbox:,}{oldest}",
        "handling": actor.handling or "",
        "waits for": ", ".join(actor.waits_for),
        "last": "" if actor.last is None else f"{actor.last}, {when(actor.last_at, now)}",
    }
    for timer in actor.timers[:TIMERS_SHOWN_MAX]:
        every = "" if timer.every_s is None else f", every {length(timer.every_s)}"
        pairs[f"timer {short(timer.name, 40)}"] = f"{timer.type} {when(timer.due_at, now)}{every}"
    return pairs_table(pairs)


def loop_name(loop: LoopInfo) -> str:
    """As its history calls it."""
    return f"{loop.branch}:self.each#{loop.n}"


def loop_line(loop: LoopInfo) -> str:
    """How far a loop is, in words."""
    count = loop.done + loop.set_aside
    words = [f"{count:,}" + (f" of {loop.total:,}" if loop.total is not None else "")]
    words += [f"{100 * count / loop.total:.0f} %"] if loop.total else []
    words += [f"{loop.set_aside:,} set aside"] if loop.set_aside else []
    words += [f"{loop.repeated:,} repeated"] if loop.repeated else []
    words += [f"{loop.rate_per_s:,.0f} a second, {length(loop.eta_s)} left"] if loop.eta_s is not None else []
    return ", ".join(words)


def _loop(loop: LoopInfo) -> Table:
    pairs: dict[str, str | Text] = {loop_name(loop): loop_line(loop)}
    bad = loop.bad[-BAD_SHOWN_MAX:]
    pairs |= {f"  item {item.index}": f"{short(item.key)}: {short(item.error)}" for item in bad}
    return pairs_table({short(name): value for name, value in pairs.items()})


def report_table(report: FailureReport) -> Table:
    """What stopped something, and what to do now."""
    pairs: dict[str, str | Text] = {
        "what": report.what,
        "where": report.where,
        "class": report.failure,
        "attempt": str(report.attempt) if report.attempt else "",
        "input": short(report.input),
        "caused by": " <- ".join(report.causes),
        "earlier": "; ".join(report.attempts),
        "last good": report.last_good,
        "not undone": ", ".join(report.not_undone),
        "what to do": cell(report.remedy, "bold"),
    }
    return pairs_table(pairs)


# --- history and why -----------------------------------------------------------------------------------------------------


def show_history(
    run: RunName,
    /,
    *,
    after: Annotated[int, Parameter(help="Only events with a larger SEQ.")] = 0,
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many.")] = 1_000,
    options: Options = DEFAULTS,
) -> int:
    """Show what happened to a run, oldest first, all rounds, what was set aside or folded away too."""
    to, printer = address(run), Printer(options)

    async def shown(operations: Operations) -> int:
        events: list[HistoryEntry] = []
        more = False
        async for page in events_of(operations, to, after=after):
            events.extend(page)
            more = len(events) > limit
            if more:
                break
        match options.output:
            case "json":
                printer.json_array(events[:limit])
            case "ids":
                printer.ids([to])
            case "table":
                printer.show(events_table(events[:limit], time.time()))
        if more:
            printer.note(f"There are more: --after {events[limit - 1].seq} shows what follows.")
        return Exit.OK

    return perform(options.db, shown)


def events_table(events: Sequence[HistoryEntry], now: float) -> Table:
    """Events, one a row."""
    table = grid("SEQ", "WHEN", "KIND", "CALL", "STATUS", "TRY", "INPUT -> OUTCOME", giving_way=("CALL", "INPUT -> OUTCOME"))
    for event in events:
        said = " -> ".join(short(part) for part in (event.input, event.outcome) if part)
        status = cell(event.status, "red" if event.status not in ("ok", "") else "")
        tried = str(event.attempt) if event.attempt else ""
        call = "" if event.call == ":#0" else event.call
        table.add_row(str(event.seq), relative(event.at, now), cell(event.kind), cell(call), status, tried, line(said))
    return table


def why(run: RunName, /, *, options: Options = DEFAULTS) -> int:
    """Say in one sentence what a run waits for and what comes next."""
    to, printer = address(run), Printer(options)

    async def said(operations: Operations) -> int:
        sentence = await operations.why(to)
        match options.output:
            case "json":
                printer.json({"kind": to.kind, "key": to.key, "why": sentence})
            case "ids":
                printer.ids([to])
            case "table":
                printer.show(cell(sentence))
        return Exit.OK

    return perform(options.db, said)
