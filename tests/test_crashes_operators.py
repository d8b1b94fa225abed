"""What operators do to runs, at awkward moments, with the power cut before and after each commit, on both loops.

An operator's script is repeated after a crash like a client's, so it looks where the run stands before it acts.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import field

from actorflow import (
    Abort,
    Fatal,
    GaveUp,
    GiveUp,
    InvalidState,
    KeyTaken,
    Landed,
    Message,
    Retry,
    Run,
    RunAgain,
    RunPaused,
    Runtime,
    StepInterrupted,
    Transient,
    Workflow,
    checkpoint,
    gather,
    step,
)
from actorflow.testing.clock import Backend
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes, world
from tests.harness import because, both

SEED = 3


def crash(scenario: Scenario, backend: Backend, **options: Any) -> None:
    assert enumerate_crashes(scenario, backend, seed=SEED, **options) > 0


async def until(run: Run[Any], *statuses: str) -> str:
    """Wait until the run is in one of these statuses."""
    while (status := (await run.status()).status) not in statuses:  # noqa: ASYNC110  (as a client would)
        await anyio.sleep(0.25)
    return status


async def ended(run: Run[Any]) -> str:
    """How it ended, as text."""
    try:
        return f"completed {await run.result(wait_paused=True)!r}"
    except Exception as error:
        return f"{(await run.status()).status} {type(error).__name__}"


@step
async def work(n: int) -> int:
    effect()
    await anyio.sleep(1.0)
    return n + 1


@step
async def unbook(what: str, nap: float = 1.0, *, outcome: str | None) -> None:
    effect()
    world().marks.append(what)
    await anyio.sleep(0.5)


@step(undo=unbook)
async def book(what: str, nap: float = 1.0) -> str:
    effect()
    await anyio.sleep(nap)
    return what


class Go(Message[None]): ...


# --- on_interrupt ------------------------------------------------------------------------------------------------------


@step(on_interrupt="fail")
async def once(n: int) -> int:
    count = effect()
    assert count == 1, "it ran twice, and was to run once at most"
    await anyio.sleep(1.0)
    return n + 1


class AtMostOnce(Workflow[str]):
    async def run(self) -> str:
        await work(0)
        try:
            got = await once(1)
        except StepInterrupted:
            got = -1
        await work(1)
        return "once" if got in (2, -1) else "?"


@both
def test_a_step_that_may_not_repeat_runs_at_most_once(backend: Backend) -> None:
    """A3, P2, rule 21."""

    async def script(runtime: Runtime, _: World) -> Any:
        return await (await runtime.start(AtMostOnce(), key="k")).result()

    crash(Scenario(name="AtMostOnce", actors=[AtMostOnce], script=script, same_effects=False), backend)


@step(on_interrupt="ask", undo=unbook)
async def delicate(what: str) -> str:
    effect()
    await anyio.sleep(1.0)
    return what


class Asking(Workflow[str]):
    async def run(self) -> str:
        try:
            got = await delicate("paint")
        except GaveUp:
            got = "given up"
        await work(1)
        return got


@both
@pytest.mark.parametrize("act", ["landed", "run_again", "give_up"])
def test_an_operator_decides_what_became_of_an_interrupted_step(backend: Backend, act: str) -> None:
    """P2, A3: it landed, it shall run again, or it is given up."""
    decisions: dict[str, Any] = {"landed": Landed("paint"), "run_again": RunAgain(), "give_up": GiveUp()}

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Asking(), key="k")
        while True:
            try:
                result = await run.result()
            except RunPaused as paused:
                because(paused, "ask")
                await run.decide(paused.report.where, decisions[act])
            else:
                return result in ("paint", "given up")

    crash(Scenario(name=f"decide {act}", actors=[Asking], script=script, same_effects=False), backend)


# --- cancel ------------------------------------------------------------------------------------------------------------


class Journey(Workflow[str]):
    async def run(self) -> str:
        await book("flight")
        await gather(book("hotel", 2.0), book("car", 30.0), self.sleep("1h"))
        await self.receive(Go)
        return "arrived"


@both
@pytest.mark.parametrize("after_s", [0.5, 1.5, 3.5, 50.0])
def test_a_cancel_undoes_what_was_done_and_what_may_have_been(backend: Backend, after_s: float) -> None:
    """X28, R20, A13, E12, F15, rule 27: at whatever moment it comes."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Journey(), key="k")
        if (await run.status()).status not in ("undoing", "cancelled"):
            await anyio.sleep(after_s)
            await run.cancel("not needed")
        return await ended(run)

    def expect(world: World, rows: Any) -> None:
        booked = {key.split("/book/")[0].rpartition("/")[2] + key[-1] for key in world.effects if "/book/" in key}
        began = {"flight"} if booked else set()
        assert began <= set(world.marks), f"{world.effects} began, only {world.marks} was undone"
        if any("gather#0.0" in key for key in world.effects):
            assert "hotel" in world.marks
        if any("gather#0.1" in key for key in world.effects):
            assert "car" in world.marks

    # After a crash the operator waits anew before the cancel.
    name, late_s = f"cancel after {after_s}", 15.0 + after_s
    crash(Scenario(name=name, actors=[Journey], script=script, expect=expect, same_effects=False, late_s=late_s), backend)


