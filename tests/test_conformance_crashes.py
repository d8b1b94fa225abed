"""The power goes at one chosen moment, or at each statement of a commit: what is there afterwards, and how it goes on."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from actorflow import (
    Actor,
    FenceLost,
    Message,
    RunCancelled,
    RunPaused,
    Runtime,
    StoreError,
    Workflow,
    current_step,
    gather,
    handler,
    step,
)
from actorflow.clock import Chance
from actorflow.records import Commit, Consume, Run, SetCursor, SetView, Write
from actorflow.stores.memory import MemoryStore
from actorflow.stores.sqlite import SqliteStore
from actorflow.testing.clock import Backend, LoopClock, Ticks, run_virtual
from actorflow.testing.faults import Fault
from actorflow.testing.invariants import Rows, rows_of, violations
from actorflow.testing.samples import Held, a_message, a_run, an_entry, waiting
from tests.harness import Log, Note, Read, because, both, did, life, runtime, virtual


async def rows(memory: MemoryStore) -> dict[str, Rows]:
    """All that is stored, read as it is: to open the store would count a crash. By address."""
    look = MemoryStore(share=memory)
    look._opened = True
    found = await rows_of(look)
    assert violations(found) == []
    return {str(each): each for each in found}


async def idle(_: Runtime) -> None:
    """Only be there."""
    await anyio.sleep(10_000)


def kinds(of: Rows) -> list[str]:
    return [entry.kind for _, entry in of.past]


# --- waits ---------------------------------------------------------------------------------------------------------------


@step
async def woke(what: str) -> str:
    did.append((what, round(anyio.current_time(), 1)))
    return what


class Go(Message[None]): ...


class Sleeps(Workflow[str]):
    async def run(self) -> str:
        await self.sleep("100s")
        return await woke("slept")


class Waits(Workflow[str]):
    async def run(self) -> str:
        got = await self.receive(Go, within="100s")
        first = await woke("in vain" if got is None else "received")
        return f"{first}, {'late' if await self.receive(Go) is not None else ''}"


async def cut_and_on(workflow: Workflow[Any], *cuts: tuple[float, float]) -> str:
    """Start it; cut the power after so many seconds, and stay down for so many more, as often as said; then let it end."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(workflow, key="k")
        await anyio.sleep(10_000)

    for n, (cut_s, down_s) in enumerate(cuts):
        await life(memory, type(workflow), script=idle if n else begin, cut_s=cut_s)
        await anyio.sleep(down_s)
    await life(memory, type(workflow), script=idle)
    return (await rows(memory))[f"{type(workflow).__name__}/k"].run.status


@both
@pytest.mark.parametrize(
    ("cuts", "at"),
    [
        ([(25.0, 0.0)], 100.0),
        ([(50.0, 20.0)], 100.0),
        ([(25.0, 10.0), (25.0, 10.0), (25.0, 1.0)], 100.0),
        ([(50.0, 200.0)], 250.0),
    ],
)
def test_a_sleep_that_was_cut_ends_when_it_would_have(backend: Backend, cuts: list[tuple[float, float]], at: float) -> None:
    """X18, A10: or at once, if nobody ran then."""
    assert virtual(backend, lambda: cut_and_on(Sleeps(), *cuts)) == "completed"
    assert did == [("slept", at)]


