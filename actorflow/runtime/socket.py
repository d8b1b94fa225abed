"""The holder's side of the socket: it listens beside its database, and performs what clients in other processes ask for.

Who may reach the socket is decided by the file system (mode 0600, or a directory of 0700), as it is for the database itself.
A client can be slow, wrong or hostile: it can fill no memory beyond the bounds below, and it can stop nobody but itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

import anyio
from anyio.abc import ByteStream, TaskGroup

from actorflow.errors import Refused, StoreBusy, StoreStopped, StoreUnavailable, TooManyCalls
from actorflow.message import decode_message
from actorflow.records import Lease
from actorflow.runtime import place as places
from actorflow.runtime.operators import Operators
from actorflow.runtime.pipe import accept, close, listen_loopback, listen_unix
from actorflow.runtime.place import Announces, Place, place_of, reach
from actorflow.runtime.wire import (
    ANSWER_BYTES_MAX,
    FORGET,
    HELLO,
    VERSION,
    Act,
    Frame,
    Garbled,
    Inbox,
    Outbox,
    acts,
    encode_error,
    frame_bytes_max,
)
from actorflow.stores import Store

log: logging.Logger = logging.getLogger("actorflow")

CONNECTIONS_MAX = 100
"""Each takes a descriptor, and a client needs one."""
CALLS_MAX = 1_000
"""Calls under way for one connection that end by themselves. Beyond it nothing is read: the client's frames wait at its side."""
WAITING_MAX = 10_000
"""Calls of one connection that wait for a run. Beyond it they are refused: to stop reading would stop what they wait for."""
UNSENT_BYTES_MAX = 2 * ANSWER_BYTES_MAX
"""Answers that a client does not read. Beyond it the connection is dropped."""
HELLO_S = 10.0
"""How long a connection may take to say who it is."""
LAST_WORDS_S = 1.0
MOMENT_S, LOOK_S = 2.0, 0.05
"""How long, and how often, a holder looks again before it believes that the store is taken for more than one act."""

WAITS = frozenset(("ask", "result"))
"""What a client does that may take as long as it likes; it ends with the connection. All else, once begun, is done."""


async def take(store: Store, *, now: float, standby: bool) -> Lease:
    """Open a store. A client that holds it for one act is waited for.

    Raises:
        StoreBusy: Another runtime holds it.
    """
    until = anyio.current_time() + MOMENT_S
    while True:
        try:
            return await store.open(now=now, standby=standby)
        except StoreBusy:
            place = place_of(store)
            if place is None or anyio.current_time() > until or await _held(place):
                raise
            await anyio.sleep(LOOK_S)


async def _held(place: Place) -> bool:
    """True if it is a runtime that holds it."""
    facts = place.facts()
    if facts.silent:
        return True
    stream = await reach(facts)
    if stream is not None:
        await stream.aclose()
    return stream is not None


