"""Durable code that touches the event loop is stopped and told where, on asyncio and on trio; nothing is resumed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from actorflow.attempt import Mark, current
from actorflow.errors import ForeignAwait, OutsideTurn
from actorflow.kernel.requests import Broken, Finished, Stretch
from actorflow.kernel.turn import Turn
from actorflow.runtime.loops import current_loop
from actorflow.steps import step

pytestmark = pytest.mark.anyio

performed: list[str] = []


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    performed.clear()
    return str(request.param)


@step
async def charge() -> None:
    performed.append("charge")


async def scoped(scope: Any) -> None:
    if hasattr(scope, "__aenter__"):
        async with scope:
            await charge()
    else:
        with scope:
            await charge()


async def asyncio_event() -> None:
    await asyncio.Event().wait()


async def anyio_event() -> None:
    await anyio.Event().wait()


async def trio_event() -> None:
    await trio.Event().wait()


async def cancelled_scope() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.lowlevel.checkpoint()


async def future() -> None:
    await asyncio.get_running_loop().create_future()


async def own_awaitable() -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "something odd"

    await Odd()


EVERYWHERE: dict[str, Callable[[], Any]] = {
    "anyio.sleep(0)": lambda: anyio.sleep(0),  # noqa: ASYNC115  (what users write)
    "anyio.sleep(1)": lambda: anyio.sleep(1),
    "anyio.Event": anyio_event,
    "anyio.to_thread": lambda: anyio.to_thread.run_sync(int),
    "anyio.fail_after": lambda: scoped(anyio.fail_after(5)),
    "anyio.move_on_after": lambda: scoped(anyio.move_on_after(5)),
    "anyio.CancelScope": cancelled_scope,
    "anyio.create_task_group": lambda: scoped(anyio.create_task_group()),
    "anyio.lowlevel.checkpoint": anyio.lowlevel.checkpoint,
    "an awaitable of its own": own_awaitable,
}
ASYNCIO: dict[str, Callable[[], Any]] = {
    "asyncio.sleep(0)": lambda: asyncio.sleep(0),
    "asyncio.sleep(1)": lambda: asyncio.sleep(1),
    "asyncio.Event": asyncio_event,
    "asyncio.Future": future,
    "asyncio.to_thread": lambda: asyncio.to_thread(int),
    "asyncio.timeout": lambda: scoped(asyncio.timeout(5)),
    "asyncio.TaskGroup": lambda: scoped(asyncio.TaskGroup()),
    "asyncio.wait_for": lambda: asyncio.wait_for(asyncio.get_running_loop().create_future(), 5),
}
TRIO: dict[str, Callable[[], Any]] = {
    "trio.sleep(0)": lambda: trio.sleep(0),  # noqa: ASYNC105, ASYNC115  (what users write)
    "trio.sleep(1)": lambda: trio.sleep(1),  # noqa: ASYNC105  (awaited where it is called)
    "trio.Event": trio_event,
    "trio.fail_after": lambda: scoped(trio.fail_after(5)),
    "trio.open_nursery": lambda: scoped(trio.open_nursery()),
    "trio.Lock": lambda: trio.Lock().acquire(),
    "trio.to_thread": lambda: trio.to_thread.run_sync(int),
}
OWN = {"asyncio": ASYNCIO, "trio": TRIO}


async def durable(what: Callable[[], Any]) -> None:
    await what()


def drive(code: Coroutine[Any, Any, Any]) -> Stretch:
    context = copy_context()
    context.run(current.set, Mark())
    return current_loop().hidden(Turn(code, context).begin)


LINE = f"{__file__}:{inspect.getsourcelines(durable)[1] + 1}"


@pytest.mark.parametrize(
    ("anyio_backend", "what"),
    [(backend, what) for backend, own in OWN.items() for what in (*EVERYWHERE, *own)],
    indirect=["anyio_backend"],
)
async def test_what_waits_for_the_loop_is_stopped_and_named(what: str, anyio_backend: str) -> None:
    end = drive(durable((EVERYWHERE | OWN[anyio_backend])[what])).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, ForeignAwait), end.reason
    assert __file__ in end.reason.where
    assert "self.sleep" in str(end.reason)
    assert "`@step`" in str(end.reason)
    assert performed == []


async def test_the_line_is_that_of_the_durable_code(anyio_backend: str) -> None:
    end = drive(durable(OWN[anyio_backend][f"{anyio_backend}.sleep(1)"])).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, ForeignAwait)
    assert end.reason.where == f"{LINE} (durable)"


async def test_the_library_of_the_other_loop_is_named_too(anyio_backend: str) -> None:
    other = trio.sleep if anyio_backend == "asyncio" else asyncio.sleep

    end = drive(durable(lambda: other(1))).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, ForeignAwait)
    assert end.reason.where.startswith(__file__)


async def test_an_ordinary_error_of_the_code_is_no_foreign_await(anyio_backend: str) -> None:
    async def code() -> None:
        raise RuntimeError("no running event loop")

    end = drive(code()).end

    assert isinstance(end, Finished)
    assert isinstance(end.error, RuntimeError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # Only asyncio starts tasks from anywhere.
async def test_a_task_that_durable_code_starts_may_call_no_step() -> None:
    """E17: on asyncio the loop does not refuse to start one; the step does, when the task runs."""
    started: list[asyncio.Task[None]] = []

    async def code() -> None:
        started.append(asyncio.create_task(charge()))

    end = drive(code()).end
    [task] = started
    with pytest.raises(OutsideTurn, match="in a task that durable code started"):
        await task

    assert isinstance(end, Finished)
    assert performed == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_awaiting_a_task_is_a_foreign_await_like_any_other() -> None:
    started: list[asyncio.Task[None]] = []

    async def code() -> None:
        started.append(asyncio.create_task(charge()))
        await started[0]

    end = drive(code()).end

    assert isinstance(end, Broken)
    assert isinstance(end.reason, ForeignAwait)
    await asyncio.wait(started)
    assert isinstance(started[0].exception(), OutsideTurn)
    assert performed == []
