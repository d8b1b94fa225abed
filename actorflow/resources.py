"""Resources: what steps and runs use and nobody stores, such as a pool of connections. A runtime is given them when it is made.

A resource is looked up by the class that a field or a parameter is annotated with. It is no part of the state: it is never
stored, never compared, and another process has another one.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_origin, get_type_hints

import attrs
from attrs import frozen

from actorflow.errors import BadDefinition, NoResource
from actorflow.value import Value

T = TypeVar("T")

_RESOURCE = "actorflow_resource"
_Default = type(cast("object", attrs.field()))  #: what `attrs.field` makes of a default


def resource(*, init: Literal[False] = False) -> Any:
    """A field of an actor, or a parameter of a step, that holds one of `Runtime(resources=[...])`, found by its annotation.

    A field is set when the runtime builds the instance (after `__attrs_post_init__`), and is no argument of the class. A
    parameter is filled in when the step is performed, and is no input of it; called outside of a runtime the step takes it as
    an argument like any other: `await charge(order, http=FakeHttp())`.

    >>> from actorflow import step
    >>> @step
    ... async def greet(name: str, *, words: dict = resource()) -> str:
    ...     return words[name]
    >>> import anyio, functools
    >>> anyio.run(functools.partial(greet, "ann", words={"ann": "hello"}))
    'hello'
    """
    return attrs.field(init=init, repr=False, metadata={_RESOURCE: True})


def is_resource(metadata: Mapping[Any, Any]) -> bool:
    """True of the attrs metadata of a field that holds a resource."""
    return bool(metadata.get(_RESOURCE))


@frozen
class Unset(Value):
    """Stands in the class for a field of an instance that was given no resource."""

    actor: str
    name: str

    def __get__(self, instance: object, owner: type) -> Unset:
        if instance is None:
            return self
        raise NoResource(
            f"{self.actor}.{self.name} is a resource, and this instance has none: a runtime sets it on the instance that it "
            f"runs, not on the one that `start` takes, nor on the one that a @query reads."
        )


# --- what a runtime was given -------------------------------------------------------------------------------------------


class Resources:
    """The resources of one runtime."""

    def __init__(self, given: tuple[object, ...] = ()) -> None:
        self.given = given
        self._found: dict[type[Any], object] = {}  #: by the class that was wanted
        self._fields: dict[str, dict[str, object]] = {}  #: by kind

    @classmethod
    def of(cls, given: Sequence[object]) -> Resources:
        """Those that `Runtime(resources=...)` was given."""
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadDefinition(f"Runtime(resources=[...]) takes a list of objects, not {given!r:.80}.")
        return cls(tuple(given))

    def bind(self, kind: str, actor: str, fields: Mapping[str, Any]) -> None:
        """Find what the fields of a class are to hold.

        Raises:
            BadDefinition: One has no resource, or could have several.
        """
        found = {}
        for name, wanted in fields.items():
            try:
                found[name] = self.find(wanted)
            except NoResource as error:
                raise BadDefinition(f"{actor}.{name}: {error}") from None
        if found:
            self._fields[kind] = found

    def fields(self, kind: str) -> dict[str, object] | None:
        """What the resource fields of an instance of that kind hold; None if it has no such fields."""
        return self._fields.get(kind)

    def find(self, wanted: Any) -> object:
        """The one that is an instance of *wanted*.

        Raises:
            NoResource: There is none, there are several, or *wanted* is no class.
        """
        if isinstance(wanted, type) and wanted in self._found:
            return self._found[wanted]
        of, said = _class_of(wanted), _said(wanted)
        found = [each for each in self.given if isinstance(each, of)]
        if len(found) == 1:
            self._found[of] = found[0]
            return found[0]
        if found:
            kinds = ", ".join(type(each).__qualname__ for each in found)
            raise NoResource(
                f"{len(found)} resources are a {said} ({kinds}), and it cannot be known which is meant. Annotate a class that "
                f"only one of them has; two of one class can be told apart as attributes of a class of your own."
            )
        if any(each is of for each in self.given):
            raise NoResource(f"the class {said} itself was given, not an instance. Write `Runtime(resources=[{said}(...)])`.")
        kinds = ", ".join(type(each).__qualname__ for each in self.given) or "none"
        raise NoResource(f"no resource is a {said} (given: {kinds}). Pass one: `Runtime(resources=[{said}(...)])`.")

    def entered(self, context: Context) -> Resources:
        """These; what runs in that context, or in a copy of it, has them."""
        context.run(_current.set, self)
        return self

    def enter(self) -> None:
        """What runs in this task from here on has these."""
        _current.set(self)


def _said(wanted: Any) -> str:
    return str(getattr(wanted, "__qualname__", wanted))


def _class_of(wanted: Any) -> type[Any]:
    bare = wanted.__origin__ if get_origin(wanted) is Annotated else wanted
    of: Any = get_origin(bare) or bare
    try:
        if isinstance(of, type) and of not in (Union, types.UnionType):
            isinstance(None, of)
            return cast("type[Any]", of)
    except TypeError:  # `Any`, and protocols that cannot be looked for.
        pass
    raise NoResource(
        f"a resource is found by its class, and {_said(wanted)} is none that `isinstance` takes. Annotate a class, or a "
        f"Protocol with @runtime_checkable."
    )


_current: ContextVar[Resources | None] = ContextVar("actorflow_resources", default=None)


def resource_of(of: type[T]) -> T:
    """The resource of that class, in a step or in what it calls: one of those that the runtime was given which performs it.

    Raises:
        NoResource: It was given none or several of that class; or no runtime performs this code: it was called outside of one,
            in a thread started by hand (`anyio.to_thread` and `asyncio.to_thread` know), or in a step with `run_in="process"`.
    """
    here = _current.get()
    if here is None:
        raise NoResource(
            f"resource_of({_said(of)}) was called where no runtime performs a step: outside of one, in a thread started by hand, "
            f'or in a step with `run_in="process"`. Pass the object as an argument there.'
        )
    return cast("T", here.find(of))


# --- parameters ---------------------------------------------------------------------------------------------------------


def injected(fn: Callable[..., Any], localns: dict[str, Any] | None = None, run_in: str = "thread") -> Callable[..., Any]:
    """The function, filling in those of its parameters that are resources; itself if it has none.

    Raises:
        BadDefinition: They cannot be filled in.
    """
    if hasattr(fn, "__actorflow_resources__"):
        _check_place(fn, run_in)
        return fn
    by_place: tuple[object, ...] = getattr(fn, "__defaults__", None) or ()
    by_name: dict[str, object] = getattr(fn, "__kwdefaults__", None) or {}
    if not any(map(_marks, (*by_place, *by_name.values()))):
        return fn
    _check_place(fn, run_in)
    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())
    places = {each.name: at for at, each in enumerate(parameters) if _marks(each.default)}
    _check_parameters(fn, parameters, places)
    wanted: dict[str, Any] = {}

    def fill(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name, at in places.items() if name not in kwargs and at >= len(args)]
        if not missing:
            return kwargs
        if not wanted:  # At the first call: an annotation may name what is defined below the function.
            wanted.update(_hints(fn, localns))
        return kwargs | {name: resource_of(wanted[name]) for name in missing}

    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **fill(args, kwargs))

        filled: Any = awaited
    else:

        @functools.wraps(fn)
        def called(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **fill(args, kwargs))

        filled = called
    # Resources are no input: whoever binds, records or compares arguments does not see them.
    filled.__signature__ = signature.replace(parameters=[p for p in parameters if p.name not in places])
    filled.__actorflow_resources__ = tuple(places)
    return cast("Callable[..., Any]", filled)


def _marks(default: object) -> bool:
    return type(default) is _Default and is_resource(cast("Any", default).metadata)


def _hints(fn: Callable[..., Any], localns: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return get_type_hints(fn, localns=localns)
    except NameError as error:
        raise NoResource(
            f"the annotations of {fn.__qualname__} cannot be read ({error}). Import the type where it is."
        ) from error


def _check_place(fn: Callable[..., Any], run_in: str) -> None:
    if run_in == "process":
        raise BadDefinition(
            f'{fn.__qualname__} has a resource and run_in="process": resources stay in the process of the runtime. Make what it '
            f"needs inside the step."
        )


def _check_parameters(fn: Callable[..., Any], parameters: list[inspect.Parameter], places: dict[str, int]) -> None:
    keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    for name, at in places.items():
        if parameters[at].annotation is inspect.Parameter.empty:
            raise BadDefinition(f"{fn.__qualname__}: a resource is found by its class: write `{name}: ItsClass = resource()`.")
        behind = [p for p in parameters[at + 1 :] if p.name not in places and p.kind not in keyword]
        if parameters[at].kind is inspect.Parameter.POSITIONAL_ONLY or (parameters[at].kind not in keyword and behind):
            raise BadDefinition(f"{fn.__qualname__}: put the resource {name!r} behind all other parameters, or behind a `*`.")
