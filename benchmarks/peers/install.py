"""The environment of the peers: `.venv-peers` beside `.venv`, with a folder for what comes from npm."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.suite import ROOT

HOME = ROOT / ".venv-peers"
PYTHON = HOME / "bin" / "python"
NPM = HOME / "npm"
NPM_PACKAGES = ("@restatedev/restate-server",)
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> Path | None:
    """Their interpreter; None if they are not installed."""
    return PYTHON if PYTHON.exists() else None


def install() -> None:
    """Make that environment, or bring it up to date.

    Raises:
        subprocess.CalledProcessError: pip or npm failed; they have said why.
    """
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", "--upgrade", "--requirement", str(REQUIREMENTS)], check=True)
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("npm was not found: Restate's server is left out, and will be reported as missing\n")
        return
    subprocess.run([npm, "install", "--no-fund", "--no-audit", "--prefix", str(NPM), *NPM_PACKAGES], check=True)


VERSIONS = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"]: d.version for d in m.distributions()}))
"""


def versions() -> dict[str, str]:
    """What is installed of them, by the names of the packages; nothing if they are not."""
    if python() is None:
        return {}
    done = subprocess.run([str(PYTHON), "-c", VERSIONS], capture_output=True, text=True, check=True)
    every = {name.lower(): version for name, version in json.loads(done.stdout).items()}
    names = [line.split(">=")[0].split("[")[0] for line in REQUIREMENTS.read_text().splitlines() if ">=" in line]
    found = {name: every[name] for name in names if name in every}
    for package in NPM_PACKAGES:
        manifest = NPM / "node_modules" / package / "package.json"
        if manifest.exists():
            found[package] = json.loads(manifest.read_text())["version"]
    return found
