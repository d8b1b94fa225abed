"""Asks that take one commit: what a free actor or a waiting run is asked is accepted, taken and answered together."""

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
    MailboxFull,
    Message,
    RunEnded,
    Runtime,
    StoreError,
    StoreUnavailable,
    Workflow,
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
            assert nothing_is_kept(opened)

    virtual(backend, scenario)


class Lossy(Actor, mailbox=2, overflow="drop_oldest"):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total


@both
@pytest.mark.parametrize("refused", [False, True])
def test_one_that_is_dropped_before_it_was_accepted_is_a_dead_letter_like_any_other(backend: Backend, refused: bool) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore(), [Fault(4, "delay", 5.0)])
        async with runtime(Lossy, store=store) as opened:
            lossy = opened.at(Lossy, "l")
            told: dict[int, object] = {}

            async def client(n: int) -> None:
                try:
                    told[n] = await lossy.ask(Add(n), within="1m")
                except Exception as error:
                    told[n] = type(error)

            await lossy.ask(Add(0))
            async with anyio.create_task_group() as group:
                for n in (1, 10, 100, 1_000):  # The first is being written when the others come; there is room for two.
                    group.start_soon(client, n)
                    await anyio.sleep(0.1)
                store.refuses = refused
            if refused:  # What was to be dropped for the last one is not.
                assert set(told) == {1, 10, 100, 1_000}
            else:
                assert told == {1: 1, 10: MailboxFull, 100: 101, 1_000: 1_101}
                assert await letters(opened) == ["Add"]
            assert nothing_is_kept(opened)
            assert not opened._running().cast.dropping

    virtual(backend, scenario)


# --- runs that wait ----------------------------------------------------------------------------------------------------


class Enough(Message[None]): ...


class Odd(Message[int]):
    n: int


