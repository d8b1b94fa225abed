"""Text for people and programs: what is stored is shown, never obeyed.

Keys, reports and payloads come from outside. Whatever of them a terminal might act on (escape sequences, line breaks,
marks that turn the direction of writing) is written as its escape, and nothing is read as markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs

from actorflow.clock import moment

if TYPE_CHECKING:
    from attrs import AttrsInstance

SHOWN_MAX = 300  #: characters of a payload in a table

_STEPS = ((60.0, 1.0, "s"), (3_600.0, 60.0, "min"), (86_400.0, 3_600.0, "h"), (float("inf"), 86_400.0, "d"))
_ABOVE_ASCII = re.compile(r"[^\x00-\x7e]")


def safe(text: str) -> str:
    r"""*text* on one line, with escapes for all that is not a printable character.

    >>> print(safe("[red]\x1b[31m\r\nüber"))
    [red]\x1b[31m\r\nüber
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def short(text: str, characters_max: int = SHOWN_MAX) -> str:
    """*text* for a cell of a table.

    >>> short("abcdef", 4)
    'abc…'
    """
    text = safe(text)
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


def length(length_s: float) -> str:
    """A length of time in its largest unit.

    >>> [length(n) for n in (0.4, 59, 125, 7_200, 200_000)]
    ['0 s', '59 s', '2 min', '2 h', '2 d']
    """
    for below_s, unit_s, unit in _STEPS:
        if length_s < below_s:
            return f"{int(length_s / unit_s):,} {unit}"
    return "for ever"


def relative(at: float | None, now: float) -> str:
    """A moment as seen from *now*; nothing for None.

    >>> relative(100.0, 280.0), relative(280.0, 100.0), relative(100.0, 100.2), relative(None, 0.0)
    ('3 min ago', 'in 3 min', 'now', '')
    """
    if at is None:
        return ""
    if abs(now - at) < 1.0:
        return "now"
    return f"{length(now - at)} ago" if at < now else f"in {length(at - now)}"


def iso(at: float) -> str:
    """A moment as ISO 8601, UTC.

    >>> iso(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    try:
        return f"{moment(at).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    except (OverflowError, ValueError, OSError):
        return str(at)  # No calendar has that day; what is stored is still told.


def when(at: float | None, now: float) -> str:
    """A moment, both ways; nothing for None.

    >>> when(0.0, 60.0)
    '1 min ago (1970-01-01 00:00:00 UTC)'
    """
    return "" if at is None else f"{relative(at, now)} ({iso(at)[:19].replace('T', ' ')} UTC)"


def plain(value: object) -> Any:
    """A value of attrs classes as JSON knows it: their field names, moments as ISO 8601."""
    if attrs.has(type(value)):
        names = attrs.fields_dict(cast("type[AttrsInstance]", type(value)))
        return {name: _moment_or_plain(name, getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        given = cast("Mapping[str, object]", value)
        return {name: plain(item) for name, item in given.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in cast("list[object]", value)]
    return value


def _moment_or_plain(name: str, value: object) -> Any:
    if isinstance(value, int | float) and (name == "at" or name.endswith("_at")):
        return iso(value)
    return plain(value)


def dumped(value: object, *, indent: int | None = None) -> str:
    r"""JSON that a terminal may show: what is no printable character is escaped, as JSON allows.

    >>> print(dumped({"key": "ü\x1b\x9b\u202e"}))
    {"key": "ü\u001b\u009b\u202e"}
    """
    text = json.dumps(plain(value), ensure_ascii=False, indent=indent)
    return _ABOVE_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)
