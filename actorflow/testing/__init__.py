"""What tests of durable code, and of stores, are built from. What is not here is imported from its module.

Pytest loads this package with the plugin, whatever it is that is tested: so these names are imported when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorflow.testing.harness import Harness as Harness
    from actorflow.testing.journals import Journal as Journal
    from actorflow.testing.journals import assert_replays as assert_replays

_WHERE = {"Harness": "harness", "Journal": "journals", "assert_replays": "journals"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
