"""Actors in the hands of users who mean it: each test was a way to break a promise, or might have been one."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest
from attrs import field

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    AskTimeout,
    BadDefinition,
    HandlerFailed,
    Limits,
    MailboxFull,
    Message,
    Terminated,
    Workflow,
    gather,
    handler,
    step,
    volatile,
)
from actorflow import message as messages
from actorflow.records import Address, Loaded
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import Log, Note, Read, both, runtime, virtual

seen: list[Any] = []
world: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _anew() -> None:
    seen.clear()
    world.clear()


async def loaded(store: MemoryStore, kind: str, key: str) -> Loaded:
    run = await store.find(Address(kind, key))
    assert run is not None
    found = await store.load(run.id)
    assert found is not None
    return found


@step
async def work(n: int) -> int:
    seen.append(n)
    await anyio.sleep(world.get("slow", 0.0))
    if world.get("fails"):
        world["fails"] -= 1
        raise ValueError("fails")
    return n


@step(on_interrupt="fail")
async def once(n: int) -> int:
    seen.append(n)
    await anyio.sleep(world.get("slow", 0.0))
    raise ConnectionError("who knows whether it landed")


class Poke(Message[str]):
    how: str = ""


# --- messages ------------------------------------------------------------------------------------------------------------


class Forwarder(Actor):
    @handler
    async def note(self, m: Note) -> None:
        await Log.at("all").tell(m)


@both
def test_a_message_that_was_received_can_be_sent_on(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Forwarder, Log) as opened:
            await opened.at(Forwarder, "f").tell(Note(7))
            await anyio.sleep(1)
            assert await opened.at(Log, "all").ask(Read()) == [7]

    virtual(backend, scenario)


class Many(Actor):
    @handler(timeout="5m")
    async def poke(self, m: Poke) -> str:
        if m.how == "twice":
            await Log.at("k").tell(Note(1), key="same")
            await Log.at("k").tell(Note(1), key="same")
            await Log.at("k").tell(Note(2), key="same")
        else:
            for n in range(int(m.how)):
                await Log.at(str(n % 10)).tell(Note(n))
        return "sent"


@both
def test_one_key_used_twice_in_one_turn_is_one_message_and_another_body_under_it_a_dead_letter(backend: Backend) -> None:
    """F3: it was refused by the store, and the actor loaded again, for ever."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Many, Log, store=store) as opened:
            assert await opened.at(Many, "m").ask(Poke("twice"), key="a") == "sent"
            assert await opened.at(Many, "m").ask(Poke("twice"), key="b") == "sent"
            await anyio.sleep(1)
            assert await opened.at(Log, "k").ask(Read()) == [1]
            lost = [e.entry for e in await store.events() if e.entry.kind == "dead"]
            assert [(entry.ref, entry.input) for entry in lost] == [("Log/k", b'{"n":2}')] * 2

    virtual(backend, scenario)


def test_ten_thousand_tells_of_one_turn_leave_together() -> None:
    """G10."""

    async def scenario() -> None:
        async with runtime(Many, Log) as opened:
            assert await opened.at(Many, "m").ask(Poke("10000"), within="1h") == "sent"
            await anyio.sleep(1)
            assert await opened.at(Log, "9").ask(Read(), within="1h") == list(range(9, 10_000, 10))
            with pytest.raises(HandlerFailed, match="TooManyCalls"):
                await opened.at(Many, "m").ask(Poke("10001"), within="1h")

    virtual("asyncio", scenario)


class Picky(Actor):
    made: list[int] = field(factory=lambda: world["nothing"])

    @handler
    async def note(self, m: Note) -> None: ...


class TellsPicky(Actor):
    @handler
    async def poke(self, m: Poke) -> str:
        await Picky.at("p").tell(Note(1))
        return "told"


@both
def test_an_actor_that_cannot_be_made_of_nothing_is_refused_to_clients_and_holds_up_no_sender(backend: Backend) -> None:
    """A default that raised left its sender waiting for ever."""

    async def scenario() -> None:
        async with runtime(TellsPicky, Picky) as opened:
            with pytest.raises(BadDefinition, match="cannot be made of nothing"):
                await opened.at(Picky, "p").tell(Note(1))
            assert await opened.at(TellsPicky, "t").ask(Poke()) == "told"
            world["nothing"] = []
            assert await opened.at(TellsPicky, "t").ask(Poke(), key="again") == "told"

    virtual(backend, scenario)


