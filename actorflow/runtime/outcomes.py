"""How turns of an actor end: answered, failed and answered so, tried again, or given up. What is decided is decided by
`policies.handling`.

Each function adds to the writes of the commit that is being gathered. False means that the next turn must wait, and that the
writes were taken along.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from actorflow.acting import Terminated
from actorflow.errors import ActorflowError, BadDefinition
from actorflow.failures import failed_answer, in_words
from actorflow.kernel.outbox import Effect
from actorflow.kernel.requests import Again, Broken, Closing, Finished, Stretch
from actorflow.message import Message, decode_message
from actorflow.policies.handling import Answer, TryAgain, after_failure
from actorflow.records import Consume, Entry, EntryStatus, Envelope, Event, SetDead, Write, made
from actorflow.runtime import reports
from actorflow.runtime.reading import READS
from actorflow.runtime.sending import notice
from actorflow.steps import StepCall
from actorflow.verbs import Ask, ResultOf

if TYPE_CHECKING:
    from actorflow.handlers import Handler
    from actorflow.runtime.handling import ActorActivation

log: logging.Logger = logging.getLogger("actorflow")


START = "on_start"


@define(eq=False, repr=False)
class Handling:
    """What an open turn is about."""

    envelope: Envelope | None  #: None: the actor's own start or stop
    handler: Handler | None
    entries: bool = False  #: something of it is recorded

    @property
    def number(self) -> int:
        return 0 if self.envelope is None else self.envelope.id

    @property
    def name(self) -> str:
        return START if self.envelope is None else self.envelope.type


def opened(events: Sequence[Event]) -> Entry | None:
    """What names the message of the turn that was under way, if one was."""
    return next((entry for _, entry in events if entry.kind == "turn"), None)


def allowed(stretch: Stretch) -> Stretch:
    """The stretch of a handler, ended if it asks for what only a workflow may."""
    foreign = next((asked for asked in stretch.asks if not isinstance(asked.request, StepCall | Ask | ResultOf | Closing)), None)
    if foreign is not None:
        stretch.asks, stretch.end = [], Broken(BadDefinition(f"{foreign.request.kind} is a verb of workflows"))
    return stretch


def ended(actor: ActorActivation, turn: Handling, end: Finished | Again | Broken, writes: list[Write]) -> bool:
    """The handler came to an end."""
    driven = actor.turn
    match end:
        case Finished(value, None):
            free = _finished(actor, turn, value, writes)
        case Finished(_, BaseException() as error):
            free = failed(actor, turn, error, writes)
        case Broken(reason):
            free = failed(actor, turn, reason, writes)
        case _:
            free = failed(actor, turn, BadDefinition("`again` is a verb of workflows"), writes)
    if vars(actor).get("turn") is driven:  # An actor that is at rest keeps nothing of its last turn: that is half of what it is.
        del actor.turn
    return free


def _finished(actor: ActorActivation, turn: Handling, value: Any, writes: list[Write]) -> bool:
    envelope, box = turn.envelope, actor.turn.outbox
    assert box is not None
    reply: bytes | None = None
    try:
        state = actor.fields.view()
        if len(state) > actor.host.limits.payload_bytes_max:
            actor.host.checked(state, f"state of {actor}")
        if turn.handler is not None and turn.handler.readonly and (turn.entries or box.effects or state != actor.state_bytes):
            raise BadDefinition(READS.format(f"{actor.kind.name}.{turn.handler.name}"))
        if turn.handler is not None and envelope is not None and not box.stashed():
            what = f"reply of {actor.kind.name}.{turn.handler.name}"
            reply = actor.host.checked(turn.handler.reply(type(box.handled)).encode(value, what), what)
    except ActorflowError as error:
        return failed(actor, turn, error, writes)
    actor.state_bytes = state
    if turn.entries:
        actor.next_round(writes)
    if envelope is None:
        actor.started = True
    elif reply is None:
        actor.host.direct.write(envelope, writes)
        actor.stashed.add(envelope.id)
    else:
        writes.append(_settle(actor, envelope, "handled", "ok", reply))
        writes.append(Consume(envelope.id, reply))
        writes.extend(actor.host.reply(envelope, reply))
        actor.effects.again(envelope, writes)
    return not box.effects or _send(actor, box.effects, writes)


def _settle(actor: ActorActivation, envelope: Envelope, kind: str, status: EntryStatus, outcome: bytes) -> Entry:
    """It waits no more; the event that says what became of it."""
    actor.mailbox.remove(envelope)
    actor.proved = True
    actor.handled += 1
    actor.host.cast.forget_tries(actor, envelope.id)
    at, body, key = actor.host.clock.wall(), envelope.body, envelope.key
    return made(Entry, (actor.run.id, actor.round, kind, "", envelope.type, 0, status, 0, at, None, body, outcome, key))


def _send(actor: ActorActivation, effects: list[Effect], writes: list[Write]) -> bool:
    """Turn effects into writes; where a message goes may have to be looked up first."""
    if not actor.effects.known(effects):
        actor.blocked = True
        actor.host.spawn(lambda: _look_up(actor, effects, writes))
        return False
    actor.effects.add(effects, writes)
    if actor.leaving:
        actor.commit(writes)
        return False
    return True


async def _look_up(actor: ActorActivation, effects: list[Effect], writes: list[Write]) -> None:
    await actor.effects.look_up(effects)
    actor.blocked = False
    if actor.live:
        actor.effects.add(effects, writes)
        actor.commit(writes)


def acknowledge(actor: ActorActivation, turn: Handling, envelope: Envelope, writes: list[Write]) -> bool:
    """Nobody wants it."""
    actor.mailbox.remove(envelope)
    writes.append(Consume(envelope.id, None))
    if turn.entries:
        actor.next_round(writes)
    return True


def refuse(actor: ActorActivation, turn: Handling, error: BaseException, writes: list[Write]) -> bool:
    """The failure is the answer; nothing of the turn stands."""
    envelope = turn.envelope
    assert envelope is not None
    answer = failed_answer(error)
    if turn.entries:
        actor.next_round(writes)
    writes.append(_settle(actor, envelope, "handled", "failed", answer[1:]))
    writes.append(Consume(envelope.id, answer))
    writes.extend(actor.host.reply(envelope, answer))
    actor.effects.again(envelope, writes)
    return True


def failed(actor: ActorActivation, turn: Handling, error: BaseException, writes: list[Write]) -> bool:
    """The handler failed: the fields are as before it, and the message is answered, tried again, or given up."""
    actor.roll_back()
    if turn.envelope is None:
        if turn.entries:  # Given up: its next start is a turn of its own, and asks its steps anew.
            actor.next_round(writes)
        actor.commit_then(writes, lambda: actor.host.cast.failed(actor, error))
        return False
    tries = actor.host.cast.tried(actor, turn.number)
    decision = after_failure(error, tries, die=actor.host.chance.jitter(), fails=actor.kind.fails)
    if isinstance(decision, Answer):
        return refuse(actor, turn, error, writes)
    said = in_words(error)
    if isinstance(decision, TryAgain):
        log.warning("%s failed at %s (%s); again in %.1f s", actor, turn.name, said, decision.delay_s)
        actor.host.direct.write(turn.envelope, writes)
        actor.blocked = True
        if turn.entries:
            actor.host.cast.again(actor, turn.number)
        actor.commit_then(writes, lambda: actor.try_again(decision.delay_s, reload=turn.entries))
        return False
    log.error("%s gave up %s: %s", actor, turn.name, said)
    _give_up(actor, turn, turn.envelope, error, writes)
    if decision.restart:
        actor.commit_then(writes, lambda: actor.host.cast.failed(actor, error))
        return False
    return True


def _give_up(actor: ActorActivation, turn: Handling, envelope: Envelope, error: BaseException, writes: list[Write]) -> None:
    if turn.entries:
        actor.next_round(writes)
    actor.host.direct.write(envelope, writes)
    answer = actor.host.cast.dead(actor, envelope, error)
    report = reports.encode(reports.handler(actor, envelope, error))
    writes.append(_settle(actor, envelope, "dead", "failed", report)._replace(n=envelope.id))
    writes.append(SetDead(envelope.id, answer))
    writes.extend(actor.host.reply(envelope, answer))
    actor.effects.again(envelope, writes)


def message_of(actor: ActorActivation, envelope: Envelope) -> Message[Any] | None:
    """What is handled: a user's message, or what the system tells as one; None if nobody wants that.

    Raises:
        UnknownMessage, Undecodable: Today's classes cannot read it.
    """
    if envelope.type == "~child":
        end = notice.decode(envelope.body, "end of a watched one")
        message: Message[Any] = Terminated(end["of"], end["status"])
        return message if actor.kind.handler_of(Terminated) is not None else None
    if envelope.type.startswith("~"):
        return None
    return decode_message(envelope.type, envelope.body)
