"""Actors: one message after another, each a transaction. On both loops, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve, field

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    AskTimeout,
    BadDefinition,
    Child,
    HandlerFailed,
    Limits,
    MailboxFull,
    Message,
    OutsideTurn,
    Supervisor,
    Terminated,
    UnknownMessage,
    Workflow,
    handler,
    step,
)
from actorflow.errors import AskExpired, CallCycle, HandlerTimeout
from actorflow.records import Commit, Consume, Refusal
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault, FaultStore
from tests.harness import both, runtime, virtual

seen: list[Any] = []
world: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _anew() -> None:
    seen.clear()
    world.clear()


class Deposit(Message[int]):
    amount: int


class Withdraw(Message[int]):
    amount: int


class Balance(Message[int]): ...


class Moved(Message[None]):
    who: str
    amount: int


class Seen(Message[list[int]]): ...


class AuditLog(Actor):
    moved: list[int] = field(factory=list[int])

    @handler
    async def on_moved(self, m: Moved) -> None:
        self.moved.append(m.amount)

    @handler(Seen, readonly=True)
    async def seen(self, m: Seen) -> list[int]:
        return self.moved


class Account(Actor):
    balance: int = 0

    @handler
    async def deposit(self, m: Deposit) -> int:
        self.balance += m.amount
        await AuditLog.at("all").tell(Moved(self.me.key, m.amount))
        return self.balance

    @handler
    async def withdraw(self, m: Withdraw) -> int:
        self.balance -= m.amount
        if self.balance < 0:
            raise Abort("not enough")
        return self.balance

    @handler(Balance, readonly=True)
    async def read(self, m: Balance) -> int:
        return self.balance


@both
def test_a_virtual_actor_exists_when_it_is_first_written_to(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account, AuditLog) as opened:
            ann = opened.at(Account, "ann")
            assert await ann.ask(Deposit(10)) == 10
            assert await ann.ask(Deposit(5)) == 15
            assert await ann.ask(Balance()) == 15
            assert await opened.at(Account, "bob").ask(Balance()) == 0
            await anyio.sleep(1)
            assert await opened.at(AuditLog, "all").ask(Seen()) == [10, 5]

    virtual(backend, scenario)


@both
def test_state_and_mail_survive_a_restart(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Account, AuditLog, store=store) as opened:
            await opened.at(Account, "ann").ask(Deposit(10))
            await opened.at(Account, "ann").tell(Deposit(7))
        async with runtime(Account, AuditLog, store=store) as opened:
            assert await opened.at(Account, "ann").ask(Deposit(1)) == 18

    virtual(backend, scenario)


@both
def test_an_abort_undoes_the_turn_and_is_the_answer(backend: Backend) -> None:
    """E19."""

    async def scenario() -> None:
        async with runtime(Account, AuditLog) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Deposit(10))
            with pytest.raises(Abort, match="not enough"):
                await ann.ask(Withdraw(11), key="w")
            assert await ann.ask(Balance()) == 10
            with pytest.raises(Abort, match="not enough"):  # The first answer, kept with the key.
                await ann.ask(Withdraw(11), key="w")

    virtual(backend, scenario)


@both
def test_a_repeated_key_gets_the_first_answer(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account, AuditLog) as opened:
            ann = opened.at(Account, "ann")
            assert await ann.ask(Deposit(10), key="d1") == 10
            assert await ann.ask(Deposit(10), key="d1") == 10
            assert await ann.ask(Balance()) == 10

    virtual(backend, scenario)


@both
def test_an_unknown_message_is_refused_at_the_door_with_what_is_handled(backend: Backend) -> None:
    """F6."""

    async def scenario() -> None:
        async with runtime(Account, AuditLog) as opened:
            with pytest.raises(UnknownMessage, match=r"Account does not handle Moved; it handles Balance, Deposit, Withdraw"):
                await opened.at(Account, "ann").tell(Moved("x", 1))

    virtual(backend, scenario)


class Poke(Message[str]): ...


class Flaky(Actor):
    handled: int = 0

    @handler
    async def poke(self, m: Poke) -> str:
        self.handled += 1
        seen.append("poke")
        if world.get("broken", 0) > 0:
            world["broken"] -= 1
            raise ValueError("broken")
        return f"handled {self.handled}"


@both
def test_a_failing_handler_is_tried_again_from_the_fields_before_it(backend: Backend) -> None:
    """E19."""

    async def scenario() -> None:
        async with runtime(Flaky) as opened:
            world["broken"] = 2
            assert await opened.at(Flaky, "f").ask(Poke()) == "handled 1"
            assert seen == ["poke"] * 3

    virtual(backend, scenario)


@both
def test_a_message_that_keeps_failing_becomes_a_dead_letter_and_those_behind_it_are_handled(backend: Backend) -> None:
    """F1."""

    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Flaky, store=store) as opened:
            world["broken"] = 3
            flaky = opened.at(Flaky, "f")
            with pytest.raises(HandlerFailed, match="ValueError: broken"):
                await flaky.ask(Poke(), key="bad")
            assert await flaky.ask(Poke()) == "handled 1"
            letters = await store.dead_letters()
            assert [letter.key for letter in letters] == ["bad"]

    virtual(backend, scenario)


@step
async def fetch(n: int) -> int:
    seen.append(("fetch", n))
    await anyio.sleep(world.get("slow", 0.0))
    if world.pop("drop", False):
        raise ConnectionError("dropped")
    return n * 2


class Fetch(Message[int]):
    n: int


class Fetcher(Actor):
    total: int = 0

    @handler(timeout="60s")
    async def fetch(self, m: Fetch) -> int:
        self.total += await fetch(m.n)
        self.total += await fetch(m.n + 1)
        await AuditLog.at("fetched").tell(Moved(self.me.key, self.total))
        if world.get("late"):
            world["late"] = False
            raise ValueError("late")
        return self.total

    @handler(Balance, readonly=True)
    async def read(self, m: Balance) -> int:
        return self.total


@both
def test_a_handler_calls_steps_and_they_are_not_repeated_when_it_is_tried_again(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Fetcher, AuditLog) as opened:
            world["late"] = True
            fetcher = opened.at(Fetcher, "f")
            assert await fetcher.ask(Fetch(1), within="1m") == 6
            assert seen == [("fetch", 1), ("fetch", 2)]
            assert await fetcher.ask(Fetch(5), within="1m") == 6 + 22

    virtual(backend, scenario)


@both
def test_a_turn_under_way_is_finished_after_a_restart_before_anything_else(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Fetcher, AuditLog, store=store, limits=Limits(drain_s=0.1, cancel_grace_s=0.1)) as opened:
            world["slow"] = 10.0
            await opened.at(Fetcher, "f").tell(Fetch(1))
            await opened.at(Fetcher, "f").tell(Fetch(100))
            await anyio.sleep(15)  # The first step is done, the second runs.
        assert seen == [("fetch", 1), ("fetch", 2)]
        world["slow"] = 0.0
        async with runtime(Fetcher, AuditLog, store=store) as opened:
            await anyio.sleep(1)
            assert await opened.at(Fetcher, "f").ask(Balance()) == 6 + 402
            assert seen == [("fetch", 1), ("fetch", 2), ("fetch", 2), ("fetch", 100), ("fetch", 101)]
            assert await opened.at(AuditLog, "fetched").ask(Seen()) == [6, 408]

    virtual(backend, scenario)


@both
def test_who_asks_a_readonly_handler_again_and_again_starves_nobody(backend: Backend) -> None:
    """P9."""

    async def main() -> None:
        async with runtime(Account) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Deposit(5), key="d")
            others = 0

            async def other() -> None:
                nonlocal others
                while others < 10:
                    await anyio.lowlevel.checkpoint()
                    others += 1

            async with anyio.create_task_group() as group:
                group.start_soon(other)
                for _ in range(50):
                    assert await ann.ask(Balance()) == 5
                assert others == 10

    virtual(backend, main)


@both
def test_an_ask_that_meets_an_actor_which_is_being_paused_is_told_why_once_that_is_durable(backend: Backend) -> None:
    """P4."""

    async def main() -> None:
        memory = MemoryStore()
        store = FaultStore(memory)
        async with runtime(Account, store=store) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Deposit(5), key="d")
            store.faults = [Fault(store.commits + 1, "delay", 10.0)]
            async with anyio.create_task_group() as group:
                group.start_soon(ann.pause)
                await anyio.sleep(1)
                with pytest.raises(ActorPaused, match="operator") as caught:
                    await ann.ask(Deposit(6), within="1m")
            assert (caught.value.reason, memory._memory.runs[1].status) == ("operator", "paused")
            assert "an operator paused it" in str(caught.value.report)

    virtual(backend, main)


@both
def test_a_readonly_handler_answers_while_a_turn_waits(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Fetcher, AuditLog) as opened:
            world["slow"] = 20.0
            fetcher = opened.at(Fetcher, "f")
            await fetcher.tell(Fetch(1))
            await anyio.sleep(1)
            assert await fetcher.ask(Balance()) == 0
            with pytest.raises(AskTimeout):
                await fetcher.ask(Fetch(9), within="1s")

    virtual(backend, scenario)


class Forwarder(Actor):
    last: Moved | None = None

    @handler
    async def moved(self, m: Moved) -> None:
        self.last = m
        await AuditLog.at("forwarded").tell(m)


@both
def test_a_message_can_be_kept_and_sent_on_as_it_is(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Forwarder, AuditLog) as opened:
            await opened.at(Forwarder, "f").tell(Moved("x", 3))
            await anyio.sleep(1)
            assert await opened.at(AuditLog, "forwarded").ask(Seen()) == [3]

    virtual(backend, scenario)


def crashed(store: MemoryStore, crashes: int) -> MemoryStore:
    """As the next holder finds it if the process was killed that often while all actors were at work."""
    inner: Any = store
    runs = inner._memory.runs
    for run in runs.values():
        runs[run.id] = evolve(run, status="running", crashes=crashes - 1)
    return MemoryStore(share=store)


@both
def test_actors_that_were_at_work_in_several_crashes_come_back_one_after_the_other_and_at_once(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        keys = [str(number) for number in range(5)]
        async with runtime(Account, AuditLog, store=store) as opened:
            for key in keys:
                await opened.at(Account, key).ask(Deposit(1))
                await opened.at(Account, key).tell(Deposit(1), after="1s")
        async with runtime(Account, AuditLog, store=crashed(store, 2)) as opened:
            await anyio.sleep(2)
            assert [await opened.at(Account, key).ask(Balance()) for key in keys] == [2] * 5
            assert {run.crashes for run in (await opened.actors(kind="Account")).runs} == {0}

    virtual(backend, scenario)


@both
def test_an_actor_that_was_loaded_only_to_be_read_leaves_memory_though_its_timer_is_set(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Reminder, limits=Limits(passivate_after_s=1.0)) as opened:
            await opened.at(Reminder, "r").ask(Poke())
            await anyio.sleep(5)
            assert await opened.at(Reminder, "r").ask(Balance()) == 0
            await anyio.sleep(5)
            assert not opened._host.resident  # type: ignore[union-attr]

    virtual(backend, scenario)


@both
def test_a_child_that_is_down_answers_readonly_messages_and_keeps_the_others(backend: Backend) -> None:
    async def scenario() -> None:
        tree = Supervisor("money", children=[Child(Account, "ann")])
        async with runtime(AuditLog, tree=[tree]) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Deposit(10))
            opened.stop_child("Account/ann")
            await anyio.sleep(1)
            assert await ann.ask(Balance()) == 10
            await ann.tell(Deposit(5))
            await anyio.sleep(1)
            assert await ann.ask(Balance()) == 10
            opened.start_child("Account/ann")
            await anyio.sleep(1)
            assert await ann.ask(Balance()) == 15

    virtual(backend, scenario)


@both
def test_an_actor_is_not_started_but_written_to_and_the_refusal_says_so(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account, AuditLog) as opened:
            with pytest.raises(BadDefinition, match=r"Account is an actor: .* `runtime\.at\(Account, key\)`"):
                await opened.start(Account(), key="ann")  # type: ignore[type-var]
            with pytest.raises(OutsideTurn, match=r"`runtime\.at\(\.\.\.\)`"):
                await Account.at("ann").ask(Deposit(1))

    virtual(backend, scenario)


@both
def test_a_message_that_is_not_due_does_not_wait_in_the_tree(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(tree=[Supervisor("s", children=[Child(Reminder, "r")])]) as opened:
            await opened.at(Reminder, "r").ask(Poke())
            assert opened.tree().children[0].children[0].mailbox == 0

    virtual(backend, scenario)


@both
def test_an_orderly_end_of_a_tree_is_no_alarm(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with runtime(tree=[Supervisor("s", children=[Child(Reminder, "r")])]):
            pass

    virtual(backend, scenario)

    assert [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"] == []


@both
def test_an_ask_whose_time_is_over_is_not_handled(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Fetcher, AuditLog) as opened:
            world["slow"] = 5.0
            fetcher = opened.at(Fetcher, "f")
            await fetcher.tell(Fetch(1))
            with pytest.raises(AskTimeout):
                await fetcher.ask(Fetch(7), within="1s", key="late")
            await anyio.sleep(20)
            assert seen == [("fetch", 1), ("fetch", 2)]
            with pytest.raises(AskExpired):
                await fetcher.ask(Fetch(7), within="1s", key="late")

    virtual(backend, scenario)


class Hanging(Actor):
    @handler(timeout="2s")
    async def poke(self, m: Poke) -> str:
        seen.append("try")
        await fetch(1)
        return "done"


@both
def test_a_handler_past_its_deadline_is_cancelled_and_counted(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Hanging) as opened:
            world["slow"] = 1_000.0
            with pytest.raises(HandlerFailed, match="HandlerTimeout"):
                await opened.at(Hanging, "h").ask(Poke(), within="1m")
            assert seen.count("try") == 3
            assert HandlerTimeout("x", 1.0).timeout_s == 1.0

    virtual(backend, scenario)


class Go(Message[int]):
    to: str


class Asker(Actor):
    @handler
    async def go(self, m: Go) -> int:
        if not m.to:
            return 1
        first, _, rest = m.to.partition(",")
        return 1 + await Asker.at(first).ask(Go(rest))


@both
def test_actors_ask_actors_and_a_circle_is_refused(backend: Backend) -> None:
    """F11."""

    async def scenario() -> None:
        async with runtime(Asker) as opened:
            assert await opened.at(Asker, "a").ask(Go("b,c,d")) == 4
            with pytest.raises(HandlerFailed, match="CallCycle") as caught:
                await opened.at(Asker, "a").ask(Go("b,c,a"), within="30s")
            assert "a -> " in str(caught.value) or "Asker/a" in str(caught.value)
            assert CallCycle(["a", "b"]).path == ("a", "b")

    virtual(backend, scenario)


class Tick(Message[None]): ...


class Ticker(Actor):
    ticks: int = 0
    starts: int = 0

    async def on_start(self) -> None:
        self.starts += 1
        self.every("10s", Tick(), name="tick")

    @handler
    async def tick(self, m: Tick) -> None:
        self.ticks += 1
        if self.ticks == 5:
            self.cancel_timer("tick")

    @handler(Balance, readonly=True)
    async def read(self, m: Balance) -> int:
        return self.ticks * 100 + self.starts


@both
def test_timers_fire_again_and_again_and_over_restarts(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Ticker, store=store) as opened:
            assert await opened.at(Ticker, "t").ask(Balance()) in (0, 1)
            await anyio.sleep(25)
            assert await opened.at(Ticker, "t").ask(Balance()) == 201
        async with runtime(Ticker, store=store) as opened:
            await anyio.sleep(20)
            assert await opened.at(Ticker, "t").ask(Balance()) == 402
            await anyio.sleep(100)
            assert await opened.at(Ticker, "t").ask(Balance()) in (502, 503)  # It may have left memory and come back.

    virtual(backend, scenario)


@both
def test_a_sleeping_actor_costs_a_row_and_its_timer_wakes_it(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Reminder, limits=Limits(passivate_after_s=1.0)) as opened:
            await opened.at(Reminder, "r").ask(Poke())
            await anyio.sleep(5)
            assert not opened._host.resident  # type: ignore[union-attr]
            await anyio.sleep(86_400)
            assert await opened.at(Reminder, "r").ask(Balance()) == 1

    virtual(backend, scenario)


@both
def test_a_class_says_how_long_its_actors_stay_in_memory(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Hasty, Usual, Patient, limits=Limits(passivate_after_s=60.0)) as opened:

            def resident() -> set[str]:
                return {activation.address.kind for activation in opened._host.resident.values()}  # type: ignore[union-attr]

            for kind in (Patient, Usual, Hasty):
                await opened.at(kind, "a").ask(Deposit(1))
            await anyio.sleep(4)
            assert resident() == {"Patient", "Usual", "Hasty"}
            await opened.at(Hasty, "a").ask(Deposit(1))
            await anyio.sleep(4)
            assert resident() == {"Patient", "Usual", "Hasty"}  # Its five seconds began anew.
            await anyio.sleep(2)
            assert resident() == {"Patient", "Usual"}
            await anyio.sleep(60)
            assert resident() == {"Patient"}
            assert await opened.at(Hasty, "a").ask(Balance()) == 2
            await anyio.sleep(600)
            assert not resident()

    virtual(backend, scenario)


@both
def test_of_too_many_the_one_that_rests_longest_leaves_whatever_its_class(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Hasty, Usual, Patient, limits=Limits(resident_max=2)) as opened:
            for kind in (Patient, Usual, Hasty):
                await opened.at(kind, "a").ask(Deposit(1))
                await anyio.sleep(1)
            assert {a.address.kind for a in opened._host.resident.values()} == {"Usual", "Hasty"}  # type: ignore[union-attr]

    virtual(backend, scenario)


class Hasty(Actor, passivate_after="5s"):
    balance: int = 0

    @handler
    async def deposit(self, m: Deposit) -> int:
        self.balance += m.amount
        return self.balance

    @handler(readonly=True)
    async def read(self, m: Balance) -> int:
        return self.balance


class Usual(Hasty):
    pass


class Stalling(MemoryStore):
    """Takes its time, once told to, for every batch in which a turn ends."""

    stalls = False

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        if self.stalls and any(type(write) is Consume for commit in batch for write in commit.writes):
            await anyio.sleep(60)
        return await super().commit(batch, fence=fence)


@both
def test_a_readonly_handler_sees_nothing_that_is_not_durable(backend: Backend) -> None:
    """P4."""

    async def scenario() -> None:
        store = Stalling()
        async with runtime(Usual, store=store) as opened:
            ann = opened.at(Usual, "ann")
            await ann.ask(Deposit(10))
            store.stalls = True
            await ann.tell(Deposit(5))
            await anyio.sleep(30)
            assert await ann.ask(Balance()) == 10  # The turn is over, and its commit is not.
            await anyio.sleep(60)
            assert await ann.ask(Balance()) == 15

    virtual(backend, scenario)


class Patient(Hasty, passivate_after="10m"):
    pass


class Reminder(Actor):
    reminded: int = 0

    @handler
    async def poke(self, m: Poke) -> str:
        self.after("1d", Tick(), name="later")
        return "set"

    @handler
    async def tick(self, m: Tick) -> None:
        self.reminded += 1

    @handler(Balance, readonly=True)
    async def read(self, m: Balance) -> int:
        return self.reminded


class Gate(Actor):
    open: bool = False
    passed: list[int] = field(factory=list[int])

    @handler
    async def enter(self, m: Deposit) -> int:
        if not self.open:
            self.stash(m)
            return 0
        self.passed.append(m.amount)
        return len(self.passed)

    @handler
    async def unlock(self, m: Poke) -> str:
        self.open = True
        self.unstash()
        return "open"

    @handler(Seen, readonly=True)
    async def seen(self, m: Seen) -> list[int]:
        return self.passed


@both
def test_stashed_messages_come_again_in_their_order(backend: Backend) -> None:
    """O8."""

    async def scenario() -> None:
        async with runtime(Gate) as opened:
            gate = opened.at(Gate, "g")
            for amount in (1, 2, 3):
                await gate.tell(Deposit(amount))
            await gate.ask(Poke())
            assert await gate.ask(Deposit(4)) == 4
            assert await gate.ask(Seen()) == [1, 2, 3, 4]

    virtual(backend, scenario)


class News(Message[None]):
    text: str


class Reader(Actor):
    read: list[str] = field(factory=list[str])

    @handler
    async def join(self, m: Poke) -> str:
        self.subscribe("news")
        return "joined"

    @handler
    async def leave_it(self, m: Tick) -> None:
        self.unsubscribe("news")

    @handler
    async def news(self, m: News) -> None:
        self.read.append(m.text)

    @handler
    async def say(self, m: Moved) -> None:
        self.publish("news", News(m.who))

    @handler(Seen, readonly=True)
    async def count(self, m: Seen) -> list[int]:
        return [len(self.read)]


@both
def test_what_is_published_reaches_all_that_listen_in_order(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Reader) as opened:
            for name in ("a", "b"):
                await opened.at(Reader, name).ask(Poke())
            await anyio.sleep(1)
            for text in ("one", "two"):
                await opened.at(Reader, "x").tell(Moved(text, 0))
            await anyio.sleep(1)
            await opened.at(Reader, "b").tell(Tick())
            await anyio.sleep(1)
            await opened.publish("news", News("three"))
            await anyio.sleep(1)
            assert [await opened.at(Reader, name).ask(Seen()) for name in ("a", "b", "x")] == [[3], [2], [0]]

    virtual(backend, scenario)


class Nap(Workflow[int]):
    async def run(self) -> int:
        await self.sleep("10s")
        return 7


class Watcher(Actor):
    ends: list[str] = field(factory=list[str])

    @handler
    async def look(self, m: Poke) -> str:
        from actorflow import Run

        self.watch(Run(Nap, "n"))
        return "watching"

    @handler
    async def ended(self, m: Terminated) -> None:
        self.ends.append(f"{m.who} {m.status}")

    @handler(Seen, readonly=True)
    async def count(self, m: Seen) -> list[int]:
        seen.extend(self.ends)
        return [len(self.ends)]


@both
def test_who_watches_a_run_is_told_of_its_end(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Watcher, Nap) as opened:
            await opened.start(Nap(), key="n")
            await opened.at(Watcher, "w").ask(Poke())
            await anyio.sleep(20)
            assert await opened.at(Watcher, "w").ask(Seen()) == [1]
            assert seen == ["Nap/n completed"]

    virtual(backend, scenario)


class Transfer(Workflow[int]):
    amount: int

    async def run(self) -> int:
        await Account.at("ann").ask(Withdraw(self.amount))
        return await Account.at("bob").ask(Deposit(self.amount))


@both
def test_a_run_asks_actors(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Transfer, Account, AuditLog) as opened:
            await opened.at(Account, "ann").ask(Deposit(10))
            assert await (await opened.start(Transfer(4), key="t")).result() == 4
            with pytest.raises(Abort, match="not enough"):
                await (await opened.start(Transfer(40), key="t2")).result()
            assert await opened.at(Account, "ann").ask(Balance()) == 6

    virtual(backend, scenario)


class Small(Actor, mailbox=2):
    @handler
    async def poke(self, m: Poke) -> str:
        await fetch(1)
        return "ok"


class Waits(Small, mailbox=2, overflow="wait"): ...


class Newest(Small, mailbox=2, overflow="drop_oldest"): ...


class Oldest(Small, mailbox=2, overflow="drop_new"): ...


@both
def test_a_full_mailbox_refuses_or_waits_or_drops(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        world["slow"] = 10.0
        async with runtime(Small, Waits, Newest, Oldest, store=store) as opened:
            small = opened.at(Small, "s")
            for _ in range(2):
                await small.tell(Poke())
            with pytest.raises(MailboxFull):
                await small.tell(Poke())
            waits = opened.at(Waits, "s")
            for _ in range(3):
                await waits.tell(Poke())
            for kind in (Newest, Oldest):
                for n in range(4):
                    await opened.at(kind, "s").tell(Poke(), key=f"{kind.__name__}{n}")
            await anyio.sleep(100)
            assert [letter.key for letter in await store.dead_letters()] == ["Newest1", "Newest2", "Oldest2", "Oldest3"]

    virtual(backend, scenario)


class Stubborn(Actor):
    @handler
    async def poke(self, m: Poke) -> str:
        seen.append("poke")
        if world.get("broken"):
            raise ValueError("always")
        return "fine"


@both
def test_an_actor_whose_budget_is_spent_is_set_aside_and_resumed_after_a_fix(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Stubborn) as opened:
            world["broken"] = True
            actor = opened.at(Stubborn, "s")
            for n in range(4):
                with pytest.raises(HandlerFailed):
                    await actor.ask(Poke(), key=str(n), within="30s")
            await anyio.sleep(1)
            with pytest.raises(ActorPaused, match="restart"):
                await actor.ask(Poke())
            await actor.tell(Poke())  # It waits.
            world["broken"] = False
            await actor.resume()
            assert await actor.ask(Poke()) == "fine"

    virtual(backend, scenario)


def test_bad_classes_are_refused_when_they_are_made_or_registered() -> None:
    with pytest.raises(BadDefinition, match="has no annotation"):

        class _NoAnnotation(Actor):
            @handler
            async def poke(self, m):  # type: ignore[no-untyped-def]
                return 1

    with pytest.raises(BadDefinition, match="async def"):
        handler(lambda self, m: 1)  # type: ignore[arg-type, return-value]

    class Twice(Actor):
        @handler
        async def one(self, m: Poke) -> str:
            return ""

        @handler
        async def two(self, m: Poke) -> str:
            return ""

    with pytest.raises(BadDefinition, match=r"Twice\.two: Poke is handled by .*Twice\.one already"):
        Twice.__kind_info__()

    class WrongReply(Actor):
        @handler
        async def one(self, m: Poke) -> int:
            return 1

    with pytest.raises(BadDefinition, match=r"returns int, but Poke is answered by str"):
        WrongReply.__kind_info__()
    with pytest.raises(BadDefinition, match="a workflow and has @handler"):

        class _Both(Workflow[int]):
            @handler
            async def one(self, m: Poke) -> str:
                return ""

            async def run(self) -> int:
                return 1

    with pytest.raises(BadDefinition, match="overflow is one of"):

        class _Overflow(Actor, overflow="explode"):  # type: ignore[arg-type]
            ...
