"""Messages that are repeated, late, out of place, too many or for nobody: each has its effect once, or is refused."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import field
from attrs.validators import ge

from actorflow import (
    Abort,
    Actor,
    AskTimeout,
    BadDefinition,
    KeyTaken,
    Limits,
    MailboxFull,
    Message,
    Run,
    RunCancelled,
    RunEnded,
    Runtime,
    UnknownRun,
    Workflow,
    gather,
    handler,
    step,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import Log, Note, Read, both, did, life, runtime, virtual


class Item(Message[None]):
    n: int


class Other(Message[None]):
    n: int


class Add(Message[int]):
    n: int = field(validator=ge(0))


class Go(Message[None]): ...


class Count(Actor):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        return self.total


# --- to runs ---------------------------------------------------------------------------------------------------------------


class TwoItems(Workflow[list[int | None]]):
    async def run(self) -> list[int | None]:
        first = await self.receive(Item, within="10s")
        second = await self.receive(Item, within="10s")
        return [None if each is None else each.n for each in (first, second)]


@both
def test_a_second_receive_of_a_message_sent_twice_times_out(backend: Backend) -> None:
    """X20."""

    async def scenario() -> None:
        async with runtime(TwoItems) as opened:
            run = await opened.start(TwoItems(), key="k")
            began = anyio.current_time()
            for _ in range(3):
                await run.tell(Item(7), key="m")
            assert await run.result() == [7, None]
            assert round(anyio.current_time() - began) == 10

    virtual(backend, scenario)


class BothKinds(Workflow[list[int]]):
    together: bool

    async def run(self) -> list[int]:
        if self.together:
            one, other = await gather(self.receive(Item), self.receive(Other))
        else:
            one, other = await self.receive(Item), await self.receive(Other)
        await self.receive(Go)
        return [one.n, other.n]


@both
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", [(Item(1), Other(2)), (Other(2), Item(1))], ids=["in order", "the other first"])
def test_two_waits_for_two_types_get_each_their_own_whichever_comes_first(
    backend: Backend, order: tuple[Message[None], ...], together: bool
) -> None:
    """R5: live, over a restart between the two, and on replay."""
    store = MemoryStore()

    async def scenario() -> None:
        for message in order:
            async with runtime(BothKinds, store=store) as opened:
                run = await opened.start(BothKinds(together), key="k")
                await anyio.sleep(1)
                await run.tell(message)
                await anyio.sleep(1)
        async with runtime(BothKinds, store=store) as opened:
            run = opened.run(BothKinds, "k")
            await run.tell(Go())
            assert await run.result() == [1, 2]

    virtual(backend, scenario)


@both
def test_a_message_before_the_start_is_refused_and_one_before_the_receive_waits(backend: Backend) -> None:
    """F8: and an actor is made by its first message."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(TwoItems, Count, store=store) as opened:
            with pytest.raises(UnknownRun):
                await opened.run(TwoItems, "k").tell(Item(1), key="m")
            run = await opened.start(TwoItems(), key="k")
            await run.tell(Item(1), key="m")  # Its code has not begun yet.
            await run.tell(Item(2))
            assert await opened.at(Count, "new").ask(Add(3)) == 3
        async with runtime(TwoItems, Count, store=store) as opened:
            assert await opened.run(TwoItems, "k").result() == [1, 2]

    virtual(backend, scenario)


class Ends(Workflow[str]):
    how: str

    async def run(self) -> str:
        if self.how == "failed":
            raise Abort("no")
        if self.how == "cancelled":
            await self.sleep("1d")
        return "done"


class Teller(Actor):
    """Tells whoever it is told to, in a turn."""

    told: int = 0

    @handler
    async def tell(self, m: Note) -> None:
        self.told += 1
        await Run(Ends, str(m.n)).tell(Item(m.n))
        await Run(Ends, str(m.n)).tell(Item(m.n + 1))

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [self.told]


@both
@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_an_ended_run_refuses_messages_and_says_how_it_ended(backend: Backend, how: str) -> None:
    """F7: what a turn sent to it is a dead letter."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Ends, Teller, store=store) as opened:
            run = await opened.start(Ends(how), key="7")
            if how == "cancelled":
                await run.cancel()
            with pytest.raises((RunCancelled, Abort)) if how != "completed" else anyio.CancelScope():
                await run.result()
            for _ in ("in memory", "looked up"):
                with pytest.raises(RunEnded, match=how):
                    await run.tell(Item(1), key="m")
                await anyio.sleep(100)
            with pytest.raises(RunEnded, match=how):
                await run.ask(Add(1))
            assert await store.message(1, "m") is None
            await opened.at(Teller, "t").tell(Note(7))
            await anyio.sleep(1)
            assert await opened.at(Teller, "t").ask(Read()) == [1]
            letters = (await opened.dead_letters(run)).letters
            assert [(letter.body, how in letter.why) for letter in letters] == [('{"n":7}', True), ('{"n":8}', True)]

    virtual(backend, scenario)


@both
def test_a_tell_to_nobody_is_refused_or_a_dead_letter_and_stops_nothing(backend: Backend) -> None:
    """F6."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Ends, Teller, store=store) as opened:
            with pytest.raises(UnknownRun, match="Ends/99"):
                await opened.run(Ends, "99").tell(Item(1))
            teller = opened.at(Teller, "t")
            for _ in range(2):
                await teller.tell(Note(99))
            await anyio.sleep(10)
            assert await teller.ask(Read()) == [2]
            assert (await teller.status()).status == "idle"
            lost = [event.entry for event in await store.events() if event.entry.kind == "dead"]
            assert [entry.ref for entry in lost] == ["Ends/99"] * 4

    virtual(backend, scenario)