class Server:
    """What listens for one holder."""

    def __init__(self, operators: Operators, store: Announces, group: TaskGroup) -> None:
        self.operators = operators
        self.store = store
        self.group = group  #: where connections and calls live
        self.connections: int = 0
        self.frames: int = 0  #: that came so far
        self._accepting = anyio.CancelScope()
        self._path: str | None = None
        self._token = ""

    @property
    def frame_bytes_max(self) -> int:
        return frame_bytes_max(self.operators.host.limits.payload_bytes_max)

    # --- the door -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen, then say where; on return clients can come.

        Raises:
            StoreUnavailable: There is no place for a socket.
        """
        try:
            listener = self._listener()
        except OSError as error:
            raise StoreUnavailable(
                f"no socket could be opened for {Place.of(self.store.url).path} ({error}), so that no other process could reach "
                f"this one. Mend that, or pass `socket=False`."
            ) from error
        where = self._path or f"127.0.0.1:{listener.getsockname()[1]}"
        self.group.start_soon(self._serve, listener)
        await self.store.announce(socket=where, token=self._token)

    def _listener(self) -> socket.socket:
        if places.LOOPBACK:
            self._token = os.urandom(16).hex()
            return listen_loopback()
        path = Place.of(self.store.url).socket_path(self.operators.host.lease.store_id)
        listener = listen_unix(path)
        self._path = path
        return listener

    def close(self) -> None:
        """Let nobody in any more. Whoever is in stays until the runtime ends. Idempotent."""
        self._accepting.cancel()
        if self._path is not None:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()
            self._path = None

    async def _serve(self, listener: socket.socket) -> None:
        try:
            with self._accepting:
                while True:
                    self.group.start_soon(self._connected, await accept(listener))
        except OSError:
            log.exception("the socket for clients has failed; none can connect until the runtime is started again")
        finally:
            close(listener)

    async def _connected(self, stream: ByteStream) -> None:
        """One client, from its first frame to its last. What goes wrong here is its trouble alone."""
        self.connections += 1
        try:
            async with stream:
                if self.connections <= 2 * CONNECTIONS_MAX:  # Beyond that not even a hello is read.
                    await _Connection(self, stream).run()
        except Exception:
            log.exception("a connection of a client has failed")
        finally:
            self.connections -= 1

    def admit(self, frame: Frame) -> bytes:
        """The answer to a hello.

        Raises:
            Garbled: It is none.
            Refused: It may not come in.
        """
        if (frame.number, frame.word) != (0, "hello"):
            raise Garbled("it did not say hello")
        from hmac import compare_digest  # noqa: PLC0415  (it loads OpenSSL)

        said = HELLO.decode(frame.body, "hello")
        if said["version"] != VERSION:
            raise Refused(
                f"this client speaks version {said['version']} and the holder version {VERSION}: install the same actorflow at "
                f"both sides."
            )
        if not compare_digest(said["token"].encode(), self._token.encode()):
            raise Refused("the client does not know the token in the lock file.")
        if self.connections > CONNECTIONS_MAX:
            raise TooManyCalls("clients of one holder", CONNECTIONS_MAX)
        return HELLO.encode({"version": VERSION, "token": "", "frame_bytes_max": self.frame_bytes_max}, "hello")


class _Connection:
    """One client."""

    def __init__(self, server: Server, stream: ByteStream) -> None:
        self._server = server
        self._inbox, self._outbox = Inbox(stream, server.frame_bytes_max), Outbox(stream)
        self._scope = anyio.CancelScope()
        self._waiting: dict[int, anyio.CancelScope] = {}
        self._calls = 0
        self._fewer: anyio.Event | None = None
        self._gone = False

    async def run(self) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._outbox.run)
                    await self._converse()
                    group.cancel_scope.cancel()
        finally:
            self._gone = True
            for scope in self._waiting.values():
                scope.cancel()

    async def _converse(self) -> None:
        try:
            with anyio.fail_after(HELLO_S):
                first = await self._inbox.next()
            if first is None:
                return  # It only looked whether somebody is here.
            hello = self._server.admit(first)
            self._outbox.put(0, "hello", hello)
            while (frame := await self._inbox.next()) is not None:
                self._server.frames += 1
                await self._take(frame)
        except TimeoutError:
            pass
        except Garbled as error:
            log.warning("a client sent what cannot be read (%s); its connection is closed", error)
            await self._last_words(Refused(f"the holder cannot read what this client sent: {error}."))
        except Exception as error:  # noqa: BLE001  (a hello that was refused)
            await self._last_words(error)

    async def _last_words(self, error: Exception) -> None:
        self._outbox.put(0, *encode_error(error))
        await self._outbox.flush(within_s=LAST_WORDS_S)

    # --- calls ----------------------------------------------------------------------------------------------------------

    async def _take(self, frame: Frame) -> None:
        number, word, body = frame
        if word == FORGET:
            if (scope := self._waiting.get(number)) is not None:
                scope.cancel()
        elif number == 0 or number in self._waiting:
            raise Garbled(f"call {number} is under way")
        elif (act := acts().get(word)) is None:
            self._tell(number, *encode_error(Refused(f"the holder knows no operation {word[:40]!r}: it is another actorflow.")))
        elif word in WAITS:
            if len(self._waiting) >= WAITING_MAX:
                self._tell(number, *encode_error(TooManyCalls("calls that wait, of one client,", WAITING_MAX)))
                return
            scope = self._waiting[number] = anyio.CancelScope()
            self._server.group.start_soon(self._wait, number, act, body, scope)
        else:
            while self._calls >= CALLS_MAX:
                self._fewer = anyio.Event()
                await self._fewer.wait()
            self._calls += 1
            self._server.group.start_soon(self._do, number, act, body)

    async def _wait(self, number: int, act: Act, body: bytes, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                self._tell(number, *await self._perform(act, body))
        finally:
            del self._waiting[number]

    async def _do(self, number: int, act: Act, body: bytes) -> None:
        """Also when the client is gone: what was begun is done."""
        try:
            self._tell(number, *await self._perform(act, body))
        finally:
            self._calls -= 1
            if self._fewer is not None:
                self._fewer.set()
                self._fewer = None

    async def _perform(self, act: Act, body: bytes) -> tuple[str, bytes]:
        operators = self._server.operators
        try:
            values = act.asked(body)
            _check_payload(operators, act, values)
            answer = act.answer(await getattr(operators, act.name)(**values))
        except StoreStopped as error:
            return ("leaving", b"null") if operators.host.closing else encode_error(error)
        except Exception as error:  # noqa: BLE001  (it is the caller's, typed)
            return encode_error(error)
        if len(answer) > ANSWER_BYTES_MAX:
            what = f"the answer of {act.name} is {len(answer):,} bytes, and one answer may have {ANSWER_BYTES_MAX:,}"
            return encode_error(Refused(f"{what}. Ask for less at a time (`limit=`)."))
        return "ok", answer

    def _tell(self, number: int, word: str, body: bytes) -> None:
        if self._gone:
            return
        self._outbox.put(number, word, body)
        if self._outbox.unsent_bytes > UNSENT_BYTES_MAX:
            log.warning("a client does not read its answers; its connection is dropped")
            self._gone = True
            self._scope.cancel()


def _check_payload(operators: Operators, act: Act, values: dict[str, object]) -> None:
    """Refuse at the door what no class can read: in this process the codec wrote the payload, out there anybody may have.

    Raises:
        Undecodable: The class of the run or message cannot be made from it.
    """
    to = values.get("to")
    kind = operators.host.kinds.get(getattr(to, "kind", ""))
    if kind is None:
        return
    match act.name, values:
        case "start", {"input": bytes(payload)}:
            kind.coder.decode(payload, f"input of {to}")
        case "tell" | "ask", {"type": str(type_), "body": bytes(payload)} if not type_.startswith("~"):
            decode_message(type_, payload)
        case _:
            pass
