"""Messages: what actors and runs are told and asked. Frozen values, declared by their fields.

A message is stored under its *tag*: `kind=`, else "module:qualname". The tag is looked up among the classes that were
declared, else in the module that it names, and must belong to a `Message`: nothing else is ever made from a mailbox.

    >>> class Deposit(Message[int], kind="deposit"):
    ...     amount: int
    >>> Deposit(10)
    Deposit(amount=10)
    >>> encode_message(Deposit(10))
    ('deposit', b'{"amount":10}')
    >>> decode_message("deposit", b'{"amount":10}')
    Deposit(amount=10)
    >>> reply_type(Deposit)
    <class 'int'>
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar, cast, dataclass_transform
from weakref import WeakValueDictionary

import attrs

from actorflow.codec import coder
from actorflow.codec.forms import bindings
from actorflow.codec.forms import resolve as resolve_form
from actorflow.errors import BadDefinition, UnknownMessage
from actorflow.value import Value

R_co = TypeVar("R_co", covariant=True)

_REPLY = "~reply"  #: where a class keeps the type of its reply: looking it up costs 20 us
KIND_BYTES_MAX = 200
"""A kind is in every row of its messages."""


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
class Message(Value, Generic[R_co]):
    """Base of messages; `R` is the type of the reply, None if there is none.

    Fields are annotated in the class body and given by position or name. Class keywords: `kw_only=True` for fields by name
    only, `kind="deposit"` for a tag that outlives a move of the class.

    Raises:
        BadDefinition: The class body is not one of a message; says what and the remedy.
    """

    __tag__: ClassVar[str] = ""
    __local_names__: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, *, kw_only: bool = False, kind: str | None = None) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            raise BadDefinition(
                f"{cls.__qualname__} has its own `__init__`, but messages are made from their fields, also when they are "
                f"read back. Declare fields with defaults, or use `__attrs_post_init__`."
            )
        cls.__tag__ = _tag(cls, kind)
        if "<locals>" in cls.__qualname__:
            cls.__local_names__ = {name: x for name, x in _caller(2).items() if isinstance(x, type)}
        try:
            attrs.frozen(slots=False, auto_attribs=True, kw_only=kw_only, field_transformer=_check_fields)(cls)
        except BadDefinition:
            raise
        except (TypeError, ValueError, attrs.exceptions.UnannotatedAttributeError) as error:
            raise BadDefinition(
                f"{cls.__qualname__} cannot be a message: {error}. Annotate every field (`total: int = field(...)`), and put "
                f"fields with defaults last or make the class `kw_only=True`."
            ) from error
        _declare(cls)

    def __reply__(self) -> R_co:
        """Never called: it gives the type of the reply a place in the class."""
        raise NotImplementedError


def tag_of(cls: type[Message[Any]]) -> str:
    """What messages of *cls* are stored under."""
    return cls.__tag__


def reply_type(cls: type[Message[Any]]) -> Any:
    """The type form of the reply: the R of `Message[R]`, through bases and forward references; `Any` if it is left open.

    Raises:
        BadDefinition: It names what cannot be found.
    """
    found = _reply(cls)
    return Any if isinstance(found, TypeVar) else found


def asked_type(cls: type[Message[Any]]) -> Any:
    """`reply_type` of a message that is asked.

    Raises:
        BadDefinition: It says nothing of a reply.
    """
    found = _reply(cls)
    if isinstance(found, TypeVar):
        raise BadDefinition(
            f"{cls.__qualname__} says nothing of its reply, so it cannot be asked. Write `class {cls.__name__}(Message[int])`, "
            f"with the type of the answer (None if it is an acknowledgement), or `tell` it."
        )
    return found


def _reply(cls: type[Message[Any]]) -> Any:
    if _REPLY not in vars(cls):
        setattr(cls, _REPLY, _look_up_reply(cls))
    return vars(cls)[_REPLY]


def _look_up_reply(cls: type[Message[Any]]) -> Any:
    form: Any = next((bound.get(R_co, R_co) for owner, bound in bindings(cls).items() if owner is Message), R_co)
    for base in cls.__mro__:
        try:
            return resolve_form(form, base)
        except NameError:
            continue
    raise BadDefinition(
        f"the reply type of {cls.__qualname__}, {form!r}, cannot be found; define it at the level of the module, "
        f"before the runtime is made."
    )


def resolve(tag: str) -> type[Message[Any]]:
    """The message class of *tag*.

    Raises:
        UnknownMessage: There is none.
    """
    found = _declared.get(tag)
    if found is not None:
        return found
    module, colon, qualname = tag.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        raise UnknownMessage(f"no message class with the tag {tag!r:.200} was declared. Import the module that has it.")
    try:
        here: Any = sys.modules.get(module) or import_module(module)
        for part in qualname.split("."):
            here = here.__dict__[part]
    except (Exception, SystemExit) as error:
        raise UnknownMessage(
            f"the message class {tag!r:.200} cannot be found ({type(error).__qualname__}: {error!s:.200}). Put it back there, "
            f"or give the moved class `kind={tag!r:.200}`."
        ) from error
    if not isinstance(here, type) or not issubclass(here, Message) or here.__tag__ != tag:
        raise UnknownMessage(
            f"{tag!r:.200} is no message class with that tag. Only subclasses of `Message` are read from a mailbox."
        )
    return cast(Any, here)  # type: ignore[no-any-return]


def encode_message(message: Message[Any]) -> tuple[str, bytes]:
    """The tag and the bytes of *message*.

    Raises:
        NotEncodable: A field would not come back as it is.
    """
    cls = type(message)
    if not isinstance(message, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  # Not everybody checks types.
        raise UnknownMessage(f"a {cls.__qualname__} is no message: derive its class from `Message`.")
    return cls.__tag__, coder(cls).encode(message, f"message {cls.__qualname__}")


def decode_message(tag: str, payload: bytes) -> Message[Any]:
    """The message that `encode_message` wrote.

    Raises:
        UnknownMessage: There is no class of that tag.
        Undecodable: Today's class cannot read it.
    """
    cls = resolve(tag)
    message: Message[Any] = coder(cls).decode(payload, f"message {cls.__qualname__}")
    return message


_declared: WeakValueDictionary[str, type[Message[Any]]] = WeakValueDictionary()


def _caller(depth: int) -> dict[str, Any]:
    """Names of the function in whose body a class is made: nobody else could resolve its annotations later."""
    frame = sys._getframe(depth)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return frame.f_locals


def _tag(cls: type[Message[Any]], kind: str | None) -> str:
    if kind is None:
        return f"{cls.__module__}:{cls.__qualname__}"
    own = cls.__module__.partition(".")[0] == __name__.partition(".")[0]  # "~..." are ours.
    if not kind.isprintable() or not 0 < len(kind.encode()) <= KIND_BYTES_MAX or (kind.startswith("~") and not own):
        raise BadDefinition(
            f"{kind!r:.200} cannot be the kind of {cls.__qualname__}: 1 to {KIND_BYTES_MAX} bytes of printable text that "
            f'does not begin with "~".'
        )
    return kind


def _declare(cls: type[Message[Any]]) -> None:
    """The latest definition counts, as after a reload; another class may not take the same kind."""
    before = _declared.get(cls.__tag__)
    if before is not None and (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
        raise BadDefinition(
            f"{cls.__module__}.{cls.__qualname__} and {before.__module__}.{before.__qualname__} both have the kind "
            f"{cls.__tag__!r}: stored messages could not be told apart. Give one of them another `kind=`."
        )
    _declared[cls.__tag__] = cls


def _check_fields(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    for each in fields:
        if type(each.default).__hash__ is None:
            raise BadDefinition(
                f"the default of {cls.__qualname__}.{each.name} is a {type(each.default).__qualname__}, which all messages would "
                f"share. Write `{each.name}: ... = field(factory={type(each.default).__name__})`."
            )
    # attrs would call the argument of `_secret` "secret", type checkers do not.
    return [each.evolve(alias=each.name) if each.alias in (None, each.name.lstrip("_")) else each for each in fields]
