"""From what a turn of an actor did to the writes of its commit: messages, timers, watches.

Who is in memory is known at once. Others are looked up first, and a virtual actor that was never written to is made; the
turn waits for that, and nothing of it has left by then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio

from actorflow.errors import ActorflowError, KeyTaken, MailboxFull, RunEnded, StoreError, UnknownRun
from actorflow.failures import encode_failure, failed_answer
from actorflow.kernel.mailbox import depth
from actorflow.kernel.outbox import CancelTimer, Effect, Leave, Post, SetTimer, Stash, Unstash, Watch
from actorflow.records import ENDED, EVERY, TIMER, Address, Consume, Entry, Envelope, Run, Wake, Write
from actorflow.runtime import reports, room
from actorflow.runtime.calls import REPEAT_S

if TYPE_CHECKING:
    from actorflow.runtime.handling import ActorActivation

log: logging.Logger = logging.getLogger("actorflow")


def every_s(envelope: Envelope) -> float | None:
    """The interval of a timer's message; 0 if it fires once; None if it is no timer's."""
    if not envelope.sender:  # A client's.
        return None
    if envelope.sender.startswith(EVERY):
        return float(envelope.sender.split("/", 2)[1])
    return 0.0 if envelope.sender.startswith(TIMER) else None


def timer_name(envelope: Envelope) -> str:
    """Of a timer's message: how its actor called the timer."""
    return envelope.sender.split("/", 2)[2] if envelope.sender.startswith(EVERY) else envelope.sender[len(TIMER) :]


TOGETHER_MAX = 64
"""Receivers of one turn that are looked up at once: each may be a read of the store."""