class Busy(Actor):
    total: int = 0
    tried: int = 0

    @handler(timeout="10m")
    async def poke(self, m: Poke) -> str:
        self.total += await work(1)
        return "done"

    @handler
    async def note(self, m: Note) -> None:
        self.total += m.n

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [self.total]


@both
def test_a_message_whose_class_is_gone_is_a_dead_letter_and_stops_nobody(backend: Backend) -> None:
    """While a turn was open, looking for readonly messages met it and brought the runtime down."""
    store = MemoryStore()

    async def scenario() -> None:
        class Gone(Message[None], kind="gone"):
            n: int

        class Had(Busy, kind="Busy"):
            @handler
            async def gone(self, m: Gone) -> None: ...

        world["slow"] = 5.0
        async with runtime(Had, store=store, limits=Limits(drain_s=0.1, cancel_grace_s=0.1)) as opened:
            await opened.at(Had, "b").tell(Poke(), key="first")
            await opened.at(Had, "b").tell(Gone(1), key="gone")
            await opened.at(Had, "b").tell(Note(10), key="last")
        messages._declared.pop("gone")
        async with runtime(Busy, store=store) as opened:
            assert await opened.at(Busy, "b").ask(Read()) == [0]
            await anyio.sleep(20)
            assert await opened.at(Busy, "b").ask(Read()) == [11]
            assert [letter.key for letter in await store.dead_letters()] == ["gone"]

    virtual(backend, scenario)


# --- turns ---------------------------------------------------------------------------------------------------------------


class Wild(Actor):
    count: int = 0

    @handler(timeout="10m")
    async def poke(self, m: Poke) -> str:
        self.count += 1
        match m.how:
            case "gather":
                return str(sum(await gather(work(1), work(2), self.branch())))
            case "raise after tell":
                await Log.at("wild").tell(Note(1))
                raise Abort("after telling")
            case "again":
                cast("Any", Workflow).again(self)
                return "again"
            case "receive":
                return str(await cast("Any", Workflow).receive(self, Poke))
            case "self":
                return await Wild.at(self.me.key).ask(Poke("reply"))
            case "through":
                return await Wild.at("other").ask(Poke("back to " + self.me.key))
            case "paused":
                return await Wild.at("asleep").ask(Poke("reply"), within="1h")
            case "wrong":
                return 7  # type: ignore[return-value]
            case "unstash":
                self.stash(Poke("another"))
                return ""
            case "write in a branch":
                await gather(self.write(), work(1))
                return ""
            case "system exit":
                raise SystemExit(3)
            case how if how.startswith("back to "):
                return await Wild.at(how.removeprefix("back to ")).ask(Poke("reply"))
            case _:
                return "reply"

    async def branch(self) -> int:
        return await work(3) + await work(4)

    async def write(self) -> None:
        await work(9)
        self.count = 100

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [self.count]


@both
@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("raise after tell", Abort, "after telling"),
        ("again", HandlerFailed, "again"),
        ("receive", HandlerFailed, "verb of workflows"),
        ("self", HandlerFailed, "CallCycle"),
        ("through", HandlerFailed, "CallCycle"),
        ("wrong", Exception, "reply of Wild"),
        ("unstash", HandlerFailed, "the message that is being handled"),
        ("write in a branch", HandlerFailed, "FieldWriteInBranch"),
        ("system exit", HandlerFailed, "SystemExit"),
    ],
)
def test_what_a_handler_does_wrong_is_answered_so_and_leaves_nothing(
    backend: Backend, how: str, error: type[Exception], text: str
) -> None:
    async def scenario() -> None:
        async with runtime(Wild, Log) as opened:
            wild = opened.at(Wild, "w")
            with pytest.raises(error, match=text):
                await wild.ask(Poke(how), within="1h")
            assert await wild.ask(Read()) == [0]
            assert await wild.ask(Poke("reply"), within="1h") == "reply"
            assert await wild.ask(Read()) == [1]
            await anyio.sleep(1)
            assert await opened.at(Log, "wild").ask(Read()) == []

    virtual(backend, scenario)


