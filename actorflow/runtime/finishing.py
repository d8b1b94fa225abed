"""What it means that the code of a run came to an end: a result, a business failure, a recorded failure, a bug, a broken rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.errors import Abort, ActorflowError
from actorflow.failures import encode_failure
from actorflow.kernel.requests import Again, Broken, Finished
from actorflow.policies.failure import classify, pause_reason
from actorflow.records import Entry, Write
from actorflow.runtime import reports

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation


def finish(activation: Activation, end: Finished | Again | Broken, writes: list[Write]) -> None:
    """Obey: *writes* are what the last stretch recorded, and go with it."""
    match end:
        case Again():
            activation.again(writes)
        case Broken(reason):
            activation.pause(pause_reason(reason), reports.broken(activation, reason), writes)
        case Finished(value, None):
            what = f"result of {activation.run.kind}/{activation.run.key}"
            try:
                payload = activation.kind.outcome.encode(value, what)
                if len(payload) > activation.host.limits.payload_bytes_max:
                    activation.host.checked(payload, what)
                activation.show(writes)
            except ActorflowError as error:
                activation.pause("failure", reports.failed(activation, error, "the result of run()"), writes)
                return
            activation.host.ending.end(activation, "completed", payload, writes)
        case Finished(_, error, recorded):
            assert error is not None
            _failed(activation, error, recorded, writes)


def _failed(activation: Activation, error: BaseException, recorded: Entry | None, writes: list[Write]) -> None:
    if isinstance(error, Abort) or classify(error, activation.kind.fails) == "business":
        report = reports.aborted(activation, error, recorded)
        activation.host.ending.undo(activation, encode_failure(error), writes, report=report)
    elif recorded is not None:
        activation.pause("failure", reports.failed(activation, error, recorded), writes)
    elif activation.host.tried_before(activation.run.id, activation.turn.delivered):
        activation.pause(pause_reason(error), reports.failed(activation, error, "run()"), writes)
    else:  # Once more, from the journal: a restart mends what was only in memory.
        activation.halt("restart", writes, lambda: activation.host.reload(activation))