@both
@pytest.mark.parametrize("cuts", [[(30.0, 0.0)], [(50.0, 20.0), (20.0, 5.0)]])
def test_a_receive_that_was_cut_waits_as_long_in_all_and_stays_in_vain(backend: Backend, cuts: list[tuple[float, float]]) -> None:
    """X21: also when the message has come by the time of the next replay."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(Waits(), key="k")
        await anyio.sleep(10_000)

    async def finish(opened: Runtime) -> Any:
        await opened.run(Waits, "k").tell(Go(), key="late")
        return await opened.run(Waits, "k").result()

    async def scenario() -> Any:
        for n, (cut_s, down_s) in enumerate(cuts):
            await life(memory, Waits, script=idle if n else begin, cut_s=cut_s)
            await anyio.sleep(down_s)
        await life(memory, Waits, script=idle, cut_s=110.0)
        return await life(memory, Waits, script=finish)

    assert virtual(backend, scenario) == "in vain, late"
    assert did == [("in vain", 100.0)]


@both
def test_a_sleep_of_ten_years_is_stored_and_ends(backend: Backend) -> None:
    """D5."""
    memory, year_s = MemoryStore(), 365 * 86_400.0

    class Decade(Workflow[str]):
        async def run(self) -> str:
            await self.sleep("3650d")
            return await woke("after ten years")

    async def scenario() -> None:
        for years in (0.0, 4.0):
            async with Runtime(actors=[Decade], store=memory, clock=LoopClock(), chance=Chance(1)) as opened:
                await opened.start(Decade(), key="k")
                await anyio.sleep(years * year_s + 1.0)
        async with Runtime(actors=[Decade], store=memory, clock=LoopClock(), chance=Chance(1)) as opened:
            assert await opened.run(Decade, "k").result() == "after ten years"

    virtual(backend, scenario)

    assert [round(at / year_s, 3) for _, at in did] == [10.0]


class Tick(Message[None]): ...


class Set(Message[None]): ...


class Alarm(Actor):
    @handler
    async def set(self, m: Set) -> None:
        self.after("10s", Tick(), name="alarm")

    @handler
    async def tick(self, m: Tick) -> None:
        did.append(("fired", round(anyio.current_time(), 1)))


@both
def test_a_moment_that_passed_while_nobody_ran_fires_once_and_at_once(backend: Backend) -> None:
    """D8: a timer of an actor and a sleep of a run."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.at(Alarm, "a").tell(Set())
        await opened.start(Sleeps(), key="k")
        await anyio.sleep(10_000)

    async def scenario() -> None:
        await life(memory, Alarm, Sleeps, script=begin, cut_s=5.0)
        await anyio.sleep(1_000)
        for _ in range(3):
            await life(memory, Alarm, Sleeps, script=idle, cut_s=50.0)

    virtual(backend, scenario)

    assert sorted(did) == [("fired", 1_005.0), ("slept", 1_005.0)]


# --- who goes on, and who does not ---------------------------------------------------------------------------------------


@step
async def takes(name: str, seconds: float) -> str:
    did.append(name)
    await anyio.sleep(seconds)
    return f"{name}{did.count(name)}"


class Two(Workflow[str]):
    async def run(self) -> str:
        return await takes("a", 1.0) + await takes("b", 10.0)


@both
def test_a_run_goes_on_though_nobody_asks_for_it(backend: Backend) -> None:
    """R7."""
    assert virtual(backend, lambda: cut_and_on(Two(), (5.0, 0.0))) == "completed"
    assert did == ["a", "b", "b"]


class Side(Workflow[tuple[str, str, str]]):
    async def run(self) -> tuple[str, str, str]:
        return await gather(takes("slow", 10.0), takes("quick", 1.0), takes("slower", 20.0))


