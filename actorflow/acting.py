"""What a handler may do beside changing its fields: timers, stashing, watching, topics. All of it leaves with the turn."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, final

from actorflow import records
from actorflow.address import Address
from actorflow.clock import Duration, seconds
from actorflow.errors import BadDefinition, BadDuration, OutsideTurn
from actorflow.kernel.branches import driver
from actorflow.kernel.outbox import CancelTimer, Effect, Leave, Outbox, Post, SetTimer, Stash, Unstash, Watch
from actorflow.message import Message, encode_message
from actorflow.policies.limits import checked_key

M = TypeVar("M", bound=Message[Any])

TOPIC = "~topic"
"""The kind of the actors that hold who listens to a topic; their key is its name."""

EVERY_MIN_S = 0.001
"""A timer that fires more often does nothing else."""


class Terminated(Message[None]):
    """One that was `watch`ed is no more: a run has ended, an actor was stopped or set aside."""

    who: str  #: its address, "Kind/key"
    status: Literal["completed", "failed", "cancelled", "stopped", "paused"]


class Subscribe(Message[None]):
    """To a topic: tell that actor what is published."""

    who: str


class Unsubscribe(Message[None]):
    """To a topic: no more."""

    who: str


class Publish(Message[None]):
    """To a topic: tell all that listen."""

    type: str
    body: str


def outbox(verb: str) -> Outbox:
    """Where the verbs of an actor's turn put what they do.

    Raises:
        OutsideTurn: The caller is in no actor's turn.
    """
    found = driver(verb).outbox
    if found is None:
        raise OutsideTurn(f"{verb} (a verb of actors; a workflow sleeps, receives and starts children)")
    return found


class Acting:
    """The verbs of an actor's turn. Nothing of what they do is seen by anybody before the turn is durable."""

    @final
    def after(self, delay: Duration, message: Message[Any], *, name: str) -> None:
        """Send oneself a message later, restarts included. A timer has a name; setting one again replaces it."""
        type_, body = encode_message(message)
        outbox("self.after").add(SetTimer(_name(name), type_, body, seconds(delay)))

    @final
    def every(self, interval: Duration, message: Message[Any], *, name: str) -> None:
        """Send oneself a message again and again, until `cancel_timer`. Moments that passed while nothing ran are one message."""
        type_, body = encode_message(message)
        every_s = seconds(interval)
        if every_s < EVERY_MIN_S:
            raise BadDuration(interval, f"a timer fires at most every {EVERY_MIN_S:g} s")
        outbox("self.every").add(SetTimer(_name(name), type_, body, every_s, every_s))

    @final
    def cancel_timer(self, name: str) -> None:
        """No message of that timer any more, not even one that is waiting already. No effect if there is none."""
        outbox("self.cancel_timer").add(CancelTimer(_name(name)))

    @final
    def stash(self, message: Message[Any]) -> None:
        """Put the message that is being handled aside; it is neither answered nor acknowledged, and keeps its place.

        It comes again after `unstash`, and after the actor was loaded anew.
        """
        box = outbox("self.stash")
        if message is not box.handled:
            raise BadDefinition("self.stash takes the message that is being handled.")
        box.add(Stash(box.message))

    @final
    def unstash(self) -> None:
        """All that was stashed comes next, oldest first."""
        outbox("self.unstash").add(Unstash())

    @final
    def watch(self, other: Address[Any]) -> None:
        """Be told by a `Terminated` message when that run or actor is no more; at once if it has ended."""
        outbox("self.watch").add(Watch(records.Address(other.kind, other.key)))

    @final
    def publish(self, topic: str, message: Message[Any]) -> None:
        """Tell all that listen to that topic. Each gets it once, in the order in which it was published."""
        type_, body = encode_message(message)
        self._to_topic("self.publish", topic, Publish(type_, body.decode()))

    @final
    def subscribe(self, topic: str) -> None:
        """Be told what is published on that topic from now on; once, however often it is called."""
        self._to_topic("self.subscribe", topic, Subscribe(self._who("self.subscribe")))

    @final
    def unsubscribe(self, topic: str) -> None:
        """Be told no more."""
        self._to_topic("self.unsubscribe", topic, Unsubscribe(self._who("self.unsubscribe")))

    @final
    def leave(self) -> None:
        """Leave memory after this turn: a virtual actor comes back with its next message, a static child has ended normally."""
        outbox("self.leave").add(Leave())

    def _who(self, verb: str) -> str:
        me: Address[Any] | None = getattr(self, "me", None)
        if me is None:
            raise OutsideTurn(verb)
        return str(me)

    def _to_topic(self, verb: str, topic: str, message: Message[Any]) -> None:
        effect: Effect = Post(records.Address(TOPIC, checked_key(topic)), *encode_message(message))
        outbox(verb).add(effect)


def _name(name: str) -> str:
    if "/" in name:
        raise BadDefinition(f'a timer cannot be named {name!r}: "/" is taken.')
    return checked_key(name)
