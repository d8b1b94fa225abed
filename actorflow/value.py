"""`Value`: how values are compared, hashed and printed, once for all of them.

attrs would write and compile these methods for each class, at each start: half of what it takes to make a class.
"""

from __future__ import annotations

from reprlib import recursive_repr
from typing import Any


class Value:
    """Base of frozen attrs classes: equal if the classes and the fields are, and printed with its fields.

    What `attrs.field` is told of `eq`, `hash` and `repr` holds, and what a class defines itself stays.

    >>> from attrs import field, frozen
    >>> @frozen
    ... class Point(Value):
    ...     x: int
    ...     y: int = field(default=0, repr=False)
    >>> Point(1), Point(1) == Point(1, 0), len({Point(1), Point(2), Point(1)})
    (Point(x=1), True, 2)
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("__eq__", "__hash__", "__repr__"):
            if name not in vars(cls):
                setattr(cls, name, getattr(Value, name))  # attrs writes none that the class has itself.

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_compared(self, each) == _compared(other, each) for each in _fields(self) if each.eq)

    def __hash__(self) -> int:
        hashed = (each for each in _fields(self) if (each.eq if each.hash is None else each.hash))
        return hash((type(self), *(_compared(self, each) for each in hashed)))

    @recursive_repr()
    def __repr__(self) -> str:
        shown = ", ".join(f"{each.name}={_shown(self, each)}" for each in _fields(self) if each.repr)
        return f"{type(self).__qualname__.rpartition('>.')[2]}({shown})"


def _fields(value: Any) -> tuple[Any, ...]:
    """Its attributes; the stubs of attrs do not know their `eq_key`."""
    fields: tuple[Any, ...] = value.__attrs_attrs__
    return fields


def _compared(value: object, field: Any) -> Any:
    found = getattr(value, field.name)
    return found if field.eq_key is None else field.eq_key(found)


def _shown(value: object, field: Any) -> str:
    found = getattr(value, field.name)
    return str(field.repr(found)) if callable(field.repr) else repr(found)