@both
def test_of_two_steps_side_by_side_only_the_one_without_a_record_runs_again(backend: Backend) -> None:
    """A22."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(Side(), key="k")
        await anyio.sleep(10_000)

    async def scenario() -> Any:
        await life(memory, Side, script=begin, cut_s=5.0)
        return await life(memory, Side, script=lambda opened: opened.run(Side, "k").result())

    assert virtual(backend, scenario) == ("slow2", "quick1", "slower2")
    assert Counter(did) == {"slow": 2, "quick": 1, "slower": 2}


class Deadly(Workflow[str]):
    """Its process ends whenever it has been at work for a while."""

    async def run(self) -> str:
        await takes("before", 1.0)
        return await takes("deadly", 1_000.0)


class Steady(Workflow[int]):
    async def run(self) -> int:
        for _ in range(30):
            await takes("steady", 1.0)
        return 30


@both
def test_a_run_that_ends_its_process_is_set_aside_and_the_others_go_on(backend: Backend) -> None:
    """X32, R15: `resume` gives it as many crashes again."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(Deadly(), key="d")
        await opened.start(Steady(), key="s")
        await opened.start(Sleeps(), key="k")
        await anyio.sleep(10_000)

    async def resume(opened: Runtime) -> None:
        run = opened.run(Deadly, "d")
        with pytest.raises(RunPaused, match="ended 3 times") as caught:
            await run.result()
        because(caught.value, "interrupted")
        await run.resume()
        await anyio.sleep(10_000)

    async def scenario() -> None:
        for script, lives in ((begin, 3), (resume, 3)):
            for n in range(lives):
                await life(memory, Deadly, Steady, Sleeps, script=idle if n else script, cut_s=5.5)
            began = did.count("deadly")
            await life(memory, Deadly, Steady, Sleeps, script=idle, cut_s=5.5)  # It is not tried any more.
            assert did.count("deadly") == began
            found = (await rows(memory))["Deadly/d"].run
            assert (found.status, found.reason) == ("paused", "interrupted")
        await life(memory, Deadly, Steady, Sleeps, script=idle, cut_s=100.0)
        ends = {name: each.run.status for name, each in (await rows(memory)).items()}
        assert ends == {"Deadly/d": "paused", "Steady/s": "completed", "Sleeps/k": "completed"}

    virtual(backend, scenario)

    assert Counter(name for name in did if isinstance(name, str))["deadly"] == 6
    assert did.count("before") == 1


class Contested(Workflow[str]):
    async def run(self) -> str:
        got = await takes("work", 10.0)
        return got + await takes("more", 10.0)


@both
def test_a_zombie_that_wakes_writes_nothing_and_leaves_one_history_and_one_end(backend: Backend) -> None:
    """X39, R14, I8."""
    memory, told = MemoryStore(), list[BaseException]()

    async def old() -> None:
        try:
            await life(memory, Contested, script=begin)
        except StoreError as error:
            told.append(error)

    async def begin(opened: Runtime) -> Any:
        return await (await opened.start(Contested(), key="k")).result()

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(old)
            await anyio.sleep(5.0)
            # The other one knows nothing of it: for itself it still holds the store, and its step goes on.
            assert await life(memory, Contested, script=lambda opened: opened.run(Contested, "k").result()) == "work2more1"
        end = (await rows(memory))["Contested/k"]
        assert kinds(end) == ["started", "step", "step", "completed"]

    virtual(backend, scenario)

    assert [type(error) for error in told] == [FenceLost]
    assert did == ["work", "work", "more"]


# --- messages, effects, outcomes -------------------------------------------------------------------------------------------


class Add(Message[int]):
    n: int


class Total(Actor):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        did.append(m.n)
        self.total += m.n
        return self.total


async def told_with(memory: MemoryStore, mode: Literal["before", "after"]) -> None:
    """Tell an actor that exists, and lose the power at that commit."""

    async def make(opened: Runtime) -> None:
        await opened.at(Log, "l").tell(Note(1), key="first")
        await anyio.sleep(1)
        await opened.at(Log, "l").pause()

    async def tell(opened: Runtime) -> None:
        store: Any = opened._running().store
        store.faults = [Fault(store.commits + 1, mode)]
        await opened.at(Log, "l").tell(Note(2), key="m")
        did.append("acknowledged")

    await life(memory, Log, script=make)
    await life(memory, Log, script=tell)


async def tell_again(opened: Runtime) -> list[int]:
    log = opened.at(Log, "l")
    for _ in range(2):
        await log.tell(Note(2), key="m")
    await log.resume()
    await anyio.sleep(1)
    return await log.ask(Read())


@both
def test_a_message_that_was_not_durable_was_not_acknowledged_and_is_sent_again_once(backend: Backend) -> None:
    """A1."""
    memory = MemoryStore()

    async def scenario() -> None:
        await told_with(memory, "before")
        assert did == []
        assert (await rows(memory))["Log/l"].loaded.mailbox == []
        assert await life(memory, Log, script=tell_again) == [1, 2]

    virtual(backend, scenario)


