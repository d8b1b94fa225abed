"""Shapes of `A | B` and `Literal`.

None, bool, int, float and str are told apart by JSON itself and stand there as they are. Every other member is an object
with the tag of its class under "$type", and is looked up among the members of the annotation, never anywhere else.
`X | None` alone needs no tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from actorflow.codec.shape import Misfit, Shape, class_of, refusing, unreadable

TYPE = "$type"
VALUE = "value"


def optional(item: Shape) -> Shape:
    """`X | None`."""
    item_encode, item_decode = item.encode, item.decode

    def encode(value: Any) -> Any:
        return None if value is None else item_encode(value)

    def decode(value: Any, _: Any = None) -> Any:
        return None if value is None else item_decode(value)

    return Shape(name=f"{item.name} | None", encode=encode, decode=decode, takes=(*item.takes, type(None)), same=item.same)


def union_of(members: Sequence[Shape]) -> Shape:
    """Any number of members, told apart as the module says."""
    name = " | ".join(member.name for member in members)
    tags = [member.tag for member in members if not member.plain]
    if len(set(tags)) != len(tags):
        return refusing(name, f"two members of {name} have the same tag, so values could not be told apart; rename a class")
    by_class: dict[type, list[Shape]] = {}
    for member in members:
        for cls in member.takes:
            by_class.setdefault(cls, []).append(member)

    def encode(value: Any) -> Any:
        cls = class_of(value)
        candidates = by_class.get(cls)
        if not candidates:
            raise Misfit(value, f"the annotation says {name}; convert it to one of them, or add its class to the annotation")
        for member in candidates[:-1]:
            try:
                return _tagged(member, value)
            except Misfit:
                pass
        return _tagged(candidates[-1], value)

    return Shape(name=name, encode=encode, decode=_union_reader(members, by_class, name), takes=tuple(by_class))


def _tagged(member: Shape, value: Any) -> Any:
    encoded = member.encode(value)
    if member.plain:
        return encoded
    return {TYPE: member.tag, **encoded} if member.fields else {TYPE: member.tag, VALUE: encoded}


def _union_reader(members: Sequence[Shape], by_class: Mapping[type, Sequence[Shape]], name: str) -> Any:
    plain = {cls: [m for m in found if m.plain] for cls, found in by_class.items()}
    by_tag = _by_tag(members)

    def decode(value: Any, _: Any = None) -> Any:
        cls = class_of(value)
        if cls is dict and TYPE in value:
            found: dict[str, Any] = value
            tag = found[TYPE]
            member = (by_tag.get(tag) or by_tag.get(tag.rpartition(":")[2])) if type(tag) is str else None
            if member is None:
                raise Misfit(
                    found, f"it is a {tag!r:.200}, which {name} does not have any more; keep the class there by that name"
                )
            if member.fields:
                return member.decode({key: part for key, part in found.items() if key != TYPE})
            if found.keys() != {TYPE, VALUE}:
                raise unreadable(found, f"an object of {TYPE!r} and {VALUE!r}")
            return member.decode(found[VALUE])
        candidates = plain.get(cls)
        if not candidates:
            raise unreadable(value, name)
        for member in candidates[:-1]:
            try:
                return member.decode(value)
            except Misfit:
                pass
        return candidates[-1].decode(value)

    return decode


def _by_tag(members: Sequence[Shape]) -> dict[str, Shape]:
    """A moved file, or `__main__`, strands nothing: without its module a tag is good enough where only one member has it."""
    by_tag: dict[str, Shape | None] = {}
    for member in members:
        short = member.tag.rpartition(":")[2]
        by_tag[short] = None if short in by_tag else member
    by_tag |= {member.tag: member for member in members}
    return {tag: member for tag, member in by_tag.items() if member is not None and not member.plain}


def literal(values: Sequence[Any], shape_of: Any) -> Shape:
    """Only these values; each is written as its own class would be."""
    written: dict[tuple[type, Any], Any] = {(type(value), value): shape_of(type(value)).encode(value) for value in values}
    read: dict[tuple[type, Any], Any] = {(type(encoded), encoded): value for (_, value), encoded in written.items()}
    name = f"Literal[{', '.join(map(repr, values))}]"
    if len(read) != len(written):
        return refusing(name, f"two values of {name} are the same in JSON")

    def encode(value: Any) -> Any:
        try:
            return written[type(value), value]
        except (KeyError, TypeError):
            raise Misfit(value, f"the annotation says {name}; pass one of these, or change the annotation") from None

    def decode(value: Any, _: Any = None) -> Any:
        try:
            return read[type(value), value]
        except (KeyError, TypeError):
            raise Misfit(value, f"it is none of {name} any more") from None

    classes: tuple[type, ...] = tuple({type(value): None for value in values})
    plain = not any(issubclass(cls, (Enum, bytes)) for cls in classes)
    texts = all(type(encoded) is str for encoded in written.values())
    return Shape(name=name, encode=encode, decode=decode, takes=classes, tag=name, plain=plain, text=texts)
