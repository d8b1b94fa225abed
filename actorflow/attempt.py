"""The attempt that is running: what a step may know of itself, and the mark that durable code leaves in its context."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from attrs import define, field, frozen

from actorflow.errors import OutsideTurn
from actorflow.records import Identity
from actorflow.value import Value


@define(eq=False)
class StepInfo:
    """What a running step may know of itself. To be read, not written."""

    _key: str | tuple[str, Identity] = field(alias="key")  #: as text, or what it is made of
    name: str
    attempt: int  #: from 1
    deadline: datetime | None = None  #: when this attempt will be cancelled
    progress: Any = None  #: what the last attempt's `heartbeat` stored
    beat: Callable[[Any], None] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Idempotency key: the same over attempts, crashes and `retry`."""
        if not isinstance(self._key, str):
            self._key = idempotency_key(*self._key)
        return self._key


def idempotency_key(scope: str, call: Identity) -> str:
    """The name of one call of one run: `<store id>/<kind>/<key>/<round>/<branch>/<name>/<n>`."""
    branch, name, n = call
    return f"{scope}/{branch}/{name}/{n}"


@frozen
class Mark(Value):
    """In the context of durable code: a task that it starts inherits this, and may call no step."""


current: ContextVar[StepInfo | Mark | None] = ContextVar("actorflow_current", default=None)


def current_step() -> StepInfo:
    """The step that is running here: its idempotency key, name, attempt, deadline and stored progress.

    Raises:
        OutsideTurn: No step is running here. (A thread started by hand or `loop.run_in_executor` does not inherit the
            context; `asyncio.to_thread` and `anyio.to_thread` do.)
    """
    info = current.get()
    if not isinstance(info, StepInfo):
        raise OutsideTurn("current_step()")
    return info


def heartbeat(progress: Any) -> None:
    """Store how far this step is; the next attempt reads it as `current_step().progress`.

    It does not wait: the latest one is durable within a commit or two. Callable from the step's thread, too. Not in a step
    with `run_in="process"`.
    """
    info = current_step()
    if info.beat is None:
        raise OutsideTurn("heartbeat() (this step runs in another process)")
    info.beat(progress)
