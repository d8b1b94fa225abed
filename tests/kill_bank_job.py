"""The victims of tests/test_kill_bank.py: `examples/bank.py` under load, in the process that runs it and in a client of it.

Usage: kill_bank_job.py serve|client|check FOLDER

Both go on, window after window of transfers and gifts, until a file `stop-serve` or `stop-client` is there. What they saw
answered they write to FOLDER/ledger; a window that they did not finish before they were killed they repeat, key by key.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import anyio

from actorflow import Abort, Client, Limits, Runtime
from actorflow.runtime.front import Front

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
bank: Any = importlib.import_module("bank")

ACCOUNTS = 12
WINDOW = 40
"""Transfers and gifts that one process has under way at a time, each."""
PATIENCE = "10m"
"""For asks of clients: holders die meanwhile, and the machine may be slow."""


class Ledger:
    """Lines that outlive this process: each is one write, so a kill leaves no half of one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self._path.read_text().splitlines()]


def account(number: int) -> str:
    return f"a-{number % ACCOUNTS}"


async def opening(front: Front, ledger: Ledger, number: int) -> None:
    left = await front.at(bank.Account, account(number)).ask(bank.Deposit(bank.OPENING), key="opening", within=PATIENCE)
    ledger.note("seen", f"opening-{number}", "ok", left)


async def gift(front: Front, ledger: Ledger, name: str, number: int) -> None:
    """A message of a client, with a key: one cent."""
    try:
        said: tuple[object, ...] = (
            "ok",
            await front.at(bank.Account, account(number)).ask(bank.PayBack(1), key=name, within=PATIENCE),
        )
    except Abort as refusal:
        said = (type(refusal).__name__, 0)
    ledger.note("seen", name, *said)


async def transfer(front: Front, ledger: Ledger, name: str, number: int) -> None:
    run = await front.start(bank.planned(number, ACCOUNTS), key=name)
    try:
        said: tuple[object, ...] = "ok", await run.result()
    except Abort as refusal:
        said = (type(refusal).__name__, 0)
    ledger.note("seen", name, *said)


async def load(front: Front, ledger: Ledger, who: str, stop: Path) -> None:
    """Window after window."""
    at = sum(line[:2] == ["done", who] for line in ledger.lines())
    async with anyio.create_task_group() as group:
        for number in range(ACCOUNTS):
            group.start_soon(opening, front, ledger, number)
    while True:
        async with anyio.create_task_group() as group:
            for number in range(at * WINDOW, (at + 1) * WINDOW):
                group.start_soon(transfer, front, ledger, f"transfer-{who}-{number}", number)
                group.start_soon(gift, front, ledger, f"gift-{who}-{number}", number)
        ledger.note("done", who)
        at += 1
        if await anyio.Path(stop).exists():  # Not before: it may have been killed in the middle of this window.
            return


async def again(front: Front, ledger: Ledger) -> None:
    """After all: repeat everything that was ever answered, and say what there is."""
    for name in dict.fromkeys(line[1] for line in ledger.lines() if line[0] == "seen"):
        what, _, number = name.partition("-")
        match what:
            case "opening":
                await opening(front, ledger, int(number))
            case "gift":
                await gift(front, ledger, name, int(number.rpartition("-")[2]))
            case _:
                await transfer(front, ledger, name, int(number.rpartition("-")[2]))
    for name in map(account, range(ACCOUNTS)):
        ledger.note("balance", name, await front.at(bank.Account, name).ask(bank.Balance()))


async def main(who: str, folder: Path) -> None:
    url, ledger, actors = f"sqlite:///{folder / 'bank.db'}", Ledger(folder), [bank.Account, bank.Transfer]
    if who == "client":
        async with Client(url, actors=actors) as client:
            await load(client, ledger, who, folder / "stop-client")
        return
    # Here it is not a handler that ends the process: no actor is to be set aside for that.
    async with Runtime(url, actors=actors, standby=True, limits=Limits(crashes_max=1_000_000)) as runtime:
        if who == "serve":
            await load(runtime, ledger, who, folder / "stop-serve")
        else:
            await again(runtime, ledger)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]))
