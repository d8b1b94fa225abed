"""Shapes of values that have no parts: numbers, texts, moments, enums, paths; and of `Any`, which takes plain JSON.

*traced* shapes look closer, to say which value the JSON writer refused: the fast ones leave range and encoding to it.
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum, Flag
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from actorflow.codec.shape import DEPTH_MAX, TOO_DEEP, Misfit, Shape, at, class_of, misfit, unreadable

if TYPE_CHECKING:
    from pathlib import PurePath

_INT_MAX, _INT_MIN = (1 << 64) - 1, -(1 << 63)  # What the JSON writer carries.
_TOO_BIG = "it does not fit into 64 bits; store it as a str or a Decimal"
_NOT_TEXT = "it holds a lone surrogate, which is no Unicode text; store bytes, or decode it with errors='replace'"
_NOT_FINITE = "JSON has no NaN and no infinity; store None, a Decimal, or a text"
_NATURAL = (
    "without a type only None, bool, int, float, str, list and dict with str keys come back as they were; annotate the type"
)


def _same(value: Any, _: Any = None) -> Any:
    return value


def plain(cls: type, *, traced: bool) -> Shape:
    """None, bool, int, str: the same in JSON, and nothing else taken for them."""
    closer = _CLOSER.get(cls) if traced else None
    name = "None" if cls is type(None) else cls.__name__

    def encode(value: Any) -> Any:
        if type(value) is not cls:
            raise misfit(value, name, cls)
        return value

    def encode_traced(value: Any) -> Any:
        encode(value)
        if closer is not None:
            closer(value)
        return value

    def decode(value: Any, _: Any = None) -> Any:
        if type(value) is not cls:
            raise unreadable(value, name)
        return value

    return Shape(
        name=name,
        encode=encode_traced if closer else encode,
        decode=decode,
        takes=(cls,),
        tag=name,
        plain=True,
        same=cls,
        text=cls is str,
    )


def _check_int(value: int) -> None:
    if not _INT_MIN <= value <= _INT_MAX:
        raise Misfit(value, _TOO_BIG)


def _check_str(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misfit(value, _NOT_TEXT) from None


_CLOSER: dict[type, Callable[[Any], None]] = {int: _check_int, str: _check_str}


def number(*, traced: bool) -> Shape:
    """`float`, which to a type checker includes int: JSON keeps 5 and 5.0 apart, so both come back as they were."""

    def encode(value: Any) -> Any:
        if type(value) is float:
            if not isfinite(value):
                raise Misfit(value, _NOT_FINITE)
        elif type(value) is not int:
            raise misfit(value, "float", float)
        elif traced:
            _check_int(value)
        return value

    def decode(value: Any, _: Any = None) -> Any:
        if type(value) is not float and type(value) is not int:
            raise unreadable(value, "float")
        return value

    return Shape(name="float", encode=encode, decode=decode, takes=(float, int), tag="float", plain=True)


def as_text(cls: type, write: Callable[[Any], str], read: Callable[[str], Any]) -> Shape:
    """A class whose values have an exact text."""

    def encode(value: Any) -> str:
        if type(value) is not cls:
            raise misfit(value, cls.__qualname__, cls)
        return write(value)

    def decode(value: Any, _: Any = None) -> Any:
        if type(value) is not str:
            raise unreadable(value, f"a text for {cls.__qualname__}")
        try:
            return read(value)
        except (ArithmeticError, LookupError, ValueError) as error:
            raise Misfit(value, f"the text is no {cls.__qualname__}: {error}") from None

    return Shape(name=cls.__qualname__, encode=encode, decode=decode, takes=(cls,), tag=cls.__qualname__, text=True)


def _write_moment(value: datetime | time) -> str:
    """ISO 8601; a zone by name follows in brackets, as RFC 9557 has it, and so does a `fold` that the offset cannot tell."""
    zone, offset = value.tzinfo, value.utcoffset()
    if offset is not None and offset.microseconds:
        raise Misfit(value, "the offset of its time zone has a fraction of a second, which is not read back; round it")
    if zone is None or type(zone) is timezone:
        return value.isoformat() + ("[fold=1]" if value.fold else "")
    from zoneinfo import ZoneInfo  # noqa: PLC0415  (it looks for the zones, and most moments are in UTC)

    if type(zone) is ZoneInfo and zone.key and isinstance(value, datetime):
        return f"{value.isoformat()}[{zone.key}]"
    if zone.utcoffset(None) is not None:
        return value.isoformat()  # A fixed offset in a class of some library comes back as the one of the language.
    raise Misfit(value, f"a {type(zone).__qualname__} cannot be stored as time zone; use `datetime.timezone` or `ZoneInfo(name)`")


def _read_moment(text: str) -> datetime:
    written, bracket, zone = text.partition("[")
    moment = datetime.fromisoformat(written)
    if not bracket:
        return moment
    if zone == "fold=1]":
        return moment.replace(fold=1)
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    there = moment.replace(tzinfo=ZoneInfo(zone.removesuffix("]")))
    later = there.replace(fold=1)
    # If the rules of the zone changed meanwhile, no offset fits; the wall time is what the user named.
    return later if there.utcoffset() != moment.utcoffset() == later.utcoffset() else there


def _read_time(text: str) -> time:
    written, bracket, _ = text.partition("[")
    return time.fromisoformat(written).replace(fold=1 if bracket else 0)


_MICROSECOND = timedelta(microseconds=1)
_SECONDS = re.compile(r"(-?)(\d+)(?:\.(\d{6}))?s", re.ASCII)


def _write_duration(value: timedelta) -> str:
    seconds, micros = divmod(abs(value // _MICROSECOND), 1_000_000)
    return f"{'-' if value < timedelta() else ''}{seconds}{f'.{micros:06}' if micros else ''}s"


def _read_duration(text: str) -> timedelta:
    found = _SECONDS.fullmatch(text)
    if found is None:
        raise ValueError("it is not written as seconds")
    sign, seconds, micros = found.groups()
    length = timedelta(seconds=int(seconds), microseconds=int(micros or 0))
    return -length if sign else length


def _read_bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


_texts: dict[Any, Shape] = {
    bytes: as_text(bytes, lambda value: b64encode(value).decode("ascii"), _read_bytes),
    datetime: as_text(datetime, _write_moment, _read_moment),
    date: as_text(date, date.isoformat, date.fromisoformat),
    time: as_text(time, _write_moment, _read_time),
    timedelta: as_text(timedelta, _write_duration, _read_duration),
    UUID: as_text(UUID, str, UUID),
}


def texts() -> Mapping[Any, Shape]:
    """What is written as a text, by its class. A class is there once its module was imported: before, it has no values.

    Nothing is imported here: a service that is short of file descriptors must still be able to make its coders.
    """
    decimal: Any = sys.modules.get("decimal")
    if decimal is not None and decimal.Decimal not in _texts:
        _texts[decimal.Decimal] = as_text(decimal.Decimal, str, decimal.Decimal)
    return _texts


def path(cls: type[PurePath], *, traced: bool) -> Shape:
    """`Path("x")` is a `PosixPath` or a `WindowsPath`: that is the class that comes back, and the one that is taken."""
    shape = as_text(type(cls("x")), str, cls)

    def encode(value: Any) -> str:
        written: str = shape.encode(value)
        _check_str(written)
        return written

    return Shape(
        name=cls.__name__,
        encode=encode if traced else shape.encode,
        decode=shape.decode,
        takes=shape.takes,
        tag=cls.__name__,
        text=True,
    )


def enum(cls: type[Enum], tag: str) -> Shape:
    """By value if all values are texts and numbers (a combination of flags has no other), else by name."""
    by_value = all(type(member.value) in (int, str) for member in cls.__members__.values())
    is_flag = issubclass(cls, Flag)
    members: dict[tuple[type, Any], Enum] = {}
    for name, member in cls.__members__.items():
        key = member.value if by_value else name
        members[type(key), key] = member

    def encode(value: Any) -> Any:
        if type(value) is not cls:
            raise misfit(value, cls.__qualname__, cls)
        return value._value_ if by_value else value._name_

    def decode(value: Any, _: Any = None) -> Any:
        member = members.get((class_of(value), value)) if type(value) in (int, str) else None
        if member is not None:
            return member
        if is_flag and type(value) is int:
            try:
                return cls(value)
            except ValueError:
                pass
        raise Misfit(value, f"{cls.__qualname__} has no such member any more")

    texts = not by_value or all(type(member.value) is str for member in cls.__members__.values())
    return Shape(name=cls.__qualname__, encode=encode, decode=decode, takes=(cls,), tag=tag, text=texts and not is_flag)


def natural(*, traced: bool) -> Shape:
    """`Any`: what JSON has by itself. The JSON writer would make something of tuples, enums and UUIDs: they are looked for."""

    def encode(value: Any) -> Any:
        _check_natural(value, 0, traced)
        return value

    return Shape(name="Any", encode=encode, decode=_same, tag="Any")


def _check_natural(value: Any, depth: int, traced: bool) -> None:  # noqa: FBT001  (hot)
    cls = class_of(value)
    if cls is str or cls is int:
        if traced:
            (_check_str if cls is str else _check_int)(value)
    elif cls is float:
        if not isfinite(value):
            raise Misfit(value, _NOT_FINITE)
    elif cls is list or cls is dict:
        if depth == DEPTH_MAX:
            raise Misfit(value, TOO_DEEP)
        place: Any = None
        try:
            for place, item in value.items() if cls is dict else enumerate(value):
                if cls is dict and type(place) is not str:
                    raise Misfit(place, "a dict without a type has str keys; annotate it: `dict[K, V]`")
                if traced:
                    _check_natural(place, depth + 1, traced)
                elif type(item) in _SCALARS:
                    continue
                _check_natural(item, depth + 1, traced)
        except Misfit as found:
            found.under(at(place))
            raise
    elif value is not None and cls is not bool:
        raise Misfit(value, _NATURAL)


_SCALARS = frozenset((str, int, bool, type(None)))


def dumps(value: Any) -> bytes:
    """JSON, compact; the writer's own ideas of classes are off."""
    return orjson.dumps(value, None, OPTIONS)


OPTIONS: int = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
