"""Workflows of steps, branches and checkpoints, with the power cut before and after each of their commits, on both loops.

Each scenario names the conformance lines it stands for. What is checked after every crash is in
`actorflow.testing.scenario`: the same result, no recorded step again, consistent rows, replay as live, and an end.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from attrs import field, frozen

from actorflow import (
    Abort,
    Message,
    Retry,
    Run,
    RunPaused,
    Runtime,
    StepTimeout,
    Transient,
    Workflow,
    checkpoint,
    current_step,
    gather,
    heartbeat,
    step,
)
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault, Mode
from actorflow.testing.invariants import Rows
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes, play, world
from tests.harness import both

SEED = 1


def crash(scenario: Scenario, backend: Backend, **options: Any) -> int:
    crashes = enumerate_crashes(scenario, backend, seed=SEED, **options)
    assert crashes > 0
    return crashes


def one(workflow: Workflow[Any], **options: Any) -> Scenario:
    """Start it, wait for its result."""

    async def script(runtime: Runtime, _: World) -> Any:
        run = await runtime.start(workflow, key="k")
        return await run.result()

    cls = type(workflow)
    return Scenario(name=cls.__qualname__, actors=[cls, *options.pop("more", [])], script=script, **options)


# --- steps -------------------------------------------------------------------------------------------------------------


@step
async def add(n: int, more: int = 1) -> int:
    effect()
    await anyio.sleep(0.5)
    return n + more


class Sequence(Workflow[int]):
    n: int
    length: int = 4

    async def run(self) -> int:
        total = self.n
        for _ in range(self.length):
            total = await add(total)
        return total


@both
def test_finished_steps_never_run_again_and_the_result_stays(backend: Backend) -> None:
    """X1, X2, X3, X4, R12, A3, A4, A5."""

    def expect(world: World, _: object) -> None:
        assert sum(world.effects.values()) <= 4 + world.crashes
        assert all(attempt == 1 for _, attempt in world.tries)  # A crash is no try.

    crash(one(Sequence(0), expect=expect), backend)


@step(retry=Retry(attempts=4, first="10s", factor=2.0, jitter=0.0))
async def flaky(failures: int) -> int:
    info = current_step()
    effect()
    world().marks.append((info.attempt, anyio.current_time()))
    if info.attempt <= failures:
        raise Transient(f"attempt {info.attempt}")
    return info.attempt


class Retrying(Workflow[int]):
    failures: int

    async def run(self) -> int:
        try:
            return await flaky(self.failures)
        except Transient as error:
            return -len(str(error))


@both
@pytest.mark.parametrize("failures", [2, 4])
@pytest.mark.parametrize("downtime_s", [0.0, 5.0, 100.0])
def test_tries_and_their_backoff_survive_a_crash(backend: Backend, failures: int, downtime_s: float) -> None:
    """X11, X13, D10: the attempts left are those left before, and none begins before its time."""

    def expect(world: World, rows: list[Rows]) -> None:
        outcomes = [event.entry.attempt for event in rows[0].past if event.entry.kind == "step"]
        assert outcomes == [min(failures + 1, 4)]  # The journal says which attempt it was.
        attempts = [attempt for attempt, _ in world.marks]
        assert attempts == sorted(attempts)
        assert attempts[-1] == min(failures + 1, 4)
        assert len(world.effects) == 1  # One idempotency key for all of them.
        first: dict[int, float] = {}
        for attempt, at in world.marks:
            first.setdefault(attempt, at)
            if attempt > 1:
                assert at - first[attempt - 1] >= min(30.0, 10.0 * 2 ** (attempt - 2)) - 1e-3

    crash(one(Retrying(failures), expect=expect), backend, downtime_s=downtime_s)


@step(timeout="5s", retry=Retry(attempts=2, first="1s", jitter=0.0))
async def slow(seconds: float) -> str:
    effect()
    try:
        await anyio.sleep(seconds)
    finally:
        world().marks.append("cleaned up")
    return "done"


class TooSlow(Workflow[str]):
    async def run(self) -> str:
        quick = await slow(1.0)
        try:
            return await slow(60.0)
        except StepTimeout as error:
            return f"{quick}, {type(error).__name__}, {error.timeout_s}"


@both
def test_a_timeout_cancels_the_step_and_stays_a_timeout(backend: Backend) -> None:
    """X14, R3, D10: and it cleans up, in each of its attempts."""

    def expect(world: World, _: object) -> None:
        assert world.marks.count("cleaned up") == len(world.tries)

    crash(one(TooSlow(), expect=expect), backend)


@step(retry=Retry(attempts=3, first="1s", jitter=0.0))
async def uploading(parts: int) -> list[int]:
    info = current_step()
    effect()
    done = info.progress or 0
    for part in range(done, parts):
        await anyio.sleep(1.0)
        heartbeat(part + 1)
        await anyio.sleep(1.0)
        if part == 1 and info.attempt == 1:
            raise Transient("lost the connection")
    return [parts]


class Uploading(Workflow[list[int]]):
    async def run(self) -> list[int]:
        return await uploading(4)


@both
def test_the_next_attempt_reads_the_progress_that_the_last_one_stored(backend: Backend) -> None:
    """Rule 20: a heartbeat survives the attempt and the process."""
    crash(one(Uploading()), backend)


# --- branches ----------------------------------------------------------------------------------------------------------


@step
async def mark(where: str, at: int, nap: float) -> str:
    effect()
    await anyio.sleep(nap)
    return f"{where}{at}"


@step
async def broken(nap: float) -> None:
    effect()
    await anyio.sleep(nap)
    raise ValueError("broken")


class Fan(Workflow[list[str]]):
    """Nested branches of several steps that finish in mixed order; the order in which they woke is part of the result."""

    async def line(self, name: str, nap: float, woke: list[str]) -> str:
        last = ""
        for at in range(3):
            last = await mark(name, at, nap * (3 - at))
            woke.append(last)
        return last

    async def fan(self, woke: list[str]) -> str:
        return "+".join(await gather(self.line("x", 0.3, woke), self.line("y", 0.2, woke)))

    async def run(self) -> list[str]:
        woke: list[str] = []
        ends = await gather(self.line("a", 0.7, woke), self.fan(woke), self.line("c", 0.1, woke))
        assert sorted(woke) == sorted(f"{name}{at}" for name in "acxy" for at in range(3))
        return list(ends)


@both
def test_nested_branches_of_several_steps_replay_as_they_ran(backend: Backend) -> None:
    """X16, X17, A22, E24."""
    crash(one(Fan()), backend)


class FailingFan(Workflow[str]):
    async def slowly(self) -> str:
        first = await mark("s", 0, 0.1)
        await mark("s", 1, 100.0)
        return first

    async def run(self) -> str:
        try:
            await gather(mark("q", 0, 0.1), self.slowly(), broken(1.0), self.sleep("1h"))
        except ValueError as error:
            after = await mark("z", 0, 0.1)
            return f"{error} {after}"
        return "not reached"


@both
def test_the_first_failure_cancels_its_siblings_and_is_raised(backend: Backend) -> None:
    """Rule 13, G8, R3: cancelled steps are recorded with the closing entry, and nothing of the scope comes after it."""
    crash(one(FailingFan()), backend)


class Settled(Workflow[list[str]]):
    async def run(self) -> list[str]:
        ends = await gather([mark("a", 0, 3.0), broken(1.0), mark("b", 0, 2.0)], settle=True)
        return [str(end) for end in ends]


@both
def test_settled_branches_are_all_waited_for(backend: Backend) -> None:
    """Rule 13, A22."""
    crash(one(Settled()), backend)


class Tasks(Workflow[list[str]]):
    async def line(self, name: str, nap: float) -> str:
        return await mark(name, 0, nap) + await mark(name, 1, nap)

    async def run(self) -> list[str]:
        first = self.task(self.line("a", 2.0))
        second = self.task(self.line("b", 0.5), key="second")
        own = await mark("own", 0, 1.0)
        self.task(self.line("left open", 50.0))
        return [own, await second, await first]


@both
def test_tasks_outlive_the_line_that_started_them_and_are_joined(backend: Backend) -> None:
    """Rule 7: and what is left open ends with the run."""
    crash(one(Tasks(), same_effects=False), backend)


# --- checkpoints -------------------------------------------------------------------------------------------------------


@frozen
class Line:
    name: str
    total: int


class Milestones(Workflow[list[Any]]):
    begin: int
    lines: list[Line] = field(factory=list)
    note: str = ""

    @checkpoint
    async def inner(self, n: int) -> int:
        self.note += f"inner {n};"
        return await add(n, 10)

    @checkpoint
    async def outer(self, n: int) -> Line:
        value = await self.inner(n)
        value = await add(value)
        line = Line(f"outer {n}", value)
        self.lines.append(line)
        self.note += "outer;"
        return line

    @checkpoint
    async def fails(self) -> None:
        self.note += "fails;"
        await add(0)
        await broken(0.1)

    async def run(self) -> list[Any]:
        first = await self.outer(self.begin)
        try:
            await self.fails()
        except ValueError:
            self.note += "caught;"
        second = await self.outer(first.total)
        pair = await gather(self.inner_of(1), self.inner_of(2))
        await add(0)
        return [first.total, second.total, self.note, [each.total for each in self.lines], list(pair)]

    @checkpoint
    async def inner_of(self, n: int) -> int:
        return await add(n) + await add(n)


@both
def test_a_milestone_keeps_its_outcome_and_the_fields_it_changed(backend: Backend) -> None:
    """Rule 15, A11: nested ones, one that raises, and ones in branches."""
    crash(one(Milestones(1)), backend)


# --- rounds ------------------------------------------------------------------------------------------------------------


class Rounds(Workflow[int]):
    rounds: int
    total: int = 0

    async def run(self) -> int:
        if self.rounds == 0:
            return self.total
        self.total = await add(self.total)
        self.total = await add(self.total)
        self.rounds -= 1
        return self.again()


@both
def test_a_crash_in_starting_over_leaves_the_old_round_or_the_new_one(backend: Backend) -> None:
    """A20, R4, rule 16."""
    crash(one(Rounds(5)), backend)


# --- time and chance ---------------------------------------------------------------------------------------------------


class Sleeper(Workflow[list[float]]):
    async def run(self) -> list[float]:
        began = self.now()
        await self.sleep("100s")
        slept = (self.now() - began).total_seconds()
        await add(0)
        await self.sleep_until(datetime.fromtimestamp(began.timestamp() + 500.0, UTC))
        until = (self.now() - began).total_seconds()
        return [round(slept, 2), round(until, 2)]


@both
@pytest.mark.parametrize("downtime_s", [0.0, 50.0])
def test_sleep_ends_at_its_first_due_time_whatever_happens_between(backend: Backend, downtime_s: float) -> None:
    """X18, A10."""
    scenario = one(Sleeper())
    if downtime_s:  # A crash before `now` was durable, or long after: the times differ, the rest holds.
        inner = scenario.script

        async def script(runtime: Runtime, world: World) -> Any:
            slept, until = await inner(runtime, world)
            return slept >= 100.0 and until >= 500.0 and until < 700.0

        scenario = Scenario(name=scenario.name, actors=scenario.actors, script=script)
    else:
        inner0 = scenario.script

        async def rounded(runtime: Runtime, world: World) -> Any:
            slept, until = await inner0(runtime, world)
            return abs(slept - 100.0) < 1.0 and abs(until - 500.0) < 1.0

        scenario = Scenario(name=scenario.name, actors=scenario.actors, script=rounded)
    crash(scenario, backend, downtime_s=downtime_s)


class Dice(Workflow[bool]):
    async def run(self) -> bool:
        first = (self.now(), self.random(), self.uuid())
        seen = await note(repr(first))
        pair = await gather(self.roll(), self.roll())
        return seen == repr(first) and pair[0] != pair[1] and self.random() != first[1]

    async def roll(self) -> float:
        first = self.random()
        await add(0)
        return first


@step
async def note(text: str) -> str:
    effect()
    await anyio.sleep(0.1)
    return text


@both
def test_now_random_and_uuid_are_the_same_on_every_replay(backend: Backend) -> None:
    """D11, rule 12, A6: what a step was given is what the code still has."""
    crash(one(Dice()), backend)


# --- undoing -----------------------------------------------------------------------------------------------------------


@step
async def unbook(what: str, *, outcome: str | None) -> None:
    effect()
    world().marks.append(("undone", what, outcome))
    await anyio.sleep(0.5)


@step(undo=unbook)
async def book(what: str) -> str:
    effect()
    await anyio.sleep(0.5)
    return f"booked {what}"


class Trip(Workflow[str]):
    async def run(self) -> str:
        await book("flight")
        await gather(book("hotel"), book("car"))
        await add(1)
        raise Abort("no seats")


def _undone_once(world: World, rows: list[Any]) -> None:
    undone = Counter(mark for mark in world.marks)
    assert {what for _, what, _ in undone} == {"flight", "hotel", "car"}
    assert all(outcome == f"booked {what}" for _, what, outcome in undone)
    assert sum(undone.values()) <= 3 + world.crashes
    order = [what for _, what, _ in world.marks]
    assert order.index("flight") > max(order.index("hotel"), order.index("car"))


def failing(workflow: Workflow[Any], **options: Any) -> Scenario:
    scenario = one(workflow, **options)

    async def script(runtime: Runtime, world: World) -> Any:
        try:
            return await scenario.script(runtime, world)
        except Abort as error:
            return f"{type(error).__name__}: {error}"

    return Scenario(
        name=scenario.name, actors=scenario.actors, script=script, **{k: v for k, v in options.items() if k != "more"}
    )


@both
def test_an_abort_undoes_each_step_once_in_reverse_order(backend: Backend) -> None:
    """X8, A13, rule 23: a crash between two undos goes on with the next."""
    crash(failing(Trip(), expect=_undone_once), backend)


@step(retry=Retry(attempts=3, first="1s", jitter=0.0))
async def stubborn(what: str) -> None:
    info = current_step()
    effect()
    world().marks.append(info.attempt)
    if info.attempt < 3:
        raise Transient("not yet")


@step(undo=stubborn)
async def sticky(what: str) -> str:
    effect()
    return what


class Sticky(Workflow[str]):
    async def run(self) -> str:
        await sticky("a")
        raise Abort("no")


@both
def test_the_tries_of_an_undo_survive_a_crash(backend: Backend) -> None:
    """X13, A13: "a failed undo keeps its tries"."""

    def expect(world: World, _: object) -> None:
        assert world.marks[-1] == 3
        assert world.marks == sorted(world.marks)

    crash(failing(Sticky(), expect=expect), backend)


# --- deadlines and children --------------------------------------------------------------------------------------------


class Late(Workflow[str]):
    async def run(self) -> str:
        await book("flight")
        await mark("long", 0, 1_000.0)
        return "in time"


@both
@pytest.mark.parametrize("downtime_s", [0.0, 500.0])
def test_a_deadline_is_absolute_and_undoes(backend: Backend, downtime_s: float) -> None:
    """X31, rule 30."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Late(), key="k", deadline="100s")
        try:
            return await run.result()
        except Exception as error:
            return f"{type(error).__name__}: {(await run.status()).status}"

    def expect(world: World, _: object) -> None:
        booked = any("book/" in key or ":book" in key or "/book" in key for key in world.effects)
        assert ("undone", "flight", "booked flight") in world.marks or ("undone", "flight", None) in world.marks or not booked

    crash(Scenario(name="Late", actors=[Late], script=script, expect=expect, same_effects=False), backend, downtime_s=downtime_s)


