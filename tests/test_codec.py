"""What is written comes back as it was, or is refused when it is written."""

# ruff: noqa: DTZ001  (moments without a zone are values too)

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pydantic
import pytest
from attrs import define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from actorflow.codec import DEPTH_MAX, PAYLOAD_BYTES_MAX, Loose, RecordCoder, check_size, coder
from actorflow.errors import NotEncodable, TooLarge, Undecodable

T = TypeVar("T")
OrderId = NewType("OrderId", str)


def name_of(value: object) -> str:
    """A parameter in the name of a test: short, and the same in each process."""
    if isinstance(value, int) and value > 1 << 65:
        return "big"
    if isinstance(value, dict | set | frozenset):
        return type(value).__name__
    return ascii(value).partition(" at 0x")[0][:40]


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Level(StrEnum):
    LOW = "low"


class Odd(Enum):
    PAIR = (1, 2)
    FLAG = True


class Right(Flag):
    READ = auto()
    WRITE = auto()


class Point(NamedTuple):
    x: int
    y: int = 0


class Filter(TypedDict):
    name: str
    limit: NotRequired[int]


@frozen
class Item:
    name: str
    price: int


@frozen
class Special(Item):
    why: str = ""


@frozen
class Order:
    id: OrderId
    items: list[Item]
    note: str | None = None


@dataclasses.dataclass
class Customer:
    name: str
    born: date
    tags: set[str] = dataclasses.field(default_factory=set)


@frozen
class Card:
    number: str


@frozen
class Cash:
    value: Decimal


@frozen
class Box(Generic[T]):
    content: T


@frozen
class IntBox(Box[int]):
    label: str = ""


@frozen
class Tree:
    name: str
    children: tuple[Tree, ...] = ()


class Account(pydantic.BaseModel):
    owner: str
    opened: datetime
    limits: tuple[int, ...] = ()


class Hidden(pydantic.BaseModel):
    secret: pydantic.SecretStr


def there_and_back(form: Any, value: Any) -> Any:
    payload = coder(form).encode(value, "value")
    return coder(form).decode(payload, "value")


def refused(form: Any, value: Any, what: str = "value") -> NotEncodable:
    with pytest.raises(NotEncodable) as caught:
        coder(form).encode(value, what)
    return caught.value


EXACT: list[tuple[Any, Any]] = [
    (None, None),
    (bool, True),
    (int, -(1 << 63)),
    (int, (1 << 64) - 1),
    (float, -0.0),
    (float, 5),
    (float, 1e300),
    (str, "nul \0, é, 🂡"),
    (bytes, b"\x00\xff"),
    (bytes, b""),
    (datetime, datetime(2024, 2, 29, 1, 2, 3, 4)),
    (datetime, datetime(2024, 2, 29, tzinfo=UTC)),
    (datetime, datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=5)))),
    (date, date(1, 1, 1)),
    (time, time(23, 59, 59, 999_999, tzinfo=UTC)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (timedelta, timedelta.max),
    (timedelta, timedelta.min),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("-Infinity")),
    (UUID, UUID(int=7)),
    (Path, Path("a/b")),
    (PurePosixPath, PurePosixPath("/x")),
    (Color, Color.RED),
    (Size, Size.LARGE),
    (Level, Level.LOW),
    (Odd, Odd.PAIR),
    (Odd, Odd.FLAG),
    (Right, Right.READ | Right.WRITE),
    (Right, Right(0)),
    (Point, Point(1, 2)),
    (Filter, {"limit": 3, "name": "x"}),
    (Filter, {"name": "x"}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (tuple, (1, "a")),
    (list[list[Decimal]], [[Decimal(1)], []]),
    (dict[int, str], {2: "b", 1: "a"}),
    (dict[Size, int], {Size.LARGE: 1}),
    (dict[Color, int], {Color.RED: 1}),
    (dict[UUID, int], {UUID(int=1): 1}),
    (dict[date, int], {date(2024, 1, 1): 1}),
    (dict[tuple[int, str], int], {(1, "a"): 1}),
    (dict[str | int, int], {"1": 1, 1: 2}),
    (dict[bool | None, int], {True: 1, None: 2}),
    (dict[Point, int], {Point(1): 1}),
    (set[int], {3, 1, 2}),
    (frozenset[frozenset[str]], frozenset((frozenset("ab"), frozenset()))),
    (set[int | None], {1, None}),
    (Order, Order(OrderId("o1"), [Item("tea", 3)])),
    (Customer, Customer("ann", date(2000, 1, 1), {"a"})),
    (Account, Account(owner="ann", opened=datetime(2024, 1, 1, tzinfo=UTC), limits=(1, 2))),
    (Box[int], Box(1)),
    (Box[list[Decimal]], Box([Decimal(1)])),
    (IntBox, IntBox(1, "x")),
    (Tree, Tree("a", (Tree("b"), Tree("c", (Tree("d"),))))),
    (Order | None, None),
    (Order | None, Order(OrderId("o1"), [])),
    (Card | Cash, Cash(Decimal("1.0"))),
    (Card | Cash | None, None),
    (str | int | None, 5),
    (str | int | float | bool | None, True),
    (int | float, 5.0),
    (str | bytes, b"x"),
    (str | list[str], ["a"]),
    (list[int] | tuple[int, ...], (1,)),
    (Box[int] | Box[str], Box("a")),
    (Tree | str, Tree("a")),
    (Color | str, Color.RED),
    (Literal["a", 1, True], True),
    (Literal[Color.RED] | None, Color.RED),
    (Literal["a"] | int, "a"),
    (Annotated[int, "seconds"], 1),
    (OrderId, OrderId("x")),
    (Any, {"a": [1, 2.5, None, True, "x", {}]}),
    (object, [1]),
    (Sequence[int], (1, 2)),
    (Sequence[int], [1, 2]),
    (Mapping[str, int], {"a": 1}),
    (AbstractSet[int], frozenset((1,))),
    (Loose, ({"a": Decimal(1)}, [b"x", {UUID(int=1)}], None)),
]


