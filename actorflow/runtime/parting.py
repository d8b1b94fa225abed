"""What an actor does beside its messages: its last words when it leaves memory, and forgetting old answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from actorflow.kernel.outbox import Outbox
from actorflow.kernel.requests import Finished
from actorflow.kernel.turn import Turn
from actorflow.records import Expire, Write

if TYPE_CHECKING:
    from actorflow.runtime.handling import ActorActivation

log: logging.Logger = logging.getLogger("actorflow")

EXPIRIES = 10
"""How often the answers of a class with a retention are looked through within that time."""


def say_last(actor: ActorActivation, writes: list[Write]) -> None:
    """`on_stop`, if it says anything at once."""
    box = Outbox(actor.effects.room)
    actor.turn = Turn(
        actor.instance.on_stop(), actor.host.context.copy(), state=actor.fields, instance=actor.instance, outbox=box
    )
    end = actor.host.loop.hidden(actor.turn.begin).end
    match end:
        case Finished(_, None):
            actor.state_bytes = actor.fields.view()
            actor.write_state(writes)
            if actor.effects.known(box.effects):
                actor.effects.add(box.effects, writes)
        case Finished(_, BaseException() as error):
            log.warning("%s.on_stop: %s: %s", actor, type(error).__qualname__, error)
        case _:
            log.warning("%s.on_stop waits for something, and was left there", actor)


def expire(actor: ActorActivation) -> list[Write]:
    """Answers of keyed messages that are older than the class keeps them go, now and then."""
    retention_s, now = actor.kind.retention_s, actor.host.clock.wall()
    if retention_s is None or now - actor.expired_at < retention_s / EXPIRIES:
        return []
    actor.expired_at = now
    return [Expire(actor.run.id, now - retention_s)]