class Effects:
    """What one actor's turns do to others, and its timers."""

    def __init__(self, activation: ActorActivation) -> None:
        self._activation = activation
        self._timers: dict[str, Envelope] = {}
        self._found: dict[Address, Run | None] = {}  #: who was looked up for the turn that waits for it
        self._known: dict[tuple[Address, str], Envelope | None] = {}  #: what was sent before under the keys of that turn
        self._depths: dict[int, int] = {}  #: how many messages wait for those of them that are paused
        self._watched: set[Address] = set()  #: who is watched already
        self._after: list[Callable[[], object]] = []  #: for memory-only actors, once the turn is durable

    # --- timers ---------------------------------------------------------------------------------------------------------

    def loaded(self, envelope: Envelope) -> None:
        """A message is there; it may be a timer's."""
        if every_s(envelope) is not None:
            self._timers[timer_name(envelope)] = envelope

    def again(self, envelope: Envelope, writes: list[Write]) -> None:
        """That message was dealt with: if a timer sent it, its next moment, or no more."""
        interval = every_s(envelope)
        if interval is None:
            return
        name = timer_name(envelope)
        if self._timers.get(name, envelope).id != envelope.id:
            return  # It was set anew meanwhile.
        self._timers.pop(name, None)
        if interval:
            due_at = envelope.due_at or envelope.sent_at
            passed = max(0, math.floor((self._activation.host.clock.wall() - due_at) / interval))
            again = SetTimer(name, envelope.type, envelope.body, interval, interval)
            self._set(again, due_at + interval * (passed + 1), writes)

    def _runs_already(self, timer: SetTimer) -> bool:
        """An `every` that is set as it is (each `on_start` does so) keeps its moments."""
        set_ = self._timers.get(timer.name)
        same = set_ is not None and (set_.type, set_.body) == (timer.type, timer.body)
        return timer.every_s is not None and same and set_ is not None and every_s(set_) == timer.every_s

    def _set(self, timer: SetTimer, due_at: float, writes: list[Write]) -> None:
        self._cancel(timer.name, writes)
        host, run = self._activation.host, self._activation.run.id
        sender = f"{EVERY}{timer.every_s!r}/{timer.name}" if timer.every_s else f"{TIMER}{timer.name}"
        message = self._timers[timer.name] = host.envelope(run, timer.type, timer.body, sender=sender, due_at=due_at)
        writes.append(message)

    def _cancel(self, name: str, writes: list[Write]) -> None:
        timer = self._timers.pop(name, None)
        if timer is None:
            return
        if any(write is timer for write in writes):  # Set in this very commit: it never was.
            writes[:] = [write for write in writes if write is not timer]
        else:
            self._activation.mailbox.remove(timer)
            writes.append(Consume(timer.id, None))

    # --- messages -------------------------------------------------------------------------------------------------------

    def has_room(self, to: Address, beside: int) -> bool:
        """False for a message that will find no room, as far as that is known here."""
        host = self._activation.host
        if host.cast.in_memory(to):
            return host.cast.memory.has_room(to, beside)
        target = host.by_address.get(to)
        lossy = room.overflow(host, to.kind) in ("drop_oldest", "drop_new")
        return target is None or lossy or not room.is_full(host, target.run, beside=beside)

    def known(self, effects: Sequence[Effect]) -> bool:
        """True if nothing has to be looked up for them."""
        cast, present = self._activation.host.cast, self._activation.host.by_address
        for effect in effects:
            if type(effect) is Post:
                if effect.key is not None or (effect.to not in present and not cast.in_memory(effect.to)):
                    return False
            elif type(effect) is Watch:
                return False
        return True

    async def look_up(self, effects: Sequence[Effect]) -> None:
        """Find (or make) all that these need; a store that cannot be read now is asked again."""
        todo: list[Post | Watch] = [effect for effect in effects if isinstance(effect, Post | Watch)]
        while todo and self._activation.live and self._activation.host.committer.stopped is None:
            # Several at once: actors that were never written to are then made by a few commits.
            now, todo = todo[:TOGETHER_MAX], todo[TOGETHER_MAX:]
            failed: list[Post | Watch] = []
            async with anyio.create_task_group() as group:
                for effect in now[1:]:
                    group.start_soon(self._try, effect, failed)
                await self._try(now[0], failed)
            if failed:
                todo = [*failed, *todo]
                await anyio.sleep(REPEAT_S)

    async def _try(self, effect: Post | Watch, failed: list[Post | Watch]) -> None:
        try:
            await self._look_up(effect)
        except StoreError as error:
            log.warning("where messages of %s go could not be read: %s", self._activation, error)
            failed.append(effect)

    async def _look_up(self, effect: Post | Watch) -> None:
        host = self._activation.host
        to, key = (effect.to, effect.key) if isinstance(effect, Post) else (effect.whom, None)
        if host.cast.in_memory(to):
            return
        if to not in self._found:
            try:
                self._found[to] = await host.cast.receiver(to)
            except ActorflowError as error:
                if isinstance(error, StoreError):
                    raise
                log.warning("%s cannot write to %s: %s", self._activation, to, error)
                self._found[to] = None
        found = self._found[to]
        if found is None or found.status in ENDED:
            return
        if key is not None and (to, key) not in self._known:
            self._known[to, key] = await host.store.message(found.id, key)
        if found.status != "paused":
            await host.loading.load(found.id)  # The message would load it anyway; and how full it is must be known before.
        resident = host.resident.get(found.id)
        if resident is not None:
            mail = list(resident.mailbox.waiting.values())
        elif type(effect) is Watch or found.id not in self._depths:
            loaded = await host.store.load(found.id)
            mail = [] if loaded is None else list(loaded.mailbox)
            self._depths[found.id] = depth(mail)
        else:
            return
        if any(e.type == "~watch" and e.reply_to == self._activation.run.id for e in mail):
            self._watched.add(to)

    def _receiver(self, to: Address) -> Run | None:
        resident = self._activation.host.by_address.get(to)
        if resident is not None:
            return self._activation.host.present(resident.run)
        found = self._found.get(to)
        return None if found is None else self._activation.host.present(found)

    # --- the writes -----------------------------------------------------------------------------------------------------

    def add(self, effects: Sequence[Effect], writes: list[Write]) -> None:
        """All they come to, in their order."""
        sent: dict[int, int] = {}
        for effect in effects:
            match effect:
                case Post():
                    self._post(effect, sent, writes)
                case SetTimer() if self._runs_already(effect):
                    pass
                case SetTimer():
                    self._set(effect, self._activation.host.clock.wall() + effect.after_s, writes)
                case CancelTimer(name):
                    self._cancel(name, writes)
                case Unstash():
                    self._activation.stashed.clear()
                case Watch(whom):
                    self._watch(whom, writes)
                case Leave():
                    self._activation.leaving = True
                case Stash():
                    pass  # Its turn has seen to it.
        self._found.clear()
        self._known.clear()
        self._depths.clear()
        self._watched.clear()

    def _post(self, post: Post, sent: dict[int, int], writes: list[Write]) -> None:
        activation = self._activation
        host = activation.host
        if host.cast.in_memory(post.to):
            self._after.append(lambda: host.cast.tell_in_memory(post, str(activation)))
            return
        target = self._receiver(post.to)
        if target is None:
            self._lost(post, UnknownRun(post.to), writes)
            return
        if post.key is not None and (earlier := self._known.get((post.to, post.key))) is not None:
            if (earlier.type, earlier.body) != (post.type, post.body):
                earlier_text = f"{earlier.type} {reports.shown(earlier.body)}"
                taken = KeyTaken(f"message key {post.key!r}", earlier_text, f"{post.type} {reports.shown(post.body)}")
                log.warning("%s tells %s: %s", activation, post.to, taken)
                self._lost(post, taken, writes)
            return
        due_at = None if post.after_s is None else host.clock.wall() + post.after_s
        envelope = host.envelope(target.id, post.type, post.body, key=post.key, sender=str(activation), due_at=due_at)
        if post.key is not None:
            self._known[post.to, post.key] = envelope
        if target.status in ENDED or target.status == "undoing":
            writes.append(envelope._replace(state="dead", answer=failed_answer(RunEnded(post.to, target.status))))
            return
        beside = sent.get(target.id, 0)
        accepted = room.admit(host, target, envelope, beside=beside + self._depths.get(target.id, 0))
        sent[target.id] = beside + 1
        writes.extend(accepted if accepted is not None else room.dropped(host, target, envelope))

    def _lost(self, post: Post, error: Exception, writes: list[Write]) -> None:
        """There is nobody; it is a dead letter in the log of who sent it."""
        lost: Entry = self._activation.log("dead", name=post.type, outcome=encode_failure(error))
        writes.append(lost._replace(status="failed", input=post.body, ref=str(post.to)))

    def _watch(self, whom: Address, writes: list[Write]) -> None:
        activation = self._activation
        host, target = activation.host, self._receiver(whom)
        gone = target is not None and target.status == "paused" and host.cast.is_actor(whom.kind)
        if whom in self._watched:
            return
        self._watched.add(whom)
        if target is None or target.status in ENDED or gone:
            status = "stopped" if target is None else target.status
            writes.extend(host.notice("~child", activation.run.id, str(whom), status, None))
        else:
            watch = host.envelope(target.id, "~watch", b"null", sender=str(activation), reply_to=activation.run.id)
            writes.extend((watch, Wake(target.id, 0.0)))

    def room(self, to: Address, beside: int) -> None:
        """Refuse a message to somebody known to be full. That is recorded, so that a replay goes the same way.

        Raises:
            MailboxFull: As many wait there as may, or as did then.
        """
        activation = self._activation
        if activation.turn.refused(str(to), lambda: not self.has_room(to, beside)):
            raise MailboxFull(to, activation.host.mailbox_max(to.kind))

    def durable(self) -> None:
        """The turn is durable: now memory-only actors are told."""
        after, self._after = self._after, []
        for tell in after:
            tell()
