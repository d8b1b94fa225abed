"""Steps of tests/test_attacks.py that run in processes of their own: a worker imports them by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from actorflow import Workflow, current_step, step

NOISE = 300_000  #: more than a pipe holds that nobody reads


class Odd(Exception):
    """Cannot be made again from its text."""

    def __init__(self, number: int, word: str) -> None:
        super().__init__(f"{number} {word}")
        self.number = number


@step(run_in="process")
def own_key() -> str:
    return current_step().key


@step(run_in="process")
def odd() -> None:
    raise Odd(7, "of nine")


@step(run_in="process")
def noisy() -> int:
    code = f"import sys; [print('x' * {NOISE}, file=f) for f in (sys.stdout, sys.stderr)]; sys.stdin.read()"
    return subprocess.run([sys.executable, "-c", code], check=True).returncode


@step(run_in="process")
def dies_once(path: str) -> str:
    if not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


@step(run_in="process", on_interrupt="fail")
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class InProcesses(Workflow[tuple[str, int, int, str]]):
    path: str

    async def run(self) -> tuple[str, int, int, str]:
        key = await own_key()
        try:
            await odd()
        except Odd as error:
            number = error.number
        else:
            number = 0
        return key, number, await noisy(), await dies_once(self.path)


class Dying(Workflow[None]):
    async def run(self) -> None:
        await dies()