class Leaf(Workflow[int]):
    n: int

    async def run(self) -> int:
        if self.n < 0:
            raise Abort(f"negative {self.n}")
        return await add(self.n)


class Parent(Workflow[list[Any]]):
    async def run(self) -> list[Any]:
        one = await self.start(Leaf(1), key="one")
        two = await self.start(Leaf(-2), key="two")
        first = await one.result()
        try:
            await two.result()
        except Exception as error:
            second = f"{type(error).__name__}: {error.__cause__}"
        else:
            second = "not reached"
        again = await self.start(Leaf(1), key="one")
        third = await again.result()
        loose = await self.start(Leaf(5), key="loose", detached=True)
        return [first, second, third, await loose.result()]


@both
def test_children_are_started_once_and_their_ends_arrive_once(backend: Backend) -> None:
    """X26, X27, A12, rules 29 and 32."""
    crash(one(Parent(), more=[Leaf]), backend)


class Twice(Workflow[list[int]]):
    async def run(self) -> list[int]:
        child = await self.start(Leaf(1), key="one")
        return list(await gather(child.result(), child.result(), self.later(child)))

    async def later(self, child: Run[Leaf]) -> int:
        await add(0)
        await add(0)
        return await child.result()


@both
def test_all_branches_that_wait_for_one_child_get_its_result(backend: Backend) -> None:
    """X26, A12: there is one message, and several wait for it."""
    crash(one(Twice(), more=[Leaf]), backend)


