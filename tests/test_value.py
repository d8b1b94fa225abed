"""`Value`: what attrs would have written for each class."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from actorflow.value import Value


@attrs.frozen
class Point(Value):
    x: Any
    y: int = attrs.field(default=0, repr=False)
    note: str = attrs.field(default="", eq=False)
    on: Any = attrs.field(default=None, hash=False)
    secret: str = attrs.field(default="", repr=lambda value: "*" * len(value))
    name: str = attrs.field(default="", eq=str.casefold)


@attrs.frozen
class Other(Value):
    x: Any
    y: int = 0
    note: str = ""
    secret: str = ""
    name: str = ""


@attrs.frozen
class Near(Point):
    z: int = 0


@attrs.frozen
class Own(Value):
    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and other == self.x

    def __hash__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "mine"


def as_attrs_makes_it(of: type[Any]) -> type[Any]:
    """The same class, but with the methods of attrs."""
    return attrs.make_class(
        of.__name__,
        {a.name: attrs.field(default=a.default, repr=a.repr, eq=a.eq_key or a.eq, hash=a.hash) for a in attrs.fields(of)},
        class_body={"__qualname__": of.__qualname__},
        frozen=True,
        slots=True,
    )


ARGUMENTS: list[dict[str, Any]] = [
    {"x": 1}, {"x": 1, "y": 2}, {"x": 1, "note": "a"}, {"x": "1"}, {"x": None, "y": -1}, {"x": (1, 2)}, {"x": 1.0},
    {"x": 1, "secret": "abc"}, {"x": 1, "name": "Ada"}, {"x": 1, "name": "ADA"},
    {"x": float("nan")},
]  # fmt: skip


@pytest.mark.parametrize("of", [Point, Other, Near])
def test_a_value_is_compared_and_printed_as_attrs_would(of: type[Any]) -> None:
    theirs = as_attrs_makes_it(of)
    ours_all = [of(**each) for each in (*ARGUMENTS, *ARGUMENTS)]
    theirs_all = [theirs(**each) for each in (*ARGUMENTS, *ARGUMENTS)]

    assert [repr(each) for each in ours_all] == [repr(each) for each in theirs_all]
    assert [[a == b for a in ours_all] for b in ours_all] == [[a == b for a in theirs_all] for b in theirs_all]
    assert [[a != b for a in ours_all] for b in ours_all] == [[a != b for a in theirs_all] for b in theirs_all]
    assert len(set(ours_all)) == len(set(theirs_all))


def test_values_of_two_classes_are_not_equal() -> None:
    assert Point(1) != Other(1)
    assert Point(1) != Near(1)
    assert hash(Point(1)) != hash(Other(1))


def test_equal_values_have_one_hash_and_a_value_of_what_has_none_has_none() -> None:
    assert hash(Point(1)) == hash(Point(1.0, note="other"))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point([]))
    assert hash(Point(1, on=[])) == hash(Point(1))


def test_what_a_class_says_itself_stays() -> None:
    assert (repr(Own(1)), hash(Own(1)), Own(1) == 1, Own(1) == Own(1)) == ("mine", 7, True, False)


def test_a_class_of_a_function_is_printed_without_that() -> None:
    @attrs.frozen
    class Local(Value):
        x: int

    assert repr(Local(1)) == "Local(x=1)"


def test_a_value_in_itself_is_printed_once() -> None:
    inside: list[Any] = []
    inside.append(Point(inside))

    assert repr(inside) == "[Point(x=[...], note='', on=None, secret=, name='')]"
    assert repr(inside[0]) == "Point(x=[...], note='', on=None, secret=, name='')"


def test_copies_are_equal() -> None:
    assert copy.deepcopy(Point([1])) == Point([1])
    assert pickle.loads(pickle.dumps(Near((1,)))) == Near((1,))
    assert attrs.evolve(Point(1), y=3) == Point(1, 3)


def test_a_value_has_no_dict_and_cannot_be_changed() -> None:
    assert not hasattr(Point(1), "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]
