"""The world as a test can see it: what durable code and steps may leave traces in, and what has changed there.

Looked at are the resources of the service, the fixtures of the test, and the module-level data of the modules that its classes
and steps come from. An object is looked into if its class is the user's; of a list, set or dict it is counted what is in it,
whatever the order. What holds the idempotency key of a step counts once: whoever was told twice with one key knows it.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from uuid import UUID

import attrs
from attrs import define, field, frozen

from actorflow.actor import Actor
from actorflow.steps import declaration
from actorflow.testing.bodies import is_users
from actorflow.value import Value

NODES_MAX = 20_000  #: values looked at for one picture of the world: more is no test's world
DEPTH_MAX = 8
FILES_MAX = 200  #: of a directory
FILE_BYTES_MAX = 1 << 20
TEXT_MAX = 300  #: of a value in a message

_SCALARS = (int, float, complex, str, bytes, bool, type(None), Decimal, date, datetime, time, timedelta, UUID)
_SERIES = (list, tuple, deque)
_SETS = (set, frozenset)

Things = Counter[str]
Picture = dict[str, Things]
"""By the path of a container or value, what is in it: how often each thing."""


@frozen
class Change(Value):
    """What is otherwise in one place."""

    path: str
    more: tuple[str, ...]  #: what is there more often, or only there
    fewer: tuple[str, ...]
    before: int  #: how many things were there
    after: int


def changes(before: Picture, after: Picture, *, without: Iterable[str] = ()) -> list[Change]:
    """What is otherwise in *after*.

    >>> changes({"sent": Counter({"'a'": 1})}, {"sent": Counter({"'a'": 2})})
    [Change(path='sent', more=("'a'",), fewer=(), before=1, after=2)]
    """
    ignored = tuple(without)
    found: list[Change] = []
    for path in [*before, *(path for path in after if path not in before)]:
        was, now = before.get(path, Counter[str]()), after.get(path, Counter[str]())
        if was == now or any(path == name or path.startswith((f"{name}.", f"{name}[", f"{name}/")) for name in ignored):
            continue
        more, fewer = tuple((now - was).elements()), tuple((was - now).elements())
        found.append(Change(path, more, fewer, was.total(), now.total()))
    return found


@define(eq=False)
class Watch:
    """What is looked at."""

    modules: Sequence[ModuleType] = ()
    fixtures: Mapping[str, object] = field(factory=dict[str, object])
    more: Callable[[], object] | None = None  #: whatever else is of the world, as a value
    _saved: list[tuple[ModuleType, str, Any, Any]] = field(factory=list[tuple[ModuleType, str, Any, Any]], init=False)

    def picture(self, resources: Iterable[object], keys: Iterable[str], local: Mapping[str, object] | None = None) -> Picture:
        """All of it as it is now.

        Args:
            resources: Of the service.
            keys: Idempotency keys that steps were given.
            local: Variables of the test.
        """
        look = _Look(frozenset(keys), frozenset(module.__name__ for module in self.modules))
        for name, value in self.fixtures.items():
            look.at(name, value)
        for resource in resources:
            look.at(type(resource).__name__, resource)
        for module in self.modules:
            for name, value in _data(module):
                look.at(name, value)
        for name, value in (local or {}).items():
            if not isinstance(value, _SCALARS):
                look.at(name, value)
        if self.more is not None:
            look.at("watch", self.more())
        return look.picture

    def save(self) -> None:
        """Remember module-level lists, sets, dicts and plain values as they are."""
        for module in self.modules:
            for name, value in _data(module):
                if isinstance(value, (list, set, dict, deque)):
                    self._saved.append((module, name, cast("Any", value), cast("Any", value).copy()))
                elif isinstance(value, _SCALARS):
                    self._saved.append((module, name, value, None))

    def put_back(self) -> None:
        """Make them what they were: each run of a test begins in the same world."""
        for module, name, value, copy in self._saved:
            setattr(module, name, value)
            if isinstance(value, (list, deque)):
                series = cast("Any", value)
                series.clear()
                series.extend(copy)
            elif isinstance(value, (set, dict)):
                value.clear()  # pyright: ignore[reportUnknownMemberType]
                value.update(copy)  # pyright: ignore[reportUnknownMemberType]


def modules_of(test: ModuleType) -> list[ModuleType]:
    """The module of a test, and those that its actors and steps come from."""
    found = [test]
    for module in found:
        for value in list(vars(module).values()):
            of_ours = declaration(value) is not None or (isinstance(value, type) and issubclass(value, Actor))
            name: Any = getattr(cast("Any", value), "__module__", None)
            source = sys.modules.get(name) if of_ours and isinstance(name, str) else None
            if source is not None and source not in found and not source.__name__.startswith("actorflow"):
                found.append(source)
    return found


def _data(module: ModuleType) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith(("__", "@")) and not isinstance(value, (type, ModuleType))
        if not callable(value) or _mock_calls(value) is not None
    ]


@define
class _Look:
    """One look at the world."""

    keys: frozenset[str]
    modules: frozenset[str]
    picture: Picture = field(factory=dict[str, Things], init=False)
    _seen: set[int] = field(factory=set[int], init=False)
    _left: int = field(default=NODES_MAX, init=False)

    def at(self, path: str, value: object, depth: int = 0) -> None:
        """Add what is found at *path*."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            return
        if not isinstance(value, _SCALARS):
            if id(value) in self._seen:
                return
            self._seen.add(id(value))
        match value:
            case Path():
                self._directory(path, value)
            case _ if isinstance(value, (*_SERIES, *_SETS)):
                self._put(path, [self.text(item) for item in cast("Iterable[Any]", value)])
            case Counter():
                self._put(path, [f"{self.text(key)}: {count}" for key, count in cast("Any", value).items()])
            case dict():
                for key, item in cast("Any", value).items():
                    if isinstance(item, _SCALARS):
                        self._put(path, [f"{self.text(key)}: {self.text(item)}"], extend=True)
                    else:
                        self.at(f"{path}[{self.text(key)}]", item, depth + 1)
            case _ if (calls := _mock_calls(value)) is not None:
                self._put(f"{path}.mock_calls", calls)
            case _ if isinstance(value, (*_SCALARS, Enum)):
                self._put(path, [self.text(value)])
            case _:
                for name, part in self._parts(value).items():
                    self.at(f"{path}.{name}", part, depth + 1)

    def _put(self, path: str, things: Iterable[str], *, extend: bool = False) -> None:
        """A thing that holds an idempotency key is there once, however often."""
        counted = Counter(things)
        for thing in counted:
            if counted[thing] > 1 and any(key in thing for key in self.keys):
                counted[thing] = 1
        self.picture[path] = self.picture.get(path, Counter()) + counted if extend else counted

    def text(self, value: object, depth: int = 0) -> str:
        """A value as text: the same for equal values."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            return "..."
        inner = depth + 1
        match value:
            case _ if isinstance(value, (*_SCALARS, Enum)):
                return repr(value)
            case list() | tuple() | deque():
                items = ", ".join(self.text(item, inner) for item in cast("Iterable[Any]", value))
                return f"({items})" if isinstance(value, tuple) else f"[{items}]"
            case set() | frozenset():
                return f"{{{', '.join(sorted(self.text(item, inner) for item in cast('Iterable[Any]', value)))}}}"
            case dict():
                pairs = cast("Any", value).items()
                return f"{{{', '.join(f'{self.text(k, inner)}: {self.text(v, inner)}' for k, v in pairs)}}}"
            case _:
                parts = ", ".join(f"{name}={self.text(part, inner)}" for name, part in self._parts(value).items())
                return f"{type(value).__name__}({parts})"

    def _parts(self, value: object) -> dict[str, Any]:
        """The attributes of an object of the user's; of others none."""
        cls = type(value)
        module = sys.modules.get(cls.__module__)
        file = getattr(module, "__file__", None)
        if callable(value) or not (cls.__module__ in self.modules or (isinstance(file, str) and is_users(file))):
            return {}
        if attrs.has(cls):
            return {a.name: getattr(value, a.name, None) for a in attrs.fields(cls)} | getattr(value, "__dict__", {})
        slots = [name for base in cls.__mro__ for name in cast("Iterable[str]", getattr(base, "__slots__", ()))]
        return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})

    def _directory(self, path: str, at: Path) -> None:
        """What files say, line by line: a line that was added twice is seen."""
        files = sorted(file for file in at.rglob("*") if file.is_file())[:FILES_MAX] if at.is_dir() else [at] * at.is_file()
        for file in files:
            if file.stat().st_size <= FILE_BYTES_MAX:
                lines = file.read_bytes().decode(errors="backslashreplace").splitlines()
                self._put(f"{path}/{file.relative_to(at)}" if file != at else path, [repr(line) for line in lines])


def _mock_calls(value: object) -> list[str] | None:
    """The calls of an object of `unittest.mock`."""
    mock = sys.modules.get("unittest.mock")  # A mock exists only if that was imported.
    if mock is None or not isinstance(value, mock.NonCallableMock):
        return None
    return [repr(call) for call in cast("Any", value).mock_calls]