# --- keys ------------------------------------------------------------------------------------------------------------------


@both
def test_one_key_a_hundred_times_at_once_is_one_message_with_one_answer(backend: Backend) -> None:
    """F2."""

    async def scenario() -> None:
        async with runtime(Count, TwoItems) as opened:
            answers, count = list[int](), opened.at(Count, "c")
            run = await opened.start(TwoItems(), key="k")

            async def ask() -> None:
                answers.append(await count.ask(Add(5), key="a"))
                await run.tell(Item(1), key="m")

            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(ask)

            assert answers == [5] * 100
            assert await count.ask(Add(0)) == 5
            assert await run.result() == [1, None]

    virtual(backend, scenario)


@both
def test_a_key_with_another_body_is_refused_and_changes_nothing(backend: Backend) -> None:
    """F3: while the first one waits, when it was handled, and after a restart."""
    store = MemoryStore()

    async def refused(opened: Runtime) -> None:
        with pytest.raises(KeyTaken):
            await opened.run(TwoItems, "k").tell(Item(2), key="m")
        with pytest.raises(KeyTaken):
            await opened.at(Count, "c").ask(Add(6), key="a")
        assert await opened.at(Count, "c").ask(Add(5), key="a") == 5
        assert await opened.at(Count, "c").ask(Add(0)) == 5

    async def scenario() -> None:
        async with runtime(Count, TwoItems, store=store) as opened:
            run = await opened.start(TwoItems(), key="k")
            await run.tell(Item(1), key="m")
            assert await opened.at(Count, "c").ask(Add(5), key="a") == 5
            await refused(opened)
            await anyio.sleep(5)
            await refused(opened)
        async with runtime(Count, TwoItems, store=store) as opened:
            await refused(opened)
            assert await opened.run(TwoItems, "k").result() == [1, None]

    virtual(backend, scenario)


@both
def test_what_is_repeated_on_the_way_does_not_change_the_order(backend: Backend) -> None:
    """F4: a sender goes on when one is accepted, and repeats of earlier ones come late and in any order."""

    async def scenario() -> None:
        async with runtime(Log) as opened:
            log = opened.at(Log, "l")
            async with anyio.create_task_group() as group:
                for n in range(12):
                    await log.tell(Note(n), key=str(n))
                    for earlier in range(n, -1, -2):
                        group.start_soon(lambda earlier=earlier: log.tell(Note(earlier), key=str(earlier)))  # type: ignore[misc]
            await anyio.sleep(1)
            assert await log.ask(Read()) == list(range(12))

    virtual(backend, scenario)


@both
def test_at_the_bound_senders_are_told_and_what_was_accepted_is_received(backend: Backend) -> None:
    """F5: over a crash, too."""
    memory, limits = MemoryStore(), Limits(mailbox_depth_max=3)

    class Later(Workflow[list[int]]):
        async def run(self) -> list[int]:
            await self.receive(Go)
            return [(await self.receive(Item)).n for _ in range(2)]

    async def flood(opened: Runtime) -> None:
        run = await opened.start(Later(), key="k")
        for n in range(10):
            try:
                await run.tell(Item(n), key=str(n))
                did.append(n)
            except MailboxFull:
                pass
        await anyio.sleep(100)

    async def finish(opened: Runtime) -> list[int]:
        run = opened.run(Later, "k")
        with pytest.raises(MailboxFull):
            await run.tell(Item(10))
        await run.tell(Item(did[0]), key=str(did[0]))  # A repeat takes no place.
        return did

    async def scenario() -> None:
        await life(memory, Later, script=flood, cut_s=10.0, limits=limits)
        assert did == [0, 1, 2]
        await life(memory, Later, script=finish, limits=limits)
        look = MemoryStore(share=memory)
        await look.open(now=0.0)
        loaded = await look.load(1)
        assert loaded is not None
        assert [message.key for message in loaded.mailbox] == ["0", "1", "2"]

    virtual(backend, scenario)


