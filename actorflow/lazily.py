"""Names of a package that are imported when they are first asked for (PEP 562).

A service needs some of them, pytest with its plugin none: what nobody asks for takes no time to start. Type checkers must not
see this, but the imports that it stands for: so both are written, on the two sides of `if TYPE_CHECKING`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` for that package.

    Its modules are found as attributes, too, whether or not they were imported before.

    Args:
        package: Its `__name__`.
        names: By the module in which they are (its name in the package), all in one text.
    """
    where = {name: f"{package}.{module}" for module, listed in names.items() for name in listed.split()}
    inside = vars(sys.modules[package])

    def get(name: str) -> Any:
        if name in where:
            inside[name] = getattr(import_module(where[name]), name)
        elif any(name == module.partition(".")[0] for module in names):
            import_module(f"{package}.{name}")  # It is then an attribute of its package.
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return inside[name]

    def listed() -> list[str]:
        return sorted({*inside, *where})

    return get, listed, list(where)
