"""Memory-only actors as handles see them: how a message reaches one of this process, and which one's handler runs here."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, Protocol

from actorflow.kernel.outbox import Outbox
from actorflow.message import Message
from actorflow.operations import Operations


class There(Protocol):
    """A live memory-only actor, as a handle remembers it."""

    def accept(self, message: Message[Any], /) -> bool:
        """Put it into the mailbox, if nothing speaks against it; else False, and `Nearby.tell` sees what to do."""
        ...


class Handle(Protocol):
    """An address."""

    there: There | None  #: whom it found the last time

    @property
    def kind(self) -> str: ...
    @property
    def key(self) -> str: ...


class Nearby(Protocol):
    """The memory-only actors of one process, and the way from them to all others."""

    @property
    def operations(self) -> Operations:
        """The way to durable actors and runs."""
        ...

    def tell(self, to: Handle, message: Message[Any], /) -> Awaitable[None] | None:
        """Put it into that mailbox; to be awaited, if there is something, for a place there."""
        ...

    def tell_later(self, to: Handle, message: Message[Any], after_s: float, /) -> None:
        """Put it there when that time has passed."""
        ...

    async def ask(self, to: Handle, message: Message[Any], within_s: float, asker: Living | None, /) -> Any:
        """Put it there and wait for the reply."""
        ...


class Living(Protocol):
    """A memory-only actor whose handler runs here."""

    @property
    def nearby(self) -> Nearby: ...

    @property
    def box(self) -> Outbox:
        """Where its verbs put what they do; it is done at once."""
        ...


living: ContextVar[Living | None] = ContextVar("actorflow_living", default=None)
