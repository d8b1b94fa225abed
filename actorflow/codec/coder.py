"""Coders: what the rest of the runtime asks for bytes and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import RLock, Thread
from typing import Any, Generic, TypeVar

import orjson

from actorflow.codec.classes import object_in, refuse_unknown
from actorflow.codec.scalars import OPTIONS, dumps
from actorflow.codec.shape import TOO_DEEP, Misfit, Shape, class_of
from actorflow.codec.shapes import Shapes
from actorflow.errors import NotEncodable, TooLarge, Undecodable

T = TypeVar("T")

PAYLOAD_BYTES_MAX = 1 << 20
"""One value at rest, 1 MiB: it is read back whole on every replay. Larger things belong elsewhere, with a reference here."""

_IMMUTABLE = frozenset((str, int, bool, float, type(None)))

_loads: Callable[[bytes], Any] = orjson.loads
# What it returns keeps a buffer of 4 KiB or more for as long as it lives: `b"%b"` makes a copy of the right size.
_dumps: Callable[[Any, None, int], bytes] = orjson.dumps
_fast, _traced = Shapes(traced=False), Shapes(traced=True)
_making = RLock()
_MADE = frozenset(("_encode", "_decode", "_same", "_shapes", "_heads"))  #: slots that are filled when they are first needed


class Coder(Generic[T]):
    """Values of one type to bytes and back. Ask `coder` for one: they are kept.

    Its shape is made when it is first used: most types that a process knows of are never written or read by it.
    """

    __slots__ = ("_decode", "_encode", "_same", "form")

    _encode: Callable[[Any], Any]
    _decode: Callable[[Any], Any]
    _same: type | None

    def __init__(self, form: Any) -> None:
        self.form: Any = form
        self.__class__ = _UnmadeCoder  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, value: T, what: str) -> bytes:
        """*value* as JSON. *what* opens the path in the error: "result of step charge".

        Raises:
            NotEncodable: The value, or one inside it, would not come back as it is.
        """
        try:
            return b"%b" % _dumps(value if type(value) is self._same else self._encode(value), None, OPTIONS)
        except Exception as error:  # noqa: BLE001  (fields may be properties, with any error)
            raise _not_encodable(self.form, value, what, error) from error.__cause__

    def decode(self, payload: bytes, what: str) -> T:
        """The value that was written as *payload*.

        Raises:
            Undecodable: Today's type cannot read it. Nothing of it is given.
        """
        try:
            read = _loads(payload)
            value: T = read if class_of(read) is self._same else self._decode(read)
        except Exception as error:  # noqa: BLE001  (validators of the user)
            value = _decode_again(self.form, payload, what, error)
        return value

    def copy(self, value: T, what: str) -> tuple[bytes, T]:
        """The bytes, and the value as replay will return it: a copy, unless it is a scalar that nobody can change.

        Raises:
            NotEncodable: The value, or one inside it, would not come back as it is.
        """
        payload = self.encode(value, what)
        return payload, value if type(value) in _IMMUTABLE else self.decode(payload, what)

    def __repr__(self) -> str:
        return f"coder({self.form!r})"


class _UnmadeCoder(Coder[Any]):
    """What a coder is until it is used. A class of its own, because a class with `__getattr__` is slow at all it has."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Called for a slot that is empty: the first time."""
        if name not in _MADE:
            raise AttributeError(name)
        shape = _shape_of(self.form)
        self._encode, self._decode, self._same = shape.encode, shape.decode, shape.same
        self.__class__ = Coder  # type: ignore[assignment]
        return object.__getattribute__(self, name)


def _shape_of(form: Any) -> Shape:
    with _making:  # A type that contains itself is half made for a moment.
        return _fast.of(form)


_coders: dict[Any, Coder[Any]] = {}


def coder(of: Any) -> Coder[Any]:
    """The coder of a type form: `Order`, `list[Order]`, `A | B`, `Any`, None.

    A type that cannot be stored has one too. It refuses every value, with the remedy.

    >>> coder(int | None).encode(None, "result")
    b'null'
    """
    try:
        found = _coders.get(of)
    except TypeError:  # A form with unhashable metadata.
        return Coder(of)
    if found is None:
        found = _coders[of] = Coder(of)
    return found


