"""Processes that a body starts, kills and starts again: each is another body of a module, run as the suite runs one.

They are in the process group of who starts them, so they are killed with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.suite import ROOT, Measured, Sizes

Process = subprocess.Popen[str]


def begin(module: str, name: str, sizes: Sizes, folder: Path) -> Process:
    """Start that body of that module, and go on at once. Its standard input is a pipe, too, for those that are told things."""
    command = [sys.executable, "-m", module, name, json.dumps(dict(sizes)), str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: Process) -> Measured:
    """Wait for its end, and take what it measured.

    Raises:
        RuntimeError: It failed; what it said is on the standard error that it has from here.
    """
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, process.args))} ended with {process.returncode}")  # type: ignore[arg-type]
    return {name: float(value) for name, value in json.loads(out.strip().splitlines()[-1]).items()}


def run(module: str, name: str, sizes: Sizes, folder: Path) -> Measured:
    """Both."""
    return finish(begin(module, name, sizes, folder))