@both
def test_a_message_whose_acknowledgement_was_lost_has_no_second_row(backend: Backend) -> None:
    """A2: an ask whose answer was lost gets the same answer, and is not handled again."""
    memory = MemoryStore()

    async def ask(opened: Runtime) -> int:
        return await opened.at(Total, "t").ask(Add(5), key="a")

    async def scenario() -> None:
        await told_with(memory, "after")
        assert did == []
        assert [message.key for message in (await rows(memory))["Log/l"].loaded.mailbox] == ["m"]
        assert await life(memory, Log, script=tell_again) == [1, 2]
        for at in range(1, 5):  # The second or third is that of the reply.
            other = MemoryStore()
            did.clear()
            await life(other, Total, script=ask, faults=[Fault(at, "after")])
            assert [await life(other, Total, script=ask) for _ in range(2)] == [5, 5]
            assert 1 <= len(did) <= 2
            if at >= 3:
                assert did == [5]

    virtual(backend, scenario)


@step
async def pays(amount: int) -> str:
    key = current_step().key
    did.append(key)
    await anyio.sleep(1.0)
    return key


class Pays(Workflow[list[str]]):
    async def run(self) -> list[str]:
        return [await pays(5), await pays(5)]


@both
def test_an_effect_that_was_not_recorded_is_repeated_under_its_key(backend: Backend) -> None:
    """A4: and two calls have two keys."""
    memory = MemoryStore()

    async def begin(opened: Runtime) -> None:
        await opened.start(Pays(), key="k")
        await anyio.sleep(10_000)

    async def scenario() -> Any:
        await life(memory, Pays, script=begin, cut_s=0.5)
        await life(memory, Pays, script=idle, cut_s=1.5)
        return await life(memory, Pays, script=lambda opened: opened.run(Pays, "k").result())

    first, second = virtual(backend, scenario)

    assert did == [first, first, second, second]
    assert first != second


class SlowToWrite(MemoryStore):
    """Takes ten seconds for each batch that holds the outcome of a step."""

    async def commit(self, batch: Any, *, fence: int) -> Any:
        if any(getattr(write, "kind", "") == "step" for commit in batch for write in commit.writes):
            await anyio.sleep(10.0)
            answers = await super().commit(batch, fence=fence)
            did.append(("durable", anyio.current_time()))
            return answers
        return await super().commit(batch, fence=fence)


@step
async def begins(name: str) -> str:
    did.append((name, anyio.current_time()))
    return name


class Follows(Workflow[str]):
    async def run(self) -> str:
        first = await begins("first")
        await Log.at("l").tell(Note(1))
        second = await begins("second")
        return first + second


@both
def test_what_follows_from_an_outcome_happens_when_that_is_durable(backend: Backend) -> None:
    """A6: the next step, what is told, the result."""

    async def scenario() -> float:
        async with runtime(Follows, Log, store=SlowToWrite()) as opened:
            run = await opened.start(Follows(), key="k")
            await anyio.sleep(9.0)
            assert await opened.at(Log, "l").ask(Read()) == []
            assert await run.result() == "firstsecond"
            return anyio.current_time()

    ended_at = virtual(backend, scenario)

    at = dict(reversed(did))
    assert at["first"] < at["durable"] <= at["second"] <= ended_at - 10.0


# --- all of a commit, or nothing -----------------------------------------------------------------------------------------------


async def _facts(path: Path) -> tuple[Any, ...]:
    """What the turn below changes, as the next process finds it."""
    store = SqliteStore(str(path))
    await store.open(now=3.0)
    loaded, other = await store.load(1), await store.load(2)
    assert loaded is not None
    assert other is not None
    asked = await store.message(1, "asked")
    found = (
        (loaded.run.status, loaded.run.wake_at, loaded.run.view),
        [event.entry.name for event in loaded.entries],
        [message.id for message in loaded.mailbox],
        [cursor.state for cursor in loaded.cursors],
        asked and (asked.state, asked.answer),
        [message.id for message in other.mailbox],
        await store.find(a_run(3).address) is not None,
    )
    await store.close()
    return found


