"""The door for messages from outside: what is told and asked by clients is checked here, then accepted in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from actorflow.codec import check_size
from actorflow.errors import (
    ActorPaused,
    AskTimeout,
    KeyTaken,
    MailboxFull,
    RunEnded,
    RunEnding,
    StoreStopped,
    UnknownMessage,
)
from actorflow.failures import decode_failure, split_answer
from actorflow.kernel.mailbox import depth
from actorflow.message import resolve
from actorflow.records import ENDED, Address, Duplicate, Envelope, Rejected, Run, Taken, Write
from actorflow.runtime import reports, room
from actorflow.runtime.direct import AGAIN
from actorflow.runtime.handling import ActorActivation
from actorflow.runtime.mail import LATE, Waiter
from actorflow.runtime.queueing import Queues
from actorflow.runtime.reading import read

if TYPE_CHECKING:
    from actorflow.handlers import Handler
    from actorflow.runtime.host import Host
    from actorflow.runtime.operators import Operators


class Door:
    """Accepts messages of clients."""

    def __init__(self, operators: Operators) -> None:
        self.operators: Operators = operators
        self.host: Host = operators.host
        self._asked = 0  #: without a key
        self._queues = Queues(operators.host.loop, operators.host.limits.accepted_at_once_max)

    async def tell(self, to: Address, type_: str, body: bytes, *, key: str | None, after_s: float | None) -> None:
        """Durable on return."""
        self._check(to, type_, body)
        if self.host.cast.in_memory(to):
            if (place := self.host.cast.memory.tell_encoded(to, type_, body, after_s)) is not None:
                await place
            return
        due_at = None if after_s is None else self.host.clock.wall() + after_s
        await self._send(to, type_, body, key, due_at=due_at)

    async def ask(self, to: Address, type_: str, body: bytes, *, key: str | None, within_s: float) -> bytes:
        """Its answer, which is durable."""
        host = self.host
        handler = self._check(to, type_, body)
        if host.cast.in_memory(to):
            return await host.cast.memory.ask_encoded(to, type_, body, within_s)
        left_s = within_s
        if key is None:
            self._asked += 1
            # The fence tells this holder of the store from all others.
            key, until = f"~ask/{host.lease.fence}/{self._asked}", host.clock.monotonic() + within_s
            if handler is None or not handler.readonly:
                answered = await self._directly(to, type_, body, key, within_s=within_s, until=until)
                if answered is not None:
                    return self._answer(answered)
                left_s = until - host.clock.monotonic()
        waiter = Waiter(host.loop)
        with anyio.move_on_after(left_s):
            if handler is not None and handler.readonly:
                return await self._read(to, type_, body)
            envelope = await self._send(to, type_, body, key, expires_at=host.clock.wall() + left_s, waiter=waiter)
            if envelope.state != "pending" and envelope.answer is not None:
                return _value(envelope.answer)
            if waiter not in host.replies.get(envelope.id, ()) and not waiter.status:
                host.replies.setdefault(envelope.id, []).append(waiter)
                now = await host.store.message(envelope.run, key)
                if now is not None and now.answer is not None:
                    return _value(now.answer)
                if now is not None and now.state == "dead":
                    raise RunEnded(to, "ended")
            await waiter
            return self._answer(waiter)
        raise AskTimeout(to, within_s)

    def _answer(self, waiter: Waiter) -> bytes:
        if waiter.status == "ok":
            return waiter.payload
        if waiter.status == "failed":
            raise decode_failure(waiter.payload)
        raise self.host.committer.stopped or StoreStopped("the runtime is shutting down")

    async def _directly(self, to: Address, type_: str, body: bytes, key: str, *, within_s: float, until: float) -> Waiter | None:
        """Ask one that takes the message at once, in one commit; None if it does not after all: nothing came of it.

        Raises:
            AskTimeout: What came of it is unknown.
        """
        host, receiver = self.host, self.host.by_address.get(to)
        if receiver is None or host.closing or not receiver.takes(type_):
            return None
        if receiver.mailbox.depth >= host.mailbox_max(to.kind):
            return None
        if host.committer.unavailable is not None:  # Who comes in by the door is refused at once.
            return None
        waiter = Waiter(host.loop)
        envelope = host.envelope(receiver.run.id, type_, body, sender="", key=key, expires_at=host.clock.wall() + within_s)
        host.replies[envelope.id] = [waiter]
        late = host.deadlines.at(until, waiter.late)
        try:
            host.direct.take(receiver, envelope)
            await waiter
        finally:
            late.cancel()
        if waiter.status == LATE:
            raise AskTimeout(to, within_s)
        return None if waiter.status == AGAIN else waiter

    async def _read(self, to: Address, type_: str, body: bytes) -> bytes:
        """Answer from the last durable state: nothing is written, and nobody is waited for."""
        await anyio.lowlevel.checkpoint()  # Nothing else here need wait: who asks again and again must not starve the others.
        target = await self.accepting(to, ask=True)
        activation = self.host.by_address.get(to)
        if isinstance(activation, ActorActivation):
            return read(self.host, activation.run, activation.durable_bytes(), type_, body)
        # A static child that is down, one that has just left memory, or one that is started alone, after crashes.
        stored = await self.host.find(target.address, whole=True)
        assert stored is not None
        return read(self.host, stored, stored.fields or stored.input, type_, body)

    # --- checks ---------------------------------------------------------------------------------------------------------

    def _check(self, to: Address, type_: str, body: bytes) -> Handler | None:
        """Who will handle it, if that is an actor.

        Raises:
            UnknownMessage, TooLarge: Refused; nothing was stored.
        """
        host = self.host
        if len(body) > host.limits.payload_bytes_max:
            check_size(body, f"message to {to}", host.limits.payload_bytes_max)
        if type_.startswith("~"):
            raise UnknownMessage(f"{type_} is a message of the system; it cannot be sent to {to}.")
        kind = host.kinds.get(to.kind)
        if kind is None:
            return None
        message = resolve(type_)
        if kind.handlers is None:
            return None
        return kind.handler_for(message)

    @staticmethod
    def _same(earlier: Envelope, type_: str, body: bytes) -> Envelope:
        if (earlier.type, earlier.body) != (type_, body):
            given = f"{type_} {reports.shown(body)}"
            raise KeyTaken(f"message key {earlier.key!r}", f"{earlier.type} {reports.shown(earlier.body)}", given)
        return earlier

    # --- accepting ------------------------------------------------------------------------------------------------------

    async def _send(
        self,
        to: Address,
        type_: str,
        body: bytes,
        key: str | None,
        *,
        due_at: float | None = None,
        expires_at: float | None = None,
        waiter: Waiter | None = None,
    ) -> Envelope:
        """Accept a message; returns the one that was accepted first under that key."""
        clock = self.host.clock
        queue = await self._queues.enter(to, clock.monotonic())
        try:
            return await self._accepted(to, type_, body, key, due_at=due_at, expires_at=expires_at, waiter=waiter)
        finally:
            self._queues.leave(to, queue, clock.monotonic())

    async def _accepted(
        self,
        to: Address,
        type_: str,
        body: bytes,
        key: str | None,
        *,
        due_at: float | None,
        expires_at: float | None,
        waiter: Waiter | None,
    ) -> Envelope:
        host = self.host
        while True:
            try:
                target = await self.accepting(to, ask=waiter is not None)
                envelope = host.envelope(target.id, type_, body, sender="", key=key, due_at=due_at, expires_at=expires_at)
                writes = self._admit(target, envelope)
            except (RunEnded, RunEnding, MailboxFull, ActorPaused) as refused:
                # It takes nothing more; but what it took before, it took, and a caller who repeats it may know.
                earlier = None if key is None else await host.store.message((await self.operators.run(to)).id, key)
                if earlier is not None:
                    return self._same(earlier, type_, body)
                waits = isinstance(refused, MailboxFull) and room.overflow(host, to.kind) == "wait"
                if not waits or not await room.wait(host, to):
                    raise
                continue
            break
        if waiter is not None:
            host.replies.setdefault(envelope.id, []).append(waiter)
        try:
            refusal = await self.operators.write(writes)
        except BaseException:  # Nobody waits any more.
            host.replies.pop(envelope.id, None)
            raise
        if refusal is not None:
            host.replies.pop(envelope.id, None)
        if isinstance(refusal, Duplicate):
            return self._same(refusal.envelope, type_, body)
        if isinstance(refusal, Rejected | Taken):
            raise StoreStopped(f"the message was refused: {refusal}")
        if waiter is not None and envelope not in writes:  # It was dropped: nobody will answer.
            host.replies.pop(envelope.id, None)
            raise MailboxFull(to, host.mailbox_max(to.kind))
        return envelope

    def _admit(self, target: Run, envelope: Envelope) -> list[Write]:
        """What accepts it.

        Raises:
            MailboxFull: There is no room, and the sender is to know.
        """
        writes = room.admit(self.host, target, envelope)
        if writes is None:
            raise MailboxFull(target.address, self.host.mailbox_max(target.kind))
        return writes

    async def accepting(self, to: Address, *, ask: bool) -> Run:
        """The run or actor, if it takes messages now; from here to the submit nothing waits."""
        host, run = self.host, self.operators.run
        activation = host.by_address.get(to)
        if activation is not None and activation.status in ("running", "waiting") and not host.closing:
            return activation.run
        if activation is None and host.cast.is_actor(to.kind):
            await host.cast.receiver(to)
        target = await run(to)
        waiting = 0
        if target.status == "paused" or not host.cast.may_enter(to):
            loaded = await host.store.load(target.id)
            waiting = depth(loaded.mailbox) if loaded is not None else 0
            target = await run(to)
        elif target.id not in host.resident and target.status not in ENDED:
            await host.loading.load(target.id)  # The message would load it anyway, and how full it is must be known before.
            target = await run(to)
        if target.status in ENDED:
            raise RunEnded(to, target.status)
        if target.status == "undoing":
            raise RunEnding(to)
        if ask and target.status == "paused":
            if target.id in host.resident:  # Why, is not durable yet.
                await self.operators.write([])
                return await self.accepting(to, ask=ask)
            raise ActorPaused(to, target.reason or "", reports.decode(target.report))
        if waiting and room.is_full(host, target, beside=waiting):
            raise MailboxFull(to, host.mailbox_max(to.kind))
        return target


def _value(answer: bytes) -> bytes:
    """The first answer, kept for who asks again: its value, or its failure raised."""
    status, payload = split_answer(answer)
    if status == "failed":
        raise decode_failure(payload)
    return payload
