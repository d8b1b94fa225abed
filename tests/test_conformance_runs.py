"""What a run owes whoever started it: once, under its key, with what was recorded, whatever is asked of it and whoever asks."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import anyio
import pytest
from attrs import field, frozen

from actorflow import (
    Abort,
    ChildFailed,
    KeyTaken,
    Limits,
    Message,
    Retry,
    Run,
    RunCancelled,
    RunEnded,
    RunPaused,
    Runtime,
    Workflow,
    gather,
    step,
)
from actorflow.errors import RunPruned
from actorflow.records import Address
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import because, both, did, life, runtime, virtual, world


@step
async def first(word: str) -> str:
    did.append(word)
    await anyio.sleep(1.0)
    return word + "1"


@step
async def second(word: str) -> str:
    did.append(word)
    await anyio.sleep(1.0)
    return word + "2"


@step
async def third(word: str) -> str:
    did.append(word)
    await anyio.sleep(1.0)
    return word + "3"


class Go(Message[None]): ...


class Three(Workflow[str]):
    word: str = ""

    async def run(self) -> str:
        return await third(await second(await first(self.word)))


# --- starting ------------------------------------------------------------------------------------------------------------


@both
def test_three_steps_run_once_each_and_are_recorded_in_order(backend: Backend) -> None:
    """X1."""

    async def scenario() -> None:
        async with runtime(Three) as opened:
            run = await opened.start(Three("a"), key="k")

            assert await run.result() == "a123"

            assert did == ["a", "a1", "a12"]
            steps = [entry for entry in await run.history() if entry.kind == "step"]
            assert [(entry.call, entry.outcome) for entry in steps] == [
                (":first#0", '"a1"'),
                (":second#0", '"a12"'),
                (":third#0", '"a123"'),
            ]

    virtual(backend, scenario)


@both
def test_a_used_key_joins_with_equal_input_and_is_refused_with_another(backend: Backend) -> None:
    """X4."""
    store = MemoryStore()

    async def again(opened: Runtime) -> None:
        assert await (await opened.start(Three("a"), key="k")).result() == "a123"
        with pytest.raises(KeyTaken, match=r'(?s)"a".*"b"'):
            await opened.start(Three("b"), key="k")
        assert await opened.run(Three, "k").result() == "a123"
        assert [info.status for info in (await opened.runs()).runs] == ["completed"]
        assert did == ["a", "a1", "a12"]

    async def scenario() -> None:
        async with runtime(Three, store=store) as opened:
            await opened.start(Three("a"), key="k")
            with pytest.raises(KeyTaken):  # While it runs, too.
                await opened.start(Three("b"), key="k")
            await again(opened)
        async with runtime(Three, store=store) as opened:
            await again(opened)

    virtual(backend, scenario)


@both
def test_two_who_start_one_key_at_once_have_one_run(backend: Backend) -> None:
    """X5."""

    async def scenario() -> None:
        async with runtime(Three) as opened:
            results: list[str] = []

            async def start() -> None:
                results.append(await (await opened.start(Three("a"), key="k")).result())

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(start)

            assert results == ["a123"] * 5
            assert did == ["a", "a1", "a12"]
            assert len((await opened.runs()).runs) == 1

    virtual(backend, scenario)


class Other(Workflow[str]):
    word: str = ""

    async def run(self) -> str:
        return await first("other " + self.word)


@both
def test_one_key_under_two_classes_names_two_runs(backend: Backend) -> None:
    """X6."""

    async def scenario() -> None:
        async with runtime(Three, Other) as opened:
            one = await opened.start(Three("a"), key="k")
            other = await opened.start(Other("b"), key="k")

            assert [await one.result(), await other.result()] == ["a123", "other b1"]
            assert sorted((info.kind, info.key) for info in (await opened.runs()).runs) == [("Other", "k"), ("Three", "k")]

    virtual(backend, scenario)


@both
def test_who_wants_a_new_run_is_refused_a_used_key_and_may_repeat_the_request(backend: Backend) -> None:
    """X7."""

    async def scenario() -> None:
        async with runtime(Three) as opened:
            run = await opened.start(Three("a"), key="k")
            for _ in ("running", "ended"):
                with pytest.raises(KeyTaken):
                    await opened.start(Three("a"), key="k", on_conflict="reject")
                await run.result()
            at = Address("Three", "new")
            for _ in ("first", "repeated"):
                await opened.operations.start(at, input=b'{"word":"n"}', on_conflict="reject", deadline_s=None, request="r")
            assert await opened.run(Three, "new").result() == "n123"
            await opened.operations.start(at, input=b'{"word":"n"}', on_conflict="reject", deadline_s=None, request="r")
            with pytest.raises(KeyTaken):
                await opened.operations.start(at, input=b'{"word":"n"}', on_conflict="reject", deadline_s=None, request="other")
            assert len(did) == 6

    virtual(backend, scenario)


class OutOfStock(Abort):
    """A business failure with something to say."""

    def __init__(self, what: str, left: int) -> None:
        self.what, self.left = what, left
        super().__init__(f"{left} of {what} left")


class Refused(Workflow[str]):
    async def run(self) -> str:
        await first("a")
        raise OutOfStock("apples", 3)


@both
def test_a_business_failure_is_the_same_for_all_who_wait_and_after_a_restart(backend: Backend) -> None:
    """X8."""
    store, seen = MemoryStore(), list[tuple[str, str, int]]()

    async def wait(run: Run[Refused]) -> None:
        with pytest.raises(OutOfStock) as caught:
            await run.result()
        seen.append((str(caught.value), caught.value.what, caught.value.left))

    async def scenario() -> None:
        async with runtime(Refused, store=store) as opened:
            run = await opened.start(Refused(), key="k")
            async with anyio.create_task_group() as group:
                group.start_soon(wait, run)
                group.start_soon(wait, run)
        async with runtime(Refused, store=store) as opened:
            await wait(opened.run(Refused, "k"))
            await wait(await opened.start(Refused(), key="k"))
        assert seen == [("3 of apples left", "apples", 3)] * 4
        assert did == ["a"]

    virtual(backend, scenario)


@both
def test_a_pruned_key_never_runs_again_and_a_kept_one_is_good(backend: Backend) -> None:
    """R16."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Three, store=store) as opened:
            run = await opened.start(Three("a"), key="k")
            await run.result()
            await anyio.sleep(10 * 86_400)
            assert await (await opened.start(Three("a"), key="k")).result() == "a123"
            await run.prune()
            for word in ("a", "b"):
                with pytest.raises(RunPruned):
                    await opened.start(Three(word), key="k")
        async with runtime(Three, store=store) as opened:
            with pytest.raises(RunPruned):
                await opened.start(Three("a"), key="k", on_conflict="reject")
            await anyio.sleep(100)
        assert len(did) == 3

    virtual(backend, scenario)


