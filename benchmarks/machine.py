"""What the figures belong to: the machine, its disk, and the versions of all that takes part."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import actorflow
from benchmarks.peers import install

OWN = ("aiosqlite", "anyio", "attrs", "cattrs", "orjson")


def processor() -> str:
    """Its name, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def fsync_ms() -> float:
    """Milliseconds to append 4 KB to a file and sync it: the median of 200, where the workloads have their files."""
    taken: list[float] = []
    with tempfile.TemporaryFile(prefix="actorflow-bench-") as file:
        for _ in range(200):
            begun = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e3


def describe() -> dict[str, object]:
    """All of it, ready for JSON."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fsync_ms": round(fsync_ms(), 3),
        "actorflow": actorflow.__version__,
        "packages": {name: version(name) for name in OWN},
        "peers": install.versions(),
    }
