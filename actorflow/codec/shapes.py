"""Which shape a type form has. Made once for each form, and kept: the number of types in a program is its bound."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, Literal, get_args, get_origin, is_typeddict

from attrs import evolve

from actorflow.codec import classes, containers, scalars, unions
from actorflow.codec.forms import alias_value, bare, is_union, text_of
from actorflow.codec.shape import Loose, Misfit, Shape, refusing
from actorflow.records import Address

_PLAIN = (type(None), bool, int, str)
_EITHER: dict[Any, tuple[Any, ...]] = {  # An interface is kept by several classes: which one it was is stored with the value.
    **dict.fromkeys((Sequence, Collection, Iterable), (list, tuple)),
    AbstractSet: (set, frozenset),
    MutableSequence: (list,),
    MutableSet: (set,),
    **dict.fromkeys((Mapping, MutableMapping), (dict,)),
}


class Shapes:
    """The shapes of type forms. Those of a *traced* one are slower and know the path to a misfit."""

    def __init__(self, *, traced: bool) -> None:
        self.traced = traced
        self._made: dict[Any, Shape | None] = {}  # None: being made, so it contains itself.

    def of(self, form: Any) -> Shape:
        """The shape of *form*; for what cannot be stored, one that says so of every value."""
        form = bare(form)
        try:
            if form in self._made:
                return self._made[form] or self._later(form)
        except TypeError:  # Unhashable metadata inside.
            return self._make(form)
        self._made[form] = None
        try:
            shape = self._make(form)
        except NameError as error:
            del self._made[form]
            return self._later(form, error)
        except BaseException:
            del self._made[form]
            raise
        self._made[form] = shape
        return shape

    def _later(self, form: Any, error: NameError | None = None) -> Shape:
        """A type that contains itself, or names what is not defined yet, finds its shape when it is used."""

        def encode(value: Any) -> Any:
            return made(value).encode(value)

        def decode(value: Any, _: Any = None) -> Any:
            return made(value).decode(value)

        def made(value: Any) -> Shape:
            shape = self._made.get(form) or self.of(form)
            if form not in self._made:
                name = text_of(form)
                raise Misfit(value, f"an annotation in {name} cannot be resolved ({error}); define what it names at module level")
            return shape

        cls = get_origin(form) or form
        return Shape(name=text_of(form), encode=encode, decode=decode, takes=(cls,), tag=text_of(form), fields=_has_fields(cls))

    def _make(self, form: Any) -> Shape:
        alias = alias_value(form)
        if alias is not None:
            return self.of(alias)
        origin, arguments = get_origin(form) or form, get_args(form)
        if origin is Any:
            return scalars.natural(traced=self.traced)
        if is_union(form):
            return self._union(arguments)
        if origin is Literal:
            return unions.literal(arguments, self.of)
        if origin in _EITHER:
            kept = [cls[arguments if cls is not tuple else (*arguments, ...)] if arguments else cls for cls in _EITHER[origin]]
            return self.of(kept[0]) if len(kept) == 1 else self._union(kept)
        make = _CONTAINERS.get(origin)
        if make is not None:
            return evolve(make(self, arguments), tag=text_of(form))
        return self._class(form, origin) if isinstance(origin, type) else _unknown(form)

    def _union(self, forms: Sequence[Any]) -> Shape:
        members: list[Any] = []
        for form in map(bare, forms):
            value = alias_value(form)
            members += map(bare, get_args(value)) if value is not None and is_union(value) else [form]
        if Any in members:
            return self.of(Any)
        others = [form for form in members if form is not type(None)]
        if len(others) == 1 and len(others) < len(members):
            return unions.optional(self.of(others[0]))
        return unions.union_of([part for form in members for part in self._members(form)])

    def _members(self, form: Any) -> list[Shape]:
        """An interface in a union is the classes that keep it; None and plain values in a `Literal` are told by JSON."""
        origin = get_origin(form) or form
        if origin in _EITHER:
            arguments = get_args(form)
            return [
                self.of(cls[arguments if cls is not tuple else (*arguments, ...)] if arguments else cls)
                for cls in _EITHER[origin]
            ]
        return [self.of(form)]

    def _class(self, form: Any, cls: type[Any]) -> Shape:
        if cls in _PLAIN:
            return scalars.plain(cls, traced=self.traced)
        if cls is Loose:
            return self._loose()
        if cls is float:
            return scalars.number(traced=self.traced)
        if cls in scalars.texts():
            return scalars.texts()[cls]
        if issubclass(cls, Enum):
            return scalars.enum(cls, text_of(cls))
        pathlib: Any = sys.modules.get("pathlib")  # A path exists only if it was imported; so below.
        if pathlib is not None and issubclass(cls, pathlib.PurePath):
            return scalars.path(cls, traced=self.traced)
        pydantic: Any = sys.modules.get("pydantic")
        if pydantic is not None and issubclass(cls, pydantic.BaseModel):
            return classes.model_of(cls, text_of(form), tuple(map(int, pydantic.VERSION.split(".")[:2])))
        if is_typeddict(cls):
            return classes.typed_dict(form, text_of(form), self.of)
        fields = classes.fields_of(form, self.of)
        return _unknown(form) if fields is None else classes.object_of(form, text_of(form), fields, traced=self.traced)

    def _loose(self) -> Shape:
        from decimal import Decimal  # noqa: PLC0415  (for values without a type alone)
        from pathlib import Path  # noqa: PLC0415

        item, text = self.of(Loose), self.of(str)
        scalar = [self.of(form) for form in dict.fromkeys((*_PLAIN, float, *scalars.texts(), Decimal, Path, Address))]
        nested = {
            "list": containers.list_of(item),
            "tuple": containers.tuple_of(item),
            "dict": containers.dict_of(text, item),
            "set": containers.set_of(set, item),
            "frozenset": containers.set_of(frozenset, item),
        }
        return unions.union_of([*scalar, *(evolve(shape, tag=tag) for tag, shape in nested.items())])

    def tuple(self, arguments: tuple[Any, ...]) -> Shape:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return containers.tuple_of(self.of(arguments[0]))
        return containers.tuple_with([self.of(argument) for argument in arguments])


def _has_fields(cls: Any) -> bool:
    return isinstance(cls, type) and (any(map(cls.__dict__.__contains__, _MARKS)))


_MARKS = ("__attrs_attrs__", "__dataclass_fields__", "_field_defaults")


def _unknown(form: Any) -> Shape:
    name = text_of(form)
    return refusing(
        name,
        f"{name} is no type that can be stored; make it an attrs class or a dataclass, pass what it is made from, or "
        f"declare it as `resource()`",
    )


_CONTAINERS: dict[Any, Callable[[Shapes, tuple[Any, ...]], Shape]] = {
    list: lambda shapes, a: containers.list_of(shapes.of(a[0] if a else Any)),
    set: lambda shapes, a: containers.set_of(set, shapes.of(a[0] if a else Any)),
    frozenset: lambda shapes, a: containers.set_of(frozenset, shapes.of(a[0] if a else Any)),
    dict: lambda shapes, a: containers.dict_of(
        shapes.of(a[0] if a and bare(a[0]) is not Any else str), shapes.of(a[1] if a else Any)
    ),
    tuple: lambda shapes, a: containers.tuple_of(shapes.of(Any)) if not a else shapes.tuple(a),
}