@both
def test_branches_of_a_handler_call_steps(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Wild) as opened:
            assert await opened.at(Wild, "w").ask(Poke("gather"), within="1h") == "10"

    virtual(backend, scenario)


@both
def test_an_ask_of_a_paused_actor_is_refused_at_once_also_to_actors(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Wild) as opened:
            await opened.at(Wild, "asleep").tell(Poke())
            await opened.at(Wild, "asleep").pause()
            began = anyio.current_time()
            with pytest.raises(HandlerFailed, match="ActorPaused"):
                await opened.at(Wild, "w").ask(Poke("paused"), within="1h")
            assert anyio.current_time() - began < 60
            with pytest.raises(ActorPaused):
                await opened.at(Wild, "asleep").ask(Poke())

    virtual(backend, scenario)


class Reads(Actor):
    n: int = 0

    @handler(readonly=True)
    async def poke(self, m: Poke) -> str:
        if m.how == "write":
            self.n += 1
        elif m.how == "tell":
            await Log.at("r").tell(Note(1))
        elif m.how == "step":
            await work(1)
        return str(self.n)


class AsksReads(Actor):
    @handler
    async def poke(self, m: Poke) -> str:
        return await Reads.at("r").ask(m)


@both
@pytest.mark.parametrize("how", ["write", "tell", "step"])
def test_a_readonly_handler_only_reads_whoever_asks(backend: Backend, how: str) -> None:
    """Asked by an actor it was an ordinary handler, and what it wrote stayed."""

    async def scenario() -> None:
        async with runtime(Reads, AsksReads, Log) as opened:
            with pytest.raises(BadDefinition, match=r"readonly handler Reads\.poke"):
                await opened.at(Reads, "r").ask(Poke(how))
            with pytest.raises(HandlerFailed, match="readonly handler"):
                await opened.at(AsksReads, "a").ask(Poke(how), within="1h")
            assert await opened.at(Reads, "r").ask(Poke()) == "0"

    virtual(backend, scenario)


class Fat(Actor):
    data: str = ""

    @handler
    async def poke(self, m: Poke) -> str:
        self.data = "x" * int(m.how)
        return "kept"


@both
def test_a_state_too_large_to_be_stored_is_refused_and_the_old_one_stays(backend: Backend) -> None:
    """E8."""

    async def scenario() -> None:
        async with runtime(Fat) as opened:
            assert await opened.at(Fat, "f").ask(Poke("1000")) == "kept"
            with pytest.raises(Exception, match="state of Fat/f"):
                await opened.at(Fat, "f").ask(Poke(str(2 << 20)), within="1h")
            assert await opened.at(Fat, "f").ask(Poke("10")) == "kept"

    virtual(backend, scenario)


class Cached(Actor):
    n: int = 0
    cache: dict[str, int] = volatile(factory=dict)

    async def on_start(self) -> None:
        self.cache["ready"] = 1

    @handler
    async def poke(self, m: Poke) -> str:
        self.n += 1
        if m.how == "abort":
            raise Abort("no")
        return str(self.cache.get("ready"))


@both
def test_what_on_start_made_volatile_is_there_after_a_turn_that_was_rolled_back(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Cached) as opened:
            with pytest.raises(Abort):
                await opened.at(Cached, "c").ask(Poke("abort"))
            assert await opened.at(Cached, "c").ask(Poke()) == "1"

    virtual(backend, scenario)


class AtMostOnce(Actor):
    @handler(timeout="10m")
    async def poke(self, m: Poke) -> str:
        await once(1)
        return "done"


@both
def test_a_step_that_may_run_only_once_is_not_run_again_when_its_handler_is_tried_again(backend: Backend) -> None:
    """P2: its failure was forgotten with the others, and it ran three times."""

    async def scenario() -> None:
        async with runtime(AtMostOnce) as opened:
            with pytest.raises(HandlerFailed, match="who knows"):
                await opened.at(AtMostOnce, "a").ask(Poke(), within="1h")
            assert seen == [1]

    virtual(backend, scenario)


