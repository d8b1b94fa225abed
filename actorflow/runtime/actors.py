"""What there is to say of an actor: where it stands, what waits for it, what it is at. Read from what is durable.

The row of an actor for which nothing waits is "waiting", as that of a run: by that it is found when it is wanted.
People are told "idle".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actorflow.clock import moment
from actorflow.errors import InvalidState
from actorflow.kernel.journal import Journal
from actorflow.operations import ActorInfo, TimerInfo
from actorflow.records import Envelope, Run
from actorflow.runtime.effects import every_s, timer_name
from actorflow.runtime.handling import ActorActivation

if TYPE_CHECKING:
    from actorflow.runtime.host import Host

LOOKED_BACK_MAX = 50
"""Events among which the message that was handled last is looked for: a turn of many steps has more, and none is shown then."""

NOT_FOR_ACTORS = {
    "start": "Nobody starts an actor: send it a message, and it is there.",
    "result": "An actor returns nothing: `ask` it, or `query` it.",
    "cancel": "An actor has no end: `pause` it.",
    "retry": "No failed call stops an actor. `resume` it if it is paused; send a message that failed again (`resend`).",
    "skip": "No failed call stops an actor. `resume` it if it is paused; send a message that failed again (`resend`).",
    "fork": "Only runs have a past to begin from: send a message to an actor with another key.",
    "prune": "An actor has no end, and what has not ended is not pruned: `reset` gives it the state of a new one.",
}
"""Verbs of runs, and what an operator does instead."""


def refuse(verb: str, run: Run) -> None:
    """See that it is a run of a workflow.

    Raises:
        InvalidState: It is an actor; says what to do instead.
    """
    if run.actor:
        raise InvalidState(verb, run.address, "an actor", NOT_FOR_ACTORS[verb])


def standing(host: Host, run: Run) -> str:
    """Its status, as people are told it."""
    if not run.actor or run.status != "waiting":
        return run.status
    activation = host.resident.get(run.id)
    at_work = isinstance(activation, ActorActivation) and activation.handling is not None
    wanted = run.wake_at is not None and run.wake_at <= host.clock.wall()
    return "waiting" if at_work or wanted else "idle"


async def info(host: Host, run: Run) -> ActorInfo:
    """What it is at."""
    waiting, handling, waits_for = await _at_work(host, run)
    mail = [envelope for envelope in waiting if _counts(host, envelope)]
    timers = [_timer(envelope) for envelope in waiting if every_s(envelope) is not None and envelope not in mail]
    past = await host.store.latest(run.id, limit=LOOKED_BACK_MAX)
    last = next((entry for _, entry in reversed(past) if entry.kind in ("handled", "dead")), None)
    return ActorInfo(
        mailbox=len(mail),
        oldest_at=min((envelope.sent_at for envelope in mail), default=None),
        handling=handling,
        waits_for=waits_for,
        timers=tuple(sorted(timers, key=lambda timer: timer.due_at)),
        last=None if last is None else last.name,
        last_at=None if last is None else last.at,
    )


async def _at_work(host: Host, run: Run) -> tuple[Iterable[Envelope], str | None, tuple[str, ...]]:
    """Its mailbox, the message of its open turn, and what that waits for."""
    activation = host.resident.get(run.id)
    if isinstance(activation, ActorActivation):
        calls = tuple(f"{asked.request.kind} {asked.identity}" for asked in activation.calls)
        handling = None if activation.handling is None else activation.handling.name
        return list(activation.mailbox.waiting.values()), handling, calls
    loaded = await host.store.load(run.id)
    if loaded is None:
        return [], None, ()
    opened = next((entry for _, entry in loaded.entries if entry.kind == "turn"), None)
    journal = Journal(loaded.entries)
    return loaded.mailbox, None if opened is None else opened.name, tuple(str(identity) for identity in journal.open)


def _counts(host: Host, envelope: Envelope) -> bool:
    """True for what a sender waits for; a timer is a message once its moment has come."""
    if envelope.type.startswith("~"):
        return False
    return every_s(envelope) is None or (envelope.due_at or 0.0) <= host.clock.wall()


def _timer(envelope: Envelope) -> TimerInfo:
    due_at = envelope.due_at or envelope.sent_at
    return TimerInfo(name=timer_name(envelope), type=envelope.type, due_at=due_at, every_s=every_s(envelope) or None)


async def why(host: Host, run: Run) -> str:
    """One sentence: what it is at and what comes next. Not of a paused one."""
    found = await info(host, run)
    behind = found.mailbox - (found.handling is not None and found.mailbox > 0)
    if found.handling is not None:
        waits = f" and waits for {', '.join(found.waits_for)}" if found.waits_for else ""
        more = f"; {_messages(behind)} behind it" if behind else ""
        return f"{run.address} handles {found.handling}{waits}{more}."
    if found.mailbox:
        return f"{run.address} has {_messages(found.mailbox)} to handle."
    parts = [f"{run.address} is {'idle' if run.status == 'waiting' else 'about to go on'}"]
    if found.timers:
        timer = found.timers[0]
        parts.append(f"its timer {timer.name} is due at {_when(timer.due_at)}")
    if found.last is not None and found.last_at is not None:
        parts.append(f"it handled {found.last} last, at {_when(found.last_at)}")
    return f"{'; '.join(parts)}."


def _messages(count: int) -> str:
    return f"{count:,} messages" if count != 1 else "1 message"


def _when(at: float) -> str:
    return f"{moment(at):%Y-%m-%d %H:%M:%S} UTC"
