"""Shapes of classes with named fields: attrs classes, dataclasses, named tuples, typed dicts and pydantic models.

Fields decide: an instance is written as the object of its fields and made anew by its class, so that defaults, validators
and what `__init__` derives are there again. Where a class does something of its own on the way (converters, validators,
`__post_init__`, its own `__init__`), each instance is first tried: made again from its fields, it must have the same fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, NotRequired, Required, get_origin

import attrs
import orjson

from actorflow.codec.forms import bindings, field_forms, resolve, substitute
from actorflow.codec.scalars import dumps
from actorflow.codec.shape import Decode, Encode, Misfit, Shape, class_of, misfit, unreadable


class Field(NamedTuple):
    """A field of a class, as far as the codec is concerned."""

    name: str
    alias: str  #: of the argument of `__init__`
    shape: Shape
    required: bool
    init: bool


ShapeOf = Callable[[Any], Shape]


def fields_of(form: Any, shape_of: ShapeOf) -> list[Field] | None:
    """The fields of an attrs class, dataclass or named tuple; None if *form* is none of them."""
    cls: Any = get_origin(form) or form
    if attrs.has(cls):
        forms = field_forms(form, [a.name for a in attrs.fields(cls)])
        return [
            Field(a.name, a.alias or a.name, shape_of(forms.get(a.name, a.type or Any)), a.default is attrs.NOTHING, a.init)
            for a in attrs.fields(cls)
        ]
    if dataclasses.is_dataclass(cls):
        forms, missing = field_forms(form, [f.name for f in dataclasses.fields(cls)]), dataclasses.MISSING
        return [
            Field(f.name, f.name, shape_of(forms.get(f.name, Any)), f.default is missing and f.default_factory is missing, f.init)
            for f in dataclasses.fields(cls)
        ]
    if tuple in cls.__mro__ and hasattr(cls, "_field_defaults"):
        forms = field_forms(form, cls._fields)
        return [Field(name, name, shape_of(forms.get(name, Any)), name not in cls._field_defaults, True) for name in cls._fields]
    return None


def object_of(form: Any, tag: str, fields: Sequence[Field], *, traced: bool) -> Shape:
    """The shape of a class with *fields*."""
    cls: Any = get_origin(form) or form
    derives = _derives(cls)
    read = None if traced else _generated(form, fields)
    written, decode = read or (_writer(fields), _reader(cls, fields))
    names, has_dict = frozenset(field.name for field in fields), getattr(cls, "__dictoffset__", 0) != 0

    def encode(value: Any) -> dict[str, Any]:
        if type(value) is not cls:
            raise misfit(value, cls.__qualname__, cls)
        if has_dict and len(value.__dict__) != len(names):
            _check_extras(value, names, allowed=derives)
        if derives:
            _check_remade(value, fields)
        encoded: dict[str, Any] = written(value)
        return encoded

    return Shape(name=cls.__qualname__, encode=encode, decode=decode, takes=(cls,), tag=tag, fields=True)


def _derives(cls: Any) -> bool:
    """Whether making an instance may do more than store its arguments."""
    if attrs.has(cls):
        own_init = "__attrs_init__" in vars(cls) or "__attrs_attrs__" not in vars(cls)
        busy = any(a.converter is not None or a.validator is not None or not a.init for a in attrs.fields(cls))
        return own_init or busy or _has_own_init(cls) or hasattr(cls, "__attrs_post_init__") or hasattr(cls, "__attrs_pre_init__")
    if dataclasses.is_dataclass(cls):
        initvars = len(cls.__dataclass_fields__) != len(dataclasses.fields(cls))
        return initvars or hasattr(cls, "__post_init__") or _has_own_init(cls) or any(not f.init for f in dataclasses.fields(cls))
    return cls.__bases__[0] is not tuple  # A named tuple makes what it is told, a class derived from one may not.


def _has_own_init(cls: Any) -> bool:
    """Generated ones come from no file of the user."""
    code = getattr(cls.__init__, "__code__", None)
    return code is not None and not code.co_filename.startswith(("<attrs generated", "<string>"))


_NOTED = frozenset(("_attrs_cached_hash", "__actorflow_id__"))
"""What attrs notes on a value, and the runtime on a message that is being handled: no state, and it may be passed on."""


def _check_extras(value: Any, names: frozenset[str], *, allowed: bool) -> None:
    cls = class_of(value)
    extras: dict[str, Any] = value.__dict__
    for name in extras.keys() - names:
        if not allowed and name not in _NOTED and not isinstance(getattr(cls, name, None), cached_property):
            raise Misfit(extras[name], f"it is no field of {cls.__qualname__}; annotate it in the class, or do not set it")


def _check_remade(value: Any, fields: Sequence[Field]) -> None:
    cls = class_of(value)
    try:
        again = _make(cls, fields, {field.name: getattr(value, field.name) for field in fields})
    except Exception as error:
        raise Misfit(value, f"{cls.__qualname__} cannot be made again from its fields: {error!r:.200}") from error
    for field in fields:
        old, new = getattr(value, field.name), getattr(again, field.name)
        if old is not new and (type(old) is not type(new) or old != new):
            raise Misfit(
                old,
                f"{cls.__qualname__} makes another value of it when made again from its fields; let it take its own "
                f"values unchanged",
            )


def _make(cls: Any, fields: Sequence[Field], values: Mapping[str, Any]) -> Any:
    made = cls(**{field.alias: values[field.name] for field in fields if field.init and field.name in values})
    for field in fields:
        if not field.init and field.name in values:
            object.__setattr__(made, field.name, values[field.name])  # Also of a frozen class.
    return made


def _generated(form: Any, fields: Sequence[Field]) -> tuple[Encode, Decode] | None:
    """Both ways as code made for this class: three times as fast. None if the class is not for it; loops do it then."""
    cls = get_origin(form) or form
    if issubclass(cls, tuple) or not all(field.init for field in fields):
        return None
    from actorflow.codec.generated import generated  # noqa: PLC0415  (it brings cattrs, which no scalar needs)

    try:
        return generated(form, {field.name: field.shape for field in fields})
    except Exception:  # noqa: BLE001  (a field called `converter`, a name it cannot resolve, a free type variable)
        return None


def _writer(fields: Sequence[Field]) -> Encode:
    def encode(value: Any) -> dict[str, Any]:
        done: dict[str, Any] = {}
        name = ""
        try:
            for name, _, shape, _, _ in fields:
                done[name] = shape.encode(getattr(value, name))
        except AttributeError as error:
            raise Misfit(value, f"its field {name!r} is not set ({error})") from error
        except Misfit as found:
            found.under(f".{name}")
            raise
        return done

    return encode


def _reader(cls: Any, fields: Sequence[Field]) -> Decode:
    known = frozenset(field.name for field in fields)

    def decode(value: Any, _: Any = None) -> Any:
        values = object_in(value, cls.__qualname__)
        refuse_unknown(values, known, cls.__qualname__)
        done: dict[str, Any] = {}
        for field in fields:
            if field.name in values:
                done[field.name] = _decode_part(field.name, field.shape, values[field.name])
            elif field.required:
                raise Misfit(values, f"field {field.name!r} of {cls.__qualname__} is missing; give it a default")
        try:
            return _make(cls, fields, done)
        except Exception as error:
            raise Misfit(values, f"{cls.__qualname__} refuses it: {error!r:.200}") from error

    return decode


def object_in(value: Any, name: str) -> dict[str, Any]:
    """*value* if it is a JSON object."""
    if class_of(value) is not dict:
        raise unreadable(value, f"an object for {name}")
    found: dict[str, Any] = value
    return found


def _decode_part(name: str, shape: Shape, value: Any) -> Any:
    try:
        return shape.decode(value)
    except Misfit as found:
        found.under(f".{name}")
        raise


def refuse_unknown(values: Mapping[str, Any], known: frozenset[str], owner: str) -> None:
    """A stored field that today's class does not have would be lost: better nothing is read."""
    unknown = values.keys() - known
    if unknown:
        listed = ", ".join(sorted(repr(name) for name in unknown))
        raise Misfit(values, f"{owner} has no field {listed:.200} any more; keep the field, or rename it back")


