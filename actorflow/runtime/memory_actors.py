"""The memory-only actors of one runtime: who there is, how messages reach them, and how they come and go.

They have no row: each begins when it is first written to (or with its supervisor) and is gone when it has had nothing to do
for a while. What durable code tells one of them goes after its commit, at most once.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from actorflow.errors import (
    AskTimeout,
    BadDefinition,
    CallCycle,
    MailboxFull,
    StoreStopped,
    TooManyCalls,
    UnknownKind,
)
from actorflow.failures import text_of
from actorflow.kind import KEY, Kind
from actorflow.message import Message, decode_message, reply_type
from actorflow.nearby import Handle, Living, living
from actorflow.operations import Operations
from actorflow.records import Address
from actorflow.runtime.loops import Signal
from actorflow.runtime.memory_actor import MemoryActor
from actorflow.runtime.tickets import Letter, Question
from actorflow.runtime.workers import Workers
from actorflow.sharing import handed_over

if TYPE_CHECKING:
    from actorflow.runtime.host import Host
    from actorflow.runtime.tree import Tree
    from actorflow.supervisor import Child

log: logging.Logger = logging.getLogger("actorflow")

ACTORS_MAX = 100_000
"""Memory-only actors of one runtime. One more is refused: to make room, another one's state would have to be lost."""

SLICE = 8
"""Batches of messages in a row before the loop gets a turn: with `BATCH` of them, half a millisecond."""

PATIENCE = 16
"""Turns of the loop that a receiver at work is given to make room before its mailbox counts as full."""

LOOK_S = 0.005


