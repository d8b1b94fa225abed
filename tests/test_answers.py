"""Failed answers: kept with the message for who asks again with its key, and told to nobody before they are durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from actorflow import Message, Run, RunEnded, RunPaused, Runtime, Workflow
from actorflow.failures import failed_answer, split_answer
from actorflow.records import Commit, Consume, Refusal, SetDead
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from actorflow.testing.scenario import Scenario, World, enumerate_crashes
from tests.harness import both


class Ask(Message[int]):
    n: int


class Stop(Message[None]): ...


class Silent(Workflow[int]):
    """Ends without an answer: takes what it is asked first, and does not look at the rest."""

    async def run(self) -> int:
        taken = await self.receive(Ask)
        await self.receive(Stop)
        return taken.n


class Insistent(Workflow[int]):
    async def run(self) -> int:
        return await Run(Silent, "s").ask(Ask(1), within="1h")


class Slow(MemoryStore):
    """Takes its time over a commit with a failed answer; `durable_at` is when it was done."""

    durable_at: float | None = None

    async def commit(self, batch: Sequence[Commit], *, fence: int) -> list[Refusal | None]:
        answers = [write.answer for commit in batch for write in commit.writes if isinstance(write, Consume | SetDead)]
        failed = any(split_answer(answer)[0] == "failed" for answer in answers if answer is not None)
        if failed:
            await anyio.sleep(5.0)
        taken = await super().commit(batch, fence=fence)
        if failed:
            self.durable_at = anyio.current_time()
        return taken


async def refused(run: Run[Silent], key: str) -> float:
    """When an ask with that key was told that nobody answers it."""
    with pytest.raises(RunEnded):
        await run.ask(Ask(1), key=key, within="1h")
    return anyio.current_time()


def runtime(store: MemoryStore) -> Runtime:
    return Runtime(actors=[Silent, Insistent], store=store, clock=LoopClock())


def test_no_value_looks_like_a_failure() -> None:
    assert split_answer(b"null") == ("ok", b"null")
    assert split_answer(b'"!"') == ("ok", b'"!"')
    assert split_answer(b"") == ("ok", b"")
    assert split_answer(failed_answer(ValueError("!")))[0] == "failed"


@both
def test_a_client_is_told_a_failure_when_it_is_durable_and_again_when_it_asks_again(backend: Backend) -> None:
    """P4: the message that was taken and the one that was not."""

    async def main() -> tuple[list[float], list[float], float | None]:
        store = Slow()
        async with runtime(store) as here:
            run = await here.start(Silent(), key="s")
            told: list[float] = []

            async def ask(key: str) -> None:
                told.append(await refused(run, key))

            async with anyio.create_task_group() as group:
                group.start_soon(ask, "taken")
                await anyio.sleep(1.0)
                group.start_soon(ask, "unread")
                await anyio.sleep(1.0)
                await run.tell(Stop())
            began = anyio.current_time()
            again = [await refused(run, key) - began for key in ("taken", "unread")]
            return told, again, store.durable_at

    told, again, durable_at = run_virtual(main, backend=backend)

    assert durable_at is not None
    assert all(at >= durable_at for at in told)
    assert all(took_s < 1.0 for took_s in again)


@both
def test_a_run_that_asks_again_after_a_retry_gets_the_failure_of_its_first_ask(backend: Backend) -> None:
    """P4: and not, an hour later, a timeout."""

    async def main() -> tuple[list[str], float]:
        async with runtime(MemoryStore()) as here:
            silent = await here.start(Silent(), key="s")
            insistent = await here.start(Insistent(), key="i")
            await anyio.sleep(1.0)
            await silent.tell(Stop())
            whats: list[str] = []
            for _ in range(2):
                with pytest.raises(RunPaused) as paused:
                    await insistent.result()
                assert paused.value.report is not None
                whats.append(paused.value.report.what)
                await insistent.retry()
            with pytest.raises(RunPaused):
                await insistent.result()
            return whats, anyio.current_time()

    whats, took_s = run_virtual(main, backend=backend)

    assert "ended" in whats[0]
    assert whats[0] == whats[1]
    assert took_s < 60.0


@both
def test_an_ask_that_is_never_read_fails_with_the_end_of_its_receiver_whatever_crashes(backend: Backend) -> None:
    """P4: and it is a dead letter that says why."""

    async def script(runtime: Runtime, world: World) -> Any:
        run = await runtime.start(Silent(), key="s")

        async def ask() -> None:
            with pytest.raises(RunEnded):
                await run.ask(Ask(2), key="unread", within="1d")

        async with anyio.create_task_group() as group:
            await run.tell(Ask(1), key="first")
            await anyio.sleep(1.0)
            group.start_soon(ask)
            await anyio.sleep(1.0)
            await run.tell(Stop(), key="stop")
        (dead,) = await runtime._running().store.dead_letters()
        await ask()
        return [await run.result(), dead.key, split_answer(dead.answer or b"")[0]]

    scenario = Scenario(name="Silent", actors=[Silent], script=script)
    assert enumerate_crashes(scenario, backend, seed=2) > 0
