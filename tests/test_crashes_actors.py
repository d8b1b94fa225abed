"""Actors with the power cut before and after each commit, on both loops: what each verb promises holds over any crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from attrs import field

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    AskTimeout,
    HandlerFailed,
    Limits,
    MailboxFull,
    Message,
    Run,
    Runtime,
    Terminated,
    Workflow,
    gather,
    handler,
    step,
)
from actorflow.errors import AskExpired, CallCycle
from actorflow.testing.clock import Backend
from actorflow.testing.invariants import Rows
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes, world
from tests.harness import Log, Note, Read, both

SEED = 3


def crash(scenario: Scenario, backend: Backend, **options: Any) -> None:
    assert enumerate_crashes(scenario, backend, seed=SEED, **options) > 0


async def until(runtime: Runtime, actor: type[Actor], key: str, message: Message[Any], wanted: Any) -> Any:
    """Ask until the answer is that; virtual time only."""
    found: Any = None
    for _ in range(400):
        found = await runtime.at(actor, key).ask(message, within="1h")
        if found == wanted:
            return found
        await anyio.sleep(0.5)
    raise AssertionError(f"{actor.__name__}/{key} says {found!r}, not {wanted!r}")


async def dead_letters(runtime: Runtime) -> list[str]:
    return sorted(letter.key or letter.type for letter in await runtime._running().store.dead_letters())


@step
async def work(n: int) -> int:
    effect()
    await anyio.sleep(0.5)
    return n + 1


class Add(Message[int]):
    n: int


class Total(Message[int]): ...


class Go(Message[int]):
    n: int = 0


class Counter(Actor):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        if m.n < 0:
            raise Abort("only more")
        self.total += m.n
        await Log.at("all").tell(Note(m.n))
        await Log.at("all").tell(Note(-m.n))
        return self.total

    @handler(Total, readonly=True)
    async def read(self, m: Total) -> int:
        return self.total


# --- tell and ask ------------------------------------------------------------------------------------------------------


@both
def test_what_clients_tell_and_ask_is_handled_once_in_order_and_answered_as_it_was(backend: Backend) -> None:
    """P3, P4, P5: keys, virtual actors that are made by a tell, an `Abort` as an answer."""

    async def script(runtime: Runtime, world: World) -> Any:
        counter = runtime.at(Counter, "c")
        for n in (1, 2, 3):
            await counter.tell(Add(n), key=f"t{n}")
        answers: list[Any] = [await counter.ask(Add(10), key="a"), await counter.ask(Add(10), key="a")]
        try:
            await counter.ask(Add(-1), key="no")
        except Abort as error:
            answers.append(str(error))
        answers.append(await counter.ask(Add(100), key="b"))
        told = await until(runtime, Log, "all", Read(), [1, -1, 2, -2, 3, -3, 10, -10, 100, -100])
        return [*answers, told, await counter.ask(Total())]

    crash(Scenario(name="Counter", actors=[Counter, Log], script=script), backend)


class Fan(Actor):
    """One turn tells many, some of whom were never written to."""

    @handler
    async def go(self, m: Go) -> int:
        for n in range(3):
            await Counter.at(f"f{n}").tell(Add(m.n), key=f"k{m.n}")
            await Counter.at(f"f{n}").tell(Add(m.n), key=f"k{m.n}")
            await Counter.at(f"f{n}").tell(Add(1000))
        await Fan.at(self.me.key).tell(Add(1))
        return m.n

    @handler
    async def again(self, m: Add) -> int:
        await Counter.at("self").tell(Add(m.n))
        return 0


@both
def test_the_tells_of_a_turn_leave_together_and_once_each(backend: Backend) -> None:
    """A8, A9."""

    async def script(runtime: Runtime, world: World) -> Any:
        for n in (1, 2):
            await runtime.at(Fan, "fan").ask(Go(n), key=f"g{n}", within="1h")
        totals = [await until(runtime, Counter, f"f{n}", Total(), 2003) for n in range(3)]
        return [*totals, await until(runtime, Counter, "self", Total(), 2)]

    crash(Scenario(name="Fan", actors=[Fan, Counter, Log], script=script), backend)


class Link(Actor):
    """Tells the next one what it was told: order between each pair."""

    got: list[int] = field(factory=list[int])

    @handler
    async def note(self, m: Note) -> None:
        self.got.append(m.n)
        depth = int(self.me.key)
        if depth < 3:
            await Link.at(str(depth + 1)).tell(m)
            if depth == 0:
                await Link.at("3").tell(Note(m.n + 100))

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.got


@both
def test_messages_of_one_sender_arrive_in_their_order_over_several_actors(backend: Backend) -> None:
    """F4."""

    async def script(runtime: Runtime, world: World) -> Any:
        for n in range(5):
            await runtime.at(Link, "0").tell(Note(n), key=str(n))
        last: list[int] = []
        for _ in range(100):
            last = await runtime.at(Link, "3").ask(Read())
            if len(last) == 10:
                break
            await anyio.sleep(0.5)
        return [
            await runtime.at(Link, "2").ask(Read()),
            [n for n in last if n < 100],
            [n for n in last if n >= 100],
        ]

    crash(Scenario(name="Link", actors=[Link], script=script), backend)


# --- steps -------------------------------------------------------------------------------------------------------------


class Worker(Actor):
    done: list[int] = field(factory=list[int])

    @handler(timeout="5m")
    async def go(self, m: Go) -> int:
        first = await work(m.n)
        await Log.at("w").tell(Note(first))
        pair = await gather(work(first), work(first + 10))
        self.done.append(sum(pair))
        await Log.at("w").tell(Note(sum(pair)))
        return len(self.done)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.done


@both
def test_steps_of_a_handler_run_once_and_its_turn_is_finished_before_the_next(backend: Backend) -> None:
    """P1, rules 35 and 36; a readonly question is answered meanwhile, from what is durable."""

    async def script(runtime: Runtime, world: World) -> Any:
        worker = runtime.at(Worker, "w")
        for n in (0, 100):
            await worker.tell(Go(n), key=f"g{n}")
        early = await worker.ask(Read())
        assert early == [14, 214, 2014][: len(early)]
        answer = await worker.ask(Go(1000), key="last", within="1h")
        done = await worker.ask(Read())
        return [answer, done, await until(runtime, Log, "w", Read(), [1, 14, 101, 214, 1001, 2014])]

    crash(Scenario(name="Worker", actors=[Worker, Log], script=script, same_effects=False), backend)


class Shaky(Actor):
    """Fails after it told and after a step; later it succeeds, or never."""

    sums: int = 0

    @handler(timeout="5m")
    async def go(self, m: Go) -> int:
        self.sums += m.n
        await Log.at("s").tell(Note(m.n))
        got = await work(m.n)
        if m.n == 1 and world().marks.count("failed") < 2:
            world().marks.append("failed")
            raise ValueError("not yet")
        if m.n == 2:
            raise ValueError("never")
        return self.sums + got

    @handler(Total, readonly=True)
    async def read(self, m: Total) -> int:
        return self.sums


@both
def test_a_handler_that_fails_leaves_nothing_and_keeps_what_it_recorded(backend: Backend) -> None:
    """E19, F1, rule 38: three tries, then a dead letter with its answer; what was told in failed tries was never sent."""

    async def script(runtime: Runtime, world: World) -> Any:
        shaky, answers = runtime.at(Shaky, "s"), list[Any]()
        for n in (1, 2, 3):
            try:
                answers.append(await shaky.ask(Go(n), key=str(n), within="1h"))
            except HandlerFailed as error:
                answers.append("never" in str(error))
        log = await until(runtime, Log, "s", Read(), [1, 3])
        return [answers, log, await shaky.ask(Total()), await dead_letters(runtime)]

    crash(Scenario(name="Shaky", actors=[Shaky, Log], script=script, same_effects=False), backend)


class Careful(Actor):
    """Goes another way after a step failed, and then fails itself."""

    way: list[str] = field(factory=list[str])

    @handler(timeout="5m")
    async def go(self, m: Go) -> int:
        try:
            await sometimes(m.n)
            self.way.append("straight")
        except ValueError:
            await work(m.n)
            self.way.append("around")
        await work(m.n + 1)
        if world().marks.count("failed") < 1:
            world().marks.append("failed")
            raise RuntimeError("once")
        return len(self.way)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [len(way) for way in self.way]


@step
async def sometimes(n: int) -> int:
    effect()
    if not world().marks:
        world().marks.append("first")
        raise ValueError("the first time only")
    return n


@both
def test_a_failure_that_the_handler_went_on_from_stands_over_crashes_and_tries(backend: Backend) -> None:
    """P1: what was recorded after it followed from it."""

    async def script(runtime: Runtime, world: World) -> Any:
        careful = runtime.at(Careful, "c")
        answer = await careful.ask(Go(1), key="a", within="1h")
        again = await careful.ask(Go(1), key="b", within="1h")
        ways = await careful.ask(Read())
        assert ways in ([6, 8], [8, 8])  # A crash before the first outcome was recorded tries that step once more.
        return [answer, again, await dead_letters(runtime)]

    crash(Scenario(name="Careful", actors=[Careful], script=script, same_effects=False), backend)


# --- asks --------------------------------------------------------------------------------------------------------------


class Bank(Actor):
    money: int = 100

    @handler
    async def add(self, m: Add) -> int:
        if self.money + m.n < 0:
            raise Abort("not enough")
        self.money += m.n
        return self.money

    @handler(Total, readonly=True)
    async def read(self, m: Total) -> int:
        return self.money


class Mover(Actor):
    """Moves money by asking both sides; an `Abort` of the first is its own answer."""

    moved: int = 0

    @handler(timeout="5m")
    async def go(self, m: Go) -> int:
        await Bank.at("a").ask(Add(-m.n), within="1h")
        await Bank.at("b").ask(Add(m.n), within="1h")
        self.moved += m.n
        return self.moved


class MoveRun(Workflow[int]):
    n: int

    async def run(self) -> int:
        await Bank.at("b").ask(Add(-self.n), within="1h")
        return await Bank.at("a").ask(Add(self.n), within="1h")


@both
def test_asks_between_actors_and_of_runs_move_money_and_lose_none(backend: Backend) -> None:
    async def script(runtime: Runtime, world: World) -> Any:
        mover, answers = runtime.at(Mover, "m"), list[Any]()
        for n in (10, 500, 30):
            try:
                answers.append(await mover.ask(Go(n), key=str(n), within="1h"))
            except Abort as error:
                answers.append(str(error))
        answers.append(await (await runtime.start(MoveRun(7), key="r")).result())
        money = [await runtime.at(Bank, key).ask(Total()) for key in ("a", "b")]
        assert sum(money) == 200
        return [answers, money]

    crash(Scenario(name="Mover", actors=[Mover, Bank, MoveRun], script=script), backend)


class Circle(Actor):
    @handler(timeout="1h")
    async def go(self, m: Go) -> int:
        if m.n == 0:
            return 0
        await work(m.n)
        try:
            return 1 + await Circle.at(str((m.n + 1) % 2)).ask(Go(m.n - 1), within="30m")
        except CallCycle:
            return 1000


@both
def test_a_circle_of_asks_is_refused_after_any_crash(backend: Backend) -> None:
    """F11, rule 37."""

    async def script(runtime: Runtime, world: World) -> Any:
        return await runtime.at(Circle, "0").ask(Go(4), key="x", within="2h")

    crash(Scenario(name="Circle", actors=[Circle], script=script, same_effects=False), backend)


class Slow(Actor):
    @handler(timeout="1h")
    async def add(self, m: Add) -> int:
        await work(m.n)
        await work(m.n)
        return m.n

    @handler(timeout="1h")
    async def go(self, m: Go) -> int:
        try:
            return await Slow.at("other").ask(Add(m.n), within="0.2s")
        except AskTimeout:
            return -1


@both
def test_an_ask_that_comes_too_late_is_answered_so_and_one_that_has_begun_is_finished(backend: Backend) -> None:
    """Rules 35 and 37."""

    async def script(runtime: Runtime, world: World) -> Any:
        slow, answers = runtime.at(Slow, "s"), list[Any]()
        await slow.tell(Add(1), key="first")
        for _ in range(2):
            try:
                answers.append(await slow.ask(Add(2), key="late", within="0.1s"))
            except (AskTimeout, AskExpired) as error:
                answers.append(type(error).__name__)
            await anyio.sleep(3.0)
        answers.append(await runtime.at(Slow, "asker").ask(Go(3), key="go", within="1h"))
        assert answers[0] in ("AskTimeout", "AskExpired")
        return answers[1:]

    crash(Scenario(name="Slow", actors=[Slow], script=script, same_effects=False), backend)


# --- timers ------------------------------------------------------------------------------------------------------------


class Tick(Message[None]):
    n: int = 0


class Clock(Actor):
    fired: list[int] = field(factory=list[int])

    @handler
    async def go(self, m: Go) -> int:
        self.after("10s", Tick(1), name="once")
        self.after("10s", Tick(99), name="replaced")
        self.after("20s", Tick(2), name="replaced")
        self.after("5s", Tick(98), name="cancelled")
        self.every("30s", Tick(3), name="often")
        await Clock.at(self.me.key).tell(Add(0))
        return 1

    @handler
    async def cancel(self, m: Add) -> int:
        self.cancel_timer("cancelled")
        return 0

    @handler
    async def tick(self, m: Tick) -> None:
        self.fired.append(m.n)
        if m.n == 3 and self.fired.count(3) == 3:
            self.cancel_timer("often")
            self.after("1s", Tick(4), name="once")

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.fired


@both
@pytest.mark.parametrize("downtime_s", [0.0, 45.0])
def test_timers_fire_once_in_time_and_replaced_or_cancelled_ones_never(backend: Backend, downtime_s: float) -> None:
    """X38, D8, P6; moments of an `every` that nobody lived to see are one message."""

    async def script(runtime: Runtime, world: World) -> Any:
        began = runtime._running().clock.wall()
        await runtime.at(Clock, "c").ask(Go(), key="go", within="1h")
        fired: list[int] = []
        for _ in range(400):
            fired = await runtime.at(Clock, "c").ask(Read())
            now = runtime._running().clock.wall()
            if world.crashes == 0:
                assert not fired or now - began >= 10.0
            if 4 in fired:
                break
            await anyio.sleep(1.0)
        # A timer whose time came while nobody lived fires before a message that came later, and would have cancelled it.
        return sorted(n for n in fired if n != 98 or not (world.crashes and downtime_s))

    crash(Scenario(name="Clock", actors=[Clock], script=script), backend, downtime_s=downtime_s)


class Starter(Actor):
    """`on_start` has effects, and belongs to each activation."""

    starts: int = 0
    ticks: int = 0
    cached: int = 0

    async def on_start(self) -> None:
        self.starts += 1
        self.every("10s", Tick(), name="tick")
        self.cached = await work(41)

    @handler
    async def tick(self, m: Tick) -> None:
        self.ticks += 1
        if self.ticks == 4:
            self.cancel_timer("tick")
            await Log.at("starter").tell(Note(self.cached))

    @handler
    async def total(self, m: Total) -> int:
        assert self.starts
        return self.cached


@both
def test_on_start_is_done_before_the_first_message_of_each_life(backend: Backend) -> None:
    async def script(runtime: Runtime, world: World) -> Any:
        answer = await runtime.at(Starter, "s").ask(Total(), key="t", within="1h")
        for _ in range(200):
            if 42 in await runtime.at(Log, "starter").ask(Read()):
                break
            await anyio.sleep(1.0)
        return [answer, (await runtime.at(Log, "starter").ask(Read()))[:1]]

    crash(Scenario(name="Starter", actors=[Starter, Log], script=script, same_effects=False), backend)


# --- stash, watch, topics, leave -----------------------------------------------------------------------------------------


class Gate(Actor):
    open: bool = False
    passed: list[int] = field(factory=list[int])

    @handler
    async def enter(self, m: Add) -> int:
        if not self.open:
            self.stash(m)
            return 0
        self.passed.append(await work(m.n) if m.n == 2 else m.n)
        return len(self.passed)

    @handler
    async def unlock(self, m: Go) -> int:
        self.open = True
        self.unstash()
        return 1

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.passed


@both
def test_what_is_stashed_comes_again_in_order_and_is_answered(backend: Backend) -> None:
    """O8."""

    async def script(runtime: Runtime, world: World) -> Any:
        gate = runtime.at(Gate, "g")
        for n in (1, 2, 3):
            await gate.tell(Add(n), key=str(n))
        await gate.ask(Go(), key="open", within="1h")
        last = await gate.ask(Add(4), key="4", within="1h")
        return [last, await gate.ask(Read())]

    crash(Scenario(name="Gate", actors=[Gate], script=script), backend)


class Nap(Workflow[int]):
    async def run(self) -> int:
        await self.sleep("3s")
        return await work(1)


class Breaks(Actor):
    @handler
    async def go(self, m: Go) -> int:
        raise ValueError("always")


class Watcher(Actor):
    ends: list[str] = field(factory=list[str])

    @handler
    async def go(self, m: Go) -> int:
        self.watch(Run(Nap, "n"))
        self.watch(Run(Nap, "n"))
        self.watch(Breaks.at("b"))
        return 1

    @handler
    async def ended(self, m: Terminated) -> None:
        self.ends.append(f"{m.who} {m.status}")
        if m.who == "Nap/n" and len(self.ends) < 3:
            self.watch(Run(Nap, "n"))

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        world().marks[:] = self.ends
        return [len(self.ends)]


@both
def test_who_watches_is_told_once_of_each_end(backend: Backend) -> None:
    """Of a run that ends, of one that has ended, of an actor that is set aside."""

    async def script(runtime: Runtime, world: World) -> Any:
        await runtime.start(Nap(), key="n")
        await runtime.at(Watcher, "w").ask(Go(), key="w", within="1h")
        for n in range(4):
            try:
                await runtime.at(Breaks, "b").tell(Go(n), key=str(n))
            except ActorPaused:
                break
        found: list[int] = []
        for _ in range(200):
            found = await runtime.at(Watcher, "w").ask(Read())
            if "Breaks/b paused" in world.marks and world.marks.count("Nap/n completed") >= 2:
                break
            if world.crashes and (await runtime.at(Breaks, "b").status()).status != "paused":
                for n in range(4):  # Its budget began anew with the process.
                    await runtime.at(Breaks, "b").tell(Go(n), key=f"more{world.crashes}-{n}")
            await anyio.sleep(1.0)
        assert found[0] >= 3
        assert world.marks.count("Breaks/b paused") == 1
        return sorted(set(world.marks))

    crash(Scenario(name="Watcher", actors=[Watcher, Nap, Breaks], script=script, same_effects=False), backend)


class News(Message[None]):
    n: int


class Reader(Actor):
    got: list[int] = field(factory=list[int])

    @handler
    async def join(self, m: Go) -> int:
        self.subscribe("news")
        return 1

    @handler
    async def part(self, m: Total) -> int:
        self.unsubscribe("news")
        return 1

    @handler
    async def say(self, m: Add) -> int:
        self.publish("news", News(m.n))
        self.publish("news", News(-m.n))
        if m.n == 2:
            self.leave()
        return 1

    @handler
    async def hear(self, m: News) -> None:
        self.got.append(m.n)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.got


@both
def test_what_is_published_reaches_each_listener_once_in_order(backend: Backend) -> None:
    async def script(runtime: Runtime, world: World) -> Any:
        for name in ("a", "b"):
            await runtime.at(Reader, name).ask(Go(), key="join", within="1h")
        await anyio.sleep(1.0)
        for n in (1, 2, 3):
            await runtime.at(Reader, "x").ask(Add(n), key=str(n), within="1h")
        return [await until(runtime, Reader, name, Read(), [1, -1, 2, -2, 3, -3]) for name in ("a", "b")]

    crash(Scenario(name="Reader", actors=[Reader], script=script), backend)


# --- mailboxes ---------------------------------------------------------------------------------------------------------


class Small(Actor, mailbox=2):
    done: list[int] = field(factory=list[int])

    @handler
    async def add(self, m: Add) -> int:
        self.done.append(await work(m.n))
        return len(self.done)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.done


class Waits(Small, mailbox=2, overflow="wait"): ...


class Oldest(Small, mailbox=2, overflow="drop_oldest"): ...


class Newest(Small, mailbox=2, overflow="drop_new"): ...


class Flood(Actor):
    refused: int = 0

    @handler(timeout="5m")
    async def go(self, m: Go) -> int:
        for n in range(6):
            try:
                await Small.at("full").tell(Add(n))
            except MailboxFull:
                self.refused += 1
                await work(1000 + n)
        await work(2000)
        return self.refused


@both
@pytest.mark.parametrize("of", [Small, Waits, Oldest, Newest])
def test_a_full_mailbox_loses_only_what_it_may(backend: Backend, of: type[Small]) -> None:
    """F5, rule 39: each message is handled once, or a dead letter, or was refused to its sender's face."""

    async def script(runtime: Runtime, world: World) -> Any:
        accepted = set[int]()
        for n in range(6):
            try:
                await runtime.at(of, "s").tell(Add(n), key=str(n))
                accepted.add(n + 1)
            except MailboxFull:
                assert of is Small
        done, letters = list[int](), set[int]()
        for _ in range(100):
            done = await runtime.at(of, "s").ask(Read())
            letters = {int(letter) + 1 for letter in await dead_letters(runtime)}
            if set(done) | letters >= accepted:
                break
            await anyio.sleep(1.0)
        assert len(done) == len(set(done))
        assert done == sorted(done)
        assert not set(done) & letters
        assert set(done) | letters >= accepted
        if of in (Small, Waits):
            assert not letters
        return of is not Waits or len(done)

    crash(Scenario(name=of.__name__, actors=[of], script=script, same_effects=False), backend)


