"""Memory-only actors: the same API, no store. On both loops, in virtual time."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from attrs import field, frozen

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    AskTimeout,
    BadDefinition,
    CallCycle,
    Child,
    Fatal,
    HandlerFailed,
    InvalidState,
    Limits,
    MailboxFull,
    Message,
    NotEncodable,
    StoreStopped,
    Supervisor,
    Terminated,
    UnknownMessage,
    Workflow,
    handler,
    query,
    resource,
    step,
    volatile,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import both, runtime, virtual

seen: list[Any] = []
world: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _anew(caplog: pytest.LogCaptureFixture) -> None:
    seen.clear()
    world.clear()


class Add(Message[int]):
    n: int


class Get(Message[int]): ...


class Items(Message[list[int]]):
    given: list[int]


class Sleep(Message[str]):
    for_s: float


class Fail(Message[None]):
    how: str


class Note(Message[None]):
    text: str


class Counter(Actor, durable=False):
    total: int = 0
    items: list[int] = field(factory=list[int])

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total

    @handler
    async def get(self, m: Get) -> int:
        return self.total

    @handler
    async def keep(self, m: Items) -> list[int]:
        self.items = m.given
        return self.items

    @handler
    async def sleep(self, m: Sleep) -> str:
        seen.append(f"sleeps {self.me.key}")
        await anyio.sleep(m.for_s)
        seen.append(f"slept {self.me.key}")
        return "slept"

    @handler
    async def fail(self, m: Fail) -> None:
        self.total += 100
        match m.how:
            case "abort":
                raise Abort("no")
            case "data":
                raise Fatal("bad data")
            case "connection":
                raise ConnectionError("gone")
            case "late":
                await anyio.sleep(0.1)
                raise ValueError("later")
            case _:
                raise ValueError("broken")


@both
def test_it_exists_when_first_written_to_and_handles_in_order(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Counter, store=store) as opened:
            ann, bob = opened.at(Counter, "ann"), opened.at(Counter, "bob")
            for n in range(100):
                await ann.tell(Add(n))
            assert await ann.ask(Get()) == 4950
            assert await bob.ask(Add(1)) == 1
            assert await opened.at(Counter, "ann").ask(Add(50)) == 5000
            assert (await opened.runs()).runs == ()  # Nothing is stored.
        async with runtime(Counter, store=store) as opened:
            assert await opened.at(Counter, "ann").ask(Get()) == 0

    virtual(backend, scenario)


@both
def test_a_handler_may_wait_for_anything_and_others_go_on_meanwhile(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            async with anyio.create_task_group() as group:
                for key in "abc":
                    group.start_soon(opened.at(Counter, key).ask, Sleep(3.0))
                await anyio.sleep(1)
                assert sorted(seen) == ["sleeps a", "sleeps b", "sleeps c"]
            assert sorted(seen[3:]) == ["slept a", "slept b", "slept c"]

    virtual(backend, scenario)


@both
def test_one_message_at_a_time(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            a = opened.at(Counter, "a")
            for _ in range(2):
                await a.tell(Sleep(2.0))
            await anyio.sleep(3)
            assert seen == ["sleeps a", "slept a", "sleeps a"]
            assert await a.ask(Get()) == 0

    virtual(backend, scenario)


@both
def test_what_can_change_is_copied_on_its_way_and_what_cannot_is_not(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            given = [1, 2]
            a = opened.at(Counter, "a")
            got = await a.ask(Items(given))
            assert got == given
            assert got is not given
            got.append(3)
            given.append(4)
            assert await a.ask(Items([9])) == [9]
            with pytest.raises(NotEncodable):
                await a.tell(Items([object()]))  # type: ignore[list-item]

    virtual(backend, scenario)


@both
def test_an_ask_has_its_time_and_what_nobody_waits_for_is_not_handled(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            a = opened.at(Counter, "a")
            await a.tell(Sleep(10.0))
            with pytest.raises(AskTimeout):
                await a.ask(Add(1), within="1s")
            with anyio.move_on_after(1):
                await a.ask(Add(1))
            await anyio.sleep(20)
            assert await a.ask(Get()) == 0

    virtual(backend, scenario)


@both
def test_a_handler_past_its_deadline_is_cancelled_and_the_actor_begins_anew(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Slow) as opened:
            slow = opened.at(Slow, "s")
            assert await slow.ask(Add(1)) == 1
            with pytest.raises(HandlerFailed, match="HandlerTimeout"):
                await slow.ask(Sleep(100.0), within="1m")
            assert seen == ["cancelled"]
            assert await slow.ask(Add(1)) == 1

    virtual(backend, scenario)


class Slow(Actor, durable=False):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total

    @handler(timeout="2s")
    async def sleep(self, m: Sleep) -> str:
        try:
            await anyio.sleep(m.for_s)
        finally:
            seen.append("cancelled")
        return ""


class Stubborn(Actor, durable=False):
    @handler(timeout="1s")
    async def sleep(self, m: Sleep) -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(m.for_s)
        return "late"

    @handler
    async def get(self, m: Get) -> int:
        return 7


@both
def test_one_that_does_not_end_though_it_was_cancelled_is_abandoned(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Stubborn, limits=Limits(cancel_grace_s=1.0)) as opened:
            stubborn = opened.at(Stubborn, "s")
            await stubborn.tell(Sleep(1_000.0))
            assert await stubborn.ask(Get(), within="10s") == 7

    virtual(backend, scenario)


@both
def test_a_failure_is_told_and_the_actor_begins_anew_but_an_abort_leaves_it_as_it_is(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            a = opened.at(Counter, "a")
            await a.ask(Add(1))
            with pytest.raises(Abort, match="no"):
                await a.ask(Fail("abort"))
            assert await a.ask(Get()) == 101  # Nothing is rolled back.
            with pytest.raises(Fatal):
                await a.ask(Fail("data"))
            with pytest.raises(HandlerFailed, match="ConnectionError"):
                await a.ask(Fail("connection"))
            assert await a.ask(Get()) == 301
            for how in ("bug", "late"):
                await a.tell(Fail(how))
                await a.tell(Add(5))
                assert await a.ask(Get()) == 5  # What waited was handled by the new one.

    virtual(backend, scenario)


@both
def test_one_that_fails_too_often_is_set_aside_until_it_is_resumed(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            a = opened.at(Counter, "a")
            for _ in range(4):
                with pytest.raises(HandlerFailed):
                    await a.ask(Fail("bug"), within="30s")
            with pytest.raises(ActorPaused, match="too often"):
                await a.ask(Get())
            await a.tell(Add(3))  # It waits.
            await a.resume()
            assert await a.ask(Get()) == 3

    virtual(backend, scenario)


class Sized(Counter, mailbox=2): ...


class Waits(Counter, mailbox=2, overflow="wait"): ...


class Newest(Counter, mailbox=2, overflow="drop_oldest"): ...


class Oldest(Counter, mailbox=2, overflow="drop_new"): ...


@both
def test_a_full_mailbox_refuses_or_waits_or_drops(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Sized, Waits, Newest, Oldest) as opened:
            for kind in (Sized, Waits, Newest, Oldest):
                await opened.at(kind, "a").tell(Sleep(10.0))
            await anyio.sleep(1)
            sized = opened.at(Sized, "a")
            for n in (1, 2):
                await sized.tell(Add(n))
            with pytest.raises(MailboxFull):
                await sized.tell(Add(4))
            with pytest.raises(MailboxFull):
                await sized.tell(Add(4), after="1s")
            began = anyio.current_time()
            for n in (1, 2, 4):
                await opened.at(Waits, "a").tell(Add(n))
            assert anyio.current_time() - began > 8
            for kind in (Newest, Oldest):
                for n in (1, 2, 4):
                    await opened.at(kind, "a").tell(Add(n))
            await anyio.sleep(20)
            assert [await opened.at(kind, "a").ask(Get()) for kind in (Sized, Waits, Newest, Oldest)] == [3, 7, 6, 3]

    virtual(backend, scenario)


@both
def test_who_tells_without_a_pause_is_not_refused_by_one_that_keeps_up(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Sized) as opened:
            sized = opened.at(Sized, "a")
            for _ in range(1_000):
                await sized.tell(Add(1))
            assert await sized.ask(Get()) == 1_000

    virtual(backend, scenario)


class Tick(Message[None]): ...


class Ticker(Actor, durable=False):
    ticks: int = 0

    async def on_start(self) -> None:
        self.every("10s", Tick(), name="tick")
        self.after("5s", Add(100), name="once")

    @handler
    async def tick(self, m: Tick) -> None:
        self.ticks += 1
        if self.ticks == 103:
            self.cancel_timer("tick")

    @handler
    async def add(self, m: Add) -> int:
        self.ticks += m.n
        self.after("1s", Get(), name="set anew")
        self.after("2s", Add(1_000), name="set anew")
        self.cancel_timer("set anew")
        return self.ticks

    @handler
    async def get(self, m: Get) -> int:
        return self.ticks


@both
def test_timers_fire_and_keep_it_in_memory(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Ticker, limits=Limits(passivate_after_s=1.0)) as opened:
            t = opened.at(Ticker, "t")
            assert await t.ask(Get()) == 0
            await anyio.sleep(31)
            assert await t.ask(Get()) == 103
            await anyio.sleep(500)  # Now it is idle, and forgotten.
            assert await t.ask(Get()) == 0

    virtual(backend, scenario)


@both
def test_a_message_with_a_delay(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter, limits=Limits(passivate_after_s=1.0)) as opened:
            a = opened.at(Counter, "a")
            await a.tell(Add(1), after="10s")
            assert await a.ask(Add(1)) == 1
            await anyio.sleep(9)
            assert await a.ask(Get()) == 1
            await anyio.sleep(2)
            assert await a.ask(Get()) == 2

    virtual(backend, scenario)


class Gate(Actor, durable=False):
    open: bool = False
    passed: list[int] = field(factory=list[int])

    @handler
    async def enter(self, m: Add) -> int:
        if not self.open:
            self.stash(m)
            return 0
        self.passed.append(m.n)
        return len(self.passed)

    @handler
    async def unlock(self, m: Get) -> int:
        self.open = True
        self.unstash()
        return 1

    @handler
    async def seen(self, m: Items) -> list[int]:
        return self.passed


@both
def test_stashed_messages_come_again_in_their_order(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Gate) as opened:
            gate = opened.at(Gate, "g")
            for n in (1, 2, 3):
                await gate.tell(Add(n))
            await gate.ask(Get())
            assert await gate.ask(Add(4)) == 4
            assert await gate.ask(Items([])) == [1, 2, 3, 4]

    virtual(backend, scenario)


class Reading(Actor, durable=False):
    place: int = 0

    @handler
    async def sleep(self, m: Sleep) -> str:
        self.place = 1
        await anyio.sleep(m.for_s)
        self.place = 2
        return ""

    @handler(readonly=True)
    async def get(self, m: Get) -> int:
        if world.get("broken"):
            raise ValueError("broken")
        return self.place


@both
def test_readonly_handlers_run_beside_one_that_waits(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Reading) as opened:
            reading = opened.at(Reading, "r")
            await reading.tell(Sleep(10.0))
            assert await reading.ask(Get(), within="1s") == 1  # In the mailbox when the other began to wait.
            assert await reading.ask(Get(), within="1s") == 1
            world["broken"] = True
            with pytest.raises(ValueError, match="broken"):
                await reading.ask(Get(), within="1s")
            world.clear()
            await anyio.sleep(10)
            assert await reading.ask(Get()) == 2  # Its failure cost nothing.

    virtual(backend, scenario)


class Asker(Actor, durable=False):
    @handler
    async def go(self, m: Note) -> None:
        first, _, rest = m.text.partition(",")
        if first:
            await Asker.at(first).ask(Note(rest))


@both
def test_they_ask_each_other_and_a_circle_is_refused(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Asker) as opened:
            await opened.at(Asker, "a").ask(Note("b,c,d"))
            with pytest.raises(HandlerFailed, match=r"CallCycle.*Asker/a"):
                await opened.at(Asker, "a").ask(Note("b,c,a"))
            assert issubclass(CallCycle, Exception)

    virtual(backend, scenario)


class Ledger(Actor):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        await Counter.at("mirror").tell(Add(m.n))
        if m.n < 0:
            raise Abort("negative")
        return self.total

    @handler
    async def get(self, m: Get) -> int:
        return await Counter.at("mirror").ask(Get())

    @handler
    async def look(self, m: Note) -> None:
        self.watch(Counter.at("mirror"))


class Bridge(Actor, durable=False):
    @handler
    async def add(self, m: Add) -> int:
        await Ledger.at("l").tell(m)
        return await Ledger.at("l").ask(Add(1))

    @handler
    async def look(self, m: Note) -> None:
        self.watch(Ledger.at("l"))


@both
def test_durable_actors_tell_and_ask_them_and_are_told_and_asked_by_them(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Ledger, Counter, Bridge, store=store) as opened:
            assert await opened.at(Ledger, "l").ask(Add(10)) == 10
            with pytest.raises(Abort):
                await opened.at(Ledger, "l").ask(Add(-1))  # What it told leaves with the turn, or not at all.
            assert await opened.at(Ledger, "l").ask(Get()) == 10
            assert await opened.at(Bridge, "b").ask(Add(5)) == 16
            await anyio.sleep(1)
            assert await opened.at(Counter, "mirror").ask(Get()) == 16
        async with runtime(Ledger, Counter, Bridge, store=store) as opened:
            assert await opened.at(Ledger, "l").ask(Add(4)) == 20
            await anyio.sleep(1)
            assert await opened.at(Counter, "mirror").ask(Get()) == 4

    virtual(backend, scenario)


@both
def test_of_two_that_watch_one_cannot_be_durable_and_the_other_not(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Ledger, Counter, Bridge) as opened:
            for address in (opened.at(Bridge, "b"), opened.at(Ledger, "l")):
                with pytest.raises(HandlerFailed, match="memory-only"):
                    await address.ask(Note("x"), within="1m")

    virtual(backend, scenario)


class Job(Workflow[int]):
    async def run(self) -> int:
        await Counter.at("c").tell(Add(5))
        first = await Counter.at("c").ask(Get())
        try:
            await Counter.at("c").ask(Fail("abort"))
        except Abort:
            seen.append("aborted")
        try:
            await Counter.at("c").ask(Sleep(100.0), within="1s")
        except AskTimeout:
            seen.append("timeout")
        await Counter.at("d").tell(Add(7))
        return first


@both
def test_a_run_tells_and_asks_them(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Job, Counter) as opened:
            assert await (await opened.start(Job(), key="j")).result() == 5
            assert [text for text in seen if "sl" not in text] == ["aborted", "timeout"]
            await anyio.sleep(1)
            assert await opened.at(Counter, "d").ask(Get()) == 7  # Told by its last words.

    virtual(backend, scenario)


class Long(Workflow[str]):
    async def run(self) -> str:
        return await Counter.at("c").ask(Sleep(20.0), within="100s")


@both
def test_an_ask_of_a_run_is_asked_again_after_a_restart(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Long, Counter, store=store, limits=Limits(drain_s=1.0, cancel_grace_s=1.0)) as opened:
            run = await opened.start(Long(), key="l")
            await anyio.sleep(10)
            assert seen == ["sleeps c"]
        async with runtime(Long, Counter, store=store) as opened:
            run = opened.run(Long, "l")
            assert await run.result() == "slept"
            assert seen == ["sleeps c", "sleeps c", "slept c"]

    virtual(backend, scenario)


class Owner(Actor, durable=False):
    @handler
    async def look(self, m: Note) -> None:
        self.watch(Counter.at(m.text))

    @handler
    async def ended(self, m: Terminated) -> None:
        seen.append(f"{m.who} {m.status}")


@both
def test_who_watches_one_is_told_when_its_state_is_gone(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Owner, Counter, limits=Limits(passivate_after_s=10.0)) as opened:
            owner = opened.at(Owner, "o")
            await owner.ask(Note("nobody"))
            await anyio.sleep(1)
            assert seen == ["Counter/nobody stopped"]
            await opened.at(Counter, "a").ask(Add(1))
            await owner.ask(Note("a"))
            await anyio.sleep(5)
            assert seen[1:] == []
            await anyio.sleep(30)
            assert seen[1:] == ["Counter/a stopped"]

    virtual(backend, scenario)


class Listener(Actor, durable=False):
    @handler
    async def join(self, m: Get) -> int:
        self.subscribe("news")
        return 1

    @handler
    async def note(self, m: Note) -> None:
        seen.append(m.text)

    @handler
    async def say(self, m: Add) -> int:
        for n in range(m.n):
            self.publish("news", Note(f"{n}"))
        return 1


@both
def test_they_publish_and_listen(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Listener) as opened:
            await opened.at(Listener, "a").ask(Get())
            await anyio.sleep(1)
            await opened.at(Listener, "b").ask(Add(3))
            await opened.publish("news", Note("last"))
            await anyio.sleep(1)
            assert sorted(seen) == ["0", "1", "2", "last"]
            assert [text for text in seen if text != "last"] == ["0", "1", "2"]

    virtual(backend, scenario)


class Leaver(Actor, durable=False):
    n: int = 0

    async def on_stop(self) -> None:
        await anyio.sleep(0.1)
        seen.append(f"stopped at {self.n}")

    @handler
    async def add(self, m: Add) -> int:
        self.n += m.n
        return self.n

    @handler
    async def go(self, m: Get) -> int:
        self.leave()
        return self.n


@both
def test_one_that_leaves_says_its_last_words_and_comes_back_with_the_next_message(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Leaver) as opened:
            a = opened.at(Leaver, "a")
            await a.tell(Add(4))
            await a.tell(Get())
            await a.tell(Add(1))
            assert await a.ask(Add(1)) == 2
            assert seen == ["stopped at 4"]
        assert seen == ["stopped at 4", "stopped at 2"]

    virtual(backend, scenario)


class Static(Counter, mailbox=5):
    async def on_start(self) -> None:
        await anyio.sleep(0.5)
        seen.append(f"start {self.me.key} {self.total}")

    async def on_stop(self) -> None:
        seen.append(f"stop {self.me.key} {self.total}")

    @handler
    async def leave_it(self, m: Note) -> None:
        self.leave()


@both
def test_static_children_start_in_order_restart_with_their_instance_and_stop_in_reverse(backend: Backend) -> None:
    tree = Supervisor(
        "top",
        strategy="one_for_all",
        children=[Child(Static(total=7, items=[1]), "a"), Child(Static, "b"), Child(Static, "c", restart="temporary")],
    )

    async def scenario() -> None:
        async with runtime(tree=[tree], limits=Limits(passivate_after_s=1.0)) as opened:
            assert seen == ["start a 7", "start b 0", "start c 0"]
            a = opened.at(Static, "a")
            await anyio.sleep(100)
            assert await a.ask(Add(1)) == 8
            seen.clear()
            await a.tell(Fail("bug"))
            await a.tell(Add(2))
            assert await a.ask(Get(), within="1m") == 9
            assert seen[:2] == ["stop c 0", "stop b 0"]
            seen.clear()
            opened.stop_child("Static/b")
            await anyio.sleep(1)
            await opened.at(Static, "b").tell(Add(1))  # It waits.
            opened.start_child("Static/b")
            await anyio.sleep(1)
            assert await opened.at(Static, "b").ask(Get()) == 1
            assert [child.state for child in opened.tree().children[0].children][:2] == ["running", "running"]
            seen.clear()
        assert [text.rpartition(" ")[0] for text in seen][-2:] == ["stop b", "stop a"]

    virtual(backend, scenario)


@both
def test_a_child_that_does_not_stop_in_time_is_cancelled(backend: Backend) -> None:
    async def scenario() -> None:
        tree = Supervisor("top", children=[Child(Counter, "a", shutdown="2s")])
        async with runtime(tree=[tree]) as opened:
            await opened.at(Counter, "a").tell(Sleep(1_000.0))
            await anyio.sleep(1)
            opened.stop_child("Counter/a")
            await anyio.sleep(3)
            opened.start_child("Counter/a")
            assert await opened.at(Counter, "a").ask(Add(1)) == 1
            assert seen == ["sleeps a"]

    virtual(backend, scenario)


@both
def test_a_static_child_is_kept_or_begins_anew_and_who_watches_it_is_told_when_it_stays_down(backend: Backend) -> None:
    async def scenario() -> None:
        tree = Supervisor("top", on={ConnectionError: "keep"}, children=[Child(Counter, "a")])
        async with runtime(Owner, tree=[tree]) as opened:
            a = opened.at(Counter, "a")
            await opened.at(Owner, "o").ask(Note("a"))
            await a.tell(Fail("connection"))
            assert await a.ask(Add(1), within="1m") == 101
            await a.tell(Fail("bug"))
            assert await a.ask(Add(1), within="1m") == 1
            child = opened.tree().children[0].children[0]
            assert (child.state, child.restarts) == ("running", 1)
            assert seen == []
            opened.stop_child("Counter/a")
            await a.tell(Add(1))
            await anyio.sleep(1)
            assert seen == ["Counter/a stopped"]
            child = opened.tree().children[0].children[0]
            assert (child.state, child.mailbox) == ("down", 1)

    virtual(backend, scenario)


@both
def test_a_runtime_that_closes_lets_them_handle_what_waits(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter, Bridge, Ledger) as opened:
            for key in "ab":
                await opened.at(Counter, key).tell(Sleep(2.0))
                await opened.at(Counter, key).tell(Sleep(2.0))
            a = opened.at(Counter, "a")
        assert seen.count("slept a") == seen.count("slept b") == 2
        assert opened.drained is not None
        assert opened.drained.lost == 0
        with pytest.raises(StoreStopped):
            await a.tell(Add(1))

    virtual(backend, scenario)


@both
def test_what_is_not_handled_in_time_is_lost_and_counted(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter, limits=Limits(drain_s=2.0, cancel_grace_s=0.5)) as opened:
            for _ in range(3):
                await opened.at(Counter, "a").tell(Sleep(100.0))
            await anyio.sleep(1)
        assert opened.drained is not None
        assert opened.drained.lost == 2

    virtual(backend, scenario)


class Book:
    def __init__(self) -> None:
        self.lines: list[str] = []


@step
async def fetched(n: int) -> int:
    return n * 2


class Using(Actor, durable=False):
    book: Book = resource()
    cache: dict[str, object] = volatile(factory=dict[str, object])
    anything: object = field(factory=object)  # No field is stored, so it may be what cannot be.

    @handler
    async def add(self, m: Add) -> int:
        self.book.lines.append(self.me.key)
        return await fetched(m.n)


@both
def test_it_has_resources_and_fields_of_any_type_and_calls_steps_as_functions(backend: Backend) -> None:
    book = Book()

    async def scenario() -> None:
        async with runtime(Using, resources=[book]) as opened:
            assert await opened.at(Using, "u").ask(Add(4)) == 8
            assert book.lines == ["u"]

    virtual(backend, scenario)


@both
def test_what_makes_no_sense_is_refused_at_once(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter, Needs) as opened:
            a = opened.at(Counter, "a")
            with pytest.raises(UnknownMessage, match="Counter does not handle Tick; it handles Add, Fail"):
                await a.tell(Tick())
            with pytest.raises(BadDefinition, match="remembers no message"):
                await a.tell(Add(1), key="k")
            with pytest.raises(BadDefinition, match="remembers no message"):
                await a.ask(Add(1), key="k")
            with pytest.raises(BadDefinition, match="fields without defaults"):
                await opened.at(Needs, "n").tell(Add(1))
            with pytest.raises(InvalidState, match="memory-only"):
                await a.status()

    virtual(backend, scenario)


class Needs(Actor, durable=False):
    n: int

    @handler
    async def add(self, m: Add) -> int:
        return self.n


def test_classes_that_make_no_sense_are_refused_when_they_are_made() -> None:
    with pytest.raises(BadDefinition, match="journal"):

        class _Run(Workflow[int], durable=False):
            async def run(self) -> int:
                return 1

    with pytest.raises(BadDefinition, match="retention"):

        class _Retention(Actor, durable=False, retention="1d"): ...

    with pytest.raises(BadDefinition, match="@query"):

        class _Query(Actor, durable=False):
            @query
            def n(self) -> int:
                return 1


@frozen
class _Point:
    x: int


def test_what_cannot_change_is_told_from_what_can() -> None:
    from actorflow.sharing import immutable

    class _Tree(Message[None]):
        children: tuple[_Tree, ...]

    class _Open(Message[None]):
        value: Any

    assert all(map(immutable, (Add, Note, _Point, _Tree, tuple[_Point, ...], frozenset[str], int | None)))
    assert not any(map(immutable, (Items, _Open, list[int], object, Book, tuple)))


@pytest.mark.usefixtures("caplog")
@both
def test_a_class_that_was_durable_leaves_its_rows_set_aside(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    store = MemoryStore()

    def made(durable: bool) -> type[Actor]:
        class _Turned(Actor, kind="Turned", durable=durable):
            n: int = 0

            @handler
            async def add(self, m: Add) -> int:
                self.n += m.n
                self.after("1s", Add(1), name="again") if self.n < 5 else None
                return self.n

        return _Turned

    async def scenario() -> None:
        before, after = made(durable=True), made(durable=False)
        async with runtime(before, store=store) as opened:
            assert await opened.at(before, "t").ask(Add(1)) == 1
        async with runtime(after, store=store) as opened:
            await anyio.sleep(10)
            assert await opened.at(after, "t").ask(Add(1)) == 1
            actors = (await opened.actors()).runs
            assert [(actor.status, actor.reason) for actor in actors] == [("paused", "unregistered")]

    virtual(backend, scenario)