@both
def test_a_turn_of_an_ask_that_has_begun_is_finished_although_its_time_is_over(backend: Backend) -> None:
    """It was answered `AskExpired` after a restart, with its steps done, and they were taken for those of the next turn."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Busy, store=store, limits=Limits(drain_s=0.1, cancel_grace_s=0.1)) as opened:
            world["slow"] = 10.0
            with pytest.raises(AskTimeout):
                await opened.at(Busy, "b").ask(Poke(), key="k", within="2s")
        await anyio.sleep(60)
        world["slow"] = 0.0
        async with runtime(Busy, store=store) as opened:
            assert await opened.at(Busy, "b").ask(Poke(), key="k", within="5s") == "done"
            assert [e.entry.kind for e in (await loaded(store, "Busy", "b")).entries] == []

    virtual(backend, scenario)


# --- timers --------------------------------------------------------------------------------------------------------------


class Alarm(Actor, mailbox=2):
    fired: list[int] = field(factory=list[int])

    @handler
    async def poke(self, m: Poke) -> str:
        match m.how:
            case "two of a name":
                self.after("1s", Note(1), name="a")
                self.after("2s", Note(2), name="a")
            case "three":
                for n in range(3):
                    self.after("1h", Note(n), name=str(n))
            case "tell and set":
                await Alarm.at(self.me.key).tell(Poke("cancel"))
                self.after("10s", Note(3), name="a")
            case "cancel":
                self.cancel_timer("a")
            case "set and wait":
                self.after("1s", Note(4), name="a")
                await work(1)
                self.cancel_timer("a")
            case "wait then cancel":
                self.after("1s", Note(5), name="a")
            case "late":
                await work(1)
                self.cancel_timer("a")
            case _:
                pass
        return "set"

    @handler
    async def note(self, m: Note) -> None:
        self.fired.append(m.n)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return self.fired


@both
@pytest.mark.parametrize(
    ("hows", "fired"),
    [
        (["two of a name"], [2]),
        (["tell and set"], []),
        (["set and wait"], []),
        (["wait then cancel", "late"], []),
        (["three"], []),
    ],
)
def test_timers_that_are_replaced_or_cancelled_never_fire(backend: Backend, hows: list[str], fired: list[int]) -> None:
    """One that was set in the turn that also told oneself was cancelled before it had arrived, and fired all the same."""
    store = MemoryStore()

    async def scenario() -> None:
        world["slow"] = 5.0
        async with runtime(Alarm, store=store) as opened:
            alarm = opened.at(Alarm, "a")
            for how in hows:
                assert await alarm.ask(Poke(how), within="1m") == "set"
            await anyio.sleep(30)
            assert await alarm.ask(Read()) == fired
            left = (await loaded(store, "Alarm", "a")).mailbox
            assert len(left) == (3 if hows == ["three"] else 0)

    virtual(backend, scenario)


@both
def test_timers_take_no_places_in_the_mailbox(backend: Backend) -> None:
    """Rule 39: with as many timers as places, nobody could say anything any more."""

    async def scenario() -> None:
        async with runtime(Alarm) as opened:
            assert await opened.at(Alarm, "a").ask(Poke("three")) == "set"
            assert await opened.at(Alarm, "a").ask(Poke()) == "set"

    virtual(backend, scenario)


# --- operators and deploys -----------------------------------------------------------------------------------------------


@both
def test_an_actor_paused_in_an_open_turn_goes_on_with_it_when_it_is_resumed(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Busy) as opened:
            world["slow"] = 5.0
            busy = opened.at(Busy, "b")
            await busy.tell(Poke(), key="a")
            await busy.tell(Note(10), key="b")
            await anyio.sleep(1)
            await busy.pause()
            await busy.tell(Note(100), key="c")
            await anyio.sleep(100)
            assert seen == [1]
            with pytest.raises(ActorPaused):
                await busy.ask(Read())
            await busy.resume()
            await anyio.sleep(1)
            assert seen == [1]
            assert await busy.ask(Read()) == [111]

    virtual(backend, scenario)


class TellsNew(Actor):
    told: int = 0

    @handler
    async def poke(self, m: Poke) -> str:
        self.told += 1
        await Log.at(m.how).tell(Note(self.told))
        return str(self.told)

    async def on_stop(self) -> None:
        seen.append("stopped")


class SlowReads(MemoryStore):
    """A store whose reads take a while."""

    async def find(self, address: Address) -> Any:
        await anyio.sleep(world.get("read_s", 0.0))
        return await super().find(address)


@both
def test_pausing_or_closing_while_a_turn_looks_for_its_receivers_keeps_it_whole(backend: Backend) -> None:
    """The fields were written without the message's end, by `on_stop`; and a paused row was said to wait."""
    store = SlowReads()

    async def scenario() -> None:
        async with runtime(TellsNew, Log, store=store, limits=Limits(drain_s=1.0)) as opened:
            await opened.at(TellsNew, "t").ask(Poke("one"))
            world["read_s"] = 3.0
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: opened.at(TellsNew, "t").tell(Poke("two"), key="two"))
                await anyio.sleep(1)
                await opened.at(TellsNew, "t").pause()
            await anyio.sleep(20)
            assert (await loaded(store, "TellsNew", "t")).run.status == "paused"
            await opened.at(TellsNew, "t").resume()
            await anyio.sleep(20)
            await opened.at(TellsNew, "t").tell(Poke("three"), key="three")
            await anyio.sleep(1)
        world["read_s"] = 0.0
        async with runtime(TellsNew, Log, store=store) as opened:
            assert await opened.at(TellsNew, "t").ask(Poke("four")) == "4"
            await anyio.sleep(1)
            assert [await opened.at(Log, n).ask(Read()) for n in ("one", "two", "three", "four")] == [[1], [2], [3], [4]]

    virtual(backend, scenario)


