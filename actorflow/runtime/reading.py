"""Readonly handlers: answered from the last durable state, beside a turn that waits, with nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.errors import BadDefinition, UnknownMessage
from actorflow.failures import failed_answer
from actorflow.kernel.outbox import Outbox
from actorflow.kernel.requests import Broken, Finished
from actorflow.kernel.turn import Turn
from actorflow.kind import Fields
from actorflow.message import decode_message, resolve
from actorflow.records import Address, Consume, Envelope, Run, Write

if TYPE_CHECKING:
    from actorflow.runtime.handling import ActorActivation
    from actorflow.runtime.host import Host


READS = "readonly handler {} changed a field, sent something, or called a step. Make it a plain @handler."


def read(host: Host, of: Run, state: bytes, type_: str, body: bytes) -> bytes:
    """What a readonly handler answers.

    Args:
        host: Where the classes are.
        of: Whose handler it is.
        state: Its fields as they are durable.
        type_, body: The message.

    Raises:
        BadDefinition: It did more than reading.
        Exception: What the handler raised.
    """
    message = decode_message(type_, body)
    kind = host.kinds[of.kind]
    handler = kind.handler_of(type(message))
    assert handler is not None
    instance = kind.build(state, key=of.key, resources=host.resources.fields(of.kind))
    box = Outbox(_anybody)
    turn = Turn(handler.fn(instance, message), host.context.copy(), now=host.clock.wall, outbox=box)
    end = host.loop.hidden(turn.begin).end
    turn.drop()
    where = f"readonly handler {kind.name}.{handler.name}"
    reads = READS.format(f"{kind.name}.{handler.name}")
    match end:
        case Finished(value, None):
            if box.effects or Fields(kind, instance).view() != state:
                raise BadDefinition(reads)
            return handler.reply(type(message)).encode(value, f"answer of {where}")
        case Finished(_, Exception() as error):
            raise error
        case Broken(reason):
            raise BadDefinition(f"{where}: {reason}")
        case _:
            raise BadDefinition(reads)


def read_beside(actor: ActorActivation) -> None:
    """Answer the readonly messages that wait."""
    now = actor.host.clock.wall()
    while (envelope := actor.mailbox.oldest(lambda e: _is_read(actor, e), now=now)) is not None:
        actor.mailbox.remove(envelope)
        try:
            answer = read(actor.host, actor.run, actor.durable_bytes(), envelope.type, envelope.body)
        except Exception as error:  # noqa: BLE001  (a handler's)
            answer = failed_answer(error)
        writes: list[Write] = [Consume(envelope.id, answer), *actor.host.reply(envelope, answer)]
        actor.submit(writes, lambda: actor.host.rest(actor))


def _anybody(_to: Address, _beside: int) -> None:
    """What a readonly handler sends is refused afterwards, whoever has room for it."""


def _is_read(actor: ActorActivation, envelope: Envelope) -> bool:
    if envelope.type.startswith("~") or (actor.handling is not None and envelope.id == actor.handling.number):
        return False
    try:
        handler = actor.kind.handler_of(resolve(envelope.type))
    except UnknownMessage:  # It is a dead letter when its turn has come.
        return False
    return handler is not None and handler.readonly