@both
def test_a_refused_tell_is_refused_again_when_its_turn_is_resumed(backend: Backend) -> None:
    """P8: the way that the handler took after it is the way that was recorded."""

    async def script(runtime: Runtime, world: World) -> Any:
        await runtime.at(Small, "full").tell(Add(90), key="a")
        refused = await runtime.at(Flood, "f").ask(Go(), key="go", within="1h")
        # One that was told while its receiver was not in memory yet finds out at the door that there is no room.
        dead = len(await dead_letters(runtime))
        assert 4 <= refused + dead <= 6
        assert dead == 0 or world.crashes
        done = list[int]()
        for _ in range(100):
            done = await runtime.at(Small, "full").ask(Read(), within="1h")
            if len(done) == 1 + 6 - refused - dead:
                break
            await anyio.sleep(0.5)
        assert len(done) == len(set(done)) == 1 + 6 - refused - dead

    crash(Scenario(name="Flood", actors=[Flood, Small], script=script, same_effects=False), backend)


# --- time --------------------------------------------------------------------------------------------------------------


@step
async def hang(n: int) -> int:
    effect()
    await anyio.sleep(1_000.0)
    return n


class Hanging(Actor):
    tries: int = 0

    @handler(timeout="2s")
    async def go(self, m: Go) -> int:
        self.tries += 1
        await work(m.n)
        await hang(m.n)
        return m.n

    @handler
    async def total(self, m: Total) -> int:
        return self.tries