@both
def test_a_state_that_todays_class_cannot_read_sets_its_actor_aside_with_its_mail(backend: Backend) -> None:
    """E4, G5."""

    store = MemoryStore()

    async def scenario() -> None:
        class Before(Actor, kind="Changed"):
            n: str = "text"

            @handler
            async def poke(self, m: Poke) -> str:
                self.n += "!"
                return self.n

        class After(Actor, kind="Changed"):
            n: int = 0

            @handler
            async def poke(self, m: Poke) -> str:
                return str(self.n)

        async with runtime(Before, store=store) as opened:
            assert await opened.at(Before, "c").ask(Poke()) == "text!"
        async with runtime(After, Busy, store=store) as opened:
            with pytest.raises(Exception, match=r"undecodable|cannot be read|Changed"):
                await opened.at(After, "c").ask(Poke(), key="k", within="10s")
            await opened.at(After, "c").tell(Poke(), key="kept")
            assert await opened.at(Busy, "b").ask(Read()) == [0]
            assert (await opened.at(After, "c").status()).status == "paused"
        async with runtime(Before, store=store) as opened:
            await opened.at(Before, "c").resume()
            assert (await opened.at(Before, "c").ask(Poke(), key="last")).startswith("text!!")

    virtual(backend, scenario)


@both
def test_a_kind_that_becomes_one_of_workflows_or_was_one_is_not_taken_for_it(backend: Backend) -> None:
    """E3, P8: the other class read the fields, and ran."""
    store = MemoryStore()

    async def scenario() -> None:
        class Thing(Actor, kind="Thing"):
            n: int = 0

            @handler
            async def poke(self, m: Poke) -> str:
                self.n += 1
                return str(self.n)

        class Job(Workflow[int], kind="Thing"):
            n: int = 0

            async def run(self) -> int:
                seen.append("ran")
                await self.sleep("1h")
                return self.n

        async with runtime(Thing, store=store) as opened:
            assert await opened.at(Thing, "t").ask(Poke()) == "1"
            await opened.at(Thing, "t").tell(Poke(), after="10s")
        async with runtime(Job, store=store) as opened:
            await anyio.sleep(100)
            assert not seen
            status = await opened.at(Thing, "t").status()
            assert (status.status, status.reason) == ("paused", "unregistered")
            assert "made as an actor" in str(status.report)
            await opened.start(Job(), key="j")
            await anyio.sleep(1)
        async with runtime(Thing, store=store) as opened:
            await opened.at(Thing, "j").tell(Poke())
            await anyio.sleep(1)
            assert (await opened.at(Thing, "j").status()).reason == "unregistered"
            await opened.at(Thing, "t").resume()
            assert await opened.at(Thing, "t").ask(Poke()) == "3"

    virtual(backend, scenario)