class RecordCoder:
    """Named values as one JSON object: the arguments of a step, the fields of a workflow.

    >>> fields = RecordCoder({"order": str, "paid": bool}, defaults={"paid": lambda: False})
    >>> fields.encode({"order": "o1", "paid": True}, "fields of Checkout")
    b'{"order":"o1","paid":true}'
    >>> fields.decode(b'{"order":"o1"}', "fields of Checkout")
    {'order': 'o1', 'paid': False}
    """

    __slots__ = ("_coders", "_defaults", "_heads", "_names", "_order", "_same", "_shapes")

    _heads: Mapping[str, bytes]
    _same: tuple[type | None, ...]
    _shapes: Mapping[str, Shape]

    def __init__(self, types: Mapping[str, Any], defaults: Mapping[str, Callable[[], Any]] | None = None) -> None:
        self._coders = {name: coder(form) for name, form in types.items()}
        self._names, self._defaults, self._order = frozenset(types), dict(defaults or {}), tuple(types)
        self.__class__ = _UnmadeRecordCoder  # noqa: PLE0237  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, values: Mapping[str, Any], what: str) -> bytes:
        """All of *values*, in the declared order.

        Raises:
            NotEncodable: The path names the value: "fields of Checkout.order".
        """
        as_is = self._as_is(values)
        if not as_is:
            self._check_names(values, what)
        try:
            written = values if as_is else {name: shape.encode(values[name]) for name, shape in self._shapes.items()}
            return b"%b" % _dumps(written, None, OPTIONS)
        except Exception as error:
            for name, each in self._coders.items():
                each.encode(values[name], f"{what}.{name}")
            raise NotEncodable(what, values, str(error)) from error

    def encode_each(self, values: Mapping[str, Any], what: str) -> dict[str, bytes]:
        """Each value's own bytes, to find those that changed."""
        self._check_names(values, what)
        return {name: each.encode(values[name], f"{what}.{name}") for name, each in self._coders.items()}

    def join(self, parts: Mapping[str, bytes]) -> bytes:
        """What `encode_each` gave as what `encode` would have given. *parts* must name every value."""
        return b"{" + b",".join([head + parts[name] for name, head in self._heads.items()]) + b"}"

    def decode(self, payload: bytes, what: str) -> dict[str, Any]:
        """The values, in the declared order; one that is missing takes its default.

        Raises:
            Undecodable: A value cannot be read, is missing without a default, or has a name that is not declared any more.
        """
        try:
            parts: dict[str, Any] = _loads(payload)
            if self._as_is(parts):
                return parts
            parts = object_in(parts, what)
            refuse_unknown(parts, self._names, what)
        except orjson.JSONDecodeError as error:
            raise Undecodable(what, f"it is not JSON ({error})") from None
        except Misfit as found:
            raise Undecodable(what, found.why) from None
        return {name: self._part(name, parts, what) for name in self._coders}

    def decode_part(self, name: str, payload: bytes, what: str) -> Any:
        """One value from its own bytes.

        Raises:
            Undecodable: It cannot be read, or there is no such name any more.
        """
        if name not in self._coders:
            raise Undecodable(what, f"there is no {name!r} any more; keep it, or rename it back")
        return self._coders[name].decode(payload, f"{what}.{name}")

    def _part(self, name: str, parts: Mapping[str, Any], what: str) -> Any:
        if name in parts:
            try:
                return self._shapes[name].decode(parts[name])
            except Exception:  # noqa: BLE001  (read once more, by its coder, which tells where and why)
                return self._coders[name].decode(dumps(parts[name]), f"{what}.{name}")
        if name in self._defaults:
            return self._defaults[name]()
        raise Undecodable(what, f"{name!r} is missing; give it a default")

    def _as_is(self, values: Any) -> bool:
        """True if it is a dict of the declared names, in order, with values that are the same in JSON: what most records are."""
        return class_of(values) is dict and tuple(map(type, values.values())) == self._same and tuple(values) == self._order

    def _check_names(self, values: Mapping[str, Any], what: str) -> None:
        if values.keys() ^ self._names:
            wrong = ", ".join(sorted(map(repr, values.keys() ^ self._names)))
            raise NotEncodable(what, values, f"these are missing, or not declared: {wrong}")


class _UnmadeRecordCoder(RecordCoder):
    """Likewise."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Called for a slot that is empty: the first time."""
        if name not in _MADE:
            raise AttributeError(name)
        self._shapes = {of: _shape_of(each.form) for of, each in self._coders.items()}
        self._heads = {of: orjson.dumps(of) + b":" for of in self._order}
        self._same = tuple(shape.same for shape in self._shapes.values())
        self.__class__ = RecordCoder  # type: ignore[assignment]
        return object.__getattribute__(self, name)


def check_size(payload: bytes, what: str, size_max: int = PAYLOAD_BYTES_MAX) -> None:
    """Refuse a payload that is over the limit.

    Raises:
        TooLarge: It is; nothing was stored.
    """
    if len(payload) > size_max:
        raise TooLarge(what, len(payload), size_max)


def _not_encodable(form: Any, value: Any, what: str, error: Exception) -> NotEncodable:
    """Encode once more with the traced shapes, for the path to what is wrong."""
    if _is_too_deep(error):
        return NotEncodable(what, value, TOO_DEEP)
    try:
        with _making:
            shape = _traced.of(form)
        dumps(shape.encode(value))
    except Misfit as found:
        error.__cause__ = found.__cause__
        return NotEncodable(what + found.path, found.value, found.why)
    except Exception as other:  # noqa: BLE001
        error = other
    return NotEncodable(what, value, TOO_DEEP if _is_too_deep(error) else f"{type(error).__qualname__}: {error}")


def _is_too_deep(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or "Recursion limit" in str(error)


def _decode_again(form: Any, payload: bytes, what: str, error: Exception) -> Any:
    """Decode once more with the traced shapes, for the path to what is wrong."""
    if isinstance(error, orjson.JSONDecodeError):
        raise Undecodable(what, f"it is not JSON ({error})") from None
    if isinstance(error, RecursionError):
        return _decode_on_empty_stack(form, payload, what)
    try:
        with _making:
            shape = _traced.of(form)
        value = shape.decode(_loads(payload))
    except Misfit as found:
        raise Undecodable(what + found.path, found.why) from found.__cause__
    except Exception as other:
        raise Undecodable(what, f"{type(other).__qualname__}: {other}") from other
    return value


def _decode_on_empty_stack(form: Any, payload: bytes, what: str) -> Any:
    """Decode in a thread of its own.

    What could be written and read once, from whatever depth of the stack, can be read again from none.
    """
    result: list[Any] = []

    def decode() -> None:
        try:
            result.append(_fast.of(form).decode(_loads(payload)))
        except RecursionError:
            pass
        except Exception:  # noqa: BLE001  (told by the caller)
            result.append(error)

    error = object()
    thread = Thread(target=decode, name="actorflow-decode")
    thread.start()
    thread.join()
    if not result or result[0] is error:
        raise Undecodable(what, TOO_DEEP if not result else "it is nested too deep, and does not fit its type")
    return result[0]