@step
async def counted(n: int) -> list[int]:
    did.append(n)
    return [n, len(did)]


class Twice(Workflow[list[list[int]]]):
    async def run(self) -> list[list[int]]:
        return [await counted(1), await counted(2), await counted(1)]


class TwiceToo(Workflow[list[list[int]]]):
    async def run(self) -> list[list[int]]:
        return [await counted(1), await counted(2)]


@both
def test_nothing_is_shared_between_workflows_runs_and_calls(backend: Backend) -> None:
    """R11."""
    store, seen = MemoryStore(), list[Any]()

    async def scenario() -> None:
        for _ in range(2):
            async with runtime(Twice, TwiceToo, store=store) as opened:
                runs: list[Any] = [await opened.start(Twice(), key=key) for key in ("k", "l")]
                runs.append(await opened.start(TwiceToo(), key="k"))
                seen.append([await run.result() for run in runs])
        assert [n for result in seen[0] for n, _ in result] == [1, 2, 1, 1, 2, 1, 1, 2]
        assert sorted(count for result in seen[0] for _, count in result) == list(range(1, 9))
        assert seen[0] == seen[1]

    virtual(backend, scenario)


# --- steps ---------------------------------------------------------------------------------------------------------------


@step(retry=Retry(attempts=3, first="10s", factor=2.0, jitter=0.0, on=(ConnectionError,)))
async def tried(failures: int) -> str:
    did.append(anyio.current_time())
    if len(did) <= failures:
        raise ConnectionError(f"call {len(did)}")
    return "reached"


class Tried(Workflow[str]):
    failures: int

    async def run(self) -> str:
        try:
            return await tried(self.failures)
        except ConnectionError as error:
            return str(error)


