"""Hypothesis strategies for what actors are told and what they remember, made from their annotations.

    @given(message=messages(Account))
    @given(order=values(Order, cents=st.integers(1, 10_000)))

What they draw can be stored, and comes back as it was: no NaN, no infinity, integers of 64 bits, texts without surrogates. Of
an `Annotated` form its constraints hold (`Annotated[int, Gt(0)]`), or a strategy among them is taken. A strategy that was
registered for a class with `st.register_type_strategy` is used for it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

import attrs
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from actorflow.acting import Terminated
from actorflow.actor import Actor
from actorflow.codec import coder
from actorflow.codec.forms import alias_value, bare, field_forms, is_union, text_of
from actorflow.errors import BadDefinition, NotEncodable
from actorflow.message import Message
from actorflow.workflow import Workflow

T = TypeVar("T")
A = TypeVar("A", bound=Actor)
W = TypeVar("W", bound=Workflow[Any])

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1  #: what JSON carries here
NESTED_MAX = 2  #: how deep a class contains itself
ITEMS_MAX = 8  #: of a list, set or dict: an example is read by a person

_TEXT = st.text(st.characters(codec="utf-8"))
_ZONES = st.none() | st.just(UTC) | st.integers(-720, 840).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=8)

_SCALARS: dict[Any, SearchStrategy[Any]] = {
    type(None): st.none(),
    bool: st.booleans(),
    int: st.integers(INT_MIN, INT_MAX),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: _TEXT,
    bytes: st.binary(max_size=64),
    datetime: st.datetimes(timezones=_ZONES),
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
}
_NATURAL = st.recursive(
    st.none() | st.booleans() | _SCALARS[int] | _SCALARS[float] | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
"""What an `Any` may be: plain JSON."""
_HASHABLE = st.booleans() | _SCALARS[int] | _TEXT


def values(of: type[T] | Any, /, **fields: SearchStrategy[Any]) -> SearchStrategy[T]:
    """Values of a type form: a class of attrs, a dataclass, `list[Order]`, `A | B`.

    Args:
        of: The type.
        fields: Strategies for some of its fields, if it is a class.

    Raises:
        BadDefinition: Nothing of that type can be stored, or it has no such field.
    """
    return cast("SearchStrategy[T]", _Forms().of(of) if not fields else _Forms().made(of, fields))


def messages(*of: type[Actor | Message[Any]], **fields: SearchStrategy[Any]) -> SearchStrategy[Message[Any]]:
    """Messages of those types; of an actor, any that it handles.

    Args:
        of: Actors and types of messages.
        fields: Strategies for fields, by name, in each message that has one of that name.

    Raises:
        BadDefinition: It is a workflow, which reads its mailbox itself: name the messages.
    """
    types: list[type[Any]] = []
    for each in of:
        if issubclass(each, Message):
            types.append(each)
            continue
        handlers = each.__kind_info__().handlers
        if handlers is None:
            raise BadDefinition(
                f"{each.__qualname__} reads its mailbox itself: name what it receives, messages(Approve, Reject)."
            )
        types += [message for message in handlers if message is not Terminated]
    if not types:
        raise BadDefinition("messages: name an actor with handlers, or types of messages.")
    forms = _Forms()
    return st.one_of([forms.made(each, {n: s for n, s in fields.items() if n in _names(each)}) for each in dict.fromkeys(types)])


def inputs(workflow: type[W], /, **fields: SearchStrategy[Any]) -> SearchStrategy[W]:
    """What `start` takes: instances with drawn input. Fields with a default are state: they keep it, unless *fields* says more.

    Raises:
        BadDefinition: It has no such field.
    """
    required = [a.name for a in attrs.fields(cast("Any", workflow)) if a.default is attrs.NOTHING and a.init]
    return cast("SearchStrategy[W]", _of_actor(workflow, required, fields))


def states(actor: type[A], /, **fields: SearchStrategy[Any]) -> SearchStrategy[A]:
    """Instances whose stored fields are all drawn: whatever an actor or a run may have become, as far as its types say.

    Raises:
        BadDefinition: It has no such field.
    """
    return cast("SearchStrategy[A]", _of_actor(actor, actor.__kind_info__().fields, fields))


def _of_actor(actor: type[Actor], drawn: Collection[str], fields: dict[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    stored = actor.__kind_info__().fields
    _check_fields(actor, stored, fields)
    options: dict[str, Any] = cast("Any", actor).__options__
    hints = get_type_hints(actor, localns=options["localns"], include_extras=True)
    forms = _Forms()
    return st.builds(actor, **{name: forms.of(hints[name]) for name in stored if name in drawn} | fields)


def _names(cls: type[Any]) -> list[str]:
    if attrs.has(cls):
        return [a.name for a in attrs.fields(cls) if a.init]
    if dataclasses.is_dataclass(cls):
        return [f.name for f in dataclasses.fields(cls) if f.init]
    return list(getattr(cls, "_fields", ()) or getattr(cls, "model_fields", ()))


def _check_fields(cls: type[Any], known: Collection[str], given: Collection[str]) -> None:
    if unknown := set(given) - set(known):
        has = ", ".join(known) or "none"
        raise BadDefinition(f"{cls.__qualname__} has no field {', '.join(sorted(unknown))}; it has {has}.")


# --- forms ----------------------------------------------------------------------------------------------------------------


class _Endless(Exception):
    """A class that contains itself, once too often."""


class _Forms:
    """Strategies by type form. A class that contains itself does so a few times, as far as it can do without."""

    def __init__(self) -> None:
        self._inside: list[Any] = []  #: classes that are being made, outermost first

    def of(self, form: Any) -> SearchStrategy[Any]:
        """Values of that form."""
        if get_origin(form) in (Annotated, Required, NotRequired):
            return self._annotated(form)
        return self._make(bare(form))

    @property
    def items_max(self) -> int:
        """How many items a list may have: few in what contains itself."""
        return ITEMS_MAX if len(set(self._inside)) == len(self._inside) else 1

    def _annotated(self, form: Any) -> SearchStrategy[Any]:
        inner, *notes = get_args(form)
        for note in notes:
            if isinstance(note, SearchStrategy):
                return note  # pyright: ignore[reportUnknownVariableType]
        if notes and inner in _SCALARS:
            return st.from_type(form).filter(partial(_storable, inner))
        return self.of(inner)

    def _make(self, form: Any) -> SearchStrategy[Any]:
        if (alias := alias_value(form)) is not None:
            return self.of(alias)
        origin, arguments = get_origin(form) or form, get_args(form)
        if origin is Any:
            return _NATURAL
        if is_union(form):
            return self._one_of(arguments)
        if origin is Literal:
            return st.sampled_from(arguments)
        if origin in _SCALARS:
            return _SCALARS[origin]
        if (container := _CONTAINERS.get(origin)) is not None:
            make, empty = container
            try:
                return make(self, arguments)
            except _Endless:
                if origin is tuple and arguments[1:] != (Ellipsis,):
                    raise
                return st.builds(empty)
        if isinstance(origin, type):
            return self._class(form, origin)
        return _unknown(form)

    def _one_of(self, forms: Iterable[Any]) -> SearchStrategy[Any]:
        found: list[SearchStrategy[Any]] = []
        for form in forms:
            with suppress(_Endless):
                found.append(self.of(form))
        if not found:
            raise _Endless
        return st.one_of(found)

    def _class(self, form: Any, cls: type[Any]) -> SearchStrategy[Any]:
        if cls.__module__.partition(".")[0] not in sys.stdlib_module_names and cls in _registered():
            return st.from_type(cls)
        if issubclass(cls, Enum):
            return st.sampled_from(cls)
        if issubclass(cls, PurePath):
            of = Path if cls is Path else cls
            return st.lists(_NAMES, min_size=1, max_size=3).map(lambda parts: of(*parts))
        if is_typeddict(cls):
            return self._typed_dict(cls)
        return self.made(form, {}) if _names(cls) or _is_record(cls) else _unknown(form)

    def made(self, form: Any, given: dict[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
        """Instances of a class with named fields."""
        cls: Any = get_origin(form) or form
        names = _names(cls)
        _check_fields(cls, names, given)
        if self._inside.count(form) > NESTED_MAX:
            raise _Endless
        forms = field_forms(form, names)
        aliases = {a.name: a.alias for a in attrs.fields(cls)} if attrs.has(cls) else {}
        self._inside.append(form)
        try:
            drawn = {name: given[name] if name in given else self.of(forms.get(name, Any)) for name in names}
        finally:
            self._inside.pop()
        return st.builds(_maker(cls), **{aliases.get(name) or name: strategy for name, strategy in drawn.items()})

    def _typed_dict(self, cls: type[Any]) -> SearchStrategy[Any]:
        hints = {name: self.of(form) for name, form in get_type_hints(cls, include_extras=True).items()}
        optional: frozenset[str] = getattr(cls, "__optional_keys__", frozenset())
        return st.fixed_dictionaries(
            {name: strategy for name, strategy in hints.items() if name not in optional},
            optional={name: strategy for name, strategy in hints.items() if name in optional},
        )


def _maker(cls: type[Any]) -> Callable[..., Any]:
    """Makes an instance, or lets Hypothesis draw again if a validator says no."""

    @functools.wraps(cls, updated=())
    def make(*args: Any, **kwargs: Any) -> Any:
        try:
            return cls(*args, **kwargs)
        except (ValueError, TypeError):
            reject()

    return make


def _is_record(cls: type[Any]) -> bool:
    pydantic: Any = sys.modules.get("pydantic")  # A model exists only if pydantic was imported.
    return (
        attrs.has(cls)
        or dataclasses.is_dataclass(cls)
        or hasattr(cls, "_field_defaults")
        or (pydantic is not None and issubclass(cls, pydantic.BaseModel))
    )


def _registered() -> Collection[Any]:
    """Classes that have a strategy of their own: Hypothesis tells nobody which ones."""
    from hypothesis.strategies._internal import types  # noqa: PLC0415

    known: Collection[Any] = cast("Any", types)._global_type_lookup  # noqa: SLF001
    return known


def _storable(form: Any, value: object) -> bool:
    try:
        return bool(coder(form).decode(coder(form).encode(value, "example"), "example") == value)
    except NotEncodable:
        return False


def _unknown(form: Any) -> SearchStrategy[Any]:
    raise BadDefinition(f"{text_of(form)} is no type that can be stored; make it an attrs class or a dataclass.")


# --- containers -----------------------------------------------------------------------------------------------------------


def _item(forms: _Forms, arguments: tuple[Any, ...], plain: SearchStrategy[Any] = _NATURAL) -> SearchStrategy[Any]:
    return forms.of(arguments[0]) if arguments else plain


def _list(forms: _Forms, arguments: tuple[Any, ...]) -> SearchStrategy[Any]:
    return st.lists(_item(forms, arguments), max_size=forms.items_max)


def _set(forms: _Forms, arguments: tuple[Any, ...]) -> SearchStrategy[Any]:
    return st.sets(_item(forms, arguments, _HASHABLE), max_size=forms.items_max)


def _frozenset(forms: _Forms, arguments: tuple[Any, ...]) -> SearchStrategy[Any]:
    return st.frozensets(_item(forms, arguments, _HASHABLE), max_size=forms.items_max)


def _dict(forms: _Forms, arguments: tuple[Any, ...]) -> SearchStrategy[Any]:
    key, item = arguments or (str, Any)
    keys = _item(forms, (str if bare(key) is Any else key,))
    return st.dictionaries(keys, _item(forms, (item,)), max_size=forms.items_max)


def _tuple(forms: _Forms, arguments: tuple[Any, ...]) -> SearchStrategy[Any]:
    if not arguments or arguments[1:] == (Ellipsis,):
        return _list(forms, arguments[:1]).map(tuple)
    return st.tuples(*map(forms.of, arguments))


_Make = Callable[[_Forms, tuple[Any, ...]], SearchStrategy[Any]]

_CONTAINERS: dict[Any, tuple[_Make, type[Any]]] = {
    **dict.fromkeys((list, Sequence, Collection, Iterable, MutableSequence), (_list, list)),
    **dict.fromkeys((set, AbstractSet, MutableSet), (_set, set)),
    **dict.fromkeys((dict, Mapping, MutableMapping), (_dict, dict)),
    frozenset: (_frozenset, frozenset),
    tuple: (_tuple, tuple),
}
"""How each is drawn, and what an empty one is."""
