"""Clients of a simulated service, and the network between: requests get lost, come late, come twice; answers get lost.

A client does what a good client does: it gives each request a key, waits for the answer, and asks again when none comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from attrs import define, field

from actorflow.errors import (
    Abort,
    AskTimeout,
    FateUnknown,
    HandlerFailed,
    NotRunning,
    RunEnded,
    RunEnding,
    RunPaused,
    StoreError,
)
from actorflow.runtime.runtime import Runtime
from actorflow.testing.plans import Hiccup
from actorflow.testing.players import Account, Add, Boom, Play, Total, Word
from actorflow.testing.programs import Act, Client, Deposit, Expected, Explode, Launch, words_of
from actorflow.testing.world import LOOK_S, Node, World, Wrong, is_resumed

Request = Callable[[Runtime], Awaitable[Any]]

AGAIN_S = 0.5  #: until a client asks again
DOUBLINGS = 16  #: of a second, until what was told has arrived: a clock may have been set back by hours
PATIENCE_S = 20_000.0  #: how long it waits for an answer: a run may sleep for hours
FOREVER = "1000d"  #: of an ask: one that expires was not handled, which the model knows nothing of


@define(eq=False)
class _Reply:
    """What became of one delivery."""

    done: anyio.Event = field(factory=anyio.Event)
    value: Any = None
    error: BaseException | None = None
    arrived: bool = False  #: the process lived to say so


@define(eq=False)
class Network:
    """Between the clients and whichever process takes requests now."""

    world: World
    _requests: int = 0

    async def serve(self, expected: Expected) -> list[str]:
        """Let all clients do what they want to do. Returns what they saw, in the order of their acts."""
        seen: list[str] = []
        async with anyio.create_task_group() as clients:
            for number, client in enumerate(self.world.plan.clients):
                clients.start_soon(self._client, number, client, expected, seen)
        await self.settled(expected, seen)
        return seen

    async def _client(self, number: int, client: Client, expected: Expected, seen: list[str]) -> None:
        for place, act in enumerate(client.acts):
            await anyio.sleep(client.pause_s)
            answer = await self.act(f"client {number}", place + 1, act)
            self.world.note(f"client {number}: {act.key} is answered {answer}")
            seen.append(f"{act.key}: {answer}")
            wanted = expected.answer(act)
            if answer != wanted:
                raise Wrong(f"{act.key} was answered {answer}, and the answer is {wanted}")

    async def act(self, sender: str, seq: int, act: Act) -> str:
        """Do that, as the how-manieth act of that client. Returns what it saw."""
        match act:
            case Launch(key=key, program=program):
                template = Play(program)
                await self.call(key, lambda runtime: runtime.start(template, key=key))
                say = _ask if act.asks else _say
                for n in range(words_of(program)):
                    await self.call(f"{key} w{n}", partial(say, template, key, n))
                return str(await self.call(f"{key} result", lambda runtime: _result(runtime, template, key)))
            case Deposit(key=key, account=account, n=n):
                add = Add(n, sender, seq)
                repeats = key if act.keyed else None
                return str(await self.call(key, lambda runtime: _deposit(runtime, account, add, repeats, ask=act.ask)))
            case Explode(key=key, account=account):
                return str(await self.call(key, lambda runtime: _explode(runtime, account, key)))

    async def settled(self, expected: Expected, seen: list[str]) -> None:
        """All that was told arrives, and all timers fire: then the accounts hold what they must."""
        for account in sorted(expected.totals):
            total = None
            for doublings in range(DOUBLINGS):
                total = await self.call(f"total of {account}", partial(_total, account))
                if total == expected.totals[account]:
                    break
                await anyio.sleep(2**doublings)
            seen.append(f"{account}: {total}")
            if total != expected.totals[account]:
                raise Wrong(f"account {account} holds {total}, and it must hold {expected.totals[account]}")

    # --- one request ----------------------------------------------------------------------------------------------------

    async def call(self, what: str, request: Request) -> Any:
        """The answer of a request, however often it takes. Errors that are answers are raised."""
        while True:
            self._requests += 1
            hiccup = next((hiccup for hiccup in self.world.plan.hiccups if hiccup.at == self._requests), None)
            if hiccup is not None:
                self.world.fault(f"{hiccup}, which is {what}", hiccup.kind)
            kind = hiccup.kind if hiccup is not None else None
            if hiccup is not None and kind in ("lost_request", "late"):
                await anyio.sleep(hiccup.s)
            if kind == "lost_request":
                continue
            reply = await self._deliver(what, request, hiccup)
            if hiccup is not None and kind == "lost_reply":
                await anyio.sleep(hiccup.s)
            elif isinstance(reply.error, RunPaused):
                if not is_resumed(reply.error.address.partition("/")[0], reply.error.reason):
                    raise Wrong(f"{reply.error}")
                await anyio.sleep(LOOK_S / 4)
            elif not reply.arrived or _passes(reply.error):
                await anyio.sleep(AGAIN_S)
            elif reply.error is not None:
                raise reply.error
            else:
                return reply.value

    async def _deliver(self, what: str, request: Request, hiccup: Hiccup | None) -> _Reply:
        node = await self._up()
        reply = _Reply()
        node.serving.start_soon(_served, node, request, reply)
        if hiccup is not None and hiccup.kind == "duplicate":
            self.world.group.start_soon(self._again, what, request, hiccup.s, reply)
        with anyio.move_on_after(PATIENCE_S):  # It may have gone to a process that nobody listens to any more.
            await reply.done.wait()
        return reply

    async def _again(self, what: str, request: Request, after_s: float, first: _Reply) -> None:
        """The same request arrives once more: it must have no other answer."""
        await anyio.sleep(after_s)
        second = await self._deliver(what, request, None)
        with anyio.move_on_after(PATIENCE_S):
            await first.done.wait()
        answered = first.arrived and second.arrived and not (_passes(first.error) or _passes(second.error))
        ours, theirs = ((reply.value, repr(reply.error)) for reply in (first, second))
        if answered and not what.startswith("total") and ours != theirs:
            raise Wrong(f"{what} was answered {ours}, and when it came again {theirs}")

    async def _up(self) -> Node:
        """The process that takes requests now, when there is one."""
        while True:
            node = self.world.nodes[-1] if self.world.nodes else None
            if node is not None and node.runtime is not None:
                return node
            await self.world.up.wait()


def _passes(error: BaseException | None) -> bool:
    return isinstance(error, StoreError | NotRunning | AskTimeout | FateUnknown | RunPaused)


async def _served(node: Node, request: Request, reply: _Reply) -> None:
    """In the process: it may die meanwhile."""
    try:
        if node.runtime is not None:
            reply.value = await request(node.runtime)
            reply.arrived = not node.here.store.dead
    except Exception as error:  # noqa: BLE001  (that is the answer)
        reply.error, reply.arrived = error, not node.here.store.dead
    finally:
        reply.done.set()


async def _say(template: Play, key: str, n: int, runtime: Runtime) -> None:
    run = await runtime.start(template, key=key)
    await run.tell(Word(n), key=f"w{n}")


async def _ask(template: Play, key: str, n: int, runtime: Runtime) -> None:
    run = await runtime.start(template, key=key)
    with suppress(RunEnding, RunEnded):  # It had landed, and its answer was lost; or the program stopped before it.
        await run.ask(Word(n), within=FOREVER)


async def _result(runtime: Runtime, template: Play, key: str) -> str:
    run = await runtime.start(template, key=key)
    try:
        return ", ".join(await run.result())
    except Abort as stopped:
        return f"failed: {stopped}"


async def _deposit(runtime: Runtime, account: str, add: Add, key: str | None, *, ask: bool) -> int | None:
    at = runtime.at(Account, account)
    if not ask:
        await at.tell(add, key=key)
        return None
    try:
        return await at.ask(add, key=key, within=FOREVER)
    except Abort:
        if key is not None:
            raise
        return 2 * add.n  # It had landed, and its answer was lost.


async def _explode(runtime: Runtime, account: str, key: str) -> str:
    try:
        await runtime.at(Account, account).ask(Boom(), key=key, within=FOREVER)
    except HandlerFailed as failed:
        return type(failed).__name__
    return "handled"


async def _total(account: str, runtime: Runtime) -> int:
    return await runtime.at(Account, account).ask(Total(), within=FOREVER)
