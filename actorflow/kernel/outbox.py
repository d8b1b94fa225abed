"""What one turn of an actor sends and sets. Pure: kept here until the turn has ended, then it leaves in the turn's one commit.

Replay of a turn fills it anew, so nothing of it is recorded before the end.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from actorflow.errors import TooManyCalls
from actorflow.records import Address
from actorflow.value import Value

EFFECTS_MAX = 10_000
"""Effects of one turn. They are one commit, and everybody waits while it is written."""


@frozen
class Post(Value):
    """A message to somebody."""

    to: Address
    type: str
    body: bytes
    key: str | None = None
    after_s: float | None = None


@frozen
class SetTimer(Value):
    """A message to oneself, later; replaces the timer of that name."""

    name: str
    type: str
    body: bytes
    after_s: float
    every_s: float | None = None  #: again and again


@frozen
class CancelTimer(Value):
    """No message of that name any more."""

    name: str


@frozen
class Stash(Value):
    """This message is not handled now; it waits for `Unstash`, or for the next load."""

    message: int


@frozen
class Unstash(Value):
    """All that was stashed comes next, oldest first."""


@frozen
class Watch(Value):
    """Tell me when that one ends."""

    whom: Address


@frozen
class Leave(Value):
    """After this turn, leave memory; a static child ends normally."""


Effect = Post | SetTimer | CancelTimer | Stash | Unstash | Watch | Leave


@define(eq=False, repr=False)
class Outbox:
    """The effects of one turn, in order."""

    room: Callable[[Address, int], None]  #: raises `MailboxFull` if that receiver takes no more beside so many from here
    message: int = 0  #: the one that is being handled; 0 if none is
    handled: object = None  #: as its handler was given it
    effects: list[Effect] = field(factory=list[Effect])
    _posts: dict[Address, int] = field(factory=dict[Address, int])

    def add(self, effect: Effect) -> None:
        """One more.

        Raises:
            MailboxFull: It is a message, and its receiver takes no more.
            TooManyCalls: The turn has done too much.
        """
        if len(self.effects) >= EFFECTS_MAX:
            raise TooManyCalls("messages and timers of one turn", EFFECTS_MAX)
        if type(effect) is Post:
            before = self._posts.get(effect.to, 0)
            self.room(effect.to, before)
            self._posts[effect.to] = before + 1
        self.effects.append(effect)

    def handles(self, message: object) -> bool:
        """True if that is the message that is being handled."""
        return message is self.handled

    def stashed(self) -> bool:
        """True if the message itself was stashed."""
        return bool(self.effects) and any(type(effect) is Stash and effect.message == self.message for effect in self.effects)