@pytest.mark.parametrize(("form", "value"), EXACT, ids=name_of)
def test_a_value_comes_back_equal_and_of_the_same_class(form: Any, value: Any) -> None:
    """E23."""

    back = there_and_back(form, value)

    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) or isinstance(value, (set, frozenset, pydantic.BaseModel))


def test_a_zone_and_the_fold_of_an_ambiguous_hour_come_back() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for fold in (0, 1):
        moment = datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=fold)

        back = there_and_back(datetime, moment)

        assert (back, back.fold, back.tzinfo) == (moment, fold, berlin)
    assert there_and_back(datetime, datetime(2024, 10, 27, 2, 30, fold=1)).fold == 1
    assert there_and_back(time, time(2, 30, fold=1)).fold == 1


def test_stored_values_are_readable() -> None:
    order = coder(Order).encode(Order(OrderId("o1"), [Item("tea", 3)]), "x")
    paid = coder(Card | Cash).encode(Cash(Decimal("1.50")), "x")
    mixed = coder(str | list[int]).encode([1], "x")

    assert order == b'{"id":"o1","items":[{"name":"tea","price":3}],"note":null}'
    assert paid == b'{"$type":"%s:Cash","value":"1.50"}' % __name__.encode()
    assert mixed == b'{"$type":"list[int]","value":[1]}'
    assert coder(datetime).encode(datetime(2024, 1, 1, tzinfo=UTC), "x") == b'"2024-01-01T00:00:00+00:00"'


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (int, "5"),
        (int, True),
        (int, 5.0),
        (int, 1 << 64),
        (int, -(1 << 63) - 1),
        (int, 10**5000),
        (bool, 1),
        (str, 5),
        (str, "\ud800"),
        (str, Level.LOW),
        (float, float("nan")),
        (float, float("inf")),
        (float, 1 << 70),
        (float, Decimal(1)),
        (bytes, bytearray(b"x")),
        (None, 0),
        (date, datetime(2024, 1, 1)),
        (datetime, datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=1)))),
        (list[int], (1,)),
        (list[int], [True]),
        (tuple[int, ...], [1]),
        (tuple[int, int], (1,)),
        (tuple[int, int], Point(1, 2)),
        (set[int], frozenset((1,))),
        (dict[str, int], {1: 1}),
        (dict[int, int], {1 << 70: 1}),
        (dict[int, int], {10**5000: 1}),
        (dict[float, int], {float("nan"): 1}),
        (Color, "red"),
        (Size, 1),
        (Literal[1], True),
        (Literal[1], [1]),
        (str | int, 1.5),
        (Card | Cash, Item("a", 1)),
        (Filter, {"name": "x", "more": 1}),
        (Filter, {"limit": 1}),
        (Box[int], Box("a")),
        (Path, PurePosixPath("a")),
        (Path, Path("\udc80")),
        (Any, (1, 2)),
        (Any, Item("a", 1)),
        (Any, UUID(int=1)),
        (Any, Size.SMALL),
        (Any, Level.LOW),
        (Any, {1: 2}),
        (Any, [float("nan")]),
        (Any, {"\ud800": 1}),
        (Any, ["\ud800"]),
        (Any, Lock()),
        (Any, {1}),
        (Lock, Lock()),
        (Loose, [Item("a", 1)]),
        (Hidden, Hidden(secret=pydantic.SecretStr("x"))),
        ("Order", 1),
    ],
    ids=name_of,
)
def test_what_would_not_come_back_is_refused_when_it_is_written(form: Any, value: Any) -> None:
    refused(form, value)