# --- typed dicts ------------------------------------------------------------------------------------------------------


def typed_dict(form: Any, tag: str, shape_of: ShapeOf) -> Shape:
    """A dict with known keys; their order is kept."""
    cls: Any = get_origin(form) or form
    bound = bindings(form).get(cls, {}) if get_origin(form) else {}
    forms = {name: substitute(resolve(annotation, cls), bound) for name, annotation in cls.__annotations__.items()}
    shapes = {name: shape_of(part) for name, part in forms.items()}
    known = frozenset(shapes)
    # Quoted annotations hide `NotRequired` from `__required_keys__`; the resolved ones tell.
    required = frozenset(
        name
        for name, part in forms.items()
        if get_origin(part) is Required or (name in cls.__required_keys__ and get_origin(part) is not NotRequired)
    )

    def check(value: dict[Any, Any]) -> None:
        refuse_unknown(value, known, cls.__qualname__)
        if not required <= value.keys():
            raise Misfit(value, f"{cls.__qualname__} lacks {', '.join(sorted(map(repr, required - value.keys())))}")

    def encode(value: Any) -> dict[str, Any]:
        if class_of(value) is not dict:
            raise misfit(value, cls.__qualname__, dict)
        check(value)
        done: dict[str, Any] = {}
        name: Any = ""
        try:
            for name, part in value.items():
                done[name] = shapes[name].encode(part)
        except Misfit as found:
            found.under(f"[{name!r}]")
            raise
        return done

    def decode(value: Any, _: Any = None) -> dict[str, Any]:
        values = object_in(value, cls.__qualname__)
        check(values)
        return {name: _decode_part(name, shapes[name], part) for name, part in values.items()}

    return Shape(name=cls.__qualname__, encode=encode, decode=decode, takes=(dict,), tag=tag)


# --- pydantic ---------------------------------------------------------------------------------------------------------


def model_of(cls: Any, tag: str, version: tuple[int, ...]) -> Shape:
    """A pydantic model, written and read by itself; each instance is read back to see that it comes back equal."""
    by_name: dict[str, Any] = {"by_name": True, "by_alias": False} if version >= (2, 11) else {}

    def decode(value: Any, _: Any = None) -> Any:
        try:
            return cls.model_validate_json(orjson.dumps(value), **by_name)
        except ValueError as error:
            raise Misfit(value, f"{cls.__qualname__} refuses it: {error!s:.500}") from None

    def encode(value: Any) -> Any:
        if type(value) is not cls:
            raise misfit(value, cls.__qualname__, cls)
        try:
            written = value.model_dump(mode="json", by_alias=not by_name, round_trip=True, warnings="error")
        except ValueError as error:
            raise Misfit(value, f"{cls.__qualname__} does not write it: {error!s:.500}") from None
        again = decode(written)
        if again != value or dumps(again.model_dump(mode="json", by_alias=not by_name, round_trip=True)) != dumps(written):
            raise Misfit(
                value, f"it would not come back equal from the JSON of {cls.__qualname__}; look at its types and serializers"
            )
        return written

    return Shape(name=cls.__qualname__, encode=encode, decode=decode, takes=(cls,), tag=tag)