class Brood(Workflow[list[int]]):
    """Starts several at once, whose ends come together, beside steps of its own."""

    async def run(self) -> list[int]:
        return list(await gather(self.steps(), *(self.child(n) for n in range(4))))

    async def steps(self) -> int:
        return await add(await add(await add(0)))

    async def child(self, n: int) -> int:
        return await add(await (await self.start(Leaf(n), key=str(n))).result())


@both
def test_children_that_start_together_and_end_together_are_each_there_once(backend: Backend) -> None:
    """X26, X27, A12: what comes together is recorded together."""
    crash(one(Brood(), more=[Leaf]), backend)


class Nap(Workflow[str]):
    async def run(self) -> str:
        await book("nap")
        await self.sleep("1d")
        return "rested"


class Careless(Workflow[str]):
    """Ends while its children sleep."""

    async def run(self) -> str:
        await self.start(Nap(), key="kept", detached=True)
        await self.start(Nap(), key="left")
        await self.sleep("10s")
        return "gone"


@both
def test_running_children_end_with_their_parent_unless_detached(backend: Backend) -> None:
    """X30, rule 29."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Careless(), key="k")
        ended = await run.result()
        kept = await runtime.run(Nap, "kept").result()
        try:
            left = await runtime.run(Nap, "left").result()
        except Exception as error:
            left = type(error).__name__
        return [ended, kept, left]

    crash(Scenario(name="Careless", actors=[Careless, Nap], script=script, deadline_s=1e6), backend)


# --- code that changes -------------------------------------------------------------------------------------------------


class Old(Workflow[str], kind="Patched"):
    async def run(self) -> str:
        first = await add(1)
        await self.sleep("100s")
        return f"old {await add(first)}"


class New(Workflow[str], kind="Patched"):
    async def run(self) -> str:
        first = await add(1)
        if self.patched("more"):
            first = await add(first, 100)
        await self.sleep("100s")
        return f"{'new' if self.patched('more') else 'old'} {await add(first)}"


@both
def test_new_runs_take_the_new_path(backend: Backend) -> None:
    """E2, rule 11."""
    scenario = one(New())
    crash(scenario, backend)


# --- without a crash -------------------------------------------------------------------------------------------------------


class Mistaken(Message[None]):
    n: int


class Choosing(Workflow[str]):
    async def run(self) -> str:
        await self.receive(Mistaken, where=lambda m: 1 // m.n > 0)
        return "not reached"


@both
def test_a_predicate_that_raises_pauses_its_run_and_nobody_else(backend: Backend) -> None:
    """P9."""

    async def script(runtime: Runtime, _: World) -> Any:
        choosing = await runtime.start(Choosing(), key="c")
        other = await runtime.start(Sequence(0), key="s")
        await choosing.tell(Mistaken(0), key="m")
        try:
            await choosing.result()
        except RunPaused as paused:
            return [paused.reason, await other.result()]

    outcome = play(Scenario(name="Choosing", actors=[Choosing, Sequence], script=script), backend)

    assert outcome.result == ["bug", 4]


SCENARIOS = {
    "Sequence": one(Sequence(0)),
    "Fan": one(Fan()),
    "FailingFan": one(FailingFan()),
    "Milestones": one(Milestones(1)),
    "Rounds": one(Rounds(5)),
    "Trip": failing(Trip()),
    "Parent": one(Parent(), more=[Leaf]),
    "Uploading": one(Uploading()),
}


@both
@pytest.mark.parametrize("mode", ["drain", "pause"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_orderly_end_or_a_pause_at_any_moment_changes_nothing(backend: Backend, mode: Mode, name: str) -> None:
    """X29, rules 20 and 28: running steps finish and are recorded; alone, and with a crash after it."""
    calm = play(SCENARIOS[name], backend)

    for tenths in (0, 1, 5, 7, 10, 13, 21):
        stop = Fault(0, mode, delay_s=tenths / 10)
        for faults in ([stop], [stop, Fault(max(1, calm.commits - 1), "after")]):
            assert play(SCENARIOS[name], backend, faults, seed=tenths).result == calm.result
