"""What the runtime wants from a loop: no current task while durable code runs, a cheap wait, a post from any thread."""

from __future__ import annotations

import asyncio
import threading

import anyio
import anyio.lowlevel
import pytest
import trio

from actorflow.runtime.loops import AsyncioLoop, Loop, Signal, TrioLoop, current_loop

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def has_task() -> bool:
    try:
        if isinstance(current_loop(), AsyncioLoop):
            return asyncio.current_task() is not None
        return trio.lowlevel.current_task() is not None
    except RuntimeError:
        return False


async def test_the_running_loop_is_found(anyio_backend: str) -> None:
    assert isinstance(current_loop(), AsyncioLoop if anyio_backend == "asyncio" else TrioLoop)


async def test_the_task_is_hidden_for_a_stretch_and_comes_back() -> None:
    loop = current_loop()

    assert loop.hidden(has_task) is False
    assert has_task()
    await anyio.lowlevel.checkpoint()


async def test_the_task_comes_back_after_an_error() -> None:
    def failing() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        current_loop().hidden(failing)

    assert has_task()
    await anyio.lowlevel.checkpoint()


async def test_hidden_may_be_nested_and_passes_arguments_and_value() -> None:
    loop = current_loop()

    def outer(number: int) -> int:
        return loop.hidden(lambda: number + 1)

    assert loop.hidden(outer, 1) == 2
    assert has_task()


async def test_a_post_runs_on_the_loop_whichever_thread_it_comes_from() -> None:
    loop, done, ran_on = current_loop(), anyio.Event(), list[int]()

    def here() -> None:
        ran_on.append(threading.get_ident())
        done.set()

    thread = threading.Thread(target=loop.post, args=(here,))
    thread.start()
    with anyio.fail_after(5):
        await done.wait()
    thread.join()

    assert ran_on == [threading.get_ident()]


def test_a_post_to_a_loop_that_is_gone_is_nothing(anyio_backend: str) -> None:
    loops: list[Loop] = []

    async def main() -> None:
        loops.append(current_loop())

    anyio.run(main, backend=anyio_backend)

    loops[0].post(lambda: None)


async def test_a_signal_wakes_all_who_wait_and_stays_set() -> None:
    signal, woken = Signal(current_loop()), list[str]()

    async def wait(name: str) -> None:
        await signal.wait()
        woken.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait, "a")
            group.start_soon(wait, "b")
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            signal.set()
            signal.set()
        await signal.wait()

    assert sorted(woken) == ["a", "b"]
    assert signal.is_set


async def test_who_was_cancelled_while_waiting_is_not_woken() -> None:
    signal = Signal(current_loop())

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(signal.wait)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()

    signal.set()
    await signal.wait()


async def test_a_wait_that_is_ended_before_it_began_is_no_wait() -> None:
    loop = current_loop()
    parked = loop.park()
    loop.unpark(parked)
    loop.unpark(parked)

    with anyio.fail_after(5):
        await parked
