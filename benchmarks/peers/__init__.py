"""The peers: a module each, with the code its own documentation recommends. They run in an environment of their own.

A module has `CONTENDERS`, a mapping of workloads' ids to who takes part, and runs one of them as `python -m` (see
`benchmarks.suite`). What it imports of the peer it imports inside functions, so that it can be read where the peer is not
installed. Of this project it imports `benchmarks.suite`, and here what is no peer: `bursts` (what W10 asks of an actor),
`processes` (servers and workers) and `install`. These need nothing but the standard library.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.suite import Contender

ABOUT = ("bursts", "install", "processes", "temporal_flows")
"""Modules here that are no peers."""


def peers(workload: str) -> tuple[Contender, ...]:
    """Who takes part in that workload, in the order of their names."""
    names = sorted(found.name for found in iter_modules(__path__) if found.name not in ABOUT)
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return tuple(contender for module in modules for contender in module.CONTENDERS.get(workload, ()))
