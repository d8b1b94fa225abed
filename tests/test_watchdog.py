"""The watchdog: a loop that stands still is noticed, and whoever holds it is named. On both loops."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actorflow import Abort, Actor, BadDuration, Message, Runtime, Stall, Workflow, handler, query, step
from actorflow.runtime import blame
from actorflow.runtime.loops import current_loop
from actorflow.runtime.watchdog import REPORTS_MAX, Watchdog
from actorflow.testing.clock import LoopClock, run_virtual
from tests.harness import both

told: list[str] = []  #: what was warned of


class _Telling(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        told.append(record.getMessage())


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    handler = _Telling()
    logging.getLogger("actorflow").addHandler(handler)
    told.clear()
    yield
    logging.getLogger("actorflow").removeHandler(handler)


def reports(function: str) -> int:
    return sum("has stood still" in text and f"in {function}\n" in text for text in told)


def block(times: int = 1) -> None:
    """The fault itself: it holds the loop's thread until that was noticed."""
    while reports("block") < times:
        time.sleep(0.001)


def compute() -> None:
    while reports("compute") < 1:
        pass


def work(length_s: float) -> None:
    until = time.monotonic() + length_s
    while time.monotonic() < until:
        pass


@step
async def charge() -> None:
    block()


@step
async def charge_later() -> None:
    await anyio.lowlevel.checkpoint()
    compute()


@step
async def refund() -> None:
    block()


@step(undo=refund)
async def pay() -> None:
    """Nothing to wait for."""


async def sent(item: int) -> None:
    if item == 1:
        block()


def slow_key(item: int) -> str:
    if item == 1:
        block()
    return str(item)


@step
async def quick() -> None:
    work(0.002)


class Ping(Message[None]):
    n: int


def slow_where(ping: Ping) -> bool:
    block()
    return ping.n == 1


class Checkout(Workflow[str]):
    way: str

    async def run(self) -> str:
        match self.way:
            case "step":
                await charge()
            case "later":
                await charge_later()
            case "small":
                await quick()
            case "regex":
                assert not re.match(r"(a|a)*b", "a" * 20)
            case "durable":
                compute()
            case "where":
                await self.receive(Ping, where=slow_where)
            case "each":
                await self.each([0, 1, 2], sent, key=str)
            case "key":
                await self.each([0, 1, 2], str, key=slow_key)
            case "undo":
                await pay()
                raise Abort("no")
            case _:
                pass
        return self.way

    @query
    def slowly(self) -> str:
        block()
        return self.way


@asynccontextmanager
async def runtime(**options: Any) -> AsyncIterator[Runtime]:
    with anyio.fail_after(20):
        async with Runtime(actors=[Checkout], **{"watchdog": "40ms", **options}) as opened:
            yield opened


async def stall_of(opened: Runtime, who: str) -> Stall:
    """Wait until it is over and known. Others may have been noticed before: the machine that tests run on may be busy."""
    with anyio.fail_after(30):
        while True:
            for stall in opened.stalls():
                if stall.who == who:
                    return stall
            await anyio.lowlevel.checkpoint()


WHO = {
    "step": ("Checkout/o1 in step charge", "charge", "plain `def`"),
    "later": ("Checkout/o1 in step charge_later", "compute", "plain `def`"),
    "durable": ("Checkout/o1 in durable code", "compute", "do it in a step"),
    "where": ("Checkout/o1 in a `where` of receive", "slow_where", "Make it cheap"),
    "each": ("Checkout/o1 in step sent, item '1'", "sent", "plain `def`"),
    "key": ("Checkout/o1 in the items or the `key` of each(str)", "slow_key", "Await"),
}


@both
@pytest.mark.parametrize("way", WHO)
def test_whoever_holds_the_loop_is_named_with_the_line(way: str, backend: str) -> None:
    """E14, E22."""

    async def main() -> Stall:
        async with runtime() as opened:
            run = await opened.start(Checkout(way), key="o1")
            if way == "where":
                await run.tell(Ping(1))
            await run.result()
            return await stall_of(opened, who)

    who, function, remedy = WHO[way]
    began = time.time()
    stall = anyio.run(main, backend=backend)

    assert f"in {function}\n" in stall.stack
    assert "actorflow/runtime" not in stall.stack
    assert stall.seconds >= 0.04
    assert began <= stall.at <= time.time()
    assert any(who in text and remedy in text and f"in {function}\n" in text for text in told)
    assert any("goes on" in text and who in text for text in told)


