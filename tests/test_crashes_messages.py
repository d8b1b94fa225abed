"""Messages, asks and replies with the power cut before and after each commit, on both loops: each handled once, in order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import field

from actorflow import (
    AskTimeout,
    CallCycle,
    Limits,
    Message,
    Run,
    RunEnded,
    Runtime,
    StoreUnavailable,
    UnknownRun,
    Workflow,
    checkpoint,
    gather,
    query,
    step,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes
from tests.harness import both, runtime, virtual

SEED = 2


def crash(scenario: Scenario, backend: Backend, **options: Any) -> None:
    assert enumerate_crashes(scenario, backend, seed=SEED, **options) > 0


@step
async def work(n: int) -> int:
    effect()
    await anyio.sleep(0.5)
    return n + 1


class Item(Message[None]):
    n: int


class Stop(Message[None]): ...


class Ask(Message[int]):
    n: int


# --- receive -----------------------------------------------------------------------------------------------------------


class Collector(Workflow[list[int]]):
    seen: list[int] = field(factory=list)

    async def run(self) -> list[int]:
        while True:
            match await self.receive(Item, Stop):
                case Item(n):
                    self.seen.append(await work(n))
                case _:
                    return self.seen


@both
def test_messages_are_each_taken_once_in_the_order_they_were_sent(backend: Backend) -> None:
    """X19, X20, R5, R6, A1, F2, F4, F8: and one that comes before its `receive` waits."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Collector(), key="k")
        for n in range(4):
            await run.tell(Item(n), key=f"m{n}")
            if n % 2:
                await anyio.sleep(0.7)
            await run.tell(Item(n), key=f"m{n}")
        await run.tell(Stop(), key="stop")
        return await run.result()

    crash(Scenario(name="Collector", actors=[Collector], script=script), backend)


class Choosy(Workflow[list[Any]]):
    """By predicate, by one of two types, and what is left over at the end."""

    async def run(self) -> list[Any]:
        even = await self.receive(Item, where=lambda m: m.n % 2 == 0)
        first = await self.receive(Item)
        missing = await self.receive(Item, within=0, where=lambda m: m.n > 100)
        await work(0)
        either = await self.receive(Stop, Item)
        return [even.n, first.n, missing, type(either).__name__]


@both
def test_a_predicate_takes_what_fits_and_leaves_the_rest_in_order(backend: Backend) -> None:
    """Rule 33, R5: two types, a predicate, and a look without waiting."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Choosy(), key="k")
        for n in (1, 3, 4, 5):
            await run.tell(Item(n), key=f"m{n}")
        result = await run.result()
        dead = await runtime._running().store.dead_letters()
        return [*result, len(dead)]

    crash(Scenario(name="Choosy", actors=[Choosy], script=script), backend)


questions: list[int] = []


def over_one(item: Item) -> bool:
    questions.append(item.n)
    return item.n > 1


class Demanding(Workflow[int]):
    async def run(self) -> int:
        first = await self.receive(Item, where=over_one)
        await self.receive(Stop)
        return first.n


@both
def test_a_predicate_is_not_asked_again_about_a_message_that_was_taken(backend: Backend) -> None:
    """Law 11: what it would say now does not matter."""

    async def main() -> int:
        memory = MemoryStore()
        async with runtime(Demanding, store=memory) as opened:
            run = await opened.start(Demanding(), key="k")
            for n in (1, 2):
                await run.tell(Item(n), key=f"m{n}")
            await anyio.sleep(1.0)
        async with runtime(Demanding, store=MemoryStore(share=memory)) as opened:
            asked_live.extend(questions)
            await opened.run(Demanding, "k").tell(Stop(), key="stop")
            return await opened.run(Demanding, "k").result()

    questions.clear()
    asked_live: list[int] = []

    assert virtual(backend, main) == 2
    assert asked_live[-1] == 2
    assert questions == asked_live


class Patient(Workflow[list[Any]]):
    async def run(self) -> list[Any]:
        nothing = await self.receive(Item, within="10s")
        await work(0)
        something = await self.receive(Item, within="1d")
        return [nothing, something and something.n]


@both
@pytest.mark.parametrize("downtime_s", [0.0, 30.0])
def test_a_wait_that_timed_out_stays_so_and_its_length_survives_a_crash(backend: Backend, downtime_s: float) -> None:
    """X21, R8, A10."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Patient(), key="k")
        while world.effects.total() == 0:  # noqa: ASYNC110  (a step of the run tells the ledger, not us)
            await anyio.sleep(1.0)
        await run.tell(Item(7), key="m")
        return await run.result()

    crash(Scenario(name="Patient", actors=[Patient], script=script), backend, downtime_s=downtime_s)


class Hourglass(Workflow[list[int]]):
    async def run(self) -> list[int]:
        first, second = await gather(self.take(), self.take())
        return [first, second]

    async def take(self) -> int:
        got = await self.receive(Item)
        return await work(got.n)


