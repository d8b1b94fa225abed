"""The servers and workers of a peer: processes of their own, which are started, waited for, killed, and asked what they cost.

What they cost is read from /proc, so it is told on Linux only. They stay in the process group of who starts them, and end with
it at the latest.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.suite import Measured, Sizes

LOCAL = "127.0.0.1"
PAUSE_S = 0.005
PROC = Path("/proc")
Result = TypeVar("Result")


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as found:
        found.bind((LOCAL, 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Child:
    """A process, and where it says what is wrong."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, command: Iterable[object], folder: Path, environment: Mapping[str, str] | None = None) -> Child:
        """Start it, with this environment added to our own; what it says goes into a file in that folder."""
        log = folder / f"{name}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        return cls(name, process, log)

    @classmethod
    def python(cls, name: str, code: str, folder: Path, environment: Mapping[str, str] | None = None) -> Child:
        """Start that code in an interpreter like this one."""
        return cls.start(name, (sys.executable, "-c", code), folder, environment)

    def check(self) -> None:
        """Nothing, as long as it runs.

        Raises:
            RuntimeError: It has ended, with the last thing it said.
        """
        if self.process.poll() is not None:
            said = self.log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {said[-1][:200]}")

    def kill(self) -> None:
        """SIGKILL to it and all that it has started; all are gone on return."""
        family = list(self.family())
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        while any(alive(pid) for pid in family):
            time.sleep(PAUSE_S)

    def family(self) -> Iterator[int]:
        """It, and all that it has started, and so on."""
        found = [self.process.pid]
        for pid in found:
            with suppress(OSError):
                for children in (PROC / str(pid) / "task").glob("*/children"):
                    found += map(int, children.read_text().split())
        yield from found


def alive(pid: int) -> bool:
    """Whether it runs still; who has ended and was not waited for does not."""
    try:
        return fields(pid)[0] not in "ZX"
    except OSError:
        return False


def fields(pid: int) -> list[str]:
    """What the kernel tells of it in one line, from its state on."""
    return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()


def cpu_s(children: Iterable[Child]) -> float:
    """Seconds of the processors in all of them so far."""
    ticks = 0
    for child in children:
        for pid in child.family():
            with suppress(OSError):
                ticks += sum(map(int, fields(pid)[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(children: Iterable[Child]) -> Measured:
    """The most memory each has had, added up, as `rss_mb`."""
    if not PROC.exists():
        return {}
    kilobytes = 0
    for child in children:
        for pid in child.family():
            with suppress(OSError):
                status = (PROC / str(pid) / "status").read_text()
                kilobytes += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"rss_mb": kilobytes / 1024}


class Costs:
    """What so many steps cost in those processes, from when it was made."""

    def __init__(self, children: Iterable[Child]) -> None:
        self.children = list(children)
        self.cpu = cpu_s(self.children)
        self.begun = time.perf_counter()

    def measured(self, steps: int) -> Measured:
        """The measurements of W1 and W2."""
        taken_s = time.perf_counter() - self.begun
        used = {"cpu_us_per_step": (cpu_s(self.children) - self.cpu) / steps * 1e6} if PROC.exists() else {}
        return {"steps_per_s": steps / taken_s, **used, **memory(self.children)}


async def until(ready: Callable[[], Awaitable[object]], children: Iterable[Child] = (), within_s: float = 60.0) -> None:
    """Return when that is true, and as long as it cannot be reached, ask again.

    Raises:
        RuntimeError: One of those processes has ended.
        TimeoutError: It took longer.
    """
    waited_for = list(children)
    end = time.perf_counter() + within_s
    while True:
        with suppress(OSError, EOFError):
            if await ready():
                return
        for child in waited_for:
            child.check()
        if time.perf_counter() > end:
            raise TimeoutError(f"{', '.join(child.name for child in waited_for)}: not ready within {within_s:.0f} s")
        await asyncio.sleep(PAUSE_S)


async def unless_ended(children: Iterable[Child], awaited: Awaitable[Result]) -> Result:
    """What that gives, which may wait for ever once one of those processes is gone.

    Raises:
        RuntimeError: One of them has ended.
    """
    waited_for = list(children)
    task = asyncio.ensure_future(awaited)
    while not task.done():
        for child in waited_for:
            child.check()
        await asyncio.wait((task,), timeout=PAUSE_S)
    return task.result()


async def listening(port: int) -> bool:
    """Whether somebody takes connections there; a socket may also meet itself, where nobody listens."""
    _, writer = await asyncio.open_connection(LOCAL, port)
    met: bool = writer.get_extra_info("sockname") != writer.get_extra_info("peername")
    writer.close()
    return met


def new(folder: Path, number: int) -> Path:
    """A folder of that number in it."""
    made = folder / str(number)
    made.mkdir()
    return made


def import_ms(module: str) -> float:
    """Milliseconds to import that module, in an interpreter of its own."""
    code = f"import time; begun = time.perf_counter(); import {module}; print((time.perf_counter() - begun) * 1e3)"
    return float(subprocess.run((sys.executable, "-c", code), stdout=subprocess.PIPE, check=True).stdout)


async def cold(folder: Path, sizes: Sizes, modules: str, first_step_ms: Callable[[Path], Awaitable[float]]) -> Measured:
    """W7 of a peer with a server: the SDK's import, and all from nothing to a first step; each first one does not count."""
    starts = range(int(sizes["starts"]) + 1)
    imported = [import_ms(modules) for _ in starts]
    stepped = [await first_step_ms(new(folder, number)) for number in starts]
    return {"import_ms": statistics.median(imported[1:]), "first_step_ms": statistics.median(stepped[1:])}


class Ledger:
    """Lines in a file that no crash of a process takes back: what ran is counted outside of all stores."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.txt"
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, *words: object) -> None:
        """One line more, in one write."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def counted(self, first: str, offset: int = 0) -> Counter[str]:
        """How often each line stands there that begins with that word, in what was written from that byte on."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return Counter(line for line in file.read().decode().splitlines() if line.startswith(f"{first} "))

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size