@both
def test_an_undo_is_named(backend: str) -> None:
    async def main() -> Stall:
        async with runtime() as opened:
            run = await opened.start(Checkout("undo"), key="o1")
            with pytest.raises(Abort):
                await run.result()
            return await stall_of(opened, "Checkout/o1 in the undo of pay")

    stall = anyio.run(main, backend=backend)

    assert "in refund" in stall.stack


class Slow(Message[int], kind="slow-of-watchdog"): ...


class Peek(Message[int], kind="peek-of-watchdog"): ...


class Blocking(Actor):
    @handler
    async def compute(self, m: Slow) -> int:
        block()
        return 1

    @handler(readonly=True)
    async def look(self, m: Peek) -> int:
        block()
        return 1


@both
@pytest.mark.parametrize("way", [Slow, Peek])
def test_a_handler_is_named(way: type[Message[int]], backend: str) -> None:
    async def main() -> None:
        async with Runtime("memory://", actors=[Blocking], watchdog="40ms") as opened:
            await opened.at(Blocking, "b").ask(way())
            await stall_of(opened, f"Blocking/b in handler {'compute' if way is Slow else 'look'}")

    anyio.run(main, backend=backend)


@both
def test_a_query_is_named(backend: str) -> None:
    async def main() -> Stall:
        async with runtime() as opened:
            run = await opened.start(Checkout(""), key="o1")
            await run.result()
            await run.query(Checkout.slowly)
            return await stall_of(opened, "Checkout/o1 in query slowly")

    stall = anyio.run(main, backend=backend)

    assert "in Checkout.slowly" in stall.stack


@both
def test_the_service_beside_it_is_blamed_for_what_it_does_itself(backend: str) -> None:
    async def handler() -> None:
        await anyio.lowlevel.checkpoint()
        block()

    async def main() -> Stall:
        async with runtime() as opened, anyio.create_task_group() as group:
            group.start_soon(handler)
            return await stall_of(opened, blame.SERVICE)
        raise AssertionError

    stall = anyio.run(main, backend=backend)

    assert "handler" in stall.stack
    assert "block" in stall.stack
    assert "_run_once" not in stall.stack


def test_it_works_on_uvloop() -> None:
    async def main() -> Stall:
        async with runtime() as opened:
            run = await opened.start(Checkout("step"), key="o1")
            await run.result()
            return await stall_of(opened, "Checkout/o1 in step charge")

    stall = anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})

    assert "in charge\n" in stall.stack


@both
def test_a_step_that_nobody_waits_for_any_more_is_named_by_what_it_knows_of_itself(backend: str) -> None:
    async def main() -> str:
        from contextvars import copy_context

        from actorflow.attempt import StepInfo, current
        from actorflow.runtime.workers import Job

        context = copy_context()
        context.run(current.set, StepInfo("store/Shop/1/0//charge/0", "charge", 1))
        return blame.step_of(Job(anyio.sleep_forever, context, None))

    assert anyio.run(main, backend=backend) == "an abandoned step charge (store/Shop/1/0//charge/0)"


@both
def test_a_loop_at_work_that_goes_on_turning_is_left_alone(backend: str) -> None:
    async def main() -> tuple[Stall, ...]:
        async with runtime(watchdog="200ms") as opened:
            until_ = time.monotonic() + 0.5
            while time.monotonic() < until_:
                work(0.005)
                await anyio.lowlevel.checkpoint()
            return opened.stalls()

    assert anyio.run(main, backend=backend) == ()


@both
def test_many_small_things_in_one_long_turn_are_load_and_nobody_is_blamed(backend: str) -> None:
    async def small() -> None:
        work(0.002)

    async def main() -> tuple[Stall, ...]:
        async with runtime(watchdog="100ms") as opened, anyio.create_task_group() as group:
            for n in range(100):
                await opened.start(Checkout("small"), key=str(n))
            for _ in range(100):
                group.start_soon(small)
            for n in range(100):
                await opened.run(Checkout, str(n)).result()
            return opened.stalls()
        raise AssertionError

    stalls = anyio.run(main, backend=backend)

    assert not [stall for stall in stalls if stall.who != blame.SERVICE]


