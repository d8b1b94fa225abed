"""What lies in the mailbox of a memory-only actor: a message, who handles it, and who wants to know what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow.handlers import Handler
from actorflow.kernel.outbox import SetTimer
from actorflow.message import Message, decode_message
from actorflow.sharing import reply_handed_over

if TYPE_CHECKING:
    from actorflow.runtime.memory_actor import MemoryActor
    from actorflow.runtime.timers import Timer


class Ticket:
    """Somebody who wants to know what became of a message."""

    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone: bool = False  #: nobody wants the message handled any more

    def handled(self, value: Any, handler: Handler, message: Message[Any]) -> None:
        """The handler returned."""

    def failed(self, error: Exception) -> None:
        """It was not handled, or the handler failed."""


Letter = tuple[Message[Any], Handler, Ticket | None]


class Question(Ticket):
    """An ask that waits for its reply."""

    gone: bool
    __slots__ = ("error", "reply_form", "value", "wake", "what")

    def __init__(self, wake: Callable[[], object], reply_form: Any, what: str) -> None:
        super().__init__()
        self.wake: Callable[[], object] = wake
        self.reply_form: Any = reply_form
        self.what: str = what
        self.value: Any = None
        self.error: Exception | None = None

    def handled(self, value: Any, handler: Handler, message: Message[Any]) -> None:
        if not self.gone:
            # Before it is marked: what cannot be handed over is the handler's failure, and told as that.
            self.value = reply_handed_over(self.reply_form, handler.reply(type(message)), value, self.what)
            self.gone = True
            self.wake()

    def failed(self, error: Exception) -> None:
        if not self.gone:
            self.gone, self.error = True, error
            self.wake()


class Tick(Ticket):
    """A timer of the actor's own; its message is due when it has fired, and again when that was handled."""

    gone: bool
    __slots__ = ("_actor", "_due", "_timer", "set_")

    def __init__(self, actor: MemoryActor, set_: SetTimer) -> None:
        super().__init__()
        self.set_: SetTimer = set_
        self._actor = actor
        self._due = actor.host.clock.monotonic() + set_.after_s
        self._timer: Timer = self._arm()

    def _arm(self) -> Timer:
        return self._actor.host.deadlines.at(self._due, self._fire)

    def _fire(self) -> None:
        message = decode_message(self.set_.type, self.set_.body)
        self._actor.deliver((message, self._actor.kind.handler_for(type(message)), self))

    def _again(self) -> None:
        every_s = self.set_.every_s
        if self.gone:
            return
        if every_s is None:
            self.gone = True
            self._actor.timers.pop(self.set_.name, None)
            return
        # Moments that passed meanwhile are one message.
        passed = max(0, int((self._actor.host.clock.monotonic() - self._due) / every_s))
        self._due += every_s * (passed + 1)
        self._timer = self._arm()

    def handled(self, value: Any, handler: Handler, message: Message[Any]) -> None:
        self._again()

    def failed(self, error: Exception) -> None:
        self._again()

    def cancel(self) -> None:
        """No message of it any more, not even one that waits."""
        self.gone = True
        self._timer.cancel()
