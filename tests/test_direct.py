"""Asks that take one commit: what an actor that is free is asked is accepted, handled and answered together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import field

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    AskTimeout,
    Fatal,
    HandlerFailed,
    Limits,
    Message,
    Runtime,
    StoreError,
    StoreUnavailable,
    handler,
    step,
)
from actorflow.records import Commit, Entry, Envelope, Refusal, Rejected
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault, FaultStore
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes
from tests.harness import both, did, life, runtime, virtual


class Add(Message[int]):
    n: int
    seq: int = 0


class Slow(Message[int]):
    n: int


class Fail(Message[int]):
    times: int


class Later(Message[int]): ...


class Open(Message[None]): ...


class Total(Message[int]): ...


class Break(Message[int]): ...


@step
async def work(n: int) -> int:
    effect()
    await anyio.sleep(1)
    return n


@step
async def worked(n: int) -> int:
    did.append(("worked", n))
    await anyio.sleep(10)
    return n


class Counter(Actor):
    """Knows what it has had, as a client without a key cannot."""

    total: int = 0
    had: list[int] = field(factory=list[int])
    open: bool = False

    @handler
    async def add(self, m: Add) -> int:
        if m.seq in self.had:
            raise Abort(f"had {m.seq}")
        if m.seq:
            self.had.append(m.seq)
        self.total += m.n
        return self.total

    @handler
    async def slow(self, m: Slow) -> int:
        self.total += await worked(m.n)
        return self.total

    @handler
    async def fail(self, m: Fail) -> int:
        did.append("tried")
        if did.count("tried") <= m.times:
            raise OSError("not yet")
        return self.total

    @handler
    async def later(self, m: Later) -> int:
        if not self.open:
            self.stash(m)
            return 0
        return self.total

    @handler(Total, readonly=True)
    async def read(self, m: Total) -> int:
        return self.total

    @handler
    async def broken(self, m: Break) -> int:
        raise Fatal("never")

    @handler
    async def on_open(self, m: Open) -> None:
        self.open = True
        self.unstash()


class Watched(FaultStore):
    """Remembers the writes of each batch, and refuses what it is told to."""

    def __init__(self, store: Any, faults: Sequence[Fault] = ()) -> None:
        super().__init__(store, faults)
        self.written: list[Sequence[Commit]] = []
        self.refuses, self.refuses_after_s = False, 0.0

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        self.written.append(batch)
        if self.refuses:
            self.refuses = False
            await anyio.sleep(self.refuses_after_s)
            for commit in batch:
                if commit.chain is not None:
                    commit.chain.broken = True
            return [Rejected("says the test") for _ in batch]
        return await super().commit(batch, fence=fence)

    def kinds(self) -> list[str]:
        """What was written, by kind: one word a write."""
        writes = [write for batch in self.written for commit in batch for write in commit.writes]
        return [write.kind if isinstance(write, Entry) else type(write).__name__ for write in writes]

    def forget(self) -> None:
        self.written.clear()


async def proven(opened: Runtime, key: str = "c") -> Any:
    """An actor that has handled a message in this life: it is not the one that ends the process."""
    counter = opened.at(Counter, key)
    await counter.ask(Add(0))
    return counter


async def letters(opened: Runtime) -> list[str]:
    return [letter.type.rpartition(":")[2] for letter in (await opened.dead_letters(None)).letters]


@both
def test_an_actor_that_is_free_accepts_handles_and_answers_in_one_commit_without_a_row_of_the_message(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            store.forget()

            assert await counter.ask(Add(5)) == 5

            assert len(store.written) == 1
            assert "Envelope" not in store.kinds()
            [event] = [event for event in await counter.history() if event.kind == "handled"][-1:]
            assert (":Add" in event.call, event.input, event.outcome) == (True, '{"n":5,"seq":0}', "5")

    virtual(backend, scenario)


@both
def test_the_first_message_of_a_life_is_accepted_before_it_is_handled(backend: Backend) -> None:
    """It may be the one that ends the process: how often it did is counted."""
    memory = MemoryStore()

    async def scenario() -> None:
        async with runtime(Counter, store=MemoryStore(share=memory)) as opened:
            await proven(opened)
        store = Watched(MemoryStore(share=memory))
        async with runtime(Counter, store=store) as opened:
            counter = opened.at(Counter, "c")
            assert await counter.ask(Total()) == 0  # It is in memory, and has handled nothing.
            store.forget()
            await counter.ask(Add(1))
            kinds = store.kinds()
            assert "Envelope" in kinds[: kinds.index("handled")]
            assert len(store.written) == 2

    virtual(backend, scenario)


@both
def test_what_is_asked_while_a_batch_is_written_is_handled_together(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            store.forget()
            answers: list[int] = []

            async def client() -> None:
                answers.append(await counter.ask(Add(1)))

            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(client)

            assert sorted(answers) == list(range(1, 51))
            assert len(store.written) <= 2
            assert store.kinds().count("SetRound") <= 2

    virtual(backend, scenario)


@both
def test_with_a_key_it_is_accepted_first_and_repeated_without_effect(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            store.forget()

            assert await counter.ask(Add(5), key="k") == 5
            assert await counter.ask(Add(5), key="k") == 5
            assert "Envelope" in store.kinds()

    virtual(backend, scenario)


@both
def test_a_turn_that_waits_accepts_the_message_so_the_next_process_finishes_it(backend: Backend) -> None:
    memory = MemoryStore()

    async def first(opened: Runtime) -> None:
        counter = await proven(opened)
        with pytest.raises(AskTimeout):
            await counter.ask(Slow(7), within="2s")
        await anyio.sleep_forever()

    async def second(opened: Runtime) -> int:
        return int(await opened.at(Counter, "c").ask(Add(1), within="1m"))

    async def scenario() -> None:
        await life(memory, Counter, script=first, cut_s=5)
        assert await life(memory, Counter, script=second) == 8
        assert did == [("worked", 7), ("worked", 7)]

    virtual(backend, scenario)


@both
def test_a_turn_that_fails_for_now_is_tried_again_also_by_the_next_process(backend: Backend) -> None:
    memory = MemoryStore()

    async def first(opened: Runtime) -> None:
        counter = await proven(opened)
        await counter.ask(Fail(1), within="1h")

    async def second(opened: Runtime) -> int:
        return int(await opened.at(Counter, "c").ask(Add(1), within="1m"))

    async def scenario() -> None:
        await life(memory, Counter, script=first, cut_s=0.001)
        assert did == ["tried"]
        await life(memory, Counter, script=second)
        assert did == ["tried", "tried"]

    virtual(backend, scenario)


@both
def test_a_message_that_is_given_up_is_a_dead_letter_and_can_be_sent_again(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            counter = await proven(opened)
            with pytest.raises(Exception, match="not yet"):
                await counter.ask(Fail(3), within="1h")
            assert await letters(opened) == ["Fail"]

            [letter] = (await opened.dead_letters(None)).letters
            await opened.resend(letter.id)
            await anyio.sleep(60)

            assert await letters(opened) == []
            assert did == ["tried"] * 4

    virtual(backend, scenario)


@both
def test_a_message_that_fails_for_good_is_a_dead_letter_at_once(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            counter = await proven(opened)
            with pytest.raises(Fatal):
                await counter.ask(Break())
            assert await letters(opened) == ["Break"]

    virtual(backend, scenario)


@both
def test_what_is_stashed_is_accepted_and_answered_after_a_restart(backend: Backend) -> None:
    memory = MemoryStore()

    async def first(opened: Runtime) -> None:
        counter = await proven(opened)
        with pytest.raises(AskTimeout):
            await counter.ask(Later(), within="1s")

    async def second(opened: Runtime) -> int:
        await opened.at(Counter, "c").tell(Open())
        await anyio.sleep(1)
        return len([e for e in await opened.at(Counter, "c").history() if e.kind == "handled" and ":Later" in e.call])

    async def scenario() -> None:
        await life(memory, Counter, script=first)
        assert await life(memory, Counter, script=second) == 1

    virtual(backend, scenario)


@both
def test_whose_commit_is_refused_asks_again_the_usual_way(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            store.refuses = True
            answers: list[int] = []

            with suppress(AskTimeout):
                answers.append(await counter.ask(Add(5), within="1m"))

            assert answers == [5]
            assert await counter.ask(Add(0)) == 5

    virtual(backend, scenario)


@both
@pytest.mark.parametrize("message", [Slow(7), Fail(3), Later()], ids=["waits", "fails", "is stashed"])
def test_a_refused_turn_that_had_accepted_its_message_leaves_nothing_of_it(backend: Backend, message: Message[int]) -> None:
    """The asker is told, and asks the usual way: it is handled once more, from the beginning."""

    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            store.refuses = True
            with suppress(AskTimeout, HandlerFailed):
                await counter.ask(message, within="1m")
            await anyio.sleep(100)
            rows = [message for message in store.store._data.messages.values() if message.state == "pending"]  # type: ignore[attr-defined]
            assert len(rows) == (1 if isinstance(message, Later) else 0)
            assert await counter.ask(Add(1), within="1m") == (8 if isinstance(message, Slow) else 1)

    virtual(backend, scenario)


@both
def test_an_actor_that_is_paused_before_it_has_handled_the_message_refuses_it(backend: Backend) -> None:
    async def scenario() -> None:
        store = FaultStore(MemoryStore(), [])
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            refused: list[BaseException] = []

            async def ask() -> None:
                try:
                    await counter.ask(Add(1), within="1m")
                except ActorPaused as error:
                    refused.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(counter.pause)
                for _ in range(3):
                    group.start_soon(ask)

            assert len(refused) == 3
            await counter.resume()
            assert await counter.ask(Add(0)) == 0

    virtual(backend, scenario)


@both
def test_who_asks_while_the_service_leaves_is_told_so(backend: Backend) -> None:
    async def scenario() -> None:
        told: list[BaseException] = []

        async def ask(counter: Any) -> None:
            try:
                while True:
                    await counter.ask(Add(1), within="1m")
                    await anyio.sleep(0.001)
            except Exception as error:
                told.append(error)

        async with anyio.create_task_group() as group, runtime(Counter) as opened:
            counter = await proven(opened)
            for _ in range(5):
                group.start_soon(ask, counter)
            await anyio.sleep(0.01)
        assert [isinstance(error, StoreError) for error in told] == [True] * 5, told

    virtual(backend, scenario)


@both
def test_an_ask_that_comes_too_late_in_its_mailbox_is_not_handled(backend: Backend) -> None:
    async def scenario() -> None:
        store = FaultStore(MemoryStore(), [Fault(at, "delay", 5.0) for at in range(5, 9)])
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            for _ in range(5):
                with suppress(AskTimeout):
                    await counter.ask(Add(100), within="1s")
            total = await counter.ask(Add(0), within="1h")
            handled = [event for event in await counter.history() if event.kind == "handled" and event.status == "ok"]
            assert total == 100 * (len(handled) - 2)

    virtual(backend, scenario)


@both
def test_a_full_mailbox_bounds_what_is_asked_directly_too(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter, limits=Limits(mailbox_depth_max=10)) as opened:
            counter = await proven(opened)
            refused: list[str] = []

            async def ask() -> None:
                try:
                    await counter.ask(Add(1), within="1m")
                except Exception as error:
                    refused.append(type(error).__name__)

            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(ask)

            assert set(refused) == {"MailboxFull"}
            assert await counter.ask(Add(0)) == 40 - len(refused)

    virtual(backend, scenario)


@both
def test_while_the_store_takes_nothing_who_asks_is_refused_at_once(backend: Backend) -> None:
    async def scenario() -> None:
        faults = [Fault(at, "unavailable") for at in range(4, 12)]
        store = FaultStore(MemoryStore(), faults)
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: counter.ask(Add(1), within="1h"))  # Under way when it begins: it waits.
                await anyio.sleep(0.01)
                began = anyio.current_time()
                assert opened._running().committer.unavailable is not None
                with pytest.raises(StoreUnavailable):
                    await counter.ask(Add(10), within="1h")
                assert anyio.current_time() == began
            assert await counter.ask(Add(0)) == 1

    virtual(backend, scenario)


@both
def test_who_asks_again_the_usual_way_has_the_time_that_is_left(backend: Backend) -> None:
    """What is handled when its asker has gone would be a surprise: it expires with the ask."""

    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Counter, store=store) as opened:
            counter = await proven(opened)
            store.forget()
            store.refuses, store.refuses_after_s = True, 3.0

            assert await counter.ask(Add(5), within="10s") == 5

            writes = [write for batch in store.written for commit in batch for write in commit.writes]
            [message] = [write for write in writes if isinstance(write, Envelope)]
            assert message.expires_at is not None
            assert message.expires_at - message.sent_at == pytest.approx(7.0)

    virtual(backend, scenario)


@both
def test_nothing_is_kept_of_messages_that_were_answered(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Counter) as opened:
            counter = await proven(opened)
            for n in range(30):
                await counter.ask(Add(n))
            await counter.ask(Add(1, seq=1))
            with pytest.raises(Abort):
                await counter.ask(Add(1, seq=1))
            await counter.ask(Slow(1), within="1m")
            assert opened._running().by_address[counter.address].mailbox.reserved == 0
            direct = opened._running().direct
            assert [len(kept) for kept in (opened._running().replies, direct._taken, direct._unwritten, direct._ready)] == [0] * 4

    virtual(backend, scenario)


# --- crashes -----------------------------------------------------------------------------------------------------------


class Working(Actor):
    """Each number once, whoever repeats it; every third takes a step."""

    total: int = 0
    had: list[int] = field(factory=list[int])

    @handler
    async def add(self, m: Add) -> int:
        if m.seq in self.had:
            return -1
        self.had.append(m.seq)
        self.total += m.n if m.seq % 3 else await work(m.n)
        return self.total


@both
def test_over_any_crash_what_was_answered_counts_once(backend: Backend) -> None:
    """P3, P4 for asks without a key: the answer of one whose process died is lost, what it did is not done twice."""

    async def script(opened: Runtime, world: World) -> Any:
        working = opened.at(Working, "w")
        async with anyio.create_task_group() as group:
            for seq in range(1, 7):
                group.start_soon(lambda seq=seq: working.ask(Add(10**seq, seq), within="1h"))  # type: ignore[misc]
        return await working.ask(Add(0, seq=99), within="1h") in (1_111_110, -1)

    assert enumerate_crashes(Scenario(name="direct", actors=[Working], script=script), backend, seed=3) > 0