@both
@pytest.mark.parametrize(("failures", "result"), [(2, "reached"), (3, "call 3")])
def test_a_step_waits_between_its_tries_and_not_after_the_last(backend: Backend, failures: int, result: str) -> None:
    """X11."""

    async def scenario() -> float:
        began = anyio.current_time()
        async with runtime(Tried) as opened:
            assert await (await opened.start(Tried(failures), key="k")).result() == result
            return anyio.current_time() - began

    took_s = virtual(backend, scenario)

    assert [round(at - did[0], 3) for at in did] == [0.0, 10.0, 30.0]
    assert round(took_s, 3) == 30.0


class NoSuchCard(Exception):
    """Not worth another try."""


@step(retry=Retry(attempts=5, first="1s", on=(ConnectionError,)))
async def charge(card: str) -> str:
    did.append(card)
    raise NoSuchCard(card)


class Charging(Workflow[str]):
    async def run(self) -> str:
        try:
            return await charge("c-1")
        except NoSuchCard as error:
            return f"{type(error).__name__} {error}"


@both
def test_a_failure_that_is_not_to_be_retried_is_raised_as_it_is_after_one_call(backend: Backend) -> None:
    """X12."""

    async def scenario() -> None:
        async with runtime(Charging) as opened:
            assert await (await opened.start(Charging(), key="k")).result() == "NoSuchCard c-1"
            assert did == ["c-1"]

    virtual(backend, scenario)


@step
async def takes_part() -> str:
    assert world["loop"] == _loop()
    async with world["lock"]:  # Held by the service, and let go of later.
        world["called"].set()
        return "with what the service made"


class TakesPart(Workflow[str]):
    async def run(self) -> str:
        return await takes_part()


def _loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token()


@both
def test_async_steps_run_on_the_loop_of_the_service_and_use_what_it_made_there(backend: Backend) -> None:
    """R17."""

    async def scenario() -> None:
        async with runtime(TakesPart) as opened:
            world.update(loop=_loop(), lock=anyio.Lock(), called=anyio.Event())
            async with world["lock"]:
                run = await opened.start(TakesPart(), key="k")
                await anyio.sleep(1)
                assert not world["called"].is_set()
            await world["called"].wait()
            assert await run.result() == "with what the service made"

    virtual(backend, scenario)


@step
async def listed() -> list[int]:
    world["kept"] = [1, 2, 3]
    return world["kept"]


@step
async def spoils(numbers: list[int]) -> int:
    total = sum(numbers)
    numbers.clear()
    world["kept"].append(99)
    return total


class Careless(Workflow[list[int]]):
    async def run(self) -> list[int]:
        numbers = await listed()
        world["kept"].append(4)
        total = await spoils(numbers)
        await self.receive(Go)
        return [*numbers, total]


@both
def test_a_value_that_is_changed_after_it_was_returned_or_passed_is_as_it_was(backend: Backend) -> None:
    """E18."""
    store = MemoryStore()

    async def finish(opened: Runtime) -> list[int]:
        run = opened.run(Careless, "k")
        await run.tell(Go(), key="go")
        return await run.result()

    async def scenario() -> None:
        async with runtime(Careless, store=store) as opened:
            run = await opened.start(Careless(), key="k")
            await anyio.sleep(1)
            assert [entry.outcome for entry in await run.history() if entry.kind == "step"] == ["[1,2,3]", "6"]
        async with runtime(Careless, store=store) as opened:
            assert await finish(opened) == [1, 2, 3, 6]

    virtual(backend, scenario)


class Color(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    y: float


@frozen
class Kinds:
    """One of each."""

    nothing: None
    text: str
    empty: bytes
    raw: bytes
    when: datetime
    there: datetime
    day: date
    long: timedelta
    price: Decimal
    color: Color
    point: Point
    id: UUID
    odd: float
    big: int
    set: frozenset[str]
    pair: tuple[int, str]
    deep: dict[str, list[int | None]]


ALL = Kinds(
    nothing=None,
    text="é\u0000\U0001f600",
    empty=b"",
    raw=bytes(range(256)),
    when=datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC),
    there=datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    day=date(2026, 2, 28),
    long=timedelta(days=-1, microseconds=7),
    price=Decimal("12.3400"),
    color=Color.RED,
    point=Point(1, 2.5),
    id=UUID(int=7),
    odd=0.1 + 0.2,
    big=2**63 - 1,
    set=frozenset({"b", "a"}),
    pair=(1, "x"),
    deep={"": [None, 1], "b": []},
)