@both
def test_two_branches_that_wait_are_served_in_the_order_they_began(backend: Backend) -> None:
    """Rule 33."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Hourglass(), key="k")
        await run.tell(Item(1), key="a")
        await run.tell(Item(2), key="b")
        return await run.result()

    crash(Scenario(name="Hourglass", actors=[Hourglass], script=script), backend)


class Rolling(Workflow[list[int]]):
    seen: list[int] = field(factory=list)

    async def run(self) -> list[int]:
        match await self.receive(Item, Stop):
            case Item(n):
                self.seen.append(await work(n))
                return self.again()
            case _:
                return self.seen


@both
def test_unread_messages_are_carried_over_into_the_next_round(backend: Backend) -> None:
    """A20, R4, rule 16."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Rolling(), key="k")
        for n in range(4):
            await run.tell(Item(n), key=f"m{n}")
        await run.tell(Stop(), key="stop")
        return await run.result()

    crash(Scenario(name="Rolling", actors=[Rolling], script=script), backend)


class Delayed(Workflow[list[int]]):
    async def run(self) -> list[int]:
        first = await self.receive(Item)
        began = self.now()
        second = await self.receive(Item)
        waited = (self.now() - began).total_seconds()
        return [first.n, second.n, int(waited > 40)]


@both
def test_a_delayed_message_is_not_seen_before_its_time(backend: Backend) -> None:
    """X38, P6."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Delayed(), key="k")
        await run.tell(Item(2), key="late", after="60s")
        await run.tell(Item(1), key="early")
        return await run.result()

    crash(Scenario(name="Delayed", actors=[Delayed], script=script), backend)
    # It is due at the very moment at which its receiver leaves memory.
    crash(Scenario(name="Delayed", actors=[Delayed], script=script, limits=Limits(batch_max=1)), backend, pairs=10)


# --- between runs ------------------------------------------------------------------------------------------------------


class Teller(Workflow[str]):
    to: str

    async def run(self) -> str:
        there = Run(Collector, self.to)
        for n in range(3):
            await there.tell(Item(n))
            await work(100 * n)
        await there.tell(Stop(), key="stop")
        try:
            await Run(Collector, "nobody").tell(Item(0))
        except UnknownRun as error:
            return type(error).__name__
        return "not reached"


@both
def test_a_run_tells_another_each_message_once(backend: Backend) -> None:
    """X22, A8, A9, F6, P3, P5: and a message to nobody is an error, also on replay."""

    async def script(runtime: Runtime, world: World) -> Any:
        collector = await runtime.start(Collector(), key="c")
        teller = await runtime.start(Teller("c"), key="t")
        return [await collector.result(), await teller.result()]

    crash(Scenario(name="Teller", actors=[Teller, Collector], script=script), backend)


class Server(Workflow[int]):
    served: int = 0

    async def run(self) -> int:
        while True:
            match await self.receive(Ask, Stop):
                case Ask(n) as question:
                    value = await work(n)
                    self.served += 1
                    self.reply(question, value)
                case _:
                    return self.served

    @query
    def count(self) -> int:
        return self.served


class Asker(Workflow[list[Any]]):
    server: str

    async def run(self) -> list[Any]:
        there = Run(Server, self.server)
        first = await there.ask(Ask(1), within="1h")
        pair = await gather(there.ask(Ask(10), within="1h"), there.ask(Ask(20), within="1h"))
        await there.tell(Stop(), key="stop")
        while True:
            try:
                await there.ask(Ask(99), within="1h")
            except RunEnded:
                return [first, *pair]
            except AskTimeout:
                return ["timed out", first, *pair]


class Confident(Workflow[list[int]]):
    """Waits for longer than anybody lives."""

    async def run(self) -> list[int]:
        there = Run(Server, "s")
        return [await there.ask(Ask(n), within="900d") for n in range(3)]


@both
def test_an_answer_that_was_there_when_its_run_was_loaded_is_seen_whatever_crashes_next(backend: Backend) -> None:
    """P1: the row of the run said that it waits for the end of its patience; nobody would have looked at it before."""

    async def script(runtime: Runtime, world: World) -> Any:
        server = await runtime.start(Server(), key="s")
        answers = await (await runtime.start(Confident(), key="c")).result()
        await server.tell(Stop(), key="stop")
        await server.result()
        return answers

    crash(Scenario(name="Confident", actors=[Confident, Server], script=script), backend, pairs=20)


@both
def test_a_run_asks_another_and_gets_each_answer_once(backend: Backend) -> None:
    """A8, P3: and an ask of a run that has ended says so."""

    async def script(runtime: Runtime, world: World) -> Any:
        server = await runtime.start(Server(), key="s")
        asker = await runtime.start(Asker("s"), key="a")
        return [await asker.result(), await server.result(), await server.query(Server.count)]

    crash(Scenario(name="Asker", actors=[Asker, Server], script=script), backend)


@both
def test_a_client_that_asks_again_with_its_key_gets_the_first_answer(backend: Backend) -> None:
    """A2, F2, P4."""

    async def script(runtime: Runtime, world: World) -> Any:
        server = await runtime.start(Server(), key="s")
        answers = [await server.ask(Ask(n), key=f"q{n}", within="1h") for n in (1, 5)]
        answers.append(await server.ask(Ask(1), key="q1", within="1h"))
        await server.tell(Stop(), key="stop")
        return [answers, await server.result()]

    crash(Scenario(name="client asks", actors=[Server], script=script), backend)


class Deaf(Workflow[str]):
    async def run(self) -> str:
        await self.receive(Stop)
        late = await self.receive(Ask, within=0)
        return "late" if late is not None else "never"


class Impatient(Workflow[str]):
    async def run(self) -> str:
        there = Run(Deaf, "d")
        try:
            await there.ask(Ask(1), within="5s")
        except AskTimeout:
            await work(1)
        await there.tell(Stop())
        try:
            return str(await there.ask(Ask(2), within="100s"))
        except (AskTimeout, RunEnded) as error:
            return type(error).__name__


@both
@pytest.mark.parametrize("downtime_s", [0.0, 20.0])
def test_an_ask_that_timed_out_stays_so_and_its_late_answer_is_nobodys(backend: Backend, downtime_s: float) -> None:
    """F10, R8."""

    async def script(runtime: Runtime, world: World) -> Any:
        deaf = await runtime.start(Deaf(), key="d")
        impatient = await runtime.start(Impatient(), key="i")
        return [await impatient.result(), await deaf.result()]

    crash(Scenario(name="Impatient", actors=[Deaf, Impatient], script=script), backend, downtime_s=downtime_s)


class Mirror(Workflow[str]):
    other: str

    async def run(self) -> str:
        await self.receive(Stop)
        try:
            await Run(Mirror, self.other).ask(Ask(1), within="30s")
        except (CallCycle, AskTimeout, RunEnded):
            return "refused"
        return "answered"


@both
def test_a_circle_of_asks_is_no_deadlock(backend: Backend) -> None:
    """F11, rule 37."""

    async def script(runtime: Runtime, world: World) -> Any:
        one = await runtime.start(Mirror("b"), key="a")
        two = await runtime.start(Mirror("a"), key="b")
        await one.tell(Stop(), key="go")
        await two.tell(Stop(), key="go")
        return [await one.result(), await two.result()]

    # Who asks whom is known in memory only: after a crash it is the patience of the two that ends the circle.
    crash(Scenario(name="Mirror", actors=[Mirror], script=script, late_s=35.0), backend)


class Folding(Workflow[list[int]]):
    """Receives and tells inside checkpoints."""

    got: list[int] = field(factory=list)

    @checkpoint
    async def one(self) -> int:
        item = await self.receive(Item)
        self.got.append(item.n)
        return await work(item.n)

    async def run(self) -> list[int]:
        ends = [await self.one() for _ in range(3)]
        await self.receive(Stop)
        return [*ends, *self.got]


@both
def test_messages_taken_inside_a_milestone_are_taken_once(backend: Backend) -> None:
    """X19, rule 15."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Folding(), key="k")
        for n in range(3):
            await run.tell(Item(n), key=f"m{n}")
            await anyio.sleep(0.3)
        await run.tell(Stop(), key="stop")
        return await run.result()

    crash(Scenario(name="Folding", actors=[Folding], script=script), backend)


class Picky(Workflow[int]):
    async def run(self) -> int:
        await self.receive(Stop)
        return (await self.receive(Item)).n


@both
@pytest.mark.parametrize("apart", [0, 3, 4, 5, 6, 7, 8])
def test_a_message_that_arrives_while_its_receiver_is_being_loaded_wakes_it(backend: Backend, apart: int) -> None:
    """G9, P3, I15: several senders, so many turns of the loop apart, to a run that is not in memory."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Picky(), key="k")
        await anyio.sleep(5.0)
        async with anyio.create_task_group() as group:
            for n, message in enumerate((Item(1), Stop(), Item(2))):
                group.start_soon(_tell_later, run, message, f"m{n}", n * apart)
        await run.result()
        return (await run.status()).status

    scenario = Scenario(name=f"Picky {apart}", actors=[Picky], script=script, limits=Limits(passivate_after_s=0.0))
    crash(scenario, backend)


async def _tell_later(run: Run[Any], message: Message[None], key: str, ticks: int) -> None:
    for _ in range(ticks):
        await anyio.lowlevel.checkpoint()
    while True:
        try:
            return await run.tell(message, key=key)
        except RunEnded:
            return None
        except StoreUnavailable:
            await anyio.sleep(0.1)
