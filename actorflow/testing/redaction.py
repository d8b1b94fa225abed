"""Recorded values made unrecognizable, in a way that code still takes: texts keep their shape, and equal ones stay equal.

Of a text, each letter becomes another letter of its case and each digit another digit, by a secret that is thrown away. So an
amount stays an amount, a UUID a UUID, an address of mail looks like one, and what was compared with itself still is the same.
Dates keep their year. Kept are numbers, names of fields and classes, and texts that are constants of the program (`known`):
those decide its way, and are no secret of its data. What is computed from texts may differ afterwards.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, cast

from attrs import define, field

TYPE = "$type"
_MOMENT = re.compile(r"(\d{4})-\d\d-\d\d(?:([T ])\d\d:\d\d(?::\d\d(\.\d+)?)?([+-]\d\d:\d\d|Z)?(\[[\w/+-]+\])?)?", re.ASCII)
_NUMBER = re.compile(r"([+-]?\d*\.?\d+)(E[+-]?\d+)?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII)
_ALPHABETS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_NESTED = ("args", "state")  #: of a failure: JSON in a text
_FAILURE = frozenset(("module", "qualname", "message"))
_FIELDS = "~fields"  #: of a checkpoint: JSON in texts, by name


@define
class Redaction:
    """One secret, for one recording."""

    secret: bytes = field(repr=False)
    known: frozenset[str] = frozenset()  #: texts that stay as they are

    def value(self, value: Any) -> Any:
        """A JSON value with other texts in it."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(item) for item in cast("Any", value)]
            case dict():
                return self._object(cast("dict[str, Any]", value))
            case _:
                return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        if value.keys() >= _FAILURE:
            return self._failure(value)
        nested = value.get(_FIELDS)
        if isinstance(nested, dict):
            parts = cast("dict[str, str]", nested)
            rest = self._object({name: part for name, part in value.items() if name != _FIELDS})
            return {**rest, _FIELDS: {name: self._json(part) for name, part in parts.items()}}
        return {name: part if name == TYPE else self.value(part) for name, part in value.items()}

    def _failure(self, value: dict[str, Any]) -> dict[str, Any]:
        causes = [{**cause, "message": self.value(cause.get("message"))} for cause in value.get("causes", ())]
        nested = {name: self._json(value[name]) for name in _NESTED if isinstance(value.get(name), str)}
        return {**value, **nested, "message": self.value(value["message"]), "causes": causes, "traceback": ""}

    def _json(self, text: str) -> str:
        return json.dumps(self.value(json.loads(text)), ensure_ascii=False, separators=(",", ":"))

    def text(self, text: str) -> str:
        """Another text of the same shape; the same one for the same."""
        if text in self.known:
            return text
        if (moment := _MOMENT.fullmatch(text)) is not None:
            year, t, fraction, offset, zone = moment.groups(default="")
            of_day = f"{t}00:00:00{'.000000' if fraction else ''}" if t else ""
            return f"{year}-01-01{of_day}{offset}{zone}"
        drawn = self._drawn(text)
        if (number := _NUMBER.fullmatch(text)) is not None:
            return "".join(_other(letter, drawn) for letter in number[1]) + (number[2] or "")
        if _UUID.fullmatch(text) is not None:
            return re.sub("[0-9a-f]", lambda _: "0123456789abcdef"[drawn() % 16], text)
        return "".join(_other(letter, drawn) for letter in text)

    def _drawn(self, text: str) -> Callable[[], int]:
        """Numbers that follow from the text and the secret."""
        count = 0
        block = b""

        def draw() -> int:
            nonlocal count, block
            if count % 32 == 0:
                block = blake2b(f"{count}/{text}".encode(), key=self.secret[:64], digest_size=32).digest()
            count += 1
            return block[(count - 1) % 32]

        return draw


def _other(letter: str, drawn: Callable[[], int]) -> str:
    for alphabet in _ALPHABETS:
        if letter in alphabet:
            return alphabet[drawn() % len(alphabet)]
    return chr(ord("a") + drawn() % 26) if letter.isalpha() else letter


def constants(source: str) -> frozenset[str]:
    """The texts that a program names itself: what its code compares with, the values of its enums.

    >>> sorted(constants("if answer == 'yes': status = f'done {n}'"))
    ['done ', 'yes']
    """
    nodes = ast.walk(ast.parse(source))
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
