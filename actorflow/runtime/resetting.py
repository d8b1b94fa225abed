"""`reset`: an operator gives an actor the state of a new one. A restart never does: state is what an actor is there for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from actorflow.errors import InvalidState, StoreError
from actorflow.kernel.journal import entry as new_entry
from actorflow.records import Identity, Run, SetRound, Write
from actorflow.runtime.handling import ActorActivation

if TYPE_CHECKING:
    from actorflow.runtime.operators import Operators

LOOKS_MAX = 10
"""How often it is looked whether the actor has nothing to do; one that is just starting has, after a commit or two."""


async def reset(operators: Operators, run: Run) -> None:
    """Its fields become the defaults of its class, or those of the static child; the history keeps what they were.

    What waits in its mailbox, its timers, and the recorded steps of a turn that it was paused in stay.

    Raises:
        InvalidState: It is no actor, or is at work.
        BadDefinition: Its class has fields without defaults, and no static child gives them.
    """
    if not run.actor:
        raise InvalidState("reset", run.address, "a run", "Its state follows from its journal: `fork` it from an earlier entry.")
    fields = operators.host.cast.first_fields(run.address)
    if run.status == "paused":
        await operators.write(_writes(operators, run, run.fields or run.input, fields))
        return
    activation = await _idle(operators, run)
    activation.blocked = True  # Messages wait until it is loaded with its new state.
    with anyio.CancelScope(shield=True):
        try:
            await operators.write(
                _writes(operators, run, activation.state_bytes, fields), durable=lambda: _reload(operators, activation)
            )
        except StoreError:
            activation.blocked = False
            if activation.live:
                activation.serve()
            raise


async def _idle(operators: Operators, run: Run) -> ActorActivation:
    """The actor in memory, between two turns."""
    host = operators.host
    for _ in range(LOOKS_MAX):
        activation = host.by_address.get(run.address)
        if activation is None:
            await host.loading.load(run.id)
            activation = host.by_address.get(run.address)
        if isinstance(activation, ActorActivation) and activation.between_turns:
            return activation
        await operators.settled()
    raise InvalidState("reset", run.address, "at work", "`pause` it first.")


def _reload(operators: Operators, activation: ActorActivation) -> None:
    if activation.live:
        operators.host.reload(activation)


def _writes(operators: Operators, run: Run, was: bytes, fields: bytes) -> list[Write]:
    at = operators.host.clock.wall()
    # The round stays: steps that an open turn has recorded are not repeated because somebody mended its fields.
    audit = new_entry(run.id, run.round, "reset", Identity("", run.kind, 0), at=at, status="", input=was, outcome=fields)
    return [audit, SetRound(run.id, run.round, fields)]