class Brood(Workflow[str]):
    async def run(self) -> str:
        child = await self.start(Journey(), key="child")
        return await child.result()


@both
def test_a_cancel_reaches_the_children(backend: Backend) -> None:
    """X30."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Brood(), key="k")
        if (await run.status()).status not in ("undoing", "cancelled"):
            await anyio.sleep(2.5)
            await run.cancel()
        ends = [await ended(run)]
        try:
            ends.append(await ended(runtime.run(Journey, "child")))
        except Exception as error:
            ends.append(type(error).__name__)
        return ends[0] == "cancelled RunCancelled" and ends[1] in ("cancelled RunCancelled", "UnknownRun")

    crash(Scenario(name="cancel a parent", actors=[Brood, Journey], script=script, same_effects=False), backend)


# --- pause, resume -----------------------------------------------------------------------------------------------------


class Steady(Workflow[list[int]]):
    async def run(self) -> list[int]:
        first = await work(0)
        both = await gather(self.line(10), self.line(20))
        await self.sleep("5s")
        item = await self.receive(Go, within="1h")
        return [first, *both, int(item is not None)]

    async def line(self, n: int) -> int:
        return await work(await work(n))


@both
@pytest.mark.parametrize("after_s", [0.5, 1.5, 6.0])
def test_a_paused_run_goes_on_where_it_stood(backend: Backend, after_s: float) -> None:
    """X29, rule 28: its steps finish and are recorded, messages are accepted, nothing is repeated."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Steady(), key="k")
        if not world.marks:
            await anyio.sleep(after_s)
            await run.pause()
            world.marks.append("paused")
        await run.tell(Go(), key="go")
        await anyio.sleep(10.0)
        if (await run.status()).status == "paused":
            await run.resume()
        return await run.result()

    crash(Scenario(name=f"pause after {after_s}", actors=[Steady], script=script), backend)


# --- retry, skip, resume of failures ---------------------------------------------------------------------------------------


@step
async def fragile(n: int) -> int:
    effect()
    await anyio.sleep(0.5)
    if "mended" not in world().marks:
        raise Fatal("not mended")
    return n + 1


class Repaired(Workflow[list[int]]):
    notes: list[str] = field(factory=list)

    @checkpoint
    async def milestone(self, n: int) -> int:
        self.notes.append("in")
        first = await work(n)
        return await fragile(first)

    async def run(self) -> list[int]:
        first = await work(0)
        pair = await gather(self.line(), work(50))
        mile = await self.milestone(5)
        return [first, *pair, mile, len(self.notes)]

    async def line(self) -> int:
        return await fragile(await work(100))