@step
async def made() -> Kinds:
    did.append("made")
    return ALL


@step
async def none() -> None:
    did.append("none")


@step
async def no_bytes() -> bytes:
    did.append("no bytes")
    return b""


class Collecting(Workflow[list[Kinds]]):
    kept: Kinds | None = None

    async def run(self) -> list[Kinds]:
        self.kept = await made()
        assert await none() is None  # type: ignore[func-returns-value]
        assert await no_bytes() == b""
        await self.receive(Go)
        return [self.kept, ALL]


@both
def test_values_of_all_kinds_are_the_same_after_a_restart(backend: Backend) -> None:
    """E23."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Collecting, store=store) as opened:
            await opened.start(Collecting(), key="k")
            await anyio.sleep(1)
        async with runtime(Collecting, store=store) as opened:
            await opened.run(Collecting, "k").tell(Go())
            ends = await opened.run(Collecting, "k").result()
        async with runtime(Collecting, store=store) as opened:
            ends += await opened.run(Collecting, "k").result()
        assert ends == [ALL] * 4
        assert {(end.when.tzinfo, str(end.there.tzinfo), end.there.fold, str(end.price)) for end in ends} == {
            (UTC, "Europe/Berlin", 1, "12.3400")
        }
        assert did == ["made", "none", "no bytes"]

    virtual(backend, scenario)


# --- cancelling, pausing -------------------------------------------------------------------------------------------------


@both
def test_after_a_cancel_no_step_begins_and_all_who_wait_are_told(backend: Backend) -> None:
    """X28."""
    store, told = MemoryStore(), list[str]()

    async def wait(run: Run[Three]) -> None:
        with pytest.raises(RunCancelled, match="not wanted"):
            await run.result()
        told.append((await run.status()).status)

    async def scenario() -> None:
        async with runtime(Three, store=store) as opened:
            run = await opened.start(Three("a"), key="k")
            async with anyio.create_task_group() as group:
                group.start_soon(wait, run)
                group.start_soon(wait, run)
                await anyio.sleep(1.5)
                await run.cancel("not wanted")
        async with runtime(Three, store=store) as opened:
            await wait(opened.run(Three, "k"))
            await anyio.sleep(100)
        assert told == ["cancelled"] * 3
        assert did == ["a", "a1"]

    virtual(backend, scenario)


class Rests(Workflow[str]):
    how: str

    async def run(self) -> str:
        match self.how:
            case "sleeps":
                await self.sleep("30d")
            case "receives":
                await self.receive(Go, within="30d")
            case "waits for ever":
                await self.receive(Go)
            case "waits for a child":
                await (await self.start(Rests("sleeps"), key="child")).result()
            case _:
                await gather(self.sleep("30d"), self.receive(Go))
        return "rested"


@both
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("how", ["sleeps", "receives", "waits for ever", "waits for a child", "in branches"])
def test_a_run_that_sleeps_is_cancelled_at_once_and_not_when_it_would_wake(backend: Backend, how: str, resident: bool) -> None:
    """R20: in memory or not."""

    async def scenario() -> None:
        async with runtime(Rests, limits=Limits(passivate_after_s=1_000.0 if resident else 0.0)) as opened:
            run = await opened.start(Rests(how), key="k")
            await anyio.sleep(60)
            began = anyio.current_time()
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()
            await anyio.sleep(0.5)  # A child that was not in memory is told, and ends by itself.
            assert anyio.current_time() - began < 1.0
            assert {info.status for info in (await opened.runs()).runs} == {"cancelled"}

    virtual(backend, scenario)


@both
def test_a_cancelled_run_is_not_resumed_and_names_fork(backend: Backend) -> None:
    """X29."""

    async def scenario() -> None:
        async with runtime(Three) as opened:
            run = await opened.start(Three("a"), key="k")
            await anyio.sleep(1.5)
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()

            with pytest.raises(RunEnded, match="fork"):
                await run.resume()

            fork = await run.fork("again")
            assert await fork.result() == "a123"
            assert did == ["a", "a1", "a1", "a12"]  # What had finished was not repeated.

    virtual(backend, scenario)


class Leaf(Workflow[int]):
    nap: str

    async def run(self) -> int:
        await self.sleep(self.nap)
        return 1


class Family(Workflow[str]):
    async def run(self) -> str:
        await self.start(Leaf("1s"), key="quick")
        await self.start(Leaf("1d"), key="slow")
        await self.sleep("1h")
        return "done"


@both
def test_a_cancel_leaves_completed_children_as_they_are(backend: Backend) -> None:
    """X30."""

    async def scenario() -> None:
        async with runtime(Family, Leaf) as opened:
            run = await opened.start(Family(), key="k")
            await anyio.sleep(10)
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()
            await anyio.sleep(10)
            assert await opened.run(Leaf, "quick").result() == 1
            with pytest.raises(RunCancelled):
                await opened.run(Leaf, "slow").result()

    virtual(backend, scenario)


class Bounded(Workflow[str]):
    async def run(self) -> str:
        longer = await self.start(Leaf("1d"), key="longer", deadline="10d")
        await self.start(Leaf("1d"), key="none")
        await self.start(Leaf("1d"), key="sooner", deadline="10s")
        try:
            await longer.result()
        except ChildFailed as error:
            return str(error)
        return "done"


@both
def test_a_child_has_no_later_deadline_than_its_parent(backend: Backend) -> None:
    """X31."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Bounded, Leaf, store=store) as opened:
            run = await opened.start(Bounded(), key="k", deadline="100s")
            began = (await run.status()).created_at
            await anyio.sleep(1)
            deadlines = {key: (await opened.run(Leaf, key).status()).deadline_at for key in ("longer", "none", "sooner")}
            assert {key: round((at or 0) - began) for key, at in deadlines.items()} == {"longer": 100, "none": 100, "sooner": 10}
        await anyio.sleep(200)
        async with runtime(Bounded, Leaf, store=store) as opened:
            await anyio.sleep(10)
            assert {info.status for info in (await opened.runs()).runs} <= {"failed", "cancelled"}

    virtual(backend, scenario)


