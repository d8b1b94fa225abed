"""What a stranger broke in an afternoon, and what it does now. On both loops."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen

from actorflow import (
    Abort,
    Limits,
    MailboxFull,
    Message,
    Retry,
    Run,
    RunCancelled,
    RunPaused,
    Runtime,
    StepTimeout,
    StoreBroken,
    StoreStopped,
    UnknownRun,
    Workflow,
    checkpoint,
    current_step,
    gather,
    step,
    with_options,
)
from actorflow.errors import Undecodable
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from actorflow.testing.faults import Fault, FaultStore, PowerCut
from actorflow.testing.scenario import Scenario, World, effect, enumerate_crashes
from tests.attacked_steps import Dying, InProcesses
from tests.harness import both

performed: list[str] = []
world = {"broken": True}


@pytest.fixture(autouse=True)
def _anew() -> None:
    performed.clear()
    world["broken"] = True


@asynccontextmanager
async def runtime(*actors: type[Workflow[Any]], **options: Any) -> AsyncIterator[Runtime]:
    with anyio.fail_after(20):
        async with Runtime(options.pop("url", "memory://"), actors=actors, **options) as opened:
            yield opened


async def until(what: Callable[[], object]) -> None:
    while not what():
        await anyio.lowlevel.checkpoint()


async def paused(run: Run[Any]) -> RunPaused:
    with pytest.raises(RunPaused) as caught:
        await run.result()
    return caught.value


# --- repairs ------------------------------------------------------------------------------------------------------------


@frozen
class Point:
    x: int
    y: int


@step
async def note(word: str) -> str:
    performed.append(word)
    return word


@step
async def may_fail(word: str) -> str:
    performed.append(word)
    if world["broken"]:
        raise ValueError(word)
    return word


@step
async def find() -> Point:
    raise LookupError("not today")


class Caught(Workflow[str]):
    """Catches a failure, tidies up in branches and a checkpoint, and raises it after all."""

    async def run(self) -> str:
        beside = self.task(note("beside"))
        try:
            await self.risky()
        except ValueError:
            await gather(note("a"), note("b"))
            await self.tidy("badly")
            await beside
            raise
        return await self.tidy("well") + await beside

    @checkpoint
    async def risky(self) -> str:
        return await may_fail("risky")

    @checkpoint
    async def tidy(self, how: str) -> str:
        return await note(how)


@both
def test_retry_forgets_all_that_followed_from_the_failure_and_keeps_what_ran_beside(backend: Backend) -> None:
    """Rule 26: what the line did next, in branches that it opened and in checkpoints that it finished, was done for nothing."""

    async def main() -> str:
        async with runtime(Caught) as at:
            run = await at.start(Caught(), key="k")
            await paused(run)
            world["broken"] = False
            await run.retry()
            return await run.result()

    assert anyio.run(main, backend=backend) == "wellbeside"
    assert sorted(performed) == ["a", "b", "badly", "beside", "risky", "risky", "well"]


class TwoMilestones(Workflow[list[str]]):
    async def run(self) -> list[str]:
        return [await self.first(), await self.second()]

    @checkpoint
    async def first(self) -> str:
        return await note("a") + await note("b")

    @checkpoint
    async def second(self) -> str:
        return await note("c")


@both
def test_a_fork_cut_inside_a_milestone_leaves_out_the_milestones_behind_it(backend: Backend) -> None:
    """Rule 31: a checkpoint belongs to the line that calls it, so what stands in a later one is no other branch."""

    async def main() -> list[str]:
        async with runtime(TwoMilestones) as at:
            run = await at.start(TwoMilestones(), key="k")
            await run.result()
            (cut,) = [event.seq for event in await run.history() if event.call.endswith("first#0:note#1")]
            performed.clear()
            return await (await run.fork("fork", at=cut)).result()

    assert anyio.run(main, backend=backend) == ["ab", "c"]
    assert performed == ["b", "c"]


class Finding(Workflow[int]):
    async def run(self) -> int:
        return (await find()).x


class FindingUnderAnotherName(Workflow[int]):
    async def run(self) -> int:
        return (await with_options(find, name="finding")()).x


@both
def test_a_value_that_does_not_fit_the_step_is_no_dead_end(backend: Backend) -> None:
    """It is refused at the door where the step is known, and skipped or tried again where it was not."""

    async def main() -> tuple[int, int]:
        async with runtime(Finding, FindingUnderAnotherName) as at:
            known = await at.start(Finding(), key="k")
            await paused(known)
            with pytest.raises(Undecodable, match="field 'y' of Point is missing"):
                await known.skip({"x": 1})
            await known.skip(Point(1, 2))

            unknown = await at.start(FindingUnderAnotherName(), key="k")
            await paused(unknown)
            await unknown.skip({"x": 1})
            stopped = await paused(unknown)
            assert stopped.reason == "undecodable"
            assert stopped.report is not None
            assert stopped.report.where == ":finding#0"
            await unknown.skip(Point(3, 4))
            return await known.result(), await unknown.result()

    assert anyio.run(main, backend=backend) == (1, 3)


# --- undos --------------------------------------------------------------------------------------------------------------


@step
async def hang(word: str) -> None:
    performed.append(f"undo {word}")
    if word == "second":
        await anyio.sleep_forever()


@step(undo=hang)
async def book(word: str) -> str:
    return word


class Trip(Workflow[None]):
    async def run(self) -> None:
        await book("first")
        await book("second")
        raise Abort("it rains")


@both
def test_an_undo_that_hangs_can_be_skipped(backend: Backend) -> None:
    """G4: the table of verbs: `skip` of a run that is undoing skips the undo, audited."""

    async def main() -> list[str]:
        async with runtime(Trip) as at:
            run = await at.start(Trip(), key="k")
            await until(lambda: performed)
            await run.skip()
            with pytest.raises(Abort):
                await run.result()
            return [event.kind for event in await run.history()]

    assert "skipped" in anyio.run(main, backend=backend)
    assert performed == ["undo second", "undo first"]


@both
def test_an_undo_that_hangs_can_be_tried_again(backend: Backend) -> None:
    """G4."""

    async def main() -> None:
        async with runtime(Trip) as at:
            run = await at.start(Trip(), key="k")
            await until(lambda: performed)
            await run.retry()
            await until(lambda: len(performed) == 2)
            await run.skip()
            with pytest.raises(Abort):
                await run.result()

    anyio.run(main, backend=backend)
    assert performed == ["undo second", "undo second", "undo first"]


gate: dict[str, anyio.Event] = {}


@step
async def return_ticket(word: str) -> None:
    performed.append(f"return {word}")
    if word == "second":
        await gate["open"].wait()


@step(undo=return_ticket)
async def buy(word: str) -> str:
    return word


class Ride(Workflow[None]):
    async def run(self) -> None:
        await buy("first")
        await buy("second")
        raise Abort("it rains")


@both
def test_a_run_that_is_undoing_is_paused_between_its_undos(backend: Backend) -> None:
    async def main() -> None:
        gate["open"] = anyio.Event()
        async with runtime(Ride) as at, anyio.create_task_group() as group:
            run = await at.start(Ride(), key="k")
            await until(lambda: performed)
            group.start_soon(run.pause)
            await anyio.wait_all_tasks_blocked()
            gate["open"].set()
            stopped = await paused(run)
            assert stopped.report is not None
            assert "an operator paused it" in stopped.report.what
            assert performed == ["return second"]
            await run.resume()
            with pytest.raises(Abort):
                await run.result()

    anyio.run(main, backend=backend)

    assert performed == ["return second", "return first"]


STORES: list[FaultStore | None] = []
"""Of the lives so far; None for one that is left in order."""


@step
async def fatal(word: str) -> None:
    store = STORES[-1]
    if store is None:  # It is left while this runs, if that gets so far.
        await anyio.sleep_forever()
        return
    performed.append(word)
    store.faults = [Fault(store.commits + 1, "before")]


@step(undo=fatal)
async def harmless(word: str) -> str:
    return word


class Doomed(Workflow[None]):
    async def run(self) -> None:
        await harmless("undo")
        raise Abort("no")


@both
def test_an_undo_that_ends_its_process_does_so_three_times_and_no_more(backend: Backend) -> None:
    """Rule 20: what kills its process must not kill the next one for ever; leaving in order counts nothing."""

    async def main() -> tuple[str, str]:
        memory = MemoryStore()
        for _ in range(3):
            await _orderly(memory)
            store = FaultStore(MemoryStore(share=memory))
            STORES.append(store)
            with suppress(PowerCut, BaseExceptionGroup):
                async with Runtime(actors=[Doomed], store=store, clock=LoopClock()) as at:
                    with suppress(Abort):
                        await (await at.start(Doomed(), key="k")).result()
            assert store.dead
        async with Runtime(actors=[Doomed], store=MemoryStore(share=memory), clock=LoopClock()) as at:
            stopped = await paused(at.run(Doomed, "k"))
        assert stopped.report is not None
        return stopped.reason, stopped.report.what

    async def _orderly(memory: MemoryStore) -> None:
        STORES.append(None)
        async with Runtime(actors=[], store=MemoryStore(share=memory), clock=LoopClock()):
            pass

    assert run_virtual(main, backend=backend) == ("undo", "its process ended 3 times while it undid harmless")
    assert performed == ["undo"] * 3


class Deadly(Workflow[None]):
    async def run(self) -> None:
        await fatal("work")


@both
def test_a_run_that_ends_its_process_is_set_aside_after_three_times_and_a_new_budget_allows_three_more(backend: Backend) -> None:
    """X32, rule 20."""

    async def life(memory: MemoryStore) -> RunPaused | None:
        store = FaultStore(MemoryStore(share=memory))
        STORES.append(store)
        with suppress(PowerCut, BaseExceptionGroup):
            async with Runtime(actors=[Deadly], store=store, clock=LoopClock()) as at:
                with anyio.move_on_after(1_000):
                    return await paused(await at.start(Deadly(), key="k"))
        return None

    async def main() -> list[tuple[str, str]]:
        memory, stops = MemoryStore(), list[tuple[str, str]]()
        for _ in range(2):
            while (stopped := await life(memory)) is None and len(performed) < 20:
                pass
            assert stopped is not None
            assert stopped.report is not None
            stops.append((stopped.reason, stopped.report.what))
            performed.append("set aside")
            STORES.append(FaultStore(MemoryStore(share=memory)))
            with suppress(PowerCut, BaseExceptionGroup):
                async with Runtime(actors=[Deadly], store=STORES[-1], clock=LoopClock()) as at:
                    await at.run(Deadly, "k").resume()
                    await anyio.sleep(1_000)
        return stops

    what = "its process ended 3 times while it was at work"
    assert run_virtual(main, backend=backend) == [("interrupted", what)] * 2
    assert performed == [*["work"] * 3, "set aside"] * 2 + ["work"]


# --- ends ---------------------------------------------------------------------------------------------------------------


@step(on_interrupt="fail")
async def once() -> str:
    performed.append("begun")
    await gate["open"].wait()
    return "done"


class AtMostOnce(Workflow[str]):
    async def run(self) -> str:
        return await once()


@both
def test_the_step_of_a_run_that_is_being_paused_may_finish_before_the_runtime_ends(backend: Backend) -> None:
    """Cut short, it would be interrupted for good, by a service that was only told to stop; and the pause is not forgotten."""

    async def main() -> str:
        gate["open"] = anyio.Event()
        memory = MemoryStore()
        async with anyio.create_task_group() as group, runtime(AtMostOnce, store=MemoryStore(share=memory)) as at:
            run = await at.start(AtMostOnce(), key="k")
            await until(lambda: performed)
            group.start_soon(_paused, run)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(_open_soon)
        async with runtime(AtMostOnce, store=MemoryStore(share=memory)) as at:
            run = at.run(AtMostOnce, "k")
            assert (await paused(run)).reason == "operator"
            await run.resume()
            return await run.result()

    async def _paused(run: Run[Any]) -> None:
        with suppress(StoreStopped):
            await run.pause()

    async def _open_soon() -> None:
        for _ in range(5):  # The runtime has begun to drain by then.
            await anyio.lowlevel.checkpoint()
        gate["open"].set()

    assert anyio.run(main, backend=backend) == "done"
    assert performed == ["begun"]


class Go(Message[None]): ...


class Other(Message[None]): ...


class Waiter(Workflow[None]):
    async def run(self) -> None:
        await self.receive(Go)


@pytest.mark.parametrize("cancels", [1, 2, 5])
def test_a_service_that_is_cancelled_again_and_again_gives_its_store_back(cancels: int, tmp_path: Path) -> None:
    """O11: asyncio lets anybody cancel a task by hand while it drains, shielded or not."""

    async def service(started: asyncio.Event) -> None:
        async with runtime(Waiter, url=f"sqlite:///{tmp_path}/x.db") as at:
            run = await at.start(Waiter(), key="k")
            started.set()
            await run.result()

    async def main() -> str:
        started = asyncio.Event()
        task = asyncio.create_task(service(started))
        await started.wait()
        for _ in range(cancels):
            task.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        async with runtime(Waiter, url=f"sqlite:///{tmp_path}/x.db") as at:
            return (await at.run(Waiter, "k").status()).status

    assert asyncio.run(main()) == "waiting"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_control_c_ends_the_service_and_is_no_failure_of_the_step_that_it_meets() -> None:
    """Rule 4; trio raises it in whatever code runs, unless told otherwise. (`asyncio.run` cancels the main task.)"""
    memory = MemoryStore()

    async def main() -> None:
        async with runtime(Struck, store=MemoryStore(share=memory)) as at:
            await (await at.start(Struck(), key="k")).result()

    async def look() -> list[tuple[str, str]]:
        async with runtime(store=MemoryStore(share=memory)) as at:
            return [(event.kind, event.status) for event in await at.run(Struck, "k").history()]

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend="trio")

    assert ("step", "ok") in anyio.run(look, backend="trio")


@step
async def struck() -> int:
    signal.raise_signal(signal.SIGINT)
    return 1


class Struck(Workflow[int]):
    async def run(self) -> int:
        number = await struck()
        await self.receive(Go)
        return number


@both
def test_nobody_waits_for_a_run_of_a_store_that_is_gone(backend: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with runtime(Waiter, url=f"sqlite:///{tmp_path}/x.db") as at:
            run = await at.start(Waiter(), key="k")
            (tmp_path / "x.db").unlink()
            for verb in (lambda: run.tell(Go()), run.result, run.pause, run.cancel):
                with pytest.raises(StoreBroken):
                    await verb()

    anyio.run(main, backend=backend)


# --- messages and children ----------------------------------------------------------------------------------------------


@both
def test_a_full_mailbox_is_full_whether_its_run_is_in_memory_or_not(backend: Backend) -> None:
    async def main() -> None:
        async with Runtime(actors=[Waiter], limits=Limits(mailbox_depth_max=3, passivate_after_s=1.0), clock=LoopClock()) as at:
            run = await at.start(Waiter(), key="k")
            for _ in range(3):
                await run.tell(Other())
            for _ in range(2):
                await anyio.sleep(10.0)  # In virtual time: it has left memory by then.
                with pytest.raises(MailboxFull):
                    await run.tell(Other())

    run_virtual(main, backend=backend)


@step
async def broken() -> None:
    effect()
    raise ValueError("broken")


class Kid(Workflow[None]):
    async def run(self) -> None:
        await broken()


class Parent(Workflow[None]):
    async def run(self) -> None:
        await (await self.start(Kid(), key="kid")).result()


@both
def test_a_paused_child_is_cancelled_with_its_parent_whatever_crashes(backend: Backend) -> None:
    async def script(at: Runtime, _: World) -> str:
        run, kid = await at.start(Parent(), key="p"), at.run(Kid, "kid")
        while await _status(kid) not in ("paused", "cancelled"):  # noqa: ASYNC110  (in virtual time)
            await anyio.sleep(0.1)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
        with pytest.raises(RunCancelled):
            await kid.result(wait_paused=True)
        return await _status(kid)

    async def _status(run: Run[Any]) -> str:
        try:
            return (await run.status()).status
        except UnknownRun:
            return ""

    assert enumerate_crashes(Scenario(name="Parent", actors=[Parent, Kid], script=script), backend) > 0


# --- threads and processes ----------------------------------------------------------------------------------------------

STUCK = threading.Semaphore(0)


@pytest.fixture
def _freed() -> Iterator[None]:
    yield
    while STUCK.acquire(blocking=False):
        pass


@step(timeout="20ms", retry=Retry(attempts=1))
def stuck(number: int) -> int:
    performed.append(f"{number} for {current_step().name}")
    STUCK.acquire()
    return number


class Stuck(Workflow[str]):
    number: int

    async def run(self) -> str:
        try:
            await stuck(self.number)
        except StepTimeout:
            return "timed out"
        return "in time"


@both
@pytest.mark.usefixtures("_freed")
def test_beyond_the_bound_on_abandoned_threads_sync_steps_stand_in_line_and_their_timeout_with_them(backend: Backend) -> None:
    """Rule 24: a thread cannot be killed. Who stands in line has not begun, so its time does not run."""

    async def main() -> tuple[set[str], int, str]:
        limits = Limits(abandoned_threads_max=2, cancel_grace_s=0.0)
        async with runtime(Stuck, limits=limits) as at:
            first = [await at.start(Stuck(number), key=str(number)) for number in range(2)]
            ends = {await run.result() for run in first}
            last = await at.start(Stuck(2), key="2")
            with anyio.move_on_after(0.1):  # Five times its timeout, in the only time that threads know.
                await last.result()
            before = len(performed)
            STUCK.release(3)
            return ends, before, await last.result()

    ends, before, last = anyio.run(main, backend=backend)

    assert ends == {"timed out"}
    assert before == 2
    assert last == "in time"


@both
def test_a_step_in_a_process_knows_its_key_raises_as_others_do_and_may_start_noisy_programs(
    backend: Backend, tmp_path: Path
) -> None:
    """And one whose process dies is tried again; with on_interrupt="fail" it was interrupted."""

    async def main() -> tuple[str, int, int, str]:
        async with runtime(InProcesses, Dying) as at:
            dying = await at.start(Dying(), key="k")
            assert "StepInterrupted: step dies was interrupted (its worker process ended)" in str(await paused(dying))
            run = await at.start(InProcesses(str(tmp_path / "died")), key="k")
            return await run.result()

    key, *rest = anyio.run(main, backend=backend)

    assert key.endswith("/InProcesses/k/0//own_key/0")
    assert rest == [7, 0, "lived"]
