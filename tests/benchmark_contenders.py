"""Contenders for the tests of the benchmarks: one that measures, one that fails and one that never ends, each with a child."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.suite import Measured, Sizes, serve

CHILD = """
import fcntl, sys, time
with open(sys.argv[1], "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write("begun\\n")
    file.flush()
    print("begun", flush=True)
    time.sleep(30)
    file.write("survived\\n")
"""


def leave_a_child() -> subprocess.Popen[str]:
    """It holds a lock on a file as long as it lives, and says so there if that is long."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, os.environ["CHILD_FILE"]], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def fine(folder: Path, sizes: Sizes) -> Measured:
    assert folder.is_dir()
    print("peers say things, too")
    return {"steps_per_s": sizes["steps"] * 2.0, "rss_mb": 10.0}


def fails(folder: Path, sizes: Sizes) -> Measured:
    leave_a_child()
    raise RuntimeError("no such server | <here>")


def hangs(folder: Path, sizes: Sizes) -> Measured:
    leave_a_child().wait()
    raise AssertionError("not killed")


if __name__ == "__main__":
    serve({"actorflow": fine, "bare": fine, "fails": fails, "hangs": hangs})