def test_a_refusal_names_the_path_and_the_remedy() -> None:
    order = Order(OrderId("o1"), [Item("tea", 3), Item("milk", "4")])  # type: ignore[arg-type]

    error = refused(Order, order, "result of step charge")

    assert error.path == "result of step charge.items[1].price"
    assert "the annotation says int" in str(error)


@pytest.mark.parametrize(
    ("form", "value", "path"),
    [
        (dict[str, list[int]], {"a": [1, "x"]}, "value['a'][1]"),
        (tuple[int, str], (1, 2), "value[1]"),
        (Any, {"a": [0, (1,)]}, "value['a'][1]"),
        (Card | Cash, Card(5), "value.number"),  # type: ignore[arg-type]
        (Customer, Customer("a", date(1, 1, 1), {1}), "value.tags{...}"),  # type: ignore[arg-type]
        (Filter, {"name": 1}, "value['name']"),
        (Point, Point("x"), "value.x"),  # type: ignore[arg-type]
        (list[Tree], [Tree("a", (Tree(1),))], "value[0].children[0].name"),  # type: ignore[arg-type]
        (list[int], [1, 1 << 70], "value[1]"),
        (dict[str, str], {"a": "\ud800"}, "value['a']"),
        (dict[str, float], {"a": float("nan")}, "value['a']"),
    ],
)
def test_the_path_leads_to_the_offending_value(form: Any, value: Any, path: str) -> None:
    assert refused(form, value).path == path


def test_an_instance_of_a_subclass_is_refused_because_it_would_come_back_as_its_base() -> None:
    error = refused(list[Item], [Special("tea", 3, "gift")])

    assert error.path == "value[0]"
    assert "A | B" in str(error)
    assert there_and_back(Item | Special, Special("tea", 3)) == Special("tea", 3)


def test_without_a_type_the_remedy_is_to_annotate() -> None:
    assert "annotate the type" in str(refused(Any, datetime(2024, 1, 1)))


def test_a_type_that_cannot_be_stored_says_so_at_its_first_value() -> None:
    assert there_and_back(memoryview | None, None) is None
    assert "no type that can be stored" in str(refused(memoryview | None, memoryview(b"")))


def test_a_fixed_offset_of_another_library_comes_back_as_the_same_moment() -> None:
    opened = Account.model_validate_json('{"owner": "ann", "opened": "2024-01-01T00:00:00+02:00"}').opened

    back = there_and_back(datetime, opened)

    assert (back, back.utcoffset()) == (opened, timedelta(hours=2))


class Moody(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=moment.hour % 3)

    def tzname(self, moment: datetime | None) -> str:
        return "moody"

    def dst(self, moment: datetime | None) -> None:
        return None


def test_a_time_zone_with_rules_but_without_a_name_is_refused() -> None:
    assert "time zone" in str(refused(datetime, datetime(2024, 1, 1, tzinfo=Moody())))


def test_deep_and_cyclic_values_are_refused_without_a_recursion_error() -> None:
    """E9."""

    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    cycle: list[Any] = []
    cycle.append(cycle)
    tree = Tree("leaf")
    for _ in range(100_000):
        tree = Tree("a", (tree,))

    for form, value in ((Any, deep), (Any, cycle), (Loose, deep), (Loose, cycle), (Tree, tree)):
        assert "nested deeper" in str(refused(form, value))
    while tree.children:  # Dropped level by level: freeing it at once is as deep.
        (tree,) = tree.children


