"""Room in a mailbox: what becomes of one message more. The bound counts what waits and what is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.errors import MailboxFull
from actorflow.failures import failed_answer
from actorflow.kernel.journal import entry as new_entry
from actorflow.policies.failure import FailureReport
from actorflow.records import Address, Entry, Envelope, Identity, Run, SetDead, Wake, Write
from actorflow.runtime import reports
from actorflow.runtime.loops import Signal

if TYPE_CHECKING:
    from actorflow.kind import Overflow
    from actorflow.runtime.host import Host


def overflow(host: Host, kind: str) -> Overflow:
    """What that class wants of a message too many."""
    registered = host.kinds.get(kind)
    return "reject" if registered is None else registered.overflow


def is_full(host: Host, run: Run, *, beside: int = 0) -> bool:
    """True if no more messages may wait there, beside so many that are not on their way yet."""
    return host.depth(run.id) + beside >= host.mailbox_max(run.kind)


def admit(host: Host, run: Run, envelope: Envelope, *, beside: int = 0) -> list[Write] | None:
    """What accepts this message; None if it is refused (or its sender waits)."""
    if not is_full(host, run, beside=beside):
        return [envelope, Wake(run.id, envelope.due_at or 0.0)]
    match overflow(host, run.kind):
        case "drop_new":
            return dropped(host, run, envelope)
        case "drop_oldest":
            activation = host.resident.get(run.id)
            oldest = None if activation is None else activation.droppable()
            if activation is None or oldest is None:
                return dropped(host, run, envelope)
            activation.mailbox.remove(oldest)
            host.cast.dropping[oldest.id] = oldest
            why, event = _lost(host, run, oldest)
            writes: list[Write] = []
            host.direct.write(oldest, writes)
            writes += [SetDead(oldest.id, why), event, *host.reply(oldest, why), envelope, Wake(run.id, envelope.due_at or 0.0)]
            return writes
        case _:
            return None


def keep(host: Host, message: int) -> None:
    """The commit that was to drop that message was refused."""
    envelope = host.cast.dropping.pop(message, None)
    activation = None if envelope is None else host.resident.get(envelope.run)
    if envelope is not None and activation is not None and not host.direct.again(message):
        activation.mailbox.keep(envelope)
        activation.serve()


def dropped(host: Host, run: Run, envelope: Envelope) -> list[Write]:
    """What says that this message was not taken in: it is a dead letter."""
    why, event = _lost(host, run, envelope)
    return [envelope._replace(state="dead", answer=why), event]


def _lost(host: Host, run: Run, envelope: Envelope) -> tuple[bytes, Entry]:
    """The answer to a message for which there was no room, and the event."""
    full = MailboxFull(run.address, host.mailbox_max(run.kind))
    report = reports.encode(
        FailureReport(
            failure="transient", reason=None, what=str(full), where=str(run.address), remedy="Send it again, with room."
        )
    )
    what = Identity("", envelope.type, envelope.id)
    event = new_entry(run.id, run.round, "dead", what, at=host.clock.wall(), status="failed", input=envelope.body, outcome=report)
    return failed_answer(full), event._replace(ref=envelope.key)


async def wait(host: Host, to: Address) -> bool:
    """Wait until a place becomes free there; False if nobody is at work who would free one."""
    activation = host.by_address.get(to)
    if activation is None:
        return False
    free = Signal(host.loop)
    activation.mailbox.freed += (free.set,)
    await free
    return host.committer.stopped is None
