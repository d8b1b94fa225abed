"""The victim of tests/test_kill.py: many runs over one file, each with steps and messages; says what it does in a ledger.

Usage: kill_job.py DATABASE LEDGER FIRST_RUN RUNS STEPS SPREAD_S
"""

from __future__ import annotations

import os
import random
import sys

import anyio

from actorflow import Limits, Message, Runtime, Workflow, current_step, gather, step

LEDGER = -1
SPREAD_S = 0.0


def note(*words: object) -> None:
    """One line, in one write: a kill leaves no half of it."""
    os.write(LEDGER, (" ".join(map(str, words)) + "\n").encode())


class Note(Message[None], kind="kill-note"):
    number: int


@step
async def work(run: int, at: int, total: int) -> int:
    note("begin", run, at, current_step().key)
    await anyio.sleep(random.random() * SPREAD_S)
    note("end", run, at)
    return total + at


@step
def work_in_thread(run: int, at: int, total: int) -> int:
    note("begin", run, at, current_step().key)
    return total + at


class Job(Workflow[list[int]]):
    """Steps, with three messages taken on the way."""

    number: int
    length: int

    async def run(self) -> list[int]:
        total, notes = 0, []
        for at in range(self.length):
            performed = work_in_thread if at % 7 == 3 else work
            total = await performed(self.number, at, total)
            if at in (2, 5, 11):
                notes.append((await self.receive(Note)).number)
        await gather(work(self.number, self.length, total), self.sleep("1ms"))
        return [total, *notes]


async def main(database: str, first: int, runs: int, steps: int) -> None:
    # Here it is not the steps that end the process: no run is to be set aside for that.
    async with Runtime(f"sqlite:///{database}", actors=[Job], limits=Limits(crashes_max=1_000_000)) as runtime:
        handles = {}
        for number in range(first, first + runs):
            handle = handles[number] = await runtime.start(Job(number, steps), key=str(number))
            for message in range(3):
                await handle.tell(Note(message), key=f"note-{message}")
                note("told", number, message)
        for number, handle in handles.items():
            note("result", number, *await handle.result())
        note("done")


if __name__ == "__main__":
    LEDGER = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    SPREAD_S = float(sys.argv[6])
    anyio.run(main, sys.argv[1], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
