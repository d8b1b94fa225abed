"""Topics: who listens, kept by an actor for each topic. Publishing is a message to it, which it passes on in one turn."""

from __future__ import annotations

from attrs import field

from actorflow import records
from actorflow.acting import TOPIC, Publish, Subscribe, Unsubscribe, outbox
from actorflow.actor import Actor
from actorflow.errors import MailboxFull, TooManyCalls
from actorflow.handlers import handler
from actorflow.kernel.outbox import Post

LISTENERS_MAX = 5_000
"""All of them are told in one commit."""


class Topic(Actor, kind=TOPIC):
    """Who listens to one topic, in the order in which they came."""

    listeners: list[str] = field(factory=list[str])
    missed: int = 0  #: messages that a listener with a full mailbox did not get

    @handler
    async def subscribed(self, m: Subscribe) -> None:
        """One more; a second time is no change."""
        if m.who in self.listeners:
            return
        if len(self.listeners) >= LISTENERS_MAX:
            raise TooManyCalls(f"listeners of topic {self.me.key}", LISTENERS_MAX)
        self.listeners.append(m.who)

    @handler
    async def unsubscribed(self, m: Unsubscribe) -> None:
        """One less."""
        if m.who in self.listeners:
            self.listeners.remove(m.who)

    @handler
    async def published(self, m: Publish) -> None:
        """Pass it on. A listener whose mailbox is full misses it; the others do not wait for that one."""
        box = outbox("Topic.published")
        for who in self.listeners:
            kind, _, key = who.partition("/")
            try:
                box.add(Post(records.Address(kind, key), m.type, m.body.encode()))
            except MailboxFull:
                self.missed += 1