# --- code that changes -----------------------------------------------------------------------------------------------------


async def deployed(before: type[Workflow[Any]], after: type[Workflow[Any]]) -> Any:
    """What a run comes to that began as one class and goes on, after its first wait, as another."""
    store = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(before(), key="k")
        await anyio.sleep(100)

    async def go_on(opened: Runtime) -> Any:
        run = opened.run(after, "k")
        await run.tell(Go())
        return await run.result()

    await life(store, before, script=begin)
    return await life(store, after, script=go_on)


@frozen
class OrderThen:
    n: int


@frozen
class OrderNow:
    n: int
    currency: str = "eur"


@step(name="bill")
async def bill_then(order: OrderThen) -> int:
    did.append(order)
    return order.n


@step(name="bill")
async def bill_now(order: OrderNow) -> int:
    did.append(order)
    return order.n


class BillThen(Workflow[int], kind="Bill"):
    order: OrderThen = field(factory=lambda: OrderThen(7))

    async def run(self) -> int:
        billed = await bill_then(self.order)
        await self.receive(Go)
        return billed


class BillNow(Workflow[int], kind="Bill"):
    order: OrderNow = field(factory=lambda: OrderNow(7))

    async def run(self) -> int:
        billed = await bill_now(self.order)
        await self.receive(Go)
        return billed


@both
def test_a_new_field_with_a_default_does_not_perform_a_step_again(backend: Backend) -> None:
    """R1."""
    assert virtual(backend, lambda: deployed(BillThen, BillNow)) == 7
    assert did == [OrderThen(7)]


class Terse(Workflow[str], kind="Looks"):
    async def run(self) -> str:
        a = await first("a")
        await self.receive(Go)
        return await second(a)


class Wordy(Workflow[str], kind="Looks"):
    """Says at length what it does."""

    note: str = "a field more, with a default"

    async def run(self) -> str:
        # First things first.
        begun = (
            await first("a")  # The first step.
        )
        if (await self.receive(Go)) is not None:
            result = await second(begun)
        else:
            result = "never"
        return result


@both
def test_code_that_only_looks_different_goes_on(backend: Backend) -> None:
    """R21."""
    assert virtual(backend, lambda: deployed(Terse, Wordy)) == "a12"
    assert did == ["a", "a1"]


