"""What Temporal's worker runs. Its SDK wants workflows at the top of a module, so this one is imported by the worker and its
clients only.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow  # type: ignore[import-not-found]

TIMEOUT = timedelta(seconds=60)
STEPS = 3


@activity.defn  # type: ignore[untyped-decorator]
async def add(value: int) -> int:
    return value + 1


class Noting:
    """An activity that counts where no crash takes it back."""

    def __init__(self, ledger: Any) -> None:
        self.ledger = ledger

    @activity.defn  # type: ignore[untyped-decorator]
    async def noted(self, run: str, number: int) -> int:
        self.ledger.note("step", run, number)
        return number


@workflow.defn
class Line:
    """W1 and W2."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, length: int, local: bool) -> int:  # noqa: FBT001  (as it is sent)
        value = 0
        for _ in range(length):
            if local:
                value = await workflow.execute_local_activity(add, value, start_to_close_timeout=TIMEOUT)
            else:
                value = await workflow.execute_activity(add, value, start_to_close_timeout=TIMEOUT)
        return value


@workflow.defn
class Child:
    """W3: one step."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, value: int) -> int:
        added: int = await workflow.execute_activity(add, value, start_to_close_timeout=TIMEOUT)
        return added


@workflow.defn
class Parent:
    """W3: so many children at a time."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, children: int) -> int:
        return sum(await asyncio.gather(*(workflow.execute_child_workflow(Child.run, number) for number in range(children))))


@workflow.defn
class Patient:
    """W4: some steps, then it waits for a signal."""

    def __init__(self) -> None:
        self.waits = self.told = False

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self) -> int:
        total = 0
        for number in range(STEPS):
            arguments = [workflow.info().workflow_id, number]
            total += await workflow.execute_activity(Noting.noted, args=arguments, start_to_close_timeout=TIMEOUT)
        self.waits = True
        await workflow.wait_condition(lambda: self.told)
        return total

    @workflow.signal  # type: ignore[untyped-decorator]
    def go(self) -> None:
        self.told = True

    @workflow.query  # type: ignore[untyped-decorator]
    def waiting(self) -> bool:
        return self.waits


@workflow.defn
class Teller:
    """W5: answers so many questions."""

    def __init__(self) -> None:
        self.answered = 0

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, rounds: int) -> int:
        await workflow.wait_condition(lambda: self.answered == rounds)
        return self.answered

    @workflow.update  # type: ignore[untyped-decorator]
    def ask(self, question: int) -> int:
        self.answered += 1
        return question + 1


@workflow.defn
class Sleeper:
    """W6."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, number: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return number


WORKFLOWS = [Line, Child, Parent, Patient, Teller, Sleeper]