@both
@pytest.mark.parametrize("verb", ["retry", "skip"])
def test_a_failed_step_is_performed_again_or_skipped_after_its_cause_is_mended(backend: Backend, verb: str) -> None:
    """G12, rule 26: what siblings finished stays."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Repaired(), key="k")
        while True:
            try:
                return await run.result()
            except RunPaused as paused:
                because(paused, "failure")
                if verb == "retry":
                    world.marks.append("mended")
                try:
                    await (run.retry() if verb == "retry" else run.skip(7))
                except InvalidState:
                    continue

    crash(Scenario(name=verb, actors=[Repaired], script=script, same_effects=False), backend)


class Buggy(Workflow[int]):
    async def run(self) -> int:
        first = await work(1)
        self.now()
        if "mended" not in MENDED:
            raise ZeroDivisionError("a bug")
        return await work(first)


MENDED: list[str] = []


@both
def test_a_bug_pauses_the_run_and_resume_goes_on_after_the_fix(backend: Backend) -> None:
    """X9, X29, rule 25: tried once more, then paused, nothing undone."""

    async def script(runtime: Runtime, world: World) -> Any:
        MENDED[:] = world.marks
        run = await runtime.start(Buggy(), key="k")
        while True:
            try:
                return await run.result()
            except RunPaused as paused:
                because(paused, "bug")
                world.marks.append("mended")
                MENDED[:] = world.marks
                await run.resume()

    crash(Scenario(name="bug", actors=[Buggy], script=script), backend)


@step(retry=Retry(attempts=2, first="1s", jitter=0.0))
async def rusty(what: str) -> None:
    effect()
    if "oiled" not in world().marks:
        raise Transient("rusty")
    world().marks.append(f"undone {what}")


@step(undo=rusty)
async def lock(what: str) -> str:
    effect()
    return what


class Locked(Workflow[str]):
    async def run(self) -> str:
        await lock("a")
        await lock("b")
        raise Abort("locked")


@both
@pytest.mark.parametrize("verb", ["retry", "skip", "resume"])
def test_an_undo_that_failed_for_good_waits_for_an_operator(backend: Backend, verb: str) -> None:
    """G6, A13."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Locked(), key="k")
        while True:
            try:
                return await run.result()
            except RunPaused as paused:
                because(paused, "undo")
                if verb != "skip":
                    world.marks.append("oiled")
                try:
                    await {"retry": run.retry, "skip": run.skip, "resume": run.resume}[verb]()
                except InvalidState:
                    continue
            except Abort as error:
                return str(error)

    def expect(world: World, rows: Any) -> None:
        if verb != "skip":
            assert {"undone a", "undone b"} <= set(world.marks)

    crash(Scenario(name=f"undo {verb}", actors=[Locked], script=script, expect=expect), backend)


# --- fork --------------------------------------------------------------------------------------------------------------


class Forked(Workflow[list[Any]]):
    n: int

    @checkpoint
    async def milestone(self) -> int:
        return await work(await work(self.n))

    async def run(self) -> list[Any]:
        first = await self.milestone()
        when = self.now()
        got = await self.receive(Go, within=0)
        second = await work(first)
        return [self.n, first, second, got, when == self.now()]


@both
@pytest.mark.parametrize("other", [False, True])
def test_a_fork_inherits_what_came_before_its_cut(backend: Backend, other: bool) -> None:
    """G12, rule 31: with the same fields, or with others and nothing compared."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Forked(1), key="k")
        await run.result()
        at = next(entry.seq for entry in await run.history() if entry.kind == "receive")
        try:
            fork = await run.fork("f", at=at, input=Forked(9) if other else None)
        except KeyTaken:
            fork = runtime.run(Forked, "f")
        result = await fork.result()
        return [await run.result(), result][1][:3]

    crash(Scenario(name=f"fork {other}", actors=[Forked], script=script), backend)