class MemoryActors:
    """All of them."""

    def __init__(self, host: Host, tree: Tree) -> None:
        self.host = host
        self.tree = tree
        self.operations: Operations  #: the host gives them
        self.workers: Workers = Workers(host.group, host.loop, slice_max=SLICE)
        self.closing: bool = False  #: nothing is taken from clients any more
        self.closed: bool = False  #: nor from anybody
        self._actors: dict[Address, MemoryActor] = {}

    def of(self, kind: str) -> bool:
        """True if that is a class of memory-only actors."""
        registered = self.host.kinds.get(kind)
        return registered is not None and not registered.durable

    # --- telling --------------------------------------------------------------------------------------------------------

    def tell(self, to: Handle, message: Message[Any], /) -> Awaitable[None] | None:
        to.there = actor = self._open(Address(to.kind, to.key))
        letter: Letter = (handed_over(message), actor.route(type(message)), None)
        return None if self._put(actor, letter) else self._put_when_free(actor.address, letter)

    def tell_later(self, to: Handle, message: Message[Any], after_s: float, /) -> None:
        self._later(self._open(Address(to.kind, to.key)), handed_over(message), after_s)

    def _later(self, actor: MemoryActor, message: Message[Any], after_s: float) -> None:
        if actor.full:
            raise MailboxFull(actor.address, actor.depth_max)
        handler = actor.kind.handler_for(type(message))
        actor.later += 1  # It stays in memory until then.
        actor.room -= 1

        def arrive() -> None:
            actor.later -= 1
            actor.room += 1
            if actor.live:
                actor.deliver((message, handler, None))

        self.host.deadlines.after(after_s, arrive)

    def tell_encoded(
        self, to: Address, type_: str, body: bytes, after_s: float | None, *, inside: bool = False
    ) -> Awaitable[None] | None:
        """From outside this process, or *inside*: from durable code."""
        actor, message = self._open(to, inside=inside), decode_message(type_, body)
        if after_s is not None:
            self._later(actor, message, after_s)
            return None
        letter = (message, actor.kind.handler_for(type(message)), None)
        return None if self._put(actor, letter) else self._put_when_free(actor.address, letter)

    def told_by_turn(self, to: Address, type_: str, body: bytes, after_s: float | None, sender: str) -> None:
        """From a turn that is durable by now: nobody is left to be told that it failed."""
        try:
            place = self.tell_encoded(to, type_, body, after_s, inside=True)
        except Exception as error:  # noqa: BLE001  (a message that today's classes cannot read)
            log.warning("a message of %s to %s is lost: %s: %s", sender, to, type(error).__qualname__, error)
            return
        if place is not None:
            self.host.spawn(lambda: place)  # What keeps it out is logged there.

    def has_room(self, to: Address, beside: int) -> bool:
        """False if so many more messages would be refused there now."""
        actor = self._actors.get(to)
        if actor is None or actor.kind.overflow in ("drop_oldest", "drop_new"):
            return True
        return len(actor.mail) + beside < actor.room

    def _open(self, to: Address, *, inside: bool = False) -> MemoryActor:
        """The actor there, made if nobody wrote to it yet.

        Raises:
            UnknownKind, BadDefinition, TooManyCalls, StoreStopped: It cannot be.
        """
        if self.closed or (self.closing and not inside and living.get() is None):
            raise StoreStopped("the runtime is shutting down")
        actor = self._actors.get(to)
        if actor is not None:
            return actor
        kind = self.host.kinds.get(to.kind)
        if kind is None:
            raise UnknownKind(to.kind, list(self.host.kinds))
        if len(self._actors) >= ACTORS_MAX:
            raise TooManyCalls("memory-only actors in one runtime", ACTORS_MAX)
        actor = MemoryActor(self, kind, to, partial(self._instance, kind, to, None))
        if self.is_static(actor):
            actor.busy = True  # Its mail waits until its supervisor starts it.
        else:
            actor.begin()
        self._actors[to] = actor
        return actor

    def _instance(self, kind: Kind, to: Address, given: Any) -> Any:
        try:
            instance = kind.cls() if given is None else copy.deepcopy(given)
        except TypeError as error:
            if given is not None:
                raise BadDefinition(
                    f"{to} cannot begin from the instance that it was given, as that cannot be copied ({text_of(error)}). "
                    f"Declare what it shares with others as `resource()`."
                ) from error
            raise BadDefinition(
                f"{to} cannot be made by writing to it: {kind.name} has fields without defaults ({text_of(error)}). Give them "
                f"defaults, or start it as a static child, Child({kind.cls.__qualname__}(...), {to.key!r})."
            ) from error
        object.__setattr__(instance, KEY, to.key)
        instance.__dict__.update(self.host.resources.fields(kind.name) or {})
        return instance

    # --- room -----------------------------------------------------------------------------------------------------------

    def _put(self, actor: MemoryActor, letter: Letter) -> bool:
        """Put it in, or drop what is to be dropped; False if the sender must wait or be refused."""
        if actor.full:
            match actor.kind.overflow:
                case "drop_oldest" if actor.drop_oldest():
                    pass
                case "drop_new" | "drop_oldest":
                    if letter[2] is not None:
                        letter[2].failed(MailboxFull(actor.address, actor.depth_max))
                    return True
                case _:
                    return False
        actor.deliver(letter)
        return True

    async def _put_when_free(self, to: Address, letter: Letter) -> None:
        """The mailbox is full. A receiver at work is given the time to make room: else who tells without a pause, which
        nothing here makes him do, would be refused by one that is quicker than he.

        Raises:
            MailboxFull: There is none, and the sender is not to wait.
        """
        turns = 0
        while not self._put(actor := self._open(to), letter):
            if actor.working and (turns < PATIENCE or actor.kind.overflow == "wait"):
                turns += 1
                await anyio.lowlevel.checkpoint()
                if len(actor.mail) < actor.room and actor.working:
                    await anyio.lowlevel.checkpoint()  # One turn more: it comes back less often.
            elif actor.kind.overflow == "wait" and actor.paused is None:
                free = Signal(self.host.loop)
                actor.freed.append(free.set)
                await free.wait()
            else:
                raise MailboxFull(to, actor.depth_max)

    # --- asking ---------------------------------------------------------------------------------------------------------

    async def ask(self, to: Handle, message: Message[Any], within_s: float, asker: Living | None, /) -> Any:
        actor = to.there
        if not isinstance(actor, MemoryActor) or not actor.live or self.closing:
            to.there = actor = self._open(Address(to.kind, to.key))
        return await self._ask(actor, handed_over(message), within_s, asker if isinstance(asker, MemoryActor) else None)

    async def ask_encoded(self, to: Address, type_: str, body: bytes, within_s: float, *, inside: bool = False) -> bytes:
        """From outside this process, or *inside*: from durable code."""
        actor, message = self._open(to, inside=inside), decode_message(type_, body)
        handler = actor.kind.handler_for(type(message))
        value = await self._ask(actor, message, within_s, None)
        return handler.reply(type(message)).encode(value, f"reply of {to}")

    async def _ask(self, actor: MemoryActor, message: Message[Any], within_s: float, asker: MemoryActor | None) -> Any:
        cls, address = type(message), actor.address
        handler = actor.route(cls)
        if actor.paused is not None:
            raise actor.paused
        if asker is not None and (actor is asker or actor.asking):
            _check_cycle(asker, actor)
        loop = self.host.loop
        parked = loop.park()
        question = Question(partial(loop.unpark, parked), reply_type(cls), cls.__qualname__)
        timer = self.host.deadlines.after(within_s, lambda: question.failed(AskTimeout(address, within_s)))
        if asker is not None:
            asker.asking.append(actor)
        try:
            letter: Letter = (message, handler, question)
            if not self._put(actor, letter):
                with anyio.move_on_after(within_s):
                    await self._put_when_free(address, letter)
            await parked
        finally:
            question.gone = True
            timer.cancel()
            if asker is not None:
                asker.asking.remove(actor)
        if question.error is not None:
            raise question.error
        return question.value

    # --- coming and going -----------------------------------------------------------------------------------------------

    def is_static(self, actor: MemoryActor) -> bool:
        """True if it is a child in a tree."""
        return self.tree.holds(actor.address)

    def start(self, address: Address, child: Child[Any]) -> None:
        """Its supervisor starts it, or starts it again.

        Raises:
            Exception: Its instance cannot be made.
        """
        given = None if isinstance(child.actor, type) else child.actor
        kind: Kind = child.cls.__kind_info__()
        actor = self._actors.get(address)
        if actor is None:
            make = partial(self._instance, kind, address, given)
            actor = self._actors[address] = MemoryActor(self, kind, address, make)
        else:
            actor.make = partial(self._instance, kind, address, given)
        actor.begin()

    def find(self, address: Address) -> MemoryActor | None:
        """The one there, if it is in memory."""
        return self._actors.get(address)

    def watch(self, whom: Address, watcher: MemoryActor) -> bool:
        """Tell that actor when that one is no more; False if it is not there."""
        actor = self._actors.get(whom)
        if actor is None or actor.paused is not None or actor.instance is None:
            return False
        actor.watchers[watcher.address] = watcher
        watcher.watching.add(whom)
        return True

    def gone(self, actor: MemoryActor, status: str) -> None:
        """Who watched it is told."""
        watchers, actor.watchers = actor.watchers, {}
        for watcher in watchers.values():
            if watcher.live and actor.address in watcher.watching:
                watcher.box.tell_end(actor.address, status)

    def left(self, actor: MemoryActor) -> None:
        """It has ended by itself: a static child for its supervisor to see; a virtual one comes back with its next message."""
        if self.is_static(actor):
            self.tree.left(actor)
            return
        self.gone(actor, "stopped")
        if actor.mail:
            actor.anew()
        else:
            self._remove(actor)

    def _remove(self, actor: MemoryActor) -> None:
        actor.live = False
        actor.shut()
        self._actors.pop(actor.address, None)

    def rest(self, actor: MemoryActor) -> None:
        """It has nothing to do now: let it go, unless it has by then. Its state is lost."""
        actor.looked_after = True
        after_s = actor.kind.passivate_after_s
        self.host.deadlines.after(self.host.limits.passivate_after_s if after_s is None else after_s, lambda: self._look(actor))

    def _look(self, actor: MemoryActor) -> None:
        actor.looked_after = False
        if not actor.live or self.closing:
            return
        if actor.active or not actor.may_leave:
            actor.active = False
            if actor.idle:  # Else it comes to rest later.
                self.rest(actor)
        else:
            actor.stop(lambda: self._passivated(actor))

    def _passivated(self, actor: MemoryActor) -> None:
        self.gone(actor, "stopped")
        if actor.mail:  # Somebody wrote to it meanwhile.
            actor.anew()
        else:
            self._remove(actor)

    # --- the end --------------------------------------------------------------------------------------------------------

    async def finish(self, at_once: anyio.Event) -> None:
        """Take no more from outside, and let them handle what waits. They still reach each other, and what is durable."""
        self.closing = True
        for actor in self._actors.values():
            actor.shut()
        await _while(lambda: self.workers.busy, at_once)

    async def close(self, at_once: anyio.Event) -> int:
        """Stop all that are left, each with its last words; returns how many messages nobody handled."""
        left = {actor for actor in self._actors.values() if actor.kind.stops and actor.instance is not None}
        for actor in list(left):
            actor.stop(partial(left.discard, actor))
        with anyio.move_on_after(self.host.limits.cancel_grace_s):
            await _while(lambda: bool(left), at_once)
        lost, stopped = 0, StoreStopped("the runtime is shutting down")
        for actor in self._actors.values():
            actor.kill(stopped)
            lost += actor.lost(stopped)
        self._actors.clear()
        self.closed = True
        if lost:
            log.warning("%d messages of memory-only actors were not handled, and are lost", lost)
        return lost


async def _while(busy: Callable[[], bool], at_once: anyio.Event) -> None:
    while busy():
        if at_once.is_set():
            return
        await anyio.sleep(LOOK_S)


def _check_cycle(asker: MemoryActor, target: MemoryActor) -> None:
    """Refuse an ask that would close a circle of actors that wait for each other.

    Raises:
        CallCycle: It would.
    """
    seen: set[MemoryActor] = set()
    todo: list[tuple[MemoryActor, list[str]]] = [(target, [str(asker), str(target)])]
    while todo:
        actor, trail = todo.pop()
        if actor is asker:
            raise CallCycle(trail)
        if actor not in seen:
            seen.add(actor)
            todo.extend((other, [*trail, str(other)]) for other in actor.asking)
