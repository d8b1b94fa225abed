"""A shape: how the values of one type are written as JSON values, and read back.

Both directions check. `encode` takes only what `decode` gives back exactly; both raise `Misfit`, which collects the path to
the offending value on its way up. What `encode` returns consists of exact None, bool, int, float, str, list and dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

DEPTH_MAX = 200
"""Levels of nesting. The JSON writer ends at 254; below that, the recursion of Python has to be deep enough for both ways."""

TOO_DEEP = f"it is nested deeper than {DEPTH_MAX} levels, or contains itself; store it flat, with keys for references"

Encode = Callable[[Any], Any]
Decode = Callable[..., Any]
"""Takes the JSON value. A second argument is allowed and ignored: generated code passes the type."""


class_of: Callable[[Any], Any] = type
"""`type` of one argument, to a type checker."""


class Loose:
    """A type form: what needs no annotation, because everything in it carries its tag.

    Scalars, and lists, tuples, sets and dicts of them; no classes of users. Readable, but wordier than an annotated value.
    """


class Misfit(Exception):
    """A value that a shape does not take, and why."""

    def __init__(self, value: object, why: str) -> None:
        super().__init__(why)
        self.value: object = value
        self.why: str = why
        self.path: str = ""

    def under(self, segment: str) -> None:
        """The value was found below *segment*."""
        self.path = segment + self.path


def at(place: object) -> str:
    """The segment of a path for a key or an index, whatever its `repr` does."""
    try:
        return f"[{place!r:.60}]"
    except Exception:  # noqa: BLE001  (an int with too many digits, for one)
        return "[?]"


@frozen(kw_only=True, eq=False, repr=False)
class Shape:
    """How the values of one type are written and read."""

    name: str  #: of the type, for messages
    encode: Encode
    decode: Decode
    takes: tuple[type, ...] = ()  #: exact classes of its values; empty if any
    tag: str = ""  #: what tells it from the other members of a union
    plain: bool = False  #: scalars that are the same in JSON: they need no tag
    same: type | None = None  #: values of exactly this class are written and read as they are
    text: bool = False  #: always written as a JSON string, so it can be a key as it is
    fields: bool = False  #: written as an object of named fields, so a tag has its place among them


def misfit(value: object, name: str, *expected: type) -> Misfit:
    """What to say of a value whose class is not the one of its annotation."""
    for cls in expected:
        if isinstance(value, cls) and cls is not object:
            return Misfit(
                value,
                f"a subclass of {cls.__qualname__} would come back as {cls.__qualname__}; convert it, or annotate the "
                f"classes that can occur: `A | B`",
            )
    return Misfit(value, f"the annotation says {name}; convert the value, or change the annotation")


def unreadable(value: object, expected: str) -> Misfit:
    """What to say of a stored value that is not what the annotation calls for. Does not show the value."""
    kinds: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "an array",
    }
    return Misfit(value, f"{expected} was expected, {kinds.get(type(value), 'an object')} was found")


def refusing(name: str, why: str) -> Shape:
    """The shape of a type that cannot be stored: takes nothing."""

    def refuse(value: Any, _: Any = None) -> Any:
        raise Misfit(value, why)

    return Shape(name=name, encode=refuse, decode=refuse, tag=name)