def test_of_a_commit_all_is_there_or_nothing_at_whichever_statement_it_ends(tmp_path: Path) -> None:
    """A7: state, view, journal, cursor, messages, a timer, a reply and a child; files as a killed process leaves them."""
    path, copies = tmp_path / "store.db", list[Path]()

    def copy(_: str = "") -> None:
        folder = tmp_path / f"copy{len(copies)}"
        folder.mkdir()
        copies.append(folder / path.name)
        for suffix in ("", "-wal", ".lock"):
            shutil.copy(f"{path}{suffix}", f"{folder / path.name}{suffix}")

    def watch(db: sqlite3.Connection) -> None:
        db.set_trace_callback(copy)

    async def main() -> None:
        store = SqliteStore(str(path))
        held = Held(store, await store.open(now=1.0))
        await held.commit([a_run(1), a_run(2), a_message(1, 1, key="asked", reply_to=2)])
        assert store._held is not None
        await store._held.writer.call(watch)
        turn: list[Write] = [
            an_entry(1, "recorded"),
            an_entry(1, "recorded too", kind="tell"),
            a_message(2, 2),
            a_message(3, 1, due_at=99.0, sender="~timer/t"),
            a_run(3, parent=1),
            SetView(1, b'{"seen":1}'),
            SetCursor(1, 0, "", 0, b"{}"),
            Consume(1, b"7"),
            waiting(1, wake_at=5.0),
        ]
        assert await store.commit([Commit(tuple(turn))], fence=held.lease.fence) == [None]
        await store._held.writer.call(lambda db: db.set_trace_callback(None))
        copy()
        await store.close()

    anyio.run(main)
    found = [anyio.run(_facts, each) for each in copies]

    nothing, everything = found[0], found[-1]
    assert nothing != everything
    assert len(found) > 8
    assert [each for each in found if each not in (nothing, everything)] == []
    assert found.index(everything) == len(found) - found.count(everything)
    assert all(before != after for before, after in zip(nothing, everything, strict=True))


class Leaf(Workflow[int]):
    async def run(self) -> int:
        return 1


class Parent(Workflow[int]):
    async def run(self) -> int:
        await takes("first", 1.0)
        child = await self.start(Leaf(), key="child")
        await takes("then", 1.0)
        return await child.result()


@both
def test_a_child_and_its_record_are_there_together_or_not_at_all(backend: Backend) -> None:
    """X27."""

    async def begin(opened: Runtime) -> Any:
        return await (await opened.start(Parent(), key="k")).result()

    async def scenario() -> set[bool]:
        seen = set[bool]()
        for at in range(1, 9):
            for mode in ("before", "after"):
                memory = MemoryStore()
                await life(memory, Parent, Leaf, script=begin, faults=[Fault(at, mode)])
                found = await rows(memory)
                if "Parent/k" in found:
                    started = "start" in kinds(found["Parent/k"])
                    assert started == ("Leaf/child" in found)
                    seen.add(started)
                assert await life(memory, Parent, Leaf, script=begin) == 1
                assert kinds((await rows(memory))["Parent/k"]).count("start") == 1
        return seen

    assert virtual(backend, scenario) == {True, False}


# --- operators ---------------------------------------------------------------------------------------------------------------


@step
async def fails(n: int) -> int:
    raise ValueError(f"no {n}")


class Stuck(Workflow[int]):
    async def run(self) -> int:
        return await fails(1)


class Box(Actor):
    n: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.n += m.n
        return self.n


Act = Callable[[Runtime], Awaitable[Any]]

ACTS: dict[str, tuple[str, str, Act]] = {
    "cancel": ("Sleeps/k", "cancelling", lambda opened: opened.run(Sleeps, "k").cancel()),
    "pause": ("Sleeps/k", "paused", lambda opened: opened.run(Sleeps, "k").pause()),
    "resume": ("Sleeps/p", "resumed", lambda opened: opened.run(Sleeps, "p").resume()),
    "retry": ("Stuck/k", "retried", lambda opened: opened.run(Stuck, "k").retry()),
    "skip": ("Stuck/k", "skipped", lambda opened: opened.run(Stuck, "k").skip(7)),
    "fork": ("Stuck/k", "cancelled", lambda opened: opened.run(Stuck, "k").fork("f")),
    "reset": ("Box/b", "reset", lambda opened: opened.at(Box, "b").reset()),
}


