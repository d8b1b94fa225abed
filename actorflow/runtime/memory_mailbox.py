"""The mailbox of a memory-only actor: what waits there, and how many places are left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from actorflow.errors import ActorflowError, MailboxFull
from actorflow.handlers import Handler
from actorflow.kind import Kind
from actorflow.message import Message
from actorflow.records import Address
from actorflow.runtime.tickets import Letter, Tick
from actorflow.sharing import shared


class MemoryMailbox:
    """What is told and asked waits here, oldest first."""

    def __init__(self, kind: Kind, address: Address, depth_max: int) -> None:
        self.kind: Kind = kind
        self.address: Address = address
        self.depth_max: int = depth_max
        self.room: int = depth_max  #: letters that may lie in `mail`; what is stashed, read beside or delayed has a place, too
        self.live: bool = True  #: its address leads here
        self.busy: bool = False  #: nothing begins by itself: a job is on its way, or it waits for a restart, or it is down
        self.mail: deque[Letter] = deque()
        self.stashed: list[Letter] = []
        self.later: int = 0  #: messages on their way that were sent with a delay
        self.freed: list[Callable[[], object]] = []  #: who waits for a place
        self._routes: dict[type[Any], Handler] = {}
        self._open = True

    def perform(self) -> None:
        """Handle what waits, soon."""
        raise NotImplementedError

    def accept(self, message: Message[Any], /) -> bool:
        handler = self._routes.get(type(message))
        if handler is None or len(self.mail) >= self.room:
            return False
        self.mail.append((message, handler, None))
        if not self.busy:
            self.perform()
        return True

    def route(self, message: type[Any]) -> Handler:
        """Who handles messages of that type; those that need nothing else are accepted at once from now on.

        Raises:
            UnknownMessage: Nobody does.
        """
        handler = self._routes.get(message)
        if handler is None:
            handler = self.kind.handler_for(message)
            if self._open and not handler.readonly and shared(message):
                self._routes[message] = handler
        return handler

    def shut(self) -> None:
        """Whoever writes to it is to ask first whether he may."""
        self._open = False
        self._routes.clear()

    @property
    def full(self) -> bool:
        return len(self.mail) >= self.room

    def drop_oldest(self) -> bool:
        """Make room; False if there is nothing to drop."""
        for letter in self.mail:
            if not isinstance(letter[2], Tick):
                self.mail.remove(letter)
                if letter[2] is not None:
                    letter[2].failed(MailboxFull(self.address, self.depth_max))
                return True
        return False

    def unstash(self) -> None:
        """What was put aside comes next, oldest first."""
        self.mail.extendleft(reversed(self.stashed))
        self.room += len(self.stashed)
        self.stashed.clear()

    def free(self) -> None:
        """Tell who waits for a place to look again."""
        freed, self.freed = self.freed, []
        for tell in freed:
            tell()

    def lost(self, error: ActorflowError) -> int:
        """Nobody will handle what waits; returns how much that is."""
        letters, self.live = [letter for letter in self.mail if not isinstance(letter[2], Tick)], False
        self.mail.clear()
        for _, _, ticket in letters:
            if ticket is not None:
                ticket.failed(error)
        if self.freed:
            self.free()
        return len(letters)
