"""Dead letters: messages that nobody handled. They are looked at, and sent again once what was wrong is mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.errors import ActorflowError, InvalidState, MailboxFull, UnknownLetter
from actorflow.failures import describe_failure, split_answer
from actorflow.kernel.journal import entry as new_entry
from actorflow.operations import DeadLetter, Letters
from actorflow.policies.failure import FailureReport
from actorflow.records import Address, Envelope, Event, Identity, Revive, Run, Wake, Write
from actorflow.runtime import reports, room

if TYPE_CHECKING:
    from actorflow.runtime.host import Host
    from actorflow.runtime.operators import Operators

PAGE_MAX = 1_000
"""Letters of one page. Their bodies are read, though only the beginning of each is shown."""


async def page(host: Host, run: Run | None, *, after: int, limit: int) -> Letters:
    """Some of them, oldest first; of one run or of all."""
    limit = max(1, min(limit, PAGE_MAX))
    found = await host.store.dead_letters(run=None if run is None else run.id, after=after, limit=limit)
    receivers: dict[int, Run | None] = {} if run is None else {run.id: run}
    letters: list[DeadLetter] = []
    for envelope in found:
        if envelope.run not in receivers:
            receivers[envelope.run] = await host.store.get(envelope.run)
        letters.append(await _shown(host, envelope, receivers[envelope.run]))
    return Letters(letters=tuple(letters), next=found[-1].id if len(found) == limit else None)


async def _shown(host: Host, envelope: Envelope, receiver: Run | None) -> DeadLetter:
    death = await host.store.death(envelope.run, envelope.id)
    return DeadLetter(
        id=envelope.id,
        to=str(envelope.run) if receiver is None else str(receiver.address),
        type=envelope.type,
        key=envelope.key,
        sender=envelope.sender,
        sent_at=envelope.sent_at,
        body=reports.shown(envelope.body),
        why=_why(envelope, receiver),
        report=_report(death),
    )


def _why(envelope: Envelope, receiver: Run | None) -> str:
    if envelope.answer is not None:
        return describe_failure(split_answer(envelope.answer)[1])
    ended = receiver is not None and receiver.ended_at is not None
    return f"{receiver.address} {receiver.status} before it took it" if receiver is not None and ended else "nobody took it"


def _report(death: Event | None) -> FailureReport | None:
    try:
        return None if death is None else reports.decode(death.entry.outcome)
    except ActorflowError:
        return None  # A report of another version: the letter is still shown.


async def resend(operators: Operators, letter: int) -> Address:
    """Bring it back into its mailbox: one commit, and an event in the receiver's history.

    Raises:
        UnknownLetter: There is no such dead letter.
        RunEnded, RunEnding, MailboxFull: Its receiver takes nothing now; it stays a dead letter.
        InvalidState: Another call is sending it just now.
    """
    host = operators.host
    if letter in operators.resending:
        raise InvalidState("resend", f"dead letter {letter}", "being sent again by another call", "See what that comes to.")
    operators.resending.add(letter)
    try:
        found = await host.store.dead_letters(after=letter - 1, limit=1)
        if not found or found[0].id != letter:
            raise UnknownLetter(letter)
        receiver = await host.store.get(found[0].run)
        if receiver is None:
            raise UnknownLetter(letter)
        target = await operators.door.accepting(receiver.address, ask=False)
        if room.is_full(host, target):
            raise MailboxFull(target.address, host.mailbox_max(target.kind))
        envelope = found[0]._replace(state="pending", answer=None, expires_at=None)
        at = host.clock.wall()
        sent = new_entry(target.id, target.round, "resent", Identity("", envelope.type, letter), at=at, status="")
        writes: list[Write] = [Revive(letter, host.next_message()), Wake(target.id, envelope.due_at or 0.0), sent]
        await operators.write(writes, durable=lambda: _deliver(host, envelope))
    finally:
        operators.resending.discard(letter)
    return target.address


def _deliver(host: Host, envelope: Envelope) -> None:
    activation = host.resident.get(envelope.run)
    if activation is not None:
        activation.mailbox.again(envelope)
    host.arrived(envelope)
