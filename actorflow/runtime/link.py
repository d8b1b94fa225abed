"""A client's connection to the holder: many calls at a time, each waiting for its own frame."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import ByteStream, TaskStatus
from attrs import define, field

from actorflow.errors import TooLarge, Undecodable
from actorflow.runtime.wire import ANSWER_BYTES_MAX, FORGET, HELLO, VERSION, Act, Frame, Garbled, Inbox, Outbox, decode_error

HELLO_S = 10.0
"""How long a holder may take to answer a hello. One that takes longer is stopped, or its loop is blocked."""


class Lost(Exception):
    """The connection ended before the answer came.

    Args:
        unknown: Whether the holder may have done what it was asked for.
    """

    def __init__(self, *, unknown: bool) -> None:
        super().__init__()
        self.unknown = unknown


@define(eq=False, repr=False)
class _Reply:
    come: anyio.Event = field(factory=anyio.Event)
    frame: Frame | None = None


class Link:
    """One connection. `run` must be running somewhere."""

    def __init__(self, stream: ByteStream, token: str) -> None:
        self._stream, self._token = stream, token
        # An answer may be longer than `ANSWER_BYTES_MAX` only by what stands before it.
        self._inbox, self._outbox = Inbox(stream, ANSWER_BYTES_MAX + 1_024), Outbox(stream)
        self._replies: dict[int, _Reply] = {}
        self._last = 0
        self._call_bytes_max = 0
        self._farewell: Exception | None = None
        self.closed: anyio.Event = anyio.Event()

    @property
    def frames(self) -> int:
        """How many frames were sent."""
        return self._outbox.frames

    async def run(self, *, task_status: TaskStatus[Exception | None]) -> None:
        """Say hello, report None or why this holder is not to be spoken to, then hand out answers until the connection ends."""
        try:
            async with self._stream, anyio.create_task_group() as group:
                group.start_soon(self._outbox.run)
                problem = await self._greet()
                task_status.started(problem)
                if problem is None:
                    await self._receive()
                group.cancel_scope.cancel()
        finally:
            self.closed.set()
            for reply in self._replies.values():
                reply.come.set()

    async def _greet(self) -> Exception | None:
        self._outbox.put(0, "hello", HELLO.encode({"version": VERSION, "token": self._token, "frame_bytes_max": 0}, "hello"))
        try:
            with anyio.fail_after(HELLO_S):
                frame = await self._inbox.next()
        except (TimeoutError, Garbled):
            return Lost(unknown=False)
        match frame:
            case Frame(0, "hello", body):
                return self._greeted(body)
            case Frame(0, word, body):
                return decode_error(word, body)
            case _:
                return Lost(unknown=False)

    def _greeted(self, body: bytes) -> Exception | None:
        try:
            self._call_bytes_max = HELLO.decode(body, "hello")["frame_bytes_max"]
        except Undecodable as error:
            return error
        return None

    async def _receive(self) -> None:
        try:
            while (frame := await self._inbox.next()) is not None:
                if frame.number == 0:
                    self._farewell = decode_error(frame.word, frame.body)
                elif (reply := self._replies.get(frame.number)) is not None:
                    reply.frame = frame
                    reply.come.set()
        except (Garbled, Undecodable):
            pass  # To the callers it is a lost connection.

    async def call(self, act: Act, values: dict[str, Any]) -> Any:
        """Ask for something and wait for the answer. Cancelled, it tells the holder that nobody waits any more.

        Raises:
            Lost: The connection ended; see whether it may have been done.
            TooLarge: The holder would not read it; nothing was sent.
            Exception: What the holder raised.
        """
        body = act.ask(values)
        if len(body) + 100 > self._call_bytes_max:
            raise TooLarge(f"the call {act.name} of {values.get('to')}", len(body), self._call_bytes_max - 100)
        if self.closed.is_set():
            raise Lost(unknown=False)
        self._last += 1
        number, reply = self._last, _Reply()
        self._replies[number] = reply
        self._outbox.put(number, act.name, body)
        try:
            await reply.come.wait()
        finally:
            del self._replies[number]
            if reply.frame is None and not self.closed.is_set():
                self._outbox.put(number, FORGET, b"null")
        match reply.frame:
            case None if self._farewell is not None:
                raise self._farewell
            case None:
                raise Lost(unknown=True)
            case Frame(_, "ok", answer):
                return act.answered(answer)
            case Frame(_, "leaving", _):
                await self.closed.wait()
                raise Lost(unknown=False)
            case Frame(_, word, told):
                raise decode_error(word, told)
