"""Type forms: what an annotation says, with names resolved and wrappers taken off."""

from __future__ import annotations

import sys
import types
from collections.abc import Collection, Mapping
from inspect import Parameter, get_annotations
from typing import (
    Annotated,
    Any,
    Final,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

_WRAPPERS = frozenset((Annotated, Final, Required, NotRequired))


def bare(form: Any) -> Any:
    """*form* without what says nothing about the value: `Annotated`, `NewType`, `Final`, an alias, a missing annotation.

    >>> bare(Annotated[int, "seconds"])
    <class 'int'>
    """
    while True:
        if form is None:
            return type(None)
        if form is Parameter.empty or form is object:
            return Any
        if get_origin(form) in _WRAPPERS:
            form = get_args(form)[0]
        elif isinstance(form, NewType):
            form = cast(Any, form).__supertype__
        elif isinstance(form, TypeVar):
            form = form.__bound__ or (Union[form.__constraints__] if form.__constraints__ else Any)  # noqa: UP007  (made, not written)
        else:
            return form


def alias_value(form: Any) -> Any:
    """What a `type X = ...` alias stands for, or None if *form* is none.

    Taken off one at a time and not by `bare`, because an alias may name itself.
    """
    origin = get_origin(form) or form
    if type(origin).__name__ != "TypeAliasType":
        return None
    return substitute(origin.__value__, dict(zip(origin.__type_params__, get_args(form), strict=False)))


def is_union(form: Any) -> bool:
    """Whether *form* is `A | B`, however written."""
    return get_origin(form) in (Union, types.UnionType)


def substitute(form: Any, bound: Mapping[Any, Any]) -> Any:
    """*form* with its type variables replaced.

    >>> T = TypeVar("T")
    >>> substitute(list[T], {T: int})
    list[int]
    """
    if isinstance(form, TypeVar):
        return bound.get(form, form)
    parameters: tuple[Any, ...] = getattr(form, "__parameters__", ())
    if not parameters or not bound or get_origin(form) is None:
        return form
    return form[tuple(bound.get(parameter, parameter) for parameter in parameters)]


def bindings(form: Any) -> dict[type, dict[Any, Any]]:
    """For each class among the bases of *form*: what its type variables stand for.

    `get_type_hints` does not do this: of `class Ints(Box[int])` it says that the content is a `T`.
    """
    found: dict[type, dict[Any, Any]] = {}
    _bind(form, {}, found)
    return found


def _bind(form: Any, outer: Mapping[Any, Any], found: dict[type, dict[Any, Any]]) -> None:
    cls = get_origin(form) or form
    parameters = getattr(cls, "__parameters__", ())
    found[cls] = {p: substitute(a, outer) for p, a in zip(parameters, get_args(form), strict=False)}
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        if isinstance(get_origin(base) or base, type):
            _bind(base, found[cls], found)


def resolve(form: Any, cls: type) -> Any:
    """*form*, as written in the body of *cls*, with names in quotes replaced by what they stand for.

    Raises:
        NameError: A name is not known there.
    """
    holder = type("Holder", (), {"__annotations__": {"form": form}})  # A class, because its body may say `ClassVar`.
    names: dict[str, Any] = getattr(sys.modules.get(cls.__module__), "__dict__", {})
    found: Any = get_type_hints(holder, names, local_names(cls), include_extras=True)["form"]
    return found


def local_names(cls: type) -> dict[str, Any]:
    """The names that a class made inside a function could see, if it kept them."""
    parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ())
    kept: dict[str, Any] = cls.__dict__.get("__local_names__", {})
    return {p.__name__: p for p in parameters} | kept | {cls.__name__: cls}


def field_forms(form: Any, names: Collection[str]) -> dict[str, Any]:
    """The resolved type forms of *names*, as annotated in a class and its bases, type variables replaced.

    >>> from typing import Generic
    >>> T = TypeVar("T")
    >>> class Box(Generic[T]):
    ...     content: T
    >>> field_forms(Box[int], ["content"])
    {'content': <class 'int'>}

    Raises:
        NameError: An annotation names what is not there.
    """
    cls: type = get_origin(form) or form
    bound = bindings(form)
    forms: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        for name, annotation in get_annotations(owner).items():
            if name in names:
                forms[name] = substitute(resolve(annotation, owner), bound.get(owner, {}))
    return forms


def text_of(form: Any) -> str:
    """A stable text for a type form; for a class of the user "module:qualname".

    >>> text_of(dict[str, tuple[int, ...]])
    'dict[str, tuple[int, ...]]'
    """
    if form is Ellipsis:
        return "..."
    origin, arguments = get_origin(form), get_args(form)
    if is_union(form):
        return " | ".join(text_of(argument) for argument in arguments)
    if origin is not None and isinstance(origin, type):
        return f"{text_of(origin)}[{', '.join(text_of(argument) for argument in arguments)}]"
    if isinstance(form, type):
        tag: str | None = form.__dict__.get("__tag__")
        return tag or (form.__qualname__ if form.__module__ in _STANDARD else f"{form.__module__}:{form.__qualname__}")
    return repr(form).replace("typing.", "")


_STANDARD = frozenset(("builtins", "datetime", "decimal", "uuid", "pathlib", "pathlib._local"))