def test_deep_json_is_undecodable_without_a_recursion_error() -> None:
    """E9."""

    for depth in (900, 100_000):
        with pytest.raises(Undecodable):
            coder(list[int]).decode(b"[" * depth + b"]" * depth, "x")
        with pytest.raises(Undecodable):
            coder(Tree).decode(b'{"name":"a","children":[' * depth + b"]}" * depth, "x")


def test_what_could_be_written_can_be_read_from_any_depth_of_the_stack() -> None:
    tree = Tree("leaf")
    for _ in range(60):
        tree = Tree("a", (tree,))
    payload = coder(Tree).encode(tree, "x")

    def below(depth: int) -> Tree:
        return below(depth - 1) if depth else coder(Tree).decode(payload, "x")

    assert below(sys.getrecursionlimit() - 250) == tree


def test_nesting_up_to_the_bound_is_fine() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = [value]

    assert there_and_back(Any, value) == value
    refused(Any, [value])


def test_equal_sets_are_equal_bytes_whatever_the_hash_seed() -> None:
    code = "from actorflow.codec import coder; print(coder(set[str | bytes]).encode({'b', 'a', b'c', 'dd', b'a'}, 'x'))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert runs[0] == runs[1] != b""


@pytest.mark.parametrize(
    ("form", "payload"),
    [
        (int, b'"5"'),
        (int, b"5.0"),
        (int, b"99999999999999999999999"),
        (bool, b"1"),
        (str, b"null"),
        (str, b"not json"),
        (str, b""),
        (bytes, b'"***"'),
        (datetime, b'"yesterday"'),
        (datetime, b'"2024-01-01T00:00:00+01:00[../../etc/passwd]"'),
        (timedelta, b'"1 day"'),
        (UUID, b'"x"'),
        (Decimal, b'"x"'),
        (Color, b'"green"'),
        (Size, b"7"),
        (Size, b"true"),
        (list[int], b"{}"),
        (tuple[int, int], b"[1]"),
        (dict[int, int], b'{"x":1}'),
        (Item, b"[]"),
        (Item, b'{"name":"a"}'),
        (Item, b'{"name":"a","price":1,"old":2}'),
        (Point, b'{"x":1,"z":2}'),
        (Filter, b"{}"),
        (Account, b'{"owner":1}'),
        (Card | Cash, b'{"number":"1"}'),
        (Card | Cash, b'{"$type":"os:system","value":"ls"}'),
        (Card | Cash, b'{"$type":["x"]}'),
        (str | bytes, b'{"$type":"bytes"}'),
        (str | int, b"[]"),
        (Literal["a"], b'"b"'),
        (Literal["a"], b"[]"),
        (Any, b"\x80\x04K\x05."),
    ],
)
def test_bytes_that_do_not_fit_are_undecodable(form: Any, payload: bytes) -> None:
    with pytest.raises(Undecodable):
        coder(form).decode(payload, "value")


def test_an_unreadable_value_is_told_with_its_path_and_without_its_content() -> None:
    with pytest.raises(Undecodable) as caught:
        coder(Order).decode(b'{"id":"o1","items":[{"name":"tea","price":"s3cret"}]}', "input of Shop/1")

    assert str(caught.value).startswith("input of Shop/1.items[0].price cannot be read")
    assert "s3cret" not in str(caught.value)


def test_a_field_that_is_gone_is_named_and_nothing_is_read() -> None:
    with pytest.raises(Undecodable, match="'old'"):
        coder(Item).decode(b'{"name":"a","price":1,"old":2}', "x")


def test_a_new_field_with_a_default_is_no_difference() -> None:
    assert coder(Order).decode(b'{"id":"o1","items":[]}', "x") == Order(OrderId("o1"), [])


def test_a_tag_is_looked_up_among_the_members_only_and_survives_a_move_of_the_file() -> None:
    moved = b'{"$type":"__main__:Card","number":"1"}'

    assert coder(Card | Cash).decode(moved, "x") == Card("1")


def test_two_members_with_one_tag_are_refused() -> None:
    def local() -> type:
        @frozen
        class Same:
            a: int

        return Same

    one, two = local(), local()

    assert "same tag" in str(refused(one | two, one(1)))


# --- classes with ideas of their own ----------------------------------------------------------------------------------


