"""What a service does when it is told to end: the first signal drains it, the second one cuts what still runs."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from actorflow.errors import BadDefinition

log: logging.Logger = logging.getLogger("actorflow")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Lost(Protocol):
    """Set when the store takes no more writes."""

    is_set: bool

    async def wait(self) -> None: ...


async def until_told(lost: Lost, at_once: anyio.Event, leave: Callable[[], Awaitable[object]]) -> bool:
    """Wait for a signal and leave; True if one came, False if the store was lost first.

    Args:
        lost: Ends the wait, too.
        at_once: Is set by the second signal.
        leave: What to do at the first one.

    Raises:
        BadDefinition: Signals do not arrive in this thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise BadDefinition(
            "serve() waits for signals, and those arrive in the main thread only. Call it there, or end the `async with` block."
        )
    told, by_signal = anyio.Event(), False
    async with anyio.create_task_group() as group:
        await group.start(_listen, told, at_once)
        group.start_soon(_until_lost, lost, told)
        await told.wait()
        by_signal = not lost.is_set
        if by_signal:
            await leave()
        group.cancel_scope.cancel()
    return by_signal


async def _until_lost(lost: Lost, told: anyio.Event) -> None:
    await lost.wait()
    told.set()


async def _listen(told: anyio.Event, at_once: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    try:
        with anyio.open_signal_receiver(*SIGNALS) as arriving:
            task_status.started()
            async for number in arriving:
                if told.is_set():
                    log.warning("%s again: steps that still run are cut", number.name)
                    at_once.set()
                    return  # The next one has its usual effect: a crash, which is safe.
                log.info("%s: nothing new begins, running steps may finish", number.name)
                told.set()
    except NotImplementedError:  # asyncio on Windows: Ctrl-C cancels the task, and leaving the block drains.
        task_status.started()
