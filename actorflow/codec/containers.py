"""Shapes of list, tuple, set and dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from actorflow.codec.scalars import dumps
from actorflow.codec.shape import Decode, Encode, Misfit, Shape, at, misfit, unreadable


def _each(convert: Encode | Decode, values: Any) -> list[Any]:
    done: list[Any] = []
    try:
        # On an exception `extend` keeps what it has got so far: the length is the index of the misfit.
        done.extend(map(convert, values))
    except Misfit as found:
        found.under(f"[{len(done)}]")
        raise
    return done


def _array(value: Any, name: str) -> list[Any]:
    if type(value) is not list:
        raise unreadable(value, f"an array for {name}")
    return value  # pyright: ignore[reportUnknownVariableType]


def list_of(item: Shape) -> Shape:
    """A list whose items have one shape."""
    name = f"list[{item.name}]"
    item_encode, item_decode = item.encode, item.decode

    def encode(value: Any) -> list[Any]:
        if type(value) is not list:
            raise misfit(value, name, list)
        return _each(item_encode, value)

    def decode(value: Any, _: Any = None) -> list[Any]:
        return _each(item_decode, _array(value, name))

    return Shape(name=name, encode=encode, decode=decode, takes=(list,))


def tuple_of(item: Shape) -> Shape:
    """A tuple of any length."""
    name = f"tuple[{item.name}, ...]"
    item_encode, item_decode = item.encode, item.decode

    def encode(value: Any) -> list[Any]:
        if type(value) is not tuple:
            raise misfit(value, name, tuple)
        return _each(item_encode, value)

    def decode(value: Any, _: Any = None) -> tuple[Any, ...]:
        return tuple(_each(item_decode, _array(value, name)))

    return Shape(name=name, encode=encode, decode=decode, takes=(tuple,))


def tuple_with(items: Sequence[Shape]) -> Shape:
    """A tuple of known length."""
    name = f"tuple[{', '.join(item.name for item in items)}]"

    def apply(converts: Sequence[Encode | Decode], values: Sequence[Any]) -> list[Any]:
        done: list[Any] = []
        if len(values) != len(items):
            raise Misfit(values, f"the annotation says {name}, and it has {len(values)} items")
        try:
            for convert, value in zip(converts, values, strict=True):
                done.append(convert(value))
        except Misfit as found:
            found.under(f"[{len(done)}]")
            raise
        return done

    encodes, decodes = [item.encode for item in items], [item.decode for item in items]

    def encode(value: Any) -> list[Any]:
        if type(value) is not tuple:
            raise misfit(value, name, tuple)
        return apply(encodes, value)  # pyright: ignore[reportUnknownArgumentType]

    def decode(value: Any, _: Any = None) -> tuple[Any, ...]:
        return tuple(apply(decodes, _array(value, name)))

    return Shape(name=name, encode=encode, decode=decode, takes=(tuple,))


def set_of(cls: type, item: Shape) -> Shape:
    """Stored sorted: equal sets are equal bytes, whatever the hash seed."""
    name = f"{cls.__name__}[{item.name}]"
    item_encode, item_decode = item.encode, item.decode
    # Only one scalar class has a total order of its own; everything else is ordered by its bytes.
    key = None if item.plain and len(item.takes) == 1 and item.takes[0] is not type(None) else dumps

    def encode(value: Any) -> list[Any]:
        if type(value) is not cls:
            raise misfit(value, name, cls)
        members: Any = value
        done: list[Any] = []
        try:
            done.extend(map(item_encode, members))
        except Misfit as found:
            found.under("{...}")
            raise
        done.sort(key=key)
        return done

    def decode(value: Any, _: Any = None) -> Any:
        return cls(_each(item_decode, _array(value, name)))

    return Shape(name=name, encode=encode, decode=decode, takes=(cls,))


def dict_of(key: Shape, item: Shape) -> Shape:
    """A JSON object. A key that is not written as a text stands there as the text of its JSON: `{"1":...}`, `{"[1,2]":...}`."""
    name = f"dict[{key.name}, {item.name}]"

    def as_text(value: Any) -> str:
        return dumps(key.encode(value)).decode()

    def of_text(value: str) -> Any:
        return key.decode(orjson.loads(value))

    key_encode, key_decode = (key.encode, key.decode) if key.text else (as_text, of_text)
    item_encode, item_decode = item.encode, item.decode

    def apply(convert_key: Any, convert_item: Any, values: dict[Any, Any]) -> dict[Any, Any]:
        done: dict[Any, Any] = {}
        part: Any = None
        try:
            for part, value in values.items():
                done[convert_key(part)] = convert_item(value)
        except Misfit as found:
            found.under(at(part))
            raise
        return done

    def encode(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise misfit(value, name, dict)
        return apply(key_encode, item_encode, value)  # pyright: ignore[reportUnknownArgumentType]

    def decode(value: Any, _: Any = None) -> dict[Any, Any]:
        if type(value) is not dict:
            raise unreadable(value, f"an object for {name}")
        return apply(key_decode, item_decode, value)  # pyright: ignore[reportUnknownArgumentType]

    return Shape(name=name, encode=encode, decode=decode, takes=(dict,))