def doubled(n: int) -> int:
    return n * 2


def stripped(text: str) -> str:
    return text.strip()


@frozen
class Doubling:
    n: int = field(converter=doubled)


@define
class Cleaned:
    name: str = field(converter=stripped)
    size: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size = len(self.name)


@frozen
class Frozen:
    a: int
    b: int = field(init=False, default=7)


@dataclasses.dataclass(frozen=True)
class Caching:
    n: int

    @cached_property
    def squared(self) -> int:
        return self.n * self.n


@define
class Checked:
    n: int = field(validator=attrs.validators.ge(0), on_setattr=attrs.setters.NO_OP)


@define(slots=False)
class Open:
    n: int


@dataclasses.dataclass
class Needs:
    n: int
    seed: dataclasses.InitVar[int]


@frozen
class Private:
    _secret: int
    converter: int = 0
    self_: int = 0


def test_a_class_that_changes_its_own_values_is_refused() -> None:
    assert "another value" in str(refused(Doubling, Doubling(1)))
    assert "cannot be made again" in str(refused(Needs, Needs(1, 2)))


def test_converters_and_derived_fields_that_keep_their_values_are_fine() -> None:
    assert there_and_back(Cleaned, Cleaned(" a ")) == Cleaned("a")
    changed = Frozen(1)
    object.__setattr__(changed, "b", 8)
    assert there_and_back(Frozen, changed).b == 8
    assert there_and_back(Private, Private(1, 2)) == Private(1, 2)


def test_a_value_that_its_own_validator_refuses_is_refused_and_was_never_stored() -> None:
    broken = Checked(1)
    broken.n = -1

    assert "cannot be made again" in str(refused(Checked, broken))
    with pytest.raises(Undecodable):
        coder(Checked).decode(b'{"n":-1}', "x")


def test_an_attribute_that_is_no_field_would_be_lost_so_it_is_refused() -> None:
    value = Open(1)
    value.note = "x"  # type: ignore[attr-defined]

    assert "no field of Open" in str(refused(Open, value))


def test_a_cached_property_is_no_state() -> None:
    value = Caching(3)
    assert value.squared == 9

    assert there_and_back(Caching, value) == value


def test_a_field_that_is_not_set_is_refused() -> None:
    assert "not set" in str(refused(Item, Item.__new__(Item)))


def test_a_class_may_be_used_before_what_it_names_is_defined() -> None:
    @frozen
    class Early:
        later: Later  # type: ignore[name-defined]  # noqa: F821

    early = coder(Early)
    assert "cannot be resolved" in str(refused(Early, Early(1)))

    globals()["Later"] = int
    try:
        assert early.decode(early.encode(Early(1), "x"), "x") == Early(1)
    finally:
        del globals()["Later"]


# --- copy, records, size ----------------------------------------------------------------------------------------------


def test_a_copy_is_what_replay_returns_and_shares_nothing() -> None:
    order = Order(OrderId("o1"), [Item("tea", 3)])

    payload, copied = coder(Order).copy(order, "result")
    order.items.append(Item("late", 1))

    assert copied == Order(OrderId("o1"), [Item("tea", 3)])
    assert coder(Order).decode(payload, "result") == copied


def test_a_scalar_passes_as_it_is() -> None:
    text = "x" * 100

    payload, copied = coder(str).copy(text, "result")

    assert copied is text
    assert payload == b'"%s"' % text.encode()


FIELDS = RecordCoder({"order": Order, "tags": set[str], "paid": bool}, {"paid": lambda: False, "tags": set})
VALUES = {"order": Order(OrderId("o1"), []), "tags": {"b", "a"}, "paid": True}


def test_a_record_is_the_join_of_its_parts() -> None:
    parts = FIELDS.encode_each(VALUES, "fields")

    assert FIELDS.join(parts) == FIELDS.encode(VALUES, "fields")
    assert FIELDS.decode(FIELDS.join(parts), "fields") == VALUES
    assert FIELDS.decode_part("tags", parts["tags"], "fields") == {"a", "b"}


def test_a_missing_part_takes_its_default_or_is_undecodable() -> None:
    order = FIELDS.encode_each(VALUES, "fields")["order"]

    assert FIELDS.decode(b'{"order":' + order + b"}", "fields") == {**VALUES, "tags": set(), "paid": False}
    with pytest.raises(Undecodable, match="'order' is missing"):
        FIELDS.decode(b"{}", "fields")


