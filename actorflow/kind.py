"""What the runtime knows of a class of actors or workflows (`Kind`), and the fields of one live instance."""

from __future__ import annotations

from typing import Any, Literal

from attrs import define, field

from actorflow.codec import Coder, RecordCoder, coder
from actorflow.errors import BadDefinition, UnknownMessage
from actorflow.handlers import Handler
from actorflow.message import Message
from actorflow.steps import Step

KEY = "~key"  #: where an instance keeps its own key: no field can be called that
_SCALARS = frozenset((str, int, float, bool, bytes, type(None)))

Overflow = Literal["reject", "wait", "drop_oldest", "drop_new"]
"""What becomes of a message to a full mailbox: the sender gets `MailboxFull`, or waits; or the oldest, or it, is dropped."""


@define(eq=False, repr=False)
class Kind:
    """What the runtime knows of an actor class; worked out once, when the class is registered."""

    cls: type[Any]
    name: str
    coder: RecordCoder
    fields: tuple[str, ...]
    attributes: frozenset[str]  #: all that an instance may carry: fields, volatile ones, and its key
    returns: Any
    outcome: Coder[Any]
    queries: dict[str, Step]
    fails: tuple[type[Exception], ...]
    mailbox_max: int | None
    passivate_after_s: float | None
    resources: dict[str, Any] = field(factory=dict[str, Any])  #: what is set on an instance that runs: type by field
    handlers: dict[type[Message[Any]], Handler] | None = None  #: None: a workflow, which reads its mailbox itself
    overflow: Overflow = "reject"
    retention_s: float | None = None  #: how long the answers of keyed messages are kept; None is for ever
    starts: bool = False  #: it has an `on_start` of its own
    stops: bool = False  #: it has an `on_stop` of its own
    durable: bool = True  #: False: its state and its mailbox are in memory only
    _dispatch: dict[type[Any], Handler | None] = field(factory=dict[type[Any], "Handler | None"])

    def handler_of(self, message: type[Any]) -> Handler | None:
        """Who handles messages of that type: the handler of the nearest of its classes."""
        if message not in self._dispatch:
            named = (self.handlers or {}).get
            self._dispatch[message] = next((found for of in message.__mro__ if (found := named(of)) is not None), None)
        return self._dispatch[message]

    def handler_for(self, message: type[Any]) -> Handler:
        """Who handles messages of that type.

        Raises:
            UnknownMessage: Nobody; says what is handled.
        """
        found = self.handler_of(message)
        if found is None:
            handled = ", ".join(sorted(of.__qualname__ for of in self.handlers or ())) or "nothing"
            raise UnknownMessage(f"{self.name} does not handle {message.__qualname__}; it handles {handled}.")
        return found

    def encode(self, instance: Any) -> bytes:
        """The stored fields of an instance."""
        return self.coder.encode(self.values(instance), self.name)

    def values(self, instance: object) -> dict[str, Any]:
        """Its stored fields.

        Raises:
            BadDefinition: It carries attributes that are no fields and would be lost.
        """
        values = vars(instance)
        if not self.attributes.issuperset(values):
            extra = sorted(values.keys() - self.attributes)
            raise BadDefinition(
                f"{self.name} has {', '.join(extra)} set, which are no fields and would be lost. Declare them in the "
                f"class (`{extra[0]}: type`), or as `volatile(...)`."
            )
        return {name: values[name] for name in self.fields}

    def build(self, fields: bytes, *, key: str, resources: dict[str, Any] | None = None) -> Any:
        """A fresh instance from stored fields, with the resources of the runtime that will drive it."""
        values: dict[str, Any] = self.coder.decode(fields, f"fields of {self.name}/{key}")
        instance = self.cls(**values)
        object.__setattr__(instance, KEY, key)
        if resources:
            instance.__dict__.update(resources)
        return instance


def blank_kind(name: str) -> Kind:
    """What stands for a class that is not registered: its runs can only be ended."""
    return Kind(
        cls=object, name=name, coder=RecordCoder({}), fields=(), attributes=frozenset(), returns=object, outcome=coder(object),
        queries={}, fails=(), mailbox_max=None, passivate_after_s=None,
    )  # fmt: skip


@define(eq=False, repr=False)
class Fields:
    """The stored fields of one live instance, as the driver sees them."""

    kind: Kind
    instance: Any

    def parts(self) -> dict[str, bytes]:
        return self.kind.coder.encode_each(self.kind.values(self.instance), self.kind.name)

    def frozen(self) -> bool:
        values: dict[str, Any] = self.instance.__dict__
        return all(type(values[name]) in _SCALARS for name in self.kind.fields)

    def assign(self, parts: dict[str, bytes]) -> None:
        for name, part in parts.items():
            value = self.kind.coder.decode_part(name, part, f"field {name} of {self.kind.name}")
            object.__setattr__(self.instance, name, value)

    def view(self) -> bytes:
        """All of them, encoded."""
        return self.kind.encode(self.instance)