def test_code_that_holds_the_interpreter_itself_is_blamed_when_it_lets_go() -> None:
    """E15: a search that goes back and forth in C keeps the watchdog's thread waiting, too."""

    async def main() -> Stall:
        async with runtime(watchdog="10ms") as opened:
            await opened.start(Checkout("regex"), key="o1")
            return await stall_of(opened, "Checkout/o1 in durable code")

    stall = anyio.run(main)

    assert "in Checkout.run\n" in stall.stack


class Counting:
    """A loop of which it is known how often it was woken."""

    def __init__(self) -> None:
        self.real = current_loop()
        self.looks = self.posts = 0

    def resting(self, frame: Any) -> bool:
        self.looks += 1
        rests: bool = self.real.resting(frame)
        return rests

    def post(self, fn: Callable[[], object]) -> bool:
        self.posts += 1
        return self.real.post(fn)


@pytest.mark.parametrize("options", [("asyncio", False), ("asyncio", True), ("trio", False)], ids=str)
def test_a_loop_that_rests_is_not_woken(options: tuple[str, bool]) -> None:
    backend, use_uvloop = options

    async def main() -> tuple[int, int]:
        loop = Counting()
        dog = Watchdog(loop, 0.01)  # type: ignore[arg-type]
        dog.start()
        rested = anyio.Event()

        def wait_in_a_thread() -> None:
            while loop.looks < 20:
                loop_looked.wait(0.01)
            loop.real.post(rested.set)

        loop_looked = threading.Event()
        waiter = threading.Thread(target=wait_in_a_thread)
        waiter.start()
        await rested.wait()
        dog.stop()
        waiter.join()
        return loop.looks, loop.posts

    chosen = {"use_uvloop": True} if use_uvloop else {}
    looks, posts = anyio.run(main, backend=backend, backend_options=chosen)

    assert looks >= 20
    assert posts <= 3  # While it began and ended.


@both
def test_a_long_stall_is_told_again_and_again_but_not_for_ever(backend: str) -> None:
    async def main() -> Stall:
        async with runtime(watchdog="10ms") as opened:
            await anyio.lowlevel.checkpoint()
            block(3)
            return await stall_of(opened, blame.SERVICE)

    stall = anyio.run(main, backend=backend)

    assert reports("block") in (3, 4)  # At 10, 20 and 40 ms; 80 ms may pass before it goes on.
    assert stall.seconds >= 0.04
    assert REPORTS_MAX == 10


@both
def test_a_stall_at_the_very_end_is_kept(backend: str) -> None:
    async def main() -> tuple[Stall, ...]:
        async with runtime() as opened:
            dog = opened._watchdog
            assert dog is not None
            await anyio.lowlevel.checkpoint()
            block()
            dog.stop()
            return opened.stalls()

    assert len(anyio.run(main, backend=backend)) == 1


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "actorflow-watchdog"]


@both
def test_it_ends_with_its_runtime_and_keeps_no_process_alive(backend: str) -> None:
    async def main() -> None:
        async with runtime() as opened:
            assert opened._watchdog is not None
            assert len(watchers()) == 1
            assert next(t for t in threading.enumerate() if t.name == "actorflow-watchdog").daemon

    anyio.run(main, backend=backend)

    assert watchers() == []


@both
def test_it_is_off_if_it_is_not_wanted_and_in_virtual_time(backend: Any) -> None:
    async def unwanted() -> None:
        async with runtime(watchdog=None) as opened:
            assert watchers() == []
            assert opened.stalls() == ()

    async def virtual() -> None:
        async with Runtime(actors=[Checkout], clock=LoopClock()):
            assert watchers() == []

    anyio.run(unwanted, backend=backend)
    run_virtual(virtual, backend=backend)


@pytest.mark.parametrize("threshold", [0, "1ms"])
def test_a_threshold_that_no_watchdog_can_keep_is_refused(threshold: Any) -> None:
    with pytest.raises(BadDuration, match="10 ms"):
        Runtime(actors=[Checkout], watchdog=threshold)


def test_it_ends_when_its_loop_is_gone() -> None:
    """Nobody stopped it: the service's loop was closed under it."""
    dogs: list[Watchdog] = []

    async def main() -> None:
        dogs.append(Watchdog(current_loop(), 0.01))
        dogs[0].start()

    anyio.run(main)
    thread = dogs[0]._thread

    assert thread is not None
    thread.join(timeout=10)
    assert not thread.is_alive()
