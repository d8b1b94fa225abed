"""Memory-only actors at their bounds: who asked is told that the message was dropped, who told too much is refused."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import Actor, MailboxFull, Message, Runtime, Workflow, handler
from actorflow.errors import HandlerFailed, TooManyCalls
from actorflow.records import Address
from actorflow.runtime import at_once, memory_actors
from actorflow.runtime.memory_mailbox import MemoryMailbox
from actorflow.testing.clock import Backend
from tests.harness import both, runtime, virtual


class Do(Message[int]):
    n: int


class Slow(Actor, durable=False, mailbox=2):
    @handler
    async def do(self, m: Do) -> int:
        await anyio.sleep(10.0)
        return m.n


class Newest(Slow, durable=False, mailbox=2, overflow="drop_oldest"): ...


class Oldest(Slow, durable=False, mailbox=2, overflow="drop_new"): ...


async def asked(opened: Runtime, cls: type[Actor], count: int) -> list[Any]:
    """What each of so many asks came to, that begin one after the other."""
    found: list[Any] = [None] * count

    async def one(n: int) -> None:
        try:
            found[n] = await opened.at(cls, "a").ask(Do(n), within="1h")
        except MailboxFull:
            found[n] = "dropped"

    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(one, n)
            await anyio.sleep(0.01)
    return found


@both
@pytest.mark.parametrize(
    ("cls", "came_to"), [(Newest, [0, "dropped", "dropped", 3, 4]), (Oldest, [0, 1, 2, "dropped", "dropped"])]
)
def test_who_asked_is_told_that_the_message_was_dropped(backend: Backend, cls: type[Actor], came_to: list[Any]) -> None:
    async def main() -> list[Any]:
        async with runtime(Newest, Oldest) as opened:
            return await asked(opened, cls, 5)

    assert virtual(backend, main) == came_to


@both
def test_a_delayed_message_has_a_place_and_without_one_it_is_refused(backend: Backend) -> None:
    async def main() -> None:
        async with runtime(Slow) as opened:
            at = opened.at(Slow, "a")
            for n in range(2):
                await at.tell(Do(n), after="1m")
            with pytest.raises(MailboxFull):
                await at.tell(Do(2), after="1m")
            await anyio.sleep(100.0)
            await at.tell(Do(3), after="1m")

    virtual(backend, main)


@both
def test_there_are_so_many_of_them_and_no_more(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_actors, "ACTORS_MAX", 2)

    async def main() -> None:
        async with runtime(Slow) as opened:
            for key in "ab":
                await opened.at(Slow, key).tell(Do(1))
            with pytest.raises(TooManyCalls, match="memory-only actors in one runtime"):
                await opened.at(Slow, "c").tell(Do(1))

    virtual(backend, main)


class Clock(Actor, durable=False):
    fired: int = 0

    @handler
    async def do(self, m: Do) -> int:
        for n in range(m.n):
            self.after("1h", Do(0), name=f"t-{n}")
        self.fired += m.n == 0
        return self.fired


@both
def test_one_sets_so_many_timers_and_no_more(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "TIMERS_MAX", 3)

    async def main() -> int:
        async with runtime(Clock) as opened:
            at = opened.at(Clock, "c")
            assert await at.ask(Do(3)) == 0
            assert await at.ask(Do(3)) == 0  # Set again, they replace each other.
            with pytest.raises(HandlerFailed, match="TooManyCalls"):
                await at.ask(Do(4))
            await anyio.sleep(10_000.0)
            return await at.ask(Do(0))

    assert virtual(backend, main) == 1  # It began anew, without its timers.


class Teller(Workflow[str]):
    async def run(self) -> str:
        await Slow.at("full").tell(Do(1), after="5s")
        await Slow.at("full").tell(Do(2))
        await self.sleep("1m")
        return "told"


@both
def test_a_run_tells_one_with_a_delay(backend: Backend) -> None:
    async def main() -> str:
        async with runtime(Slow, Teller) as opened:
            return await (await opened.start(Teller(), key="t")).result()

    assert virtual(backend, main) == "told"


class Elder(Actor, passivate_after="1s"):
    """Durable; tells one that may be full by the time the turn is durable."""

    @handler
    async def do(self, m: Do) -> int:
        for n in range(m.n):
            await Slow.at("s").tell(Do(n))
        return m.n


@both
def test_what_a_turn_tells_one_that_is_full_is_refused_in_the_turn(backend: Backend) -> None:
    async def main() -> None:
        async with runtime(Slow, Elder) as opened:
            assert await opened.at(Elder, "e").ask(Do(1)) == 1
            with pytest.raises(HandlerFailed, match="MailboxFull"):
                await opened.at(Elder, "e").ask(Do(9), within="1h")

    virtual(backend, main)


def mailbox() -> MemoryMailbox:
    return MemoryMailbox(Slow.__kind_info__(), Address("Slow", "a"), 2)


def test_a_mailbox_without_messages_has_nothing_to_drop() -> None:
    assert mailbox().drop_oldest() is False


def test_who_waits_for_a_place_in_one_that_is_lost_is_told_to_look_again() -> None:
    told: list[str] = []
    lost = mailbox()
    lost.freed.append(lambda: told.append("look"))

    assert lost.lost(MailboxFull(Address("Slow", "a"), 2)) == 0
    assert (told, lost.freed, lost.live) == (["look"], [], False)


def test_a_mailbox_that_was_shut_takes_nothing_by_the_short_way() -> None:
    shut = mailbox()
    shut.route(Do)
    shut.busy = True
    assert shut.accept(Do(1)) is True
    assert shut.accept(Do(2)) is True
    assert shut.accept(Do(3)) is False  # It is full.

    shut.mail.clear()
    shut.shut()
    shut.route(Do)

    assert shut.accept(Do(4)) is False