def _standing(found: dict[str, Rows], at: str) -> tuple[Any, ...]:
    """What an operator's act changes of a row."""
    run: Run = found[at].run
    return run.status, run.reason, run.report, run.view, run.fields, "Stuck/f" in found, found[at].set_aside


@both
@pytest.mark.parametrize("verb", ACTS)
def test_an_act_and_the_line_that_tells_of_it_are_there_together_or_not_at_all(backend: Backend, verb: str) -> None:
    """A19, G12."""
    at, line, act = ACTS[verb]

    async def begin(opened: Runtime) -> None:
        await opened.at(Box, "b").ask(Add(5))
        await opened.start(Sleeps(), key="k")
        await (await opened.start(Sleeps(), key="p")).pause()
        with pytest.raises(RunPaused):
            await (await opened.start(Stuck(), key="k")).result()
        await anyio.sleep(10)

    async def scenario() -> set[bool]:
        seen = set[bool]()
        for mode in ("before", "after"):
            memory = MemoryStore()
            await life(memory, Sleeps, Stuck, Box, script=begin)
            before = _standing(await rows(memory), at)

            async def acts(opened: Runtime, mode: Literal["before", "after"] = mode) -> None:
                store: Any = opened._running().store
                store.faults = [Fault(store.commits + 1, mode)]
                await act(opened)
                await anyio.sleep(50)

            await life(memory, Sleeps, Stuck, Box, script=acts)
            found = await rows(memory)
            told = line in kinds(found[at])
            assert (_standing(found, at) != before) == told, mode
            seen.add(told)
        return seen

    assert virtual(backend, scenario) == {True, False}


class Race(Workflow[str]):
    async def run(self) -> str:
        return await takes("racing", 1.0)


@both
def test_a_cancel_and_a_completion_at_one_moment_leave_one_end(backend: Backend) -> None:
    """F15."""

    async def scenario(ticks: int) -> str:
        memory = MemoryStore()

        async def script(opened: Runtime) -> str:
            run = await opened.start(Race(), key="k")
            await anyio.sleep(1.0)
            for _ in range(ticks):
                await anyio.lowlevel.checkpoint()
            cancelled = await run.cancel()
            try:
                said = await run.result()
            except RunCancelled:
                return f"cancelled {cancelled}"
            return f"{said} {cancelled}"

        said: str = await life(memory, Race, script=script)
        ends = [kind for kind in kinds((await rows(memory))["Race/k"]) if kind in ("completed", "failed", "cancelled")]
        assert ends == ["cancelled" if said.startswith("cancelled") else "completed"]
        return said

    seen = Counter(
        run_virtual(lambda ticks=ticks: scenario(ticks), backend=backend, seed=seed)  # type: ignore[misc]
        for ticks in range(8)
        for seed in range(6)
    )

    assert {said.split()[0].rstrip("0123456789") for said in seen} == {"cancelled", "racing"}


class Slow(Workflow[str]):
    async def run(self) -> str:
        return await takes("slow", 20.0)


@both
def test_a_suspect_that_stands_in_line_to_be_started_alone_can_be_paused_and_nobody_spins_meanwhile(backend: Backend) -> None:
    """R15, rule 20: the verb waits for its turn."""
    memory, ticks = MemoryStore(), Ticks()

    async def begin(opened: Runtime) -> None:
        for key in ("first", "second"):
            await opened.start(Slow(), key=key)
        await anyio.sleep(10_000)

    async def pause(opened: Runtime) -> tuple[str, float]:
        began, before = anyio.current_time(), ticks.count
        await opened.run(Slow, "second").pause()
        assert ticks.count - before < 500
        return (await opened.run(Slow, "second").status()).status, anyio.current_time() - began

    async def scenario() -> tuple[str, float]:
        await life(memory, Slow, script=begin, cut_s=5.0)
        await life(memory, Slow, script=idle, cut_s=5.0)
        status: tuple[str, float] = await life(memory, Slow, script=pause)
        return status

    status, after_s = run_virtual(scenario, backend=backend, ticks=ticks)
    assert status == "paused"
    assert after_s == pytest.approx(20.0, abs=1.0)  # When the first one's step is done.