class Recorded(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await second(await first("a"))
        await self.receive(Go)
        return word


class Reordered(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await first(await second("a"))
        await self.receive(Go)
        return await third(word)


class Removed(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await second("a1")
        await self.receive(Go)
        return await third(word)


class RemovedLast(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await first("a")
        await self.receive(Go)
        return await third(word)


class Exchanged(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await third(await first("a"))
        await self.receive(Go)
        return await third(word)


class Inserted(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await second(await third(await first("a")))
        await self.receive(Go)
        return word


class OtherArgument(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word = await second(await first("b"))
        await self.receive(Go)
        return await third(word)


class Beside(Workflow[str], kind="Changing"):
    async def run(self) -> str:
        word, _ = await gather(first("a"), third("new"))
        await self.receive(Go)
        return word


@both
@pytest.mark.parametrize("after", [Reordered, Removed, RemovedLast, Exchanged, Inserted, OtherArgument, Beside])
def test_code_that_changes_what_was_recorded_pauses_before_anything_new_happens(
    backend: Backend, after: type[Workflow[str]]
) -> None:
    """E1."""

    async def scenario() -> None:
        with pytest.raises(RunPaused) as caught:
            await deployed(Recorded, after)
        because(caught.value, "diverged")

    virtual(backend, scenario)

    assert did == ["a", "a1"]


# --- size ------------------------------------------------------------------------------------------------------------------


@step
async def tick(n: int) -> int:
    did.append(n)
    return n + 1


class Long(Workflow[int]):
    length: int
    total: int = 0
    rounds: int = 1

    async def run(self) -> int:
        for _ in range(self.length):
            self.total = await tick(self.total)
        await self.receive(Go)
        if self.rounds:
            self.rounds -= 1
            self.again()
        return self.total


def test_a_long_journal_is_read_once_and_starting_over_makes_it_short() -> None:
    """E25."""
    length, store, reads = 3_000, MemoryStore(), list[int]()

    class Reading(MemoryStore):
        async def load(self, run: int) -> Any:
            loaded = await super().load(run)
            reads.append(len(loaded.entries) if loaded is not None else 0)
            return loaded

    async def scenario() -> None:
        async with runtime(Long, store=store) as opened:
            run = await opened.start(Long(length), key="k")
            while len(did) < length:  # noqa: ASYNC110  (in virtual time)
                await anyio.sleep(1)
            await anyio.sleep(1)
        for wanted in (length, 0):
            reads.clear()
            async with runtime(Long, store=Reading(share=store)) as opened:
                run = opened.run(Long, "k")
                await run.tell(Go())
                await anyio.sleep(10)
                assert len(reads) == 1
                assert wanted <= reads[0] <= wanted + length + 2
            if wanted:
                assert len(did) == 2 * length  # The second round; none of the first was performed again.
        assert await _result(store) == 2 * length

    async def _result(of: MemoryStore) -> int:
        async with runtime(Long, store=of) as opened:
            return await opened.run(Long, "k").result()

    virtual("asyncio", scenario)


class Chore(Workflow[int]):
    n: int

    async def run(self) -> int:
        await self.sleep("1h")
        if self.n % 10 == 3:
            raise Abort(f"chore {self.n}")
        return self.n


class Household(Workflow[list[int]]):
    size: int

    async def run(self) -> list[int]:
        children = [await self.start(Chore(n), key=str(n)) for n in range(self.size)]
        ends = await gather([child.result() for child in children], settle=True)
        return [-1 if isinstance(end, Exception) else end for end in ends]


def test_many_children_give_each_outcome_once_and_stay_in_bounds() -> None:
    """F14."""
    size, store = 300, MemoryStore()
    limits = Limits(resident_max=20, passivate_after_s=1.0)

    async def begin(opened: Runtime) -> None:
        await opened.start(Household(size), key="k")
        await anyio.sleep(600)
        assert len(opened._running().resident) <= 21
        await anyio.sleep(3_600)

    async def finish(opened: Runtime) -> list[int]:
        return await opened.run(Household, "k").result()

    async def scenario() -> list[int]:
        await life(store, Household, Chore, script=begin, cut_s=3_599.0, limits=limits)
        return await life(store, Household, Chore, script=finish, limits=limits)

    assert virtual("asyncio", scenario) == [-1 if n % 10 == 3 else n for n in range(size)]


@step(retry=Retry(attempts=3, first="60s", jitter=0.0, on=(ConnectionError,)))
async def later() -> str:
    did.append("try")
    if did.count("try") < 2:
        raise ConnectionError("not yet")
    return "tried"


class Slow(Workflow[str]):
    async def run(self) -> str:
        await self.sleep("100s")
        return "child"


async def wait(run: Workflow[str], how: str) -> str:
    """What both versions wait for."""
    match how:
        case "timer":
            await run.sleep("100s")
            return "slept"
        case "retry":
            return await later()
        case "child":
            return await (await run.start(Slow(), key="child")).result()
        case _:
            return type(await run.receive(Go)).__name__


class VersionA(Workflow[str], kind="Versioned"):
    how: str

    async def run(self) -> str:
        before = await first("a")
        return f"{before} {await wait(self, self.how)} A"


class VersionB(Workflow[str], kind="Versioned"):
    how: str
    more: int = 7

    async def run(self) -> str:
        before = await first("a")
        waited = await wait(self, self.how)
        return f"{before} {waited} {await second('B')} {self.more}"


@both
@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize(("how", "result"), [("timer", "slept"), ("retry", "tried"), ("child", "child"), ("message", "Go")])
def test_a_run_that_waits_goes_on_under_the_next_version(backend: Backend, how: str, result: str, killed: bool) -> None:
    """C16: what it waits for is still there, what it did is not done again, and it ends as the new code says."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(VersionA(how), key="k")
        await anyio.sleep(10 if killed else 5)

    async def go_on(opened: Runtime) -> str:
        run = opened.run(VersionB, "k")
        if how == "message":
            await run.tell(Go())
        return await run.result()

    async def scenario() -> Any:
        await life(memory, VersionA, Slow, script=begin, cut_s=5.0 if killed else None)
        return await life(memory, VersionB, Slow, script=go_on)

    assert virtual(backend, scenario) == f"a1 {result} B2 7"
    assert did == ["a", *(["try", "try"] if how == "retry" else []), "B"]


# --- forks of paused runs ----------------------------------------------------------------------------------------------------


@step
async def breaks(word: str) -> str:
    await anyio.sleep(2.0)
    if not world.get("mended"):
        raise ValueError("not mended")
    return word


class Question(Message[str]): ...


class Broken(Workflow[str]):
    async def run(self) -> str:
        await self.start(Rests("sleeps"), key="grandchild")
        return await breaks("broken")


class Asks(Workflow[list[str]]):
    """Waits for a child, or for an answer of it."""

    async def run(self) -> list[str]:
        child = await self.start(Broken(), key="child")
        ends = await gather([child.result(), self.told(child)], settle=True)
        return [type(end).__name__ for end in ends]

    async def told(self, child: Run[Broken]) -> str:
        await self.sleep("1s")
        return await child.ask(Question(), within="1h")


@both
@pytest.mark.parametrize("keep", [False, True])
def test_a_fork_of_a_paused_run_tells_whoever_waits_for_it_or_belongs_to_it(backend: Backend, keep: bool) -> None:
    """G12: its parent and other waiters, its children, and its mail; unless the original is kept."""
    waited = list[str]()

    async def wait(run: Run[Broken]) -> None:
        try:
            waited.append(await run.result(wait_paused=True))
        except RunCancelled as error:
            waited.append(str(error))

    async def scenario() -> None:
        async with runtime(Asks, Broken, Rests) as opened:
            parent = await opened.start(Asks(), key="k")
            await anyio.sleep(5)
            child = opened.run(Broken, "child")
            assert (await child.status()).status == "paused"
            await child.tell(Go(), key="go")
            async with anyio.create_task_group() as group:
                group.start_soon(wait, child)
                await anyio.sleep(1)
                world["mended"] = True
                fork = await child.fork("fork", keep=keep)
                await anyio.sleep(10)
                group.cancel_scope.cancel()
            with pytest.raises(RunPaused):  # It inherited the failure; from before it, it would go on.
                await fork.result()
            left = {info.key: info.status for info in (await opened.runs()).runs}
            if keep:
                assert (left["child"], left["grandchild"], left["k"], waited) == ("paused", "waiting", "waiting", [])
                return
            assert left == {"k": "completed", "child": "cancelled", "grandchild": "cancelled", "fork": "paused"}
            assert await parent.result() == ["ChildFailed", "RunEnded"]
            assert len(waited) == 1
            assert "forked as Broken/fork" in waited[0]
            assert [letter.body for letter in (await opened.dead_letters(child)).letters] == ["{}", "{}"]  # The tell and the ask.

    virtual(backend, scenario)
