"""`each` goes through all items, at least once, from where it was; what is bad is set aside within a budget."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from actorflow import (
    Abort,
    BadDefinition,
    Progress,
    Retry,
    Run,
    RunPaused,
    Runtime,
    SetAside,
    Transient,
    Workflow,
    checkpoint,
    current_step,
    gather,
    step,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import LoopClock, run_virtual

T = TypeVar("T")
Main = Callable[[], Awaitable[T]]
BACKENDS = ("asyncio", "trio")


@pytest.fixture(params=BACKENDS)
def virtual(request: pytest.FixtureRequest) -> Callable[[Main[Any]], Any]:
    """Runs an async function in virtual time: no threads."""
    return partial(run_virtual, backend=request.param)


@pytest.fixture(params=BACKENDS)
def real(request: pytest.FixtureRequest) -> Callable[[Main[Any]], Any]:
    """Runs an async function on a real loop, where threads are."""

    def run(main: Main[Any]) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(30):
                return await main()

        return anyio.run(bounded, backend=request.param)

    return run


def loop(items: Any, do: Any, **options: Any) -> type[Workflow[Progress]]:
    """A workflow that is one loop."""
    options = {"key": str, **options}

    class Loop(Workflow[Progress]):
        async def run(self) -> Progress:
            return await self.each(items, do, **options)

    return Loop


def hosted(of: type[Workflow[Any]], store: MemoryStore | None = None, *, virtual_time: bool = True) -> Runtime:
    return Runtime(actors=[of], store=store or MemoryStore(), clock=LoopClock() if virtual_time else None)


async def result_of(of: type[Workflow[T]], *, virtual_time: bool = True) -> T:
    async with hosted(of, virtual_time=virtual_time) as runtime:
        return await (await runtime.start(of(), key="k")).result()


async def settled(run: Run[Any], *, until: tuple[str, ...] = ("paused", "cancelled", "failed", "completed")) -> Any:
    """Its status, once it has one of those."""
    while (info := await run.status()).status not in until:  # noqa: ASYNC110  (a status is asked for; nobody tells)
        await anyio.sleep(0.01)
    return info


class Ledger:
    """A callee that writes down what it was given."""

    def __init__(self, *, fail: Callable[[int, int], Exception | None] = lambda item, nth: None, takes_s: float = 0.0) -> None:
        self.seen: list[int] = []
        self.keys: list[str] = []
        self.now = self.most = 0
        self.fail, self.takes_s = fail, takes_s

    async def do(self, item: int) -> None:
        self.seen.append(item)
        self.keys.append(current_step().key)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await anyio.sleep(self.takes_s)
            error = self.fail(item, self.seen.count(item))
            if error is not None:
                raise error
        finally:
            self.now -= 1

    @property
    def times(self) -> Counter[int]:
        return Counter(self.seen)


def failing(*bad: int) -> Callable[[int, int], Exception | None]:
    return lambda item, nth: ValueError(f"bad {item}") if item in bad else None


# --- the source --------------------------------------------------------------------------------------------------------


def generated(n: int) -> Iterator[int]:
    yield from range(n)


async def awaited(n: int) -> AsyncIterator[int]:
    for item in range(n):
        await anyio.lowlevel.checkpoint()
        yield item


async def fetched(n: int) -> list[int]:
    await anyio.lowlevel.checkpoint()
    return list(range(n))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: [*range(600)], id="list"),
        pytest.param(lambda: range(600), id="range"),
        pytest.param(lambda: partial(range, 600), id="callable that gives a range"),
        pytest.param(lambda: partial(generated, 600), id="generator function"),
        pytest.param(lambda: generated(600), id="generator"),
        pytest.param(lambda: partial(awaited, 600), id="async generator function"),
        pytest.param(lambda: awaited(600), id="async generator"),
        pytest.param(lambda: partial(fetched, 600), id="async function that gives a list"),
        pytest.param(lambda: lambda: awaited(600), id="function that gives an async generator"),
        pytest.param(lambda: lambda: fetched(600), id="function that gives a coroutine"),
        pytest.param(lambda: dict.fromkeys(range(600)).keys(), id="view"),
    ],
)
def test_items_of_any_source_are_begun_in_its_order(real: Callable[..., Any], make: Callable[[], Any]) -> None:
    ledger = Ledger()

    done = real(lambda: result_of(loop(make(), ledger.do, parallel=3, batch=50), virtual_time=False))

    assert ledger.seen == list(range(600))
    assert (done.done, done.set_aside, done.repeated) == (600, 0, 0)


def test_an_empty_source_is_done_at_once(virtual: Callable[..., Any]) -> None:
    done = virtual(lambda: result_of(loop([], Ledger().do)))

    assert (done.done, done.set_aside, done.total) == (0, 0, 0)


def test_a_sync_source_is_made_iterated_and_closed_in_one_thread_that_is_not_the_loops(real: Callable[..., Any]) -> None:
    threads: list[int] = []

    def source() -> Iterator[int]:
        threads.append(threading.get_ident())
        try:
            for item in range(1_000):
                threads.append(threading.get_ident())
                yield item
        finally:
            threads.append(threading.get_ident())

    real(lambda: result_of(loop(source, Ledger().do), virtual_time=False))

    assert len(threads) == 1_002
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


def test_a_source_is_read_no_further_ahead_than_its_bound(real: Callable[..., Any]) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for item in range(100_000):
            read.append(item)
            yield item

    of = loop(source, Ledger(takes_s=math.inf).do, parallel=2)

    async def main() -> int:
        async with hosted(of, virtual_time=False) as runtime:
            run = await runtime.start(of(), key="k")
            await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.05)
            before = len(read)
            await run.cancel()
            return before

    assert real(main) <= 1_024


def test_a_source_that_fails_pauses_the_run_after_the_items_before_and_resume_goes_on(real: Callable[..., Any]) -> None:
    ledger, mended = Ledger(), threading.Event()

    def source() -> Iterator[int]:
        yield from range(3)
        if not mended.is_set():
            raise OSError("disk gone")
        yield from range(3, 5)

    of = loop(source, ledger.do, flush=0)

    async def main() -> Progress:
        async with hosted(of, virtual_time=False) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused, match=r"source of the loop failed: OSError: disk gone.*`resume`"):
                await run.result()
            mended.set()
            await run.resume()
            return await run.result()

    assert real(main).done == 5
    assert set(ledger.seen) == set(range(5))


# --- how many at a time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallel", "batch"), [(1, 1), (1, 500), (4, 1), (4, 2), (4, 500), (20, 7)])
def test_never_more_than_parallel_items_are_in_flight(virtual: Callable[..., Any], parallel: int, batch: int) -> None:
    ledger = Ledger(takes_s=1.0)

    virtual(lambda: result_of(loop(range(100), ledger.do, parallel=parallel, batch=batch)))

    assert ledger.most == parallel
    assert sorted(ledger.seen) == list(range(100))


@pytest.mark.parametrize("run_in", ["loop", "thread"])
@pytest.mark.parametrize(("parallel", "batch"), [(1, 1), (4, 1), (4, 10), (8, 100)])
def test_a_crash_repeats_less_than_a_batch_and_what_was_in_flight(
    real: Callable[..., Any], run_in: str, parallel: int, batch: int
) -> None:
    seen: list[int] = []

    async def on_the_loop(item: int) -> None:
        seen.append(item)
        await anyio.lowlevel.checkpoint()

    def in_a_thread(item: int) -> None:
        seen.append(item)

    of = loop(partial(generated, 1_500), on_the_loop if run_in == "loop" else in_a_thread, parallel=parallel, batch=batch)

    async def main() -> Progress:
        store = MemoryStore()
        async with hosted(of, store, virtual_time=False) as first:
            await first.start(of(), key="k")
            while len(seen) < 300:
                await anyio.lowlevel.checkpoint()
            async with hosted(of, MemoryStore(share=store), virtual_time=False) as second:
                return await second.run(of, "k").result()

    done = real(main)

    assert (done.done, done.total) == (1_500, None)
    assert set(seen) == set(range(1_500))
    assert len(seen) - 1_500 < batch + parallel


def test_as_many_threads_as_parallel_work_at_a_time(real: Callable[..., Any]) -> None:
    together = threading.Barrier(4)

    def do(item: int) -> None:
        together.wait(20)

    assert real(lambda: result_of(loop(range(24), do, parallel=4), virtual_time=False)).done == 24


def test_a_slow_item_does_not_stop_those_behind_it(virtual: Callable[..., Any]) -> None:
    ended: list[int] = []

    async def do(item: int) -> None:
        await anyio.sleep(1_000 if item == 0 else 1)
        ended.append(item)

    virtual(lambda: result_of(loop(range(50), do, parallel=2, batch=10, flush="1s")))

    assert ended == [*range(1, 50), 0]


def test_what_is_finished_above_a_slow_item_is_bounded(virtual: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow.policies.cursor.ABOVE_MAX", 20)
    ledger = Ledger(takes_s=0)
    most = 0

    async def do(item: int) -> None:
        nonlocal most
        if item == 0:
            await anyio.sleep(1_000)
            most = len(ledger.seen)
        else:
            await ledger.do(item)

    virtual(lambda: result_of(loop(range(500), do, parallel=2, batch=10, flush="1s")))

    assert 20 <= most <= 20 + 10 + 2
    assert sorted(ledger.seen) == list(range(1, 500))


def test_two_loops_of_one_run_do_not_mix(virtual: Callable[..., Any]) -> None:
    ledger = Ledger()

    class Two(Workflow[list[int]]):
        async def run(self) -> list[int]:
            first = await self.each(range(5), ledger.do, key=str)
            second = await self.each(range(5, 8), ledger.do, key=str)
            together = await gather(self.each(range(8, 10), ledger.do, key=str), self.each(range(10, 14), ledger.do, key=str))
            return [loop.done for loop in (first, second, *together)]

    assert virtual(lambda: result_of(Two)) == [5, 3, 2, 4]
    assert sorted(ledger.seen) == list(range(14))


def test_a_loop_may_stand_in_a_checkpoint_and_in_every_round(virtual: Callable[..., Any]) -> None:
    ledger = Ledger()

    class Rounds(Workflow[int]):
        round: int = 0
        total: int = 0

        @checkpoint
        async def once(self) -> None:
            done = await self.each(range(self.round + 1), ledger.do, key=str)
            self.total += done.done

        async def run(self) -> int:
            await self.once()
            self.round += 1
            if self.round < 3:
                return self.again()
            return self.total

    assert virtual(lambda: result_of(Rounds)) == 6
    assert ledger.seen == [0, 0, 1, 0, 1, 2]


# --- resuming ----------------------------------------------------------------------------------------------------------


def failing_once(at: int) -> Callable[[int, int], Exception | None]:
    return lambda item, nth: ValueError("once") if item == at and nth == 1 else None


def test_a_resumed_loop_skips_to_its_low_water_mark(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(fail=failing_once(30))
    of = loop(partial(awaited, 50), ledger.do, batch=4)

    async def main() -> Progress:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused):
                await run.result()
            await run.resume()
            return await run.result()

    done = virtual(main)

    assert done.done == 50
    assert [item for item, times in ledger.times.items() if times > 1] == [30]


def test_a_source_with_after_begins_behind_the_last_key(virtual: Callable[..., Any]) -> None:
    ledger, asked = Ledger(fail=failing_once(30)), list[str | None]()

    async def source(*, after: str | None) -> AsyncIterator[int]:
        asked.append(after)
        for item in range(0 if after is None else int(after) + 1, 50):
            yield item

    of = loop(source, ledger.do)

    async def main() -> Progress:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused):
                await run.result()
            await run.resume()
            return await run.result()

    done = virtual(main)

    assert asked == [None, "29"]
    assert done.done == 50
    assert ledger.times == Counter({**dict.fromkeys(range(50), 1), 30: 2})


def test_another_key_at_the_low_water_mark_pauses_before_anything_runs(virtual: Callable[..., Any]) -> None:
    ledger, items = Ledger(fail=failing_once(30)), [*range(50)]

    async def source() -> AsyncIterator[int]:
        for item in items:
            yield item

    of = loop(source, ledger.do)

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused):
                await run.result()
            items.insert(0, -1)
            before = len(ledger.seen)
            await run.resume()
            with pytest.raises(RunPaused, match=r"item 29 with key '28'.*key '29' there"):
                await run.result()
            assert len(ledger.seen) == before
            return await run.status()

    assert virtual(main).reason == "diverged"


def test_an_orderly_shutdown_repeats_nothing(real: Callable[..., Any], tmp_path: Path) -> None:
    seen: list[int] = []
    enough = threading.Event()

    def do(item: int) -> None:
        seen.append(item)
        if len(seen) == 300:
            enough.set()

    of = loop(partial(generated, 2_000), do, batch=50, parallel=4)

    async def main() -> Progress:
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        async with Runtime(url, actors=[of]) as first:
            await first.start(of(), key="k")
            assert await anyio.to_thread.run_sync(enough.wait, 20)
        assert len(seen) < 2_000
        async with Runtime(url, actors=[of]) as second:
            return await second.run(of, "k").result()

    done = real(main)

    assert done.done == 2_000
    assert Counter(seen) == Counter(range(2_000))


# --- failures of items -------------------------------------------------------------------------------------------------


def test_an_item_is_tried_again_as_its_step_says_with_the_same_key(virtual: Callable[..., Any]) -> None:
    attempts: list[tuple[str, int, float]] = []

    @step(retry=Retry(attempts=3, first="10s", jitter=0.0))
    async def do(item: int) -> None:
        attempts.append((current_step().key, current_step().attempt, LoopClock().monotonic()))
        if item == 1 and current_step().attempt < 3:
            raise Transient("not now")

    done = virtual(lambda: result_of(loop(range(3), do)))

    of_one = [(key, attempt) for key, attempt, _ in attempts if key.endswith("/1:1")]
    assert done.done == 3
    assert [attempt for _, attempt in of_one] == [1, 2, 3]
    assert len({key for key, _ in of_one}) == 1
    moments = [at for key, _, at in attempts if key.endswith("/1:1")]
    assert [round(b - a) for a, b in pairwise(moments)] == [10, 20]


def test_the_idempotency_key_names_the_run_the_loop_the_index_and_the_item(virtual: Callable[..., Any]) -> None:
    ledger = Ledger()

    virtual(lambda: result_of(loop(["x"], ledger_of(ledger), key=lambda item: item + "-key")))

    assert ledger.keys[0].partition("/")[2] == "Loop/k/0//self.each/0/0:x-key"


def ledger_of(ledger: Ledger) -> Callable[[Any], Awaitable[None]]:
    async def do(item: Any) -> None:
        ledger.keys.append(current_step().key)

    return do


def test_a_timeout_is_one_try_and_another_item_is_not_hurt(virtual: Callable[..., Any]) -> None:
    begun: Counter[int] = Counter()

    @step(retry=Retry(attempts=2, first="1s"), timeout="5s")
    async def do(item: int) -> None:
        begun[item] += 1
        await anyio.sleep(math.inf if item == 3 else 1)

    of = loop(range(6), do, parallel=2, on_error=SetAside(at_most=1))

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            return await run.result(), await run.status()

    done, info = virtual(main)

    assert (done.done, done.set_aside) == (5, 1)
    assert begun == Counter({0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1})
    assert "StepTimeout" in info.loops[0].bad[0].error


def test_a_callee_that_ignores_its_timeout_is_abandoned(real: Callable[..., Any]) -> None:
    release, ended = threading.Event(), list[int]()

    @step(timeout="50ms", retry=Retry(attempts=1))
    def do(item: int) -> None:
        if item == 3:
            release.wait(20)
        ended.append(item)

    of = loop(range(6), do, on_error=SetAside(at_most=1), key=lambda item: f"item-{item}")

    async def main() -> Progress:
        done = await result_of(of, virtual_time=False)
        release.set()
        return done

    done = real(main)

    assert (done.done, done.set_aside) == (5, 1)
    assert ended[:5] == [0, 1, 2, 4, 5]


def test_bad_items_are_set_aside_and_listed(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(fail=failing(2, 5))
    of = loop(range(8), ledger.do, on_error=SetAside(at_most=2))

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            return await run.result(), await run.status(), await run.history()

    done, info, history = virtual(main)

    assert (done.done, done.set_aside) == (6, 2)
    assert [(bad.index, bad.key, bad.error) for bad in info.loops[0].bad] == [
        (2, "2", "ValueError: bad 2"),
        (5, "5", "ValueError: bad 5"),
    ]
    assert [entry.outcome for entry in history if entry.kind == "set_aside"] == [
        '"2:2: ValueError: bad 2"',
        '"5:5: ValueError: bad 5"',
    ]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("run_in", ["loop", "thread"])
def test_an_item_that_raises_what_stops_programs_is_a_bad_item(
    real: Callable[..., Any], error: BaseException, run_in: str
) -> None:
    async def on_the_loop(item: int) -> None:
        if item == 1:
            raise error

    def in_a_thread(item: int) -> None:
        if item == 1:
            raise error

    of = loop(range(3), on_the_loop if run_in == "loop" else in_a_thread, on_error=SetAside(at_most=1))

    assert real(lambda: result_of(of, virtual_time=False)).set_aside == 1


def test_a_count_that_is_spent_pauses_and_resume_gives_a_new_one(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(fail=failing(*range(0, 50, 10)))
    of = loop(range(50), ledger.do, on_error=SetAside(at_most=2), flush=0, batch=1)

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused, match=r"3 of 21 items were set aside, over the budget"):
                await run.result()
            before = await run.status()
            await run.resume()
            return before, await run.result()

    before, done = virtual(main)

    assert before.reason == "budget"
    assert before.report is not None
    assert before.report.input == "20:20: ValueError: bad 20"
    assert (done.done, done.set_aside) == (45, 5)
    assert set(ledger.times.values()) == {1}


def test_a_ratio_is_judged_from_a_thousand_items_on(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(fail=failing(*range(100, 103)))
    of = loop(range(5_000), ledger.do, on_error=SetAside(at_most=0.002), batch=10)

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused, match="over the budget"):
                await run.result()
            before = len(ledger.seen)
            await run.resume()
            return before, await run.result()

    before, done = virtual(main)

    assert 1_000 <= before <= 1_020
    assert (done.done, done.set_aside) == (4_997, 3)


def test_a_ratio_of_a_short_loop_is_judged_at_its_end(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(fail=failing(1, 2))
    of = loop(range(100), ledger.do, on_error=SetAside(at_most=0.01))

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused, match="2 of 100 items were set aside"):
                await run.result()
            await run.resume()
            return await run.result()

    assert virtual(main).set_aside == 2
    assert len(ledger.seen) == 100


def test_without_a_budget_the_first_bad_item_pauses_the_run_and_resume_runs_it_again(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(fail=failing_once(7), takes_s=1.0)
    of = loop(range(20), ledger.do, parallel=3, key=lambda item: f"row-{item}")

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            with pytest.raises(RunPaused, match=r"item 7:row-7: ValueError: once .*`resume`"):
                await run.result()
            info = await run.status()
            await run.resume()
            return info, await run.result()

    info, done = virtual(main)

    assert (info.status, info.reason, info.report.failure) == ("paused", "failure", "bug")
    assert (done.done, done.set_aside, done.repeated) == (20, 0, 1)
    assert ledger.times == Counter({**dict.fromkeys(range(20), 1), 7: 2})


class NoMoney(Exception):
    """A business failure, by name."""


@pytest.mark.parametrize("how", ["abort", "fails of the step", "fails of the workflow"])
def test_a_business_failure_in_an_item_fails_the_run(virtual: Callable[..., Any], how: str) -> None:
    ended: list[int] = []

    async def do(item: int) -> None:
        if item == 1:
            raise Abort("enough") if how == "abort" else NoMoney("enough")
        await anyio.sleep(1_000)
        ended.append(item)

    declared = step(fails=(NoMoney,), name="declared")(do) if how == "fails of the step" else do

    class Loop(Workflow[Progress], fails=(NoMoney,) if how == "fails of the workflow" else ()):
        async def run(self) -> Progress:
            return await self.each(range(5), declared, key=str, parallel=2, on_error=SetAside(at_most=5))

    async def main() -> Any:
        async with hosted(Loop) as runtime:
            run = await runtime.start(Loop(), key="k")
            with pytest.raises(Exception, match="enough"):
                await run.result()
            return await run.status()

    # A step says that its failure is final; only the workflow says that it ends the run.
    assert virtual(main).status == ("paused" if how == "fails of the step" else "failed")
    assert ended == []


# --- what is called ----------------------------------------------------------------------------------------------------


@step(retry=Retry(attempts=2, first=0, on=(ValueError,)))
async def add(to: list[int], item: int) -> None:
    to.append(item)
    if len(to) == 1:
        raise ValueError("once")


def test_a_step_may_have_its_first_arguments_filled_in(virtual: Callable[..., Any]) -> None:
    seen: list[int] = []

    done = virtual(lambda: result_of(loop(range(3), partial(add, seen))))

    assert (done.done, sorted(seen)) == (3, [0, 0, 1, 2])


@step(run_in="process")
def square(item: int) -> int:
    if item == 2:
        raise ValueError("no square")
    return item * item


def test_a_step_may_run_in_a_process(real: Callable[..., Any]) -> None:
    done = real(lambda: result_of(loop(range(4), square, parallel=2, on_error=SetAside(at_most=1)), virtual_time=False))

    assert (done.done, done.set_aside) == (3, 1)


def test_a_function_that_returns_a_coroutine_is_refused(real: Callable[..., Any]) -> None:
    def do(item: int) -> Any:
        return Ledger().do(item)

    with pytest.raises(RunPaused, match="returned a coroutine"):
        real(lambda: result_of(loop(range(3), do), virtual_time=False))


def test_a_step_that_must_not_run_twice_is_refused(virtual: Callable[..., Any]) -> None:
    @step(on_interrupt="fail")
    async def once(item: int) -> None: ...

    with pytest.raises(RunPaused, match="on_interrupt"):
        virtual(lambda: result_of(loop(range(3), once)))


@pytest.mark.parametrize("options", [{"parallel": 0}, {"batch": 0}, {"flush": -1}])
def test_senseless_options_are_refused(virtual: Callable[..., Any], options: dict[str, Any]) -> None:
    with pytest.raises(RunPaused, match=r"BadDefinition|BadDuration"):
        virtual(lambda: result_of(loop(range(3), Ledger().do, **options)))


@pytest.mark.parametrize("at_most", [True, 1.0, -0.1, 1.5, math.nan])
def test_a_senseless_budget_is_refused(at_most: float) -> None:
    with pytest.raises((BadDefinition, ValueError)):
        SetAside(at_most=at_most)


# --- looking at it -----------------------------------------------------------------------------------------------------


def test_progress_and_the_time_left_are_shown_while_it_runs(virtual: Callable[..., Any]) -> None:
    of = loop(range(100), Ledger(takes_s=1.0).do, batch=10, flush="1s")

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            await anyio.sleep(50.5)
            during = (await run.status()).loops
            return during, await run.result()

    (during,), done = virtual(main)

    assert during.total == 100
    assert 40 <= during.done <= 50
    assert during.rate_per_s == pytest.approx(1.0, rel=0.2)
    assert during.eta_s == pytest.approx(50, rel=0.3)
    assert (done.done, done.total) == (100, 100)


@pytest.mark.parametrize(("source", "total"), [(partial(range, 10), 10), (partial(generated, 10), None)])
def test_the_total_comes_from_a_source_that_knows_its_size(real: Callable[..., Any], source: Any, total: int | None) -> None:
    assert real(lambda: result_of(loop(source, Ledger().do), virtual_time=False)).total == total


def test_the_total_can_be_given(virtual: Callable[..., Any]) -> None:
    assert virtual(lambda: result_of(loop(partial(awaited, 10), Ledger().do, total=10))).total == 10


# --- stopping ----------------------------------------------------------------------------------------------------------


def test_pause_lets_running_items_finish_and_begins_none(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(takes_s=10.0)
    of = loop(range(20), ledger.do, parallel=3)

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            await anyio.sleep(15)
            await run.pause()
            info = await settled(run)
            begun = len(ledger.seen)
            await anyio.sleep(100)
            assert len(ledger.seen) == begun
            await run.resume()
            return begun, info, await run.result()

    begun, info, done = virtual(main)

    assert (begun, info.status, info.loops[0].done) == (6, "paused", 6)
    assert done.repeated == 0
    assert set(ledger.times.values()) == {1}


def test_pause_does_not_wait_for_the_next_try_of_an_item(virtual: Callable[..., Any]) -> None:
    tries: list[int] = []

    @step(retry=Retry(attempts=2, first="1h", cap="1h", on=(ValueError,)))
    async def do(item: int) -> None:
        tries.append(item)
        if len(tries) == 1:
            raise ValueError("once")

    of = loop(range(3), do)

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            await anyio.sleep(1)
            began = LoopClock().monotonic()
            await run.pause()
            await settled(run)
            waited = LoopClock().monotonic() - began
            await run.resume()
            return waited, await run.result()

    waited, done = virtual(main)

    assert waited < 60
    assert done.done == 3


def test_cancel_in_the_middle_ends_the_run_and_its_items(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(takes_s=10.0)
    of = loop(range(20), ledger.do, parallel=3)

    async def main() -> Any:
        async with hosted(of) as runtime:
            run = await runtime.start(of(), key="k")
            await anyio.sleep(15)
            await run.cancel()
            return await settled(run)

    info = virtual(main)

    assert info.status == "cancelled"
    assert (len(ledger.seen), ledger.now) == (6, 0)


def test_cancel_does_not_wait_for_a_thread_that_hangs(real: Callable[..., Any]) -> None:
    release, begun = threading.Event(), threading.Event()

    def do(item: int) -> None:
        begun.set()
        release.wait(20)

    of = loop(range(20), do)

    async def main() -> str:
        async with hosted(of, virtual_time=False) as runtime:
            run = await runtime.start(of(), key="k")
            assert await anyio.to_thread.run_sync(begun.wait, 20)
            await run.cancel()
            info = await settled(run)
            release.set()
            return str(info.status)

    assert real(main) == "cancelled"


def test_a_loop_in_a_branch_that_is_cancelled_ends(virtual: Callable[..., Any]) -> None:
    ledger = Ledger(takes_s=10.0)

    @step
    async def fail() -> None:
        await anyio.sleep(15)
        raise Abort("no")

    class Two(Workflow[None]):
        async def run(self) -> None:
            await gather(self.each(range(100), ledger.do, key=str), fail())

    async def main() -> None:
        async with hosted(Two) as runtime:
            with pytest.raises(Abort):
                await (await runtime.start(Two(), key="k")).result()

    virtual(main)

    assert (len(ledger.seen), ledger.now) == (2, 0)