class Desk(Workflow[int]):
    """Adds up what it is asked to, until it is told that it is enough."""

    async def run(self) -> int:
        total = 0
        while True:
            match await self.receive(Add, Slow, Odd, Enough, where=lambda m: not isinstance(m, Odd) or 10 // m.n > 0):
                case Add() as asked:
                    total += asked.n
                    self.reply(asked, total)
                case Slow() as asked:
                    total += await worked(asked.n)
                    self.reply(asked, total)
                case Odd() as asked:
                    self.reply(asked, (await self.receive(Odd, where=lambda m: m.n == asked.n)).n)
                case _:
                    return total


async def desk(opened: Runtime, key: str = "d") -> Any:
    """One that waits to be asked."""
    run = await opened.start(Desk(), key=key)
    await anyio.sleep(0.01)
    return run


async def shown(run: Any) -> list[tuple[str, str, str | None]]:
    return [(event.kind, event.call, event.outcome) for event in await run.history()]


@both
def test_a_run_that_waits_takes_and_answers_in_one_commit_without_a_row_of_the_message(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Desk, store=store) as opened:
            run = await desk(opened)
            store.forget()

            assert [await run.ask(Add(5)), await run.ask(Add(2))] == [5, 7]

            assert store.kinds() == ["receive", "reply"] * 2
            assert len(store.written) == 2

    virtual(backend, scenario)


@both
def test_its_history_is_as_if_the_messages_had_been_accepted_first(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Desk) as opened:
            direct, usual = await desk(opened, "direct"), await desk(opened, "usual")
            for number, ask in enumerate([Add(1), Slow(2), Add(3)]):
                assert await direct.ask(ask, within="1m") == await usual.ask(ask, within="1m", key=f"k{number}")
            for run in (direct, usual):
                await run.tell(Enough())
                assert await run.result() == 6
            assert await shown(direct) == await shown(usual)

    virtual(backend, scenario)


@both
def test_what_a_run_is_asked_while_a_batch_is_written_it_answers_together(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Desk, store=store) as opened:
            run = await desk(opened)
            answers: list[int] = []

            async def client() -> None:
                answers.append(await run.ask(Add(1)))
                answers.append(await run.ask(Add(1)))

            store.forget()
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(client)

            assert sorted(answers) == list(range(1, 41))
            assert [store.kinds().count(kind) for kind in ("receive", "reply", "Envelope")] == [40, 40, 0]
            assert len(store.written) < 10

    virtual(backend, scenario)


@both
def test_what_a_run_answers_later_is_accepted_when_it_is_taken(backend: Backend) -> None:
    """Its number is given to no other message: the answer goes to nobody else, in whichever process."""
    memory = MemoryStore()

    async def first(opened: Runtime) -> None:
        run = await desk(opened)
        assert await run.ask(Add(1)) == 1
        with pytest.raises(AskTimeout):
            await run.ask(Slow(7), within="2s")
        await anyio.sleep_forever()

    async def second(opened: Runtime) -> list[int]:
        run = opened.at(Desk, "d")
        answers: list[int] = []

        async def client(n: int) -> None:
            answers.append(await run.ask(Add(n), within="1m"))

        async with anyio.create_task_group() as group:
            for n in (100, 1_000):
                group.start_soon(client, n)
        return answers

    async def scenario() -> None:
        await life(memory, Desk, script=first, cut_s=5)
        assert max(await life(memory, Desk, script=second)) == 1108
        assert did == [("worked", 7), ("worked", 7)]

    virtual(backend, scenario)


@both
def test_what_a_run_does_not_take_is_accepted_the_usual_way_and_waits(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Desk, store=store) as opened:
            run = await desk(opened)
            answers: list[int] = []

            async def client(n: int) -> None:
                answers.append(await run.ask(Odd(n), within="1m"))

            async with anyio.create_task_group() as group:
                group.start_soon(client, 1)
                await anyio.sleep(1)  # From here on it wants another one like that, and nothing else.
                store.forget()
                group.start_soon(client, 2)
                await anyio.sleep(1)
                assert store.kinds() == ["Envelope", "Wake"]
                with pytest.raises(AskTimeout):
                    await run.ask(Add(1), within="1s")
                store.forget()
                await run.tell(Odd(1))
                await anyio.sleep(1)
                assert answers == [1]
                group.cancel_scope.cancel()
            # The second of them was taken then; what timed out waits.
            rows: dict[int, Envelope] = store.store._data.messages  # type: ignore[attr-defined]
            assert [row.type.rpartition(":")[2] for row in rows.values() if row.state == "pending"] == ["Add"]

    virtual(backend, scenario)


@both
def test_what_was_sent_before_is_taken_before(backend: Backend) -> None:
    """P5: a tell that is on its way, and an ask that would be quicker."""

    async def scenario() -> None:
        async with runtime(Desk, store=FaultStore(MemoryStore(), [Fault(3, "delay", 5.0)])) as opened:
            run = await desk(opened)
            async with anyio.create_task_group() as group:
                group.start_soon(run.tell, Add(10))
                await anyio.sleep(1)
                assert await run.ask(Add(1), within="1m") == 11

    virtual(backend, scenario)


@both
def test_a_message_that_a_run_cannot_judge_pauses_it_and_is_not_kept(backend: Backend) -> None:
    """Its asker sees the report; the next one is taken as if nothing had been."""

    async def scenario() -> None:
        async with runtime(Desk) as opened:
            run = await desk(opened)
            with pytest.raises(ActorPaused, match="ZeroDivisionError"):
                await run.ask(Odd(0), within="1m")
            await run.resume()
            assert await run.ask(Add(3)) == 3

    virtual(backend, scenario)


@both
def test_who_asks_a_run_that_ends_over_it_is_told_so(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Desk, store=FaultStore(MemoryStore(), [Fault(3, "delay", 5.0)])) as opened:
            run = await desk(opened)
            told: dict[Message[Any], object] = {}

            async def client(ask: Message[Any]) -> None:
                try:
                    told[ask] = await run.ask(ask, within="1m")
                except RunEnded as error:
                    told[ask] = type(error)

            async with anyio.create_task_group() as group:
                for ask in (Add(1), Enough(), Add(2), Add(3)):  # The first is being written while the others come.
                    group.start_soon(client, ask)
                    await anyio.sleep(0.1)
            assert told == {Add(1): 1, Enough(): None, Add(2): RunEnded, Add(3): RunEnded}
            assert await run.result() == 1
            assert nothing_is_kept(opened)

    virtual(backend, scenario)


@both
def test_a_run_whose_commit_is_refused_is_asked_again(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Desk, store=store) as opened:
            run = await desk(opened)
            for ask, answer in ((Add(5), 5), (Slow(7), 12)):
                store.refuses = True
                assert await run.ask(ask, within="1m") == answer
            assert await run.ask(Add(0)) == 12
            assert nothing_is_kept(opened)

    virtual(backend, scenario)


@both
def test_a_message_that_was_taken_is_not_asked_again_when_its_answer_is_refused(backend: Backend) -> None:
    async def scenario() -> None:
        store = Watched(MemoryStore())
        async with runtime(Desk, store=store) as opened:
            run = await desk(opened)
            answers: list[int] = []

            async def client() -> None:
                answers.append(await run.ask(Slow(7), within="1m"))

            async with anyio.create_task_group() as group:
                group.start_soon(client)
                await anyio.sleep(9.9)
                store.refuses = True
            assert answers == [7]
            assert [kind for kind, *_ in await shown(run)].count("receive") == 1
            assert await run.ask(Add(0)) == 7

    virtual(backend, scenario)


@both
def test_while_a_run_is_paused_or_left_who_asks_it_is_told_so(backend: Backend) -> None:
    async def scenario() -> None:
        told: list[str] = []

        async def ask(run: Any) -> None:
            try:
                await run.ask(Add(1), within="1m")
            except Exception as error:
                told.append(type(error).__name__)

        async with runtime(Desk) as opened:
            run = await desk(opened)
            async with anyio.create_task_group() as group:
                group.start_soon(run.pause)
                for _ in range(3):
                    group.start_soon(ask, run)
            assert told == ["ActorPaused"] * 3
            await run.resume()
            assert await run.ask(Add(0)) == 0
            async with anyio.create_task_group() as group:
                group.start_soon(run.cancel)
                for _ in range(3):
                    group.start_soon(ask, run)
            assert set(told[3:]) <= {"RunEnding", "RunEnded"}
            assert len(told) == 6
            assert nothing_is_kept(opened)

    virtual(backend, scenario)


@both
def test_an_ask_that_is_given_up_leaves_nothing_behind(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Desk) as opened:
            run = await desk(opened)
            with anyio.move_on_after(1):
                await run.ask(Slow(7), within="1m")
            async with anyio.create_task_group() as group:
                group.start_soon(run.ask, Add(1))
                group.cancel_scope.cancel()
            await anyio.sleep(60)
            assert await run.ask(Add(0)) in (7, 8)
            assert nothing_is_kept(opened)

    virtual(backend, scenario)


@both
def test_a_run_that_leaves_memory_is_asked_the_usual_way(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Desk, limits=Limits(resident_max=1, passivate_after_s=0.5)) as opened:
            runs = [await desk(opened, f"d{n}") for n in range(4)]
            for n in range(12):
                assert await runs[n % 4].ask(Add(1)) == n // 4 + 1
            await anyio.sleep(5)
            assert await runs[0].ask(Add(1)) == 4
            assert nothing_is_kept(opened)

    virtual(backend, scenario)


def nothing_is_kept(opened: Runtime) -> bool:
    host = opened._running()
    return [len(kept) for kept in (host.replies, host.direct._taken, host.direct._unwritten, host.direct._ready)] == [0] * 4


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


class Counting(Workflow[int]):
    """Each number once, whoever repeats it; every third takes a step. The last one ends it."""

    async def run(self) -> int:
        total, had = 0, list[int]()
        while True:
            asked = await self.receive(Add)
            if asked.seq == LAST:
                self.reply(asked, total)
                return total
            if asked.seq in had:
                self.reply(asked, -1)
                continue
            had.append(asked.seq)
            total += asked.n if asked.seq % 3 else await work(asked.n)
            self.reply(asked, total)


LAST = 99


@both
def test_over_any_crash_what_a_run_has_answered_counts_once(backend: Backend) -> None:
    """P1, P3, P4: the journal of a run that was asked without keys replays, wherever its process died."""

    async def script(opened: Runtime, world: World) -> Any:
        run = await opened.start(Counting(), key="c")

        async def ask(seq: int) -> None:
            with suppress(RunEnded):  # In an earlier life.
                await run.ask(Add(0 if seq == LAST else 10**seq, seq), within="1h")

        for first in (1, 4):
            async with anyio.create_task_group() as group:
                for seq in range(first, first + 3):
                    group.start_soon(ask, seq)
        await ask(LAST)
        return await run.result()

    assert enumerate_crashes(Scenario(name="direct", actors=[Counting], script=script), backend, seed=3) > 0