@both
def test_a_handler_past_its_time_is_given_up_and_leaves_nothing(backend: Backend) -> None:
    async def script(runtime: Runtime, world: World) -> Any:
        hanging, said = runtime.at(Hanging, "h"), False
        try:
            await hanging.ask(Go(1), key="g", within="1h")
        except HandlerFailed as error:
            said = "HandlerTimeout" in str(error)
        return [said, await hanging.ask(Total(), key="t", within="1h"), await dead_letters(runtime)]

    crash(Scenario(name="Hanging", actors=[Hanging], script=script), backend)


@both
def test_actors_that_leave_memory_at_once_lose_nothing(backend: Backend) -> None:
    """A turn that waits for an ask, a timer, and messages, with nobody kept in memory."""

    async def script(runtime: Runtime, world: World) -> Any:
        answers = [await runtime.at(Mover, "m").ask(Go(n), key=str(n), within="1h") for n in (1, 2)]
        await anyio.sleep(5.0)
        answers.append(await runtime.at(Mover, "m").ask(Go(3), key="3", within="1h"))
        return [answers, [await runtime.at(Bank, key).ask(Total()) for key in ("a", "b")]]

    limits = Limits(resident_max=1, passivate_after_s=0.2)
    crash(Scenario(name="Leaving", actors=[Mover, Bank], script=script, limits=limits), backend)


def _quiet(_: World, rows: Sequence[Rows]) -> None:
    assert all(rows_.run.status in ("waiting", "paused") for rows_ in rows if rows_.run.actor), [str(r) for r in rows]


@both
def test_crashes_are_counted_only_while_something_is_handled(backend: Backend) -> None:
    """A row that says "running" while its actor waits would be set aside after a few power cuts."""

    async def script(runtime: Runtime, world: World) -> Any:
        await runtime.at(Clock, "c").ask(Go(), key="go", within="1h")
        await anyio.sleep(1.0)
        await runtime.at(Clock, "c").ask(Read())
        await anyio.sleep(1.0)
        return 0

    crash(Scenario(name="Quiet", actors=[Clock], script=script, expect=_quiet), backend)
