"""What the handlers of all cases are made of."""

from __future__ import annotations

from typing import Any, ClassVar

from actorflow import Abort, Actor, Branch, Duration, Message, Workflow
from actorflow.kernel.branches import driver
from tests.yardstick import ledger


class Done(Message[None], kind="yardstick-done"):
    """A callback was completed."""

    callback: str
    payload: Any = None


class Refused(Message[None], kind="yardstick-refused"):
    """A callback was completed with an error."""

    callback: str
    type: str
    message: str


class Beat(Message[None], kind="yardstick-beat"):
    """Whoever is to complete a callback is alive."""

    callback: str


class CallbackFailed(Exception):
    """What a refused callback raises."""


class CallbackTimedOut(Exception):
    """Nobody completed it in time."""


class Program(Workflow[Any]):
    """A handler: `handle` is given the input of the case."""

    input: Any = None

    beside: ClassVar[tuple[type[Actor], ...]] = ()  #: what it starts

    async def run(self) -> Any:
        try:
            return await self.handle(self.input)
        except Exception as error:
            raise Abort(str(error)) from error

    async def handle(self, input: Any) -> Any:
        raise NotImplementedError

    def named(self, call: Any, name: str | None) -> Branch[Any]:
        return self.task(call, key=name)

    def create_callback(
        self,
        name: str | None = None,
        *,
        within: Duration | None = None,
        heartbeat: Duration | None = None,
        of: type[Message[Any]] = Done,
    ) -> tuple[str, Branch[Any]]:
        """Who outside may complete it, and what to await for its value."""
        here = driver("create_callback").branch
        line = f"{here.path}/task:{name}" if name else f"{here.path}/task#{here.calls.get('task', 0)}"
        return line, self.task(self._outcome(line, within, heartbeat, of), key=name)

    async def _outcome(self, callback: str, within: Any, heartbeat: Any, of: type[Message[Any]]) -> Any:
        ledger.callback_began(callback, of.__tag__, heartbeat=heartbeat is not None)
        wait: Any = self.receive
        limit = {} if within is None and heartbeat is None else {"within": within or heartbeat}
        while True:
            match await wait(of, Refused, Beat, where=lambda message: message.callback == callback, **limit):
                case None:
                    raise CallbackTimedOut(f"callback {callback} was not completed in time")
                case Refused() as refused:
                    raise CallbackFailed(refused.message)
                case Beat():
                    continue
                case done:
                    return done.payload
