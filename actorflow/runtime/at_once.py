"""What the verbs of a memory-only actor do: at once, as there is no turn whose end they could wait for."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from actorflow.acting import Terminated
from actorflow.errors import ActorflowError, TooManyCalls
from actorflow.kernel.outbox import CancelTimer, Effect, Leave, Outbox, Post, SetTimer, Stash, Unstash, Watch
from actorflow.message import resolve
from actorflow.records import Address
from actorflow.runtime.tickets import Tick

if TYPE_CHECKING:
    from actorflow.runtime.memory_actor import MemoryActor

log: logging.Logger = logging.getLogger("actorflow")

TIMERS_MAX = 1_000
"""Timers of one actor."""
POSTS_MAX = 10_000
"""What one actor has published and is not durable yet."""


def _room(_: Address, __: int) -> None:
    """Posts are for topics, which are durable: their room is found out when they are told."""


class AtOnce(Outbox):
    """The verbs of one memory-only actor."""

    def __init__(self, actor: MemoryActor) -> None:
        super().__init__(_room)
        self.actor: MemoryActor = actor
        self._posts_waiting: deque[Post] = deque()

    def handles(self, message: object) -> bool:
        letter = self.actor.current
        return letter is not None and letter[0] is message

    def add(self, effect: Effect) -> None:
        """Do it.

        Raises:
            TooManyCalls: It has set too many timers, or published faster than that can be made durable.
            UnknownMessage: It would not handle the timer's message.
        """
        actor = self.actor
        match effect:
            case SetTimer():
                self._set(effect)
            case CancelTimer(name):
                if (tick := actor.timers.pop(name, None)) is not None:
                    tick.cancel()
            case Stash():
                actor.stash_current = actor.noted = True
            case Unstash():
                actor.unstash()
            case Watch(whom):
                if not actor.nearby.watch(whom, actor):
                    self.tell_end(whom, "stopped")
            case Leave():
                actor.leaving = actor.noted = True
            case Post():
                self._post(effect)

    def _set(self, timer: SetTimer) -> None:
        actor = self.actor
        actor.kind.handler_for(resolve(timer.type))
        before = actor.timers.get(timer.name)
        if before is not None:
            if timer.every_s is not None and before.set_ == timer:
                return  # An `every` that is set as it is keeps its moments.
            before.cancel()
        elif len(actor.timers) >= TIMERS_MAX:
            raise TooManyCalls(f"timers of {actor}", TIMERS_MAX)
        actor.timers[timer.name] = Tick(actor, timer)

    def tell_end(self, of: Address, status: str) -> None:
        """One that this actor watched is no more."""
        self.actor.watching.discard(of)
        handler = self.actor.kind.handler_of(Terminated)
        if handler is not None:
            self.actor.deliver((Terminated(str(of), status), handler, None))  # type: ignore[arg-type]

    # --- topics ---------------------------------------------------------------------------------------------------------

    def _post(self, post: Post) -> None:
        """To a durable actor, by a verb that nobody awaits: in order, one after the other."""
        if len(self._posts_waiting) >= POSTS_MAX:
            raise TooManyCalls(f"messages published by {self.actor}", POSTS_MAX)
        self._posts_waiting.append(post)
        if len(self._posts_waiting) == 1:
            self.actor.host.spawn(self._send)

    async def _send(self) -> None:
        while self._posts_waiting:
            post = self._posts_waiting[0]
            try:
                tell = self.actor.nearby.operations.tell
                await tell(post.to, type=post.type, body=post.body, key=post.key, after_s=post.after_s)
            except ActorflowError as error:
                log.warning("%s could not write to %s: %s", self.actor, post.to, error)
            self._posts_waiting.popleft()