@both
def test_answers_are_forgotten_after_the_retention_of_their_class(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        class Kept(Actor, retention="1h"):
            n: int = 0

            @handler
            async def poke(self, m: Poke) -> str:
                self.n += 1
                return str(self.n)

        async with runtime(Kept, store=store) as opened:
            kept = opened.at(Kept, "k")
            assert await kept.ask(Poke(), key="a") == "1"
            await anyio.sleep(1_000)
            assert await kept.ask(Poke(), key="a") == "1"
            await anyio.sleep(4_000)
            assert await kept.ask(Poke(), key="b") == "2"
            assert await kept.ask(Poke(), key="a") == "3"
            assert len(store._memory.messages) == 2

    virtual(backend, scenario)


# --- crashes of the process ------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends the process, as a segmentation fault would."""


class Poison(Actor):
    starts: int = 0

    async def on_start(self) -> None:
        self.starts += 1

    @handler
    async def poke(self, m: Poke) -> str:
        if m.how == "kill":
            world["store"].kill()
            raise Killed
        return m.how


class MortalStore(MemoryStore):
    """Nothing that a dead process does reaches it."""

    dead = False

    def kill(self) -> None:
        self.dead = True

    async def commit(self, batch: Any, *, fence: int) -> Any:
        if self.dead:
            raise Killed
        return await super().commit(batch, fence=fence)


@both
def test_a_message_that_kills_its_process_is_set_aside_after_a_few_crashes(backend: Backend) -> None:
    """R15, rule 20. `on_start` was a recorded success in between, so nothing was ever counted."""
    first = MemoryStore()

    async def life() -> None:
        store = world["store"] = MortalStore(share=first)
        try:
            async with runtime(Poison, Busy, store=store) as opened:
                if world.setdefault("lives", 0) == 0:
                    await opened.at(Poison, "p").tell(Poke("fine"), key="fine")
                    await opened.at(Poison, "p").tell(Poke("kill"), key="kill")
                world["lives"] += 1
                await anyio.sleep(30)
                world["answer"] = await opened.at(Busy, "b").ask(Poke())
                world["status"] = await opened.at(Poison, "p").status()
                await opened.at(Poison, "p").tell(Poke("later"), key="later")
        except BaseException:
            if not store.dead:
                raise

    async def scenario() -> None:
        for _ in range(8):
            await life()
            if "answer" in world:
                break
        assert world["answer"] == "done"
        assert world["lives"] <= 6
        assert (world["status"].status, world["status"].reason) == ("paused", "interrupted")

    virtual(backend, scenario)


@both
def test_an_actor_that_waits_is_not_blamed_for_crashes_of_its_process(backend: Backend) -> None:
    """One that had a timer and was looked at stayed "running", and three power cuts set it aside."""
    first = MemoryStore()

    async def scenario() -> None:
        for life in range(6):
            store = MortalStore(share=first)
            try:
                async with runtime(Alarm, store=store) as opened:
                    if life == 0:
                        await opened.at(Alarm, "a").ask(Poke("three"))
                    assert await opened.at(Alarm, "a").ask(Read()) == []
                    await anyio.sleep(1)
                    store.kill()
                    await opened.at(Alarm, "b").ask(Poke())
            except BaseException:
                if not store.dead:
                    raise
        run = (await loaded_raw(first, "Alarm", "a")).run
        assert (run.status, run.crashes) == ("waiting", 0)

    virtual(backend, scenario)


async def loaded_raw(store: MemoryStore, kind: str, key: str) -> Loaded:
    """The rows as they are, without opening the store, which would count a crash."""
    look = MemoryStore(share=store)
    look._opened = True
    return await loaded(look, kind, key)


# --- watching ------------------------------------------------------------------------------------------------------------


class Watcher(Actor):
    ends: list[str] = field(factory=list[str])

    @handler
    async def poke(self, m: Poke) -> str:
        self.watch(Busy.at("b"))
        self.watch(Busy.at("b"))
        return "watching"

    @handler
    async def ended(self, m: Terminated) -> None:
        self.ends.append(m.status)

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [len(self.ends)]


@both
def test_an_actor_can_be_watched_twice_and_again_after_it_was_resumed(backend: Backend) -> None:
    """The second watch of one turn was refused by the store for ever; the one after a pause was taken for the old one."""

    async def scenario() -> None:
        async with runtime(Watcher, Busy) as opened:
            watcher, busy = opened.at(Watcher, "w"), opened.at(Busy, "b")
            for round_ in (1, 2):
                assert await watcher.ask(Poke()) == "watching"
                await busy.pause()
                await anyio.sleep(1)
                assert await watcher.ask(Read()) == [2 * round_ - 1]
                assert await watcher.ask(Poke()) == "watching"  # It is gone already: told at once.
                await anyio.sleep(1)
                seen.append(await watcher.ask(Read()))
                await busy.resume()
            assert seen == [[2], [4]]

    virtual(backend, scenario)


# --- mailboxes -------------------------------------------------------------------------------------------------------------


class Tiny(Busy, mailbox=2): ...


class Flood(Actor):
    @handler(timeout="10m")
    async def poke(self, m: Poke) -> str:
        refused = 0
        for n in range(5):
            try:
                await Tiny.at("t").tell(Note(n))
            except MailboxFull:
                refused += 1
        return str(refused)


@both
def test_the_mailbox_of_a_paused_actor_is_bounded_for_actors_too(backend: Backend) -> None:
    """It took all that actors told it, without end. What finds no room when the turn ends is a dead letter with its event."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Flood, Tiny, store=store) as opened:
            await opened.at(Tiny, "t").tell(Note(1))
            await opened.at(Tiny, "t").pause()
            for n in range(3):
                await opened.at(Flood, "f").ask(Poke(), key=str(n), within="1m")
            waiting = (await loaded(store, "Tiny", "t")).mailbox
            assert len(waiting) == 2
            letters = await store.dead_letters()
            assert len(letters) == 13
            for letter in letters:
                assert await store.death(letter.run, letter.id) is not None

    virtual(backend, scenario)


class Lossy(Busy, mailbox=2, overflow="drop_oldest"): ...


@both
def test_repeating_a_key_at_a_full_mailbox_drops_nobody(backend: Backend) -> None:
    """The commit was refused as a repetition, and the message that was to be dropped was forgotten by its actor."""

    async def scenario() -> None:
        async with runtime(Lossy) as opened:
            world["slow"] = 10.0
            lossy = opened.at(Lossy, "l")
            await lossy.tell(Poke(), key="a")
            await anyio.sleep(1)
            await lossy.tell(Note(10), key="b")
            await lossy.tell(Note(10), key="b")
            await anyio.sleep(60)
            assert await lossy.ask(Read()) == [11]

    virtual(backend, scenario)


# --- what piles up ---------------------------------------------------------------------------------------------------------


@both
def test_to_load_an_actor_does_not_grow_with_what_it_has_handled(backend: Backend) -> None:
    """All that it had ever handled was in the round that is loaded."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Log, store=store) as opened:
            for n in range(1_000):
                await opened.at(Log, "l").tell(Note(0), key=str(n) if n % 100 == 0 else None)
            await anyio.sleep(1)
            run = (await loaded(store, "Log", "l")).run
            of_round = [e for e in await store.history(run.id, limit=10_000) if e.entry.round == run.round]
            assert len(of_round) <= 256 + 64
            assert (await loaded(store, "Log", "l")).entries == []

    virtual(backend, scenario)


def test_kinds_of_the_system_cannot_be_taken() -> None:
    with pytest.raises(BadDefinition, match="of the system"):

        class _Timer(Actor, kind="~timer"): ...