def test_a_record_with_an_unknown_name_is_not_half_read() -> None:
    """E4."""

    with pytest.raises(Undecodable, match="'old'"):
        FIELDS.decode(b'{"order":{"id":"o1","items":[]},"old":1}', "fields")
    with pytest.raises(Undecodable, match="'old'"):
        FIELDS.decode_part("old", b"1", "fields")
    for payload in (b"[]", b"nonsense", b'{"order":1}'):
        with pytest.raises(Undecodable):
            FIELDS.decode(payload, "fields")


def test_a_record_names_the_value_that_cannot_be_stored() -> None:
    broken = {**VALUES, "tags": {1}}

    for encode in (FIELDS.encode, FIELDS.encode_each):
        with pytest.raises(NotEncodable) as caught:
            encode(broken, "fields of Checkout")
        assert caught.value.path == "fields of Checkout.tags{...}"
    with pytest.raises(NotEncodable, match="'paid'"):
        FIELDS.encode({"order": VALUES["order"], "tags": set()}, "fields")


def test_a_payload_over_the_limit_is_refused() -> None:
    check_size(b"x" * PAYLOAD_BYTES_MAX, "result", PAYLOAD_BYTES_MAX)
    with pytest.raises(TooLarge, match="result is 11 bytes, over the limit of 10"):
        check_size(b"x" * 11, "result", 10)


# --- properties -------------------------------------------------------------------------------------------------------

numbers = st.integers(-(1 << 63), (1 << 64) - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
offsets = st.integers(-86_000, 86_000).map(lambda s: timezone(timedelta(seconds=s)))
moments = st.datetimes(timezones=st.none() | offsets | st.timezones()).filter(lambda m: not m.fold)
natural = st.recursive(
    st.none() | st.booleans() | numbers | floats | texts,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3),
)


@frozen
class Everything:
    a: int | str | None
    b: list[tuple[Decimal, bytes]]
    c: dict[int, set[str]]
    d: Card | Item | list[float] | None
    e: datetime | timedelta
    f: frozenset[Point]
    g: Any
    h: Box[Color | Size | UUID]


everything = st.builds(
    Everything,
    a=numbers | texts | st.none(),
    b=st.lists(st.tuples(st.decimals(allow_nan=False), st.binary(max_size=8)), max_size=3),
    c=st.dictionaries(numbers, st.sets(texts, max_size=3), max_size=3),
    d=st.builds(Card, texts) | st.builds(Item, texts, numbers) | st.lists(floats, max_size=3) | st.none(),
    e=moments | st.timedeltas(),
    f=st.frozensets(st.builds(Point, numbers, numbers), max_size=3),
    g=natural,
    h=st.builds(Box, st.sampled_from([*Color, *Size]) | st.uuids()),
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same classes all the way down."""
    if type(a) is not type(b) or a != b:
        return False
    if attrs.has(type(a)):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in attrs.fields(type(a)))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return all(map(same, a, b))
    return True


@given(everything)
def test_any_value_of_an_annotated_class_comes_back_the_same(value: Everything) -> None:
    payload, copied = coder(Everything).copy(value, "value")

    assert same(copied, value)
    assert coder(Everything).encode(copied, "value") == payload


@given(natural)
def test_plain_json_comes_back_the_same_without_a_type(value: Any) -> None:
    assert same(there_and_back(Any, value), value)
    assert same(there_and_back(Loose, value), value)


@given(st.binary(max_size=30) | natural.map(lambda x: coder(Any).encode(x, "x")), st.sampled_from([form for form, _ in EXACT]))
def test_any_bytes_are_decoded_or_undecodable(payload: bytes, form: Any) -> None:
    try:
        value = coder(form).decode(payload, "value")
    except Undecodable:
        return
    assert there_and_back(form, value) == value or form is Decimal


# --- what it costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encode",
    [lambda: coder(int).encode(1, "result"), lambda: RecordCoder({"n": int}).encode({"n": 1}, "fields")],
    ids=["value", "record"],
)
def test_a_small_payload_takes_a_small_place(encode: Callable[[], bytes]) -> None:
    encode()  # What is made once is made now.
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [encode() for _ in range(100)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(kept) < 200  # The JSON writer keeps 4 KiB for each of its own.
