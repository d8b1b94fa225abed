"""Actors: classes whose fields are their state, and what the runtime knows of each class (`Kind`).

A subclass of `Actor` becomes an attrs class in place. Its public verbs are `@final`, and that mark is also the list of
names that no field may have.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import (
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    TypeVar,
    cast,
    dataclass_transform,
    final,
    get_args,
    get_type_hints,
    overload,
)

import attrs

from actorflow.acting import Acting
from actorflow.address import Address
from actorflow.clock import Duration, seconds
from actorflow.codec import RecordCoder, coder
from actorflow.codec.forms import bindings, substitute
from actorflow.errors import BadDefinition, OutsideTurn
from actorflow.handlers import handlers_of, has_handlers
from actorflow.kernel.branches import here
from actorflow.kind import KEY, Kind, Overflow
from actorflow.resources import Unset, is_resource, resource
from actorflow.steps import Step, declaration

T = TypeVar("T")
P = ParamSpec("P")

_KIND = "~kind"  #: where a class keeps what the runtime knows of it
_VOLATILE = "actorflow_volatile"


@overload
def volatile(*, default: T, init: Literal[False] = False) -> T: ...
@overload
def volatile(*, factory: Callable[[], T], init: Literal[False] = False) -> T: ...
def volatile(*, default: Any = attrs.NOTHING, factory: Callable[[], Any] | None = None, init: bool = False) -> Any:
    """A field that is never stored: it has its default after every load."""
    if factory is not None:
        return attrs.field(factory=factory, init=False, metadata={_VOLATILE: True})
    return attrs.field(default=default, init=init, metadata={_VOLATILE: True})


def query(method: Callable[P, T]) -> Callable[P, T]:
    """A method that reads state: answered from the last durable view, never from the live object; it cannot write or wait."""
    if inspect.iscoroutinefunction(method):
        raise BadDefinition(f"@query {method.__qualname__} must be a plain `def`: it reads, it does not wait.")
    method.__actorflow_query__ = True  # type: ignore[attr-defined]
    return method


@dataclass_transform(eq_default=False, field_specifiers=(attrs.field, resource, volatile))
class Actor(Acting):
    """Base of all actors. Fields are the state; annotate them, they are stored.

    Class keywords: `kind=` (the stored name, instead of the class's), `mailbox=` (how many messages may wait), `overflow=`
    (what becomes of one more), `passivate_after=`, `retention=` (how long the answers of keyed messages are kept; for ever
    if not given), `fails=` (exceptions that are business failures, as `Abort` is), `kw_only=`, `durable=`.

    With `durable=False` (a subclass inherits it) state and mailbox are in memory only: fast, gone with the process, and gone
    when the actor has had nothing to do for `passivate_after`. The API is the same, but what a handler does it does at once:
    - It is no turn: nothing is rolled back, and it may await anything. A step that it calls is a plain call.
    - A message is handled at most once. After an exception the actor begins anew from the defaults of its fields (a static
      child from the instance it was given), as often as its budget or its supervisor allows; an `Abort` leaves it as it is.
    - Between these actors, and from this process, what is told passes as it is if nothing in it can change; else it is copied.
    - What a durable actor tells it goes after that turn's commit; what it tells a durable actor is durable when `tell` returns.
    - There are no message keys, no `@query`, and no `watch` between it and what is durable.
    """

    __kind__: ClassVar[str]
    __options__: ClassVar[dict[str, Any]]

    def __init_subclass__(
        cls,
        *,
        kw_only: bool = False,
        kind: str | None = None,
        fails: tuple[type[Exception], ...] = (),
        mailbox: int | None = None,
        overflow: Overflow = "reject",
        passivate_after: Duration | None = None,
        retention: Duration | None = None,
        durable: bool | None = None,
    ) -> None:
        super().__init_subclass__()
        if "__attrs_attrs__" in vars(cls):
            return  # attrs made the class anew; it is the same one.
        cls.__kind__ = kind if kind is not None else cls.__qualname__.rpartition("<locals>.")[2]
        cls.__options__ = {
            "fails": tuple(fails) or getattr(cls, "__options__", {}).get("fails", ()),
            "mailbox": mailbox,
            "overflow": overflow,
            "retention": None if retention is None else seconds(retention),
            "durable": getattr(cls, "__options__", {}).get("durable", True) if durable is None else durable,
            "passivate_after": None if passivate_after is None else seconds(passivate_after),
            "localns": _local_names(cls),
        }
        _check_options(cls, mailbox, overflow)
        if cls.__kind__.startswith("~") and not cls.__module__.startswith("actorflow."):
            raise BadDefinition(f'{cls.__qualname__}: kinds that begin with "~", as {cls.__kind__!r}, are of the system.')
        if not cls.__options__["durable"]:
            _check_memory_only(cls, retention)
        if "/" in cls.__kind__ or not cls.__kind__.isprintable() or not 0 < len(cls.__kind__.encode()) <= 256:
            raise BadDefinition(f'{cls.__qualname__}: a kind is 1 to 256 printable bytes without "/", not {cls.__kind__!r}.')
        _check_class(cls)
        try:
            attrs.define(slots=False, auto_attribs=True, eq=False, kw_only=kw_only, field_transformer=_checked_fields)(cls)
        except (ValueError, attrs.exceptions.UnannotatedAttributeError) as error:
            raise BadDefinition(
                f"{cls.__qualname__} cannot be an actor: {error}. Annotate every field (`total: int = field(...)`), and put "
                f"fields with defaults last or make the class `kw_only=True`."
            ) from error
        if not cls.__options__["durable"] and cls.__setattr__ is Actor.__setattr__:
            type.__setattr__(cls, "__setattr__", object.__setattr__)  # No turn needs to know.
        for attribute in attrs.fields(cast("type[Any]", cls)):
            if is_resource(attribute.metadata) and not attribute.inherited:
                setattr(cls, attribute.name, Unset(cls.__qualname__, attribute.name))

    async def on_start(self) -> None:
        """A turn of every activation, before the first message; also after a restart."""

    async def on_stop(self) -> None:
        """A turn at orderly leaving: no promise that it comes. What it waits for is not waited for."""

    def __setattr__(self, name: str, value: Any) -> None:
        turn = here.turn
        if turn is not None and turn.instance is self:
            turn.writable(name)
        object.__setattr__(self, name, value)

    @classmethod
    @final
    def at(cls, key: str) -> Address[Any]:
        """The actor of this class with that key, from inside a turn."""
        return Address(cls, key)

    @property
    @final
    def me(self) -> Address[Any]:
        """One's own address; only while the runtime drives this instance."""
        key = vars(self).get(KEY)
        if key is None:
            raise OutsideTurn("self.me")
        return Address(type(self), key)

    @classmethod
    @final
    def __kind_info__(cls) -> Kind:
        """What the runtime knows of this class.

        Raises:
            BadDefinition: The class cannot be stored as it is.
        """
        kind: Kind | None = cls.__dict__.get(_KIND)
        if kind is None:
            kind = _kind_info(cls)
            setattr(cls, _KIND, kind)
        return kind


def _check_options(cls: type, mailbox: int | None, overflow: str) -> None:
    if mailbox is not None and mailbox < 1:
        raise BadDefinition(f"{cls.__qualname__}: mailbox={mailbox} holds nothing; it is at least 1.")
    if overflow not in get_args(Overflow):
        raise BadDefinition(f"{cls.__qualname__}: overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}.")


def _check_memory_only(cls: type, retention: Duration | None) -> None:
    why = f"{cls.__qualname__} is memory-only (durable=False)"
    if hasattr(cls, "run"):
        raise BadDefinition(f"{why}, and a workflow lives by its journal. Derive it from `Actor`, or take `durable=False` out.")
    if retention is not None:
        raise BadDefinition(f"{why}: it keeps no answers, so `retention=` means nothing. Take one of them out.")
    if queries := [name for name, _ in _queries(cls)]:
        raise BadDefinition(
            f"{why}: there is no durable view for @query {', '.join(queries)}. Make it a @handler(readonly=True) of a message."
        )


def _local_names(cls: type) -> dict[str, Any] | None:
    if "<locals>" not in cls.__qualname__:
        return None
    # Annotations of a local class mean the names of its function.
    frame = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("actorflow."):
        frame = frame.f_back
    return frame.f_locals


def _check_class(cls: type) -> None:
    if "__init__" in vars(cls):
        raise BadDefinition(
            f"{cls.__qualname__} has its own __init__. Start and resume both go through fields: declare fields instead."
        )
    for name, member in vars(cls).items():
        raw = member.fget if isinstance(member, property) else member
        if declaration(raw) is not None:
            raise BadDefinition(
                f"{cls.__qualname__}.{name}: a method cannot be a @step (it would be given `self`). Use @checkpoint."
            )
    if "run" in {name for base in cls.__mro__ for name in vars(base)} and (handlers := has_handlers(cls)):
        raise BadDefinition(
            f"{cls.__qualname__} is a workflow and has @handler {', '.join(handlers)}. A workflow reads its mailbox itself: "
            f"`await self.receive(...)`. Derive it from `Actor`, and it has handlers instead of `run`."
        )
    reserved = reserved_names(cls)
    taken = (set(vars(cls)) | set(vars(cls).get("__annotations__", {}))) & reserved
    if taken:
        raise BadDefinition(f"{cls.__qualname__}: {', '.join(sorted(taken))} is the name of a verb. Call it something else.")


@functools.cache
def _reserved_of(cls: type) -> frozenset[str]:
    names: set[str] = set()
    for name, member in vars(cls).items():
        raw = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if getattr(raw, "__final__", False):
            names.add(name)
    return frozenset(names)


def reserved_names(cls: type) -> frozenset[str]:
    """Names of verbs: what the bases of *cls* mark `@final`."""
    return frozenset[str]().union(*(_reserved_of(base) for base in cls.__mro__[1:]))


def _checked_fields(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    for attribute in fields:
        default = attribute.default
        if default is not attrs.NOTHING and not isinstance(default, attrs.Factory) and type(default).__hash__ is None:  # type: ignore[arg-type]
            raise BadDefinition(
                f"{cls.__qualname__}.{attribute.name}: the default {default!r} would be shared by all instances. "
                f"Write field(factory={type(default).__name__})."
            )
    return [attribute.evolve(alias=attribute.name) for attribute in fields]


def _kind_info(cls: type[Any]) -> Kind:
    localns = cls.__options__["localns"]
    try:
        hints = get_type_hints(cls, localns=localns, include_extras=True)
    except NameError as error:
        raise BadDefinition(
            f"{cls.__qualname__}: its annotations cannot be read ({error}). Import the type where the class is."
        ) from error
    durable: bool = cls.__options__["durable"]
    stored = [a for a in attrs.fields(cls) if durable and not (a.metadata.get(_VOLATILE) or is_resource(a.metadata))]
    types = {a.name: _closed(cls, "__annotations__", a.name, hints.get(a.name, Any)) for a in stored}
    for name, of in types.items():
        if _open(of):
            raise BadDefinition(
                f"{cls.__qualname__}.{name}: {of} is not known. Register a subclass that says it: class X({cls.__name__}[int])."
            )
    returns = _result_type(cls, localns)
    return Kind(
        cls=cls,
        name=cls.__kind__,
        coder=RecordCoder(types, {a.name: _default(a) for a in stored if a.default is not attrs.NOTHING}),
        fields=tuple(types),
        attributes=frozenset((*(a.name for a in attrs.fields(cls)), KEY)),
        returns=returns,
        outcome=coder(returns),
        queries={name: Step(member, name, localns=localns, receiver=_receiver(member)) for name, member in _queries(cls)},
        fails=cls.__options__["fails"],
        mailbox_max=cls.__options__["mailbox"],
        passivate_after_s=cls.__options__["passivate_after"],
        handlers=None if hasattr(cls, "run") else handlers_of(cls, localns),
        overflow=cls.__options__["overflow"],
        retention_s=cls.__options__["retention"],
        starts=cls.on_start is not Actor.on_start,
        stops=cls.on_stop is not Actor.on_stop,
        resources=_resources(cls, hints),
        durable=durable,
    )


def _resources(cls: type[Any], hints: dict[str, Any]) -> dict[str, Any]:
    names = [a.name for a in attrs.fields(cls) if is_resource(a.metadata)]
    return {name: _closed(cls, "__annotations__", name, hints.get(name, Any)) for name in names}


def _default(attribute: attrs.Attribute[Any]) -> Callable[[], Any]:
    default = attribute.default
    factory = getattr(default, "factory", None)
    return cast("Callable[[], Any]", factory) if factory is not None else lambda: default


def _queries(cls: type) -> list[tuple[str, Callable[..., Any]]]:
    return [(name, m) for name, m in inspect.getmembers(cls, callable) if getattr(m, "__actorflow_query__", False)]


def _receiver(method: Callable[..., Any]) -> str:
    return next(iter(inspect.signature(method).parameters), "self")


def _closed(cls: type, where: str, name: str, of: Any) -> Any:
    """*of* with its type variables replaced by what *cls* says they are; they belong to the base that has *name*."""
    owner = next((base for base in cls.__mro__ if name in (vars(base).get(where, {}) if where else vars(base))), cls)
    return substitute(of, bindings(cls).get(owner, {}))


def _open(of: Any) -> bool:
    return isinstance(of, TypeVar) or any(_open(arg) for arg in getattr(of, "__args__", ()))


def _result_type(cls: type, localns: dict[str, Any] | None) -> Any:
    run = getattr(cls, "run", None)
    if run is None:
        return Any
    if not inspect.iscoroutinefunction(run) or run.__module__ == "actorflow.workflow":
        raise BadDefinition(f"{cls.__qualname__} has no run() that can wait. Write `async def run(self) -> ...`.")
    try:
        hints = get_type_hints(run, localns=localns, include_extras=True)
    except NameError as error:
        raise BadDefinition(
            f"{cls.__qualname__}.run: its annotations cannot be read ({error}). Import the type where the class is."
        ) from error
    returns = _closed(cls, "", "run", hints.get("return", Any))
    if _open(returns):
        raise BadDefinition(
            f"{cls.__qualname__}.run returns {returns}, which is not known. Annotate it in the class that is registered."
        )
    return returns
