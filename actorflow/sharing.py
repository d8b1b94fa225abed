"""What may pass between memory-only actors as it is: values that nobody can change. All else is copied by the codec.

So no state is ever shared, as between durable actors, and a message of numbers and texts costs nothing to hand over.

    >>> immutable(tuple[int, ...]), immutable(list[int]), immutable(str | None)
    (True, False, True)
"""

from __future__ import annotations

import enum
import functools
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

import attrs

from actorflow.codec import Coder, coder
from actorflow.codec.forms import bare, is_union, resolve
from actorflow.codec.scalars import texts
from actorflow.message import Message

T = TypeVar("T")

_PLAIN = frozenset((bool, int, float, str, type(None)))


def _is_scalar(cls: Any) -> bool:
    """True if all its values are immutable and without parts."""
    return cls in _PLAIN or cls in texts()


def immutable(form: Any) -> bool:
    """True if all values of that annotation are immutable, and all that they hold. An open class is not, as its subclasses."""
    return _immutable(form, ())


def _immutable(form: Any, above: tuple[Any, ...]) -> bool:
    form = bare(form)
    if _is_scalar(form) or form is Ellipsis or get_origin(form) is Literal:
        return True
    origin: Any = get_origin(form) or form
    if is_union(form) or origin in (tuple, frozenset):
        parts = get_args(form)
        return bool(parts) and all(_immutable(part, above) for part in parts)
    if not isinstance(origin, type) or origin in above:
        return isinstance(origin, type)  # A type that contains itself is what its other parts are.
    if issubclass(origin, enum.Enum):
        return True
    cls: Any = cast(Any, origin)
    return get_origin(form) is None and _frozen(cls) and _fields(cls, (*above, cls))


def _frozen(cls: type[Any]) -> bool:
    return attrs.has(cls) and (issubclass(cls, Message) or cls.__setattr__.__name__ == "_frozen_setattrs")


def _fields(cls: type[Any], above: tuple[Any, ...]) -> bool:
    try:
        return all(_immutable(resolve(field.type, cls), above) for field in attrs.fields(cls))
    except NameError:
        return False


@functools.lru_cache(maxsize=4_096)
def _message_coder(cls: Any) -> Coder[Any] | None:
    return None if immutable(cls) else coder(cls)


def handed_over(message: Message[Any]) -> Message[Any]:
    """The message as its receiver gets it: itself, if nothing in it can change, else a copy.

    Raises:
        NotEncodable: It cannot be copied, because it could not be stored either.
    """
    cls = cast(Any, type(message))
    of = _message_coder(cls)
    return message if of is None else _copied(of, message, "message")


def shared(of: type[Any]) -> bool:
    """True if messages of that class pass as they are."""
    cls: Any = of
    return issubclass(of, Message) and _message_coder(cls) is None


def reply_handed_over(form: Any, of: Coder[Any], value: Any, what: str) -> Any:
    """The reply as its asker gets it.

    Raises:
        NotEncodable: It is not what the message promises.
    """
    cls = cast(Any, type(value))
    return value if _is_scalar(cls) and _is(form, cls) else _copied(of, value, what)


@functools.lru_cache(maxsize=4_096)
def _is(form: Any, cls: Any) -> bool:
    form = bare(form)
    return form is cls or form is Any or (is_union(form) and any(_is(part, cls) for part in get_args(form)))


def _copied(of: Coder[T], value: T, what: str) -> T:
    return of.decode(of.encode(value, what), what)
