"""Any ASGI app, with a runtime around it: Django's, which knows of no lifespan, as well as those that have one."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
from attrs import define, field

from actorflow.embedding.apps import NAME, Entered
from actorflow.errors import NotRunning

log: logging.Logger = logging.getLogger("actorflow")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An app as ASGI 3 has it; frameworks name its three arguments in different ways."""


@define(eq=False)
class WithRuntime:
    """An ASGI app that a runtime runs in; made by `Runtime.asgi`."""

    app: AsgiApp
    runtime: Entered
    _running: bool = field(default=False, init=False)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if not self._running:
            raise NotRunning(
                "the runtime around this app is not running: the server sent a request and no lifespan, or a request after its "
                "end. Use a server that has lifespans (uvicorn and hypercorn do; daphne does not), and do not switch them off."
            )
        scope[NAME] = self.runtime
        await self.app(scope, receive, send)

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        """First the app starts, then the runtime; backwards at the end."""
        await receive()
        if isinstance(scope.get("state"), MutableMapping):
            scope["state"][NAME] = self.runtime
        inner, answer, failure = Inner(self.app), "lifespan.startup.failed", None
        ended: Message = {}
        async with anyio.create_task_group() as group:
            try:
                if (refusal := await inner.start(group, scope)) is not None:
                    await send(refusal)
                    return
                try:
                    async with self.runtime:
                        self._running = True
                        await send({"type": "lifespan.startup.complete"})
                        answer = "lifespan.shutdown.failed"
                        await receive()
                        self._running = False
                finally:
                    self._running = False
                    with anyio.CancelScope(shield=True):
                        ended = await inner.stop()
                await send(ended)
            except Exception as error:  # noqa: BLE001  (raised below, where no group wraps it)
                failure = error
                await send({"type": answer, "message": "".join(traceback.format_exception(error))})
            finally:
                group.cancel_scope.cancel()
        if failure is not None:
            raise failure


@define(eq=False)
class Inner:
    """The lifespan of the app inside, if it has one: this plays its server."""

    app: AsgiApp
    _started: anyio.Event = field(factory=anyio.Event, init=False)
    _stopping: anyio.Event = field(factory=anyio.Event, init=False)
    _stopped: anyio.Event = field(factory=anyio.Event, init=False)
    _asked: int = field(default=0, init=False)
    _answer: Message | None = field(default=None, init=False)  #: to the start
    _last: Message | None = field(default=None, init=False)  #: to the end

    async def start(self, group: anyio.abc.TaskGroup, scope: Message) -> Message | None:
        """Start it; what it refuses with, if it does."""
        group.start_soon(self._run, scope)
        await self._started.wait()
        return self._answer if self._answer is not None and self._answer["type"] == "lifespan.startup.failed" else None

    async def stop(self) -> Message:
        """Stop it, if it has started; what the server is to be told."""
        self._stopping.set()
        if self._answer is not None:
            await self._stopped.wait()
        return self._last or {"type": "lifespan.shutdown.complete"}

    async def _run(self, scope: Message) -> None:
        try:
            await self.app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  (so says an app that it has no lifespan, or what went wrong after it had)
            if self._answer is None:
                # As the specification has it: the app goes on without.
                log.info("the app has no lifespan (%s: %s)", type(error).__qualname__, error)
            elif self._last is None and self._answer["type"] == "lifespan.startup.complete":
                said = "".join(traceback.format_exception(error))
                self._last = {"type": "lifespan.shutdown.failed", "message": said}
        finally:
            self._started.set()
            self._stopped.set()

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._asked > 2:
            await anyio.sleep_forever()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].startswith("lifespan.startup."):
            self._answer = message
            self._started.set()
        elif message["type"].startswith("lifespan.shutdown."):
            self._last = message
            self._stopped.set()