@both
def test_a_thousand_additions_at_once_give_the_sum_and_each_its_own_answer_over_crashes(backend: Backend) -> None:
    """F9: the answers are those of some order, one after the other."""
    memory, answers = MemoryStore(), dict[int, int]()

    async def ask(opened: Runtime, n: int) -> None:
        answer = await opened.at(Count, "c").ask(Add(1), key=str(n), within="1h")
        assert answers.setdefault(n, answer) == answer

    async def script(opened: Runtime) -> int:
        async with anyio.create_task_group() as group:
            for n in range(1_000):
                if n % 7 or n not in answers:  # Some who know their answer ask again.
                    group.start_soon(ask, opened, n)
        return await opened.at(Count, "c").ask(Add(0))

    class Slow(MemoryStore):
        async def commit(self, batch: Any, *, fence: int) -> Any:
            await anyio.sleep(0.01)
            return await super().commit(batch, fence=fence)

    limits = Limits(batch_max=50, accepted_at_once_max=40)

    async def scenario() -> int:
        for seconds in (0.15, 0.2, 0.2):
            known = len(answers)
            await life(Slow(share=memory), Count, script=script, cut_s=seconds, limits=limits)
            assert known <= len(answers) < 1_000
        return await life(memory, Count, script=script, limits=limits)

    assert virtual(backend, scenario) == 1_000
    assert sorted(answers.values()) == list(range(1, 1_001))


# --- answers -----------------------------------------------------------------------------------------------------------------


@step
async def naps(seconds: float) -> None:
    await anyio.sleep(seconds)


class Lazy(Actor):
    @handler(timeout="1h")
    async def add(self, m: Add) -> int:
        await naps(10.0 if m.n == 1 else 0.0)
        return m.n * 100


@both
def test_a_late_reply_is_not_taken_for_that_of_the_next_ask(backend: Backend) -> None:
    """F10."""

    async def scenario() -> None:
        async with runtime(Lazy) as opened:
            lazy = opened.at(Lazy, "l")
            with pytest.raises(AskTimeout):
                await lazy.ask(Add(1), key="first", within="2s")
            assert await lazy.ask(Add(2), within="1m") == 200
            assert await lazy.ask(Add(1), key="first") == 100

    virtual(backend, scenario)


class Answers(Workflow[list[str]]):
    async def run(self) -> list[str]:
        first = await self.receive(Add)
        await self.sleep("10s")
        self.reply(first, first.n)
        said = ["answered"]
        try:
            self.reply(first, 99)
        except BadDefinition as error:
            said.append(str(error))
        await self.receive(Go)
        return said


@both
def test_a_second_answer_is_refused_and_a_late_one_is_the_answer_of_its_key(backend: Backend) -> None:
    """F13."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Answers, store=store) as opened:
            run = await opened.start(Answers(), key="k")
            with pytest.raises(AskTimeout):
                await run.ask(Add(5), key="a", within="2s")
            await anyio.sleep(20)
            assert await run.ask(Add(5), key="a", within="2s") == 5
        async with runtime(Answers, store=store) as opened:
            run = opened.run(Answers, "k")
            assert await run.ask(Add(5), key="a", within="2s") == 5
            await run.tell(Go())
            assert await run.result() == ["answered", "this Add was answered before."]

    virtual(backend, scenario)


@both
def test_a_message_that_its_validator_refuses_stores_nothing(backend: Backend) -> None:
    """F12."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Count, store=store) as opened:
            count = opened.at(Count, "c")
            assert await count.ask(Add(1)) == 1
            before = (dict(store._memory.messages), len(await store.events()))
            with pytest.raises(ValueError, match="must be >= 0"):
                await count.ask(Add(-1))
            await anyio.sleep(1)
            assert (dict(store._memory.messages), len(await store.events())) == before
            assert await count.ask(Add(1)) == 2

    virtual(backend, scenario)


# --- put aside, and timers ---------------------------------------------------------------------------------------------------


class Gate(Actor):
    open: bool = False

    @handler
    async def enter(self, m: Item) -> None:
        if not self.open:
            self.stash(m)
        else:
            did.append(m.n)

    @handler
    async def unlock(self, m: Go) -> None:
        self.open = True
        self.unstash()


@both
def test_what_was_put_aside_comes_again_oldest_first_and_before_new_mail(backend: Backend) -> None:
    """O8."""

    async def scenario() -> None:
        async with runtime(Gate) as opened:
            gate = opened.at(Gate, "g")
            for n in (1, 2, 3):
                await gate.tell(Item(n))
            await anyio.sleep(1)
            await gate.pause()
            await gate.tell(Go())
            for n in (4, 5):
                await gate.tell(Item(n))
            await gate.resume()
            await anyio.sleep(1)

    virtual(backend, scenario)

    assert did == [1, 2, 3, 4, 5]


class Clock(Actor):
    @handler
    async def go(self, m: Go) -> None:
        self.after(0, Other(0), name="now")
        did.append("set")

    @handler
    async def item(self, m: Item) -> None:
        did.append(m.n)

    @handler
    async def fired(self, m: Other) -> None:
        did.append("fired")


@both
def test_a_timer_for_now_comes_behind_what_waits_already(backend: Backend) -> None:
    """O8."""

    async def scenario() -> None:
        async with runtime(Clock) as opened:
            clock = opened.at(Clock, "c")
            await clock.tell(Item(0))
            await clock.pause()
            await clock.tell(Go())
            for n in (1, 2):
                await clock.tell(Item(n))
            await clock.resume()
            await anyio.sleep(1)

    virtual(backend, scenario)

    assert did == [0, "set", 1, 2, "fired"]
