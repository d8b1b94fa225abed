"""Messages are frozen values, stored under a tag that leads back to a message class and to nothing else."""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar

import attrs
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import BadDefinition, NotEncodable, Undecodable, UnknownMessage
from actorflow.message import Message, asked_type, decode_message, encode_message, reply_type, resolve, tag_of

T = TypeVar("T")


class Deposit(Message[int]):
    amount: int
    note: str = ""
    limit: ClassVar[int] = 10


class Approve(Message[None], kind="approve"):
    by: str


class Empty(Message[None]): ...


class Cmd(Message[T]):
    who: str


class Inc(Cmd[int]):
    by: int = 1


class GetAll(Message["list[Snapshot]"]):
    pass


class Batch(Message[list[T]], Generic[T]):
    items: list[int]


class IntBatch(Batch[int]):
    pass


class Untyped(Message):
    pass


@frozen
class Snapshot:
    at: int


class Secret(Message[None]):
    _code: int
    parts: tuple[Snapshot, ...] = field(factory=tuple)


class Named(Message[None], kw_only=True):
    a: int = 0
    b: int


def test_a_message_is_a_frozen_value_by_position_and_by_name() -> None:
    message = Deposit(10, note="gift")

    assert message == Deposit(10, "gift")
    assert hash(message) == hash(Deposit(10, "gift"))
    assert repr(message) == "Deposit(amount=10, note='gift')"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        message.amount = 5  # type: ignore[misc]
    match message:
        case Deposit(amount, note):
            assert (amount, note) == (10, "gift")


def test_a_private_field_is_given_by_the_name_it_has() -> None:
    assert Secret(_code=5) == Secret(5)
    assert Named(b=1).a == 0


@pytest.mark.parametrize(
    "message", [Deposit(1), Approve("ann"), Empty(), Inc("a", 2), IntBatch([1]), Secret(1, (Snapshot(2),)), Named(b=1)]
)
def test_a_message_comes_back_by_its_tag(message: Message[Any]) -> None:
    tag, payload = encode_message(message)
    again = decode_message(tag, payload)

    assert again == message
    assert type(again) is type(message) is resolve(tag)


def test_the_tag_is_the_kind_or_the_place_of_the_class() -> None:
    assert tag_of(Approve) == "approve"
    assert tag_of(Deposit) == f"{__name__}:Deposit"
    assert encode_message(Approve("ann")) == ("approve", b'{"by":"ann"}')


def test_a_kind_is_not_inherited() -> None:
    class Sub(Approve):
        pass

    assert tag_of(Sub).endswith("Sub")


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (Deposit, int),
        (Approve, type(None)),
        (Inc, int),
        (GetAll, list[Snapshot]),
        (IntBatch, list[int]),
        (Untyped, Any),
        (Cmd, Any),
    ],
)
def test_the_reply_type_is_found_through_bases_and_quotes(message: type[Message[Any]], reply: Any) -> None:
    assert reply_type(message) == reply


def test_a_local_message_resolves_names_of_its_function() -> None:
    @frozen
    class Line:
        n: int

    class Local(Message["Line"]):
        line: Line
        next: Local | None = None

    message = Local(Line(1), Local(Line(2)))

    assert reply_type(Local) is Line
    assert decode_message(*encode_message(message)) == message


def test_a_reply_type_that_cannot_be_found_is_named() -> None:
    class Lost(Message["Nowhere"]):  # type: ignore[name-defined]
        pass

    with pytest.raises(BadDefinition, match="Nowhere"):
        reply_type(Lost)


def test_a_body_that_is_not_one_of_a_message_is_refused_with_the_remedy() -> None:
    with pytest.raises(BadDefinition, match="own `__init__`"):

        class Init(Message[None]):
            def __init__(self) -> None: ...

    with pytest.raises(BadDefinition, match="factory=list"):

        class Shared(Message[None]):
            items: list[int] = []  # noqa: RUF012

    with pytest.raises(BadDefinition, match="Annotate every field"):

        class Bare(Message[None]):
            a: int
            b = field()

    with pytest.raises(BadDefinition, match="kw_only"):

        class Late(Deposit):
            late: int  # type: ignore[misc]

    for kind in ("", "~mine", "a\nb", "x" * 201):
        with pytest.raises(BadDefinition, match="cannot be the kind"):

            class Kind(Message[None], kind=kind):
                pass


def test_a_kind_belongs_to_one_class_and_its_latest_definition_counts() -> None:
    with pytest.raises(BadDefinition, match="both have the kind"):

        class Other(Message[None], kind="approve"):
            pass

    def define(n: int) -> type[Message[None]]:
        class Again(Message[None], kind="again"):
            pass

        return Again

    first, second = define(1), define(2)

    assert resolve("again") is second is not first


@pytest.mark.parametrize(
    "tag",
    [
        "nothing",
        "os:system",
        "os:path",
        "builtins:exec",
        "no_such_module:X",
        "actorflow.errors:ActorflowError",
        "actorflow.message:Message",
        f"{__name__}:Snapshot",
        f"{__name__}:Approve",
        f"{__name__}:Gone",
        f"{__name__}:Deposit.__init__",
        "a/b:X",
        ":",
        "",
        "x" * 10_000,
    ],
)
def test_a_tag_leads_to_a_message_class_or_nowhere(tag: str) -> None:
    """S7."""

    with pytest.raises(UnknownMessage):
        resolve(tag)


def test_an_undeclared_message_is_found_in_the_module_that_its_tag_names() -> None:
    module = ModuleType("late_module")
    sys.modules["late_module"] = module
    try:
        with pytest.raises(UnknownMessage):
            resolve("late_module:Late")
        exec("from actorflow.message import Message\nclass Late(Message[None]): pass", module.__dict__)
        assert resolve("late_module:Late").__name__ == "Late"
    finally:
        del sys.modules["late_module"]


def test_a_local_class_that_is_gone_is_unknown() -> None:
    def tag_only() -> str:
        class Passing(Message[None]):
            pass

        return tag_of(Passing)

    tag = tag_only()
    gc.collect()

    with pytest.raises(UnknownMessage):
        resolve(tag)


def test_fields_pass_the_codec() -> None:
    with pytest.raises(NotEncodable, match=r"message Deposit\.amount"):
        encode_message(Deposit("ten"))  # type: ignore[arg-type]
    with pytest.raises(Undecodable, match=r"message Approve\.by"):
        decode_message("approve", b'{"by":1}')
    with pytest.raises(Undecodable, match="'more'"):
        decode_message("approve", b'{"by":"ann","more":1}')


@given(st.integers(-(1 << 63), 1 << 63), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_message_comes_back_equal(amount: int, note: str) -> None:
    assert decode_message(*encode_message(Deposit(amount, note))) == Deposit(amount, note)


def test_a_message_that_says_nothing_of_its_reply_cannot_be_asked() -> None:
    with pytest.raises(BadDefinition, match=r"Untyped says nothing of its reply.*Message\[int\]"):
        asked_type(Untyped)
    assert asked_type(Secret) is type(None)
