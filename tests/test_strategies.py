"""What the strategies draw can be stored and comes back as it was, and is what the annotations say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntFlag
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import pytest
from attrs import field, frozen
from attrs.validators import ge
from hypothesis import Phase, assume, find, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from actorflow import Abort, Actor, BadDefinition, Message, Workflow, handler, resource, volatile
from actorflow.codec import coder
from actorflow.testing.harness import Harness
from actorflow.testing.strategies import inputs, messages, states, values

few = settings(max_examples=20, database=None, deadline=None)


class Color(Enum):
    RED = "red"
    BLUE = 2


class Right(IntFlag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict):
    name: str
    size: NotRequired[int]


@dataclasses.dataclass
class Item:
    name: str
    tags: frozenset[str] = frozenset()


class Model(BaseModel):
    id: UUID
    notes: list[str] = []


@frozen
class Tree:
    value: int
    left: Tree | None = None
    children: tuple[Tree, ...] = ()


@frozen
class Order:
    _id: str
    items: list[Item | Point]
    cents: int = field(validator=ge(0), default=0)
    at: datetime | None = None
    notes: dict[date, Decimal] = field(factory=dict)
    made: int = field(init=False, default=1)


FORMS: list[Any] = [
    int, str, float, bool, bytes, None, date, datetime, timedelta, Decimal, UUID, Path, Color, Right, Any,
    list[int], set[str], tuple[int, str], tuple[date, ...], dict[int, str], dict[tuple[int, bool], Color], Sequence[int],
    Mapping[str, Decimal], int | None, int | str | Item, Item | Point | None, Literal["a", 3], Annotated[int, "cents"],
    Point, Options, Item, Model, Tree, list[Tree], dict, list, tuple, frozenset[Color],
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_drawn_is_stored_and_comes_back(form: Any) -> None:
    @few
    @given(values(form))
    def check(value: Any) -> None:
        payload = coder(form).encode(value, "value")

        assert coder(form).decode(payload, "value") == value

    check()


@few
@given(values(Order, cents=st.integers(0, 99)))
def test_fields_of_a_class_may_be_given(order: Order) -> None:
    assert 0 <= order.cents < 100
    assert coder(Order).decode(coder(Order).encode(order, "order"), "order") == order


def test_constraints_and_strategies_of_an_annotation_hold() -> None:
    from annotated_types import Gt

    assert find(values(Annotated[int, Gt(41)]), lambda _: True) == 42
    assert find(values(Annotated[str, st.just("x")]), lambda _: True) == "x"
    with pytest.raises(Exception, match="No examples found"):
        find(values(Annotated[int, Gt(0)]), lambda n: n <= 0 or n >= 1 << 64, settings=settings(max_examples=200, database=None))


def test_a_registered_strategy_is_used() -> None:
    class Money(NamedTuple):
        cents: int

    st.register_type_strategy(Money, st.just(Money(7)))

    assert find(values(list[Money]), bool) == [Money(7)]


def test_the_corners_are_reached() -> None:
    reached = partial(find, settings=settings(max_examples=2_000, phases=[Phase.generate], database=None))

    assert reached(values(int), lambda n: n > 1 << 63)
    assert reached(values(Tree), lambda tree: tree.left is not None and tree.left.left is not None)
    assert reached(values(datetime), lambda at: at.tzinfo is None)
    assert reached(values(datetime), lambda at: at.tzinfo is not None)


def test_what_cannot_be_stored_is_refused_at_once() -> None:
    with pytest.raises(BadDefinition, match="is no type that can be stored"):
        values(list[complex])
    with pytest.raises(BadDefinition, match="Order has no field price; it has _id, items, cents"):
        values(Order, price=st.integers())


# --- messages and states --------------------------------------------------------------------------------------------------


class Deposit(Message[int]):
    cents: Annotated[int, st.integers(1, 1_000)]


class Withdraw(Message[int]):
    cents: Annotated[int, st.integers(1, 1_000)]
    why: str = ""


class Account(Actor):
    cents: int = 0
    seen: int = volatile(default=0)

    @handler
    async def deposit(self, m: Deposit) -> int:
        self.cents += m.cents
        return self.cents

    @handler
    async def withdraw(self, m: Withdraw) -> int:
        if m.cents > self.cents:
            raise Abort("too little")
        self.cents -= m.cents
        return self.cents


class Bank:
    pass


class Checkout(Workflow[str]):
    order: Order
    bank: Bank = resource()
    approved_by: str | None = None

    async def run(self) -> str:
        return ""


def test_messages_of_an_actor_are_those_that_it_handles() -> None:
    assert find(messages(Account), lambda m: isinstance(m, Withdraw)) == Withdraw(1)
    assert find(messages(Account), lambda m: isinstance(m, Deposit)) == Deposit(1)
    assert find(messages(Account, cents=st.just(5), why=st.just("w")), lambda m: isinstance(m, Withdraw)) == Withdraw(5, "w")
    assert find(messages(Deposit), lambda _: True) == Deposit(1)
    with pytest.raises(BadDefinition, match="reads its mailbox itself"):
        messages(Checkout)


@few
@given(inputs(Checkout), states(Checkout), states(Account, cents=st.just(3)))
def test_inputs_leave_the_state_alone_and_states_do_not(new: Checkout, later: Checkout, account: Account) -> None:
    assert new.approved_by is None
    assert isinstance(later.order, Order)
    assert account.cents == 3
    assert Checkout.__kind_info__().encode(later)


def test_states_of_a_run_are_whatever_its_fields_may_be() -> None:
    assert find(states(Checkout), lambda run: run.approved_by is not None).approved_by == ""
    with pytest.raises(BadDefinition, match="Checkout has no field by"):
        inputs(Checkout, by=st.text())


@settings(few, max_examples=10)
@given(st.lists(messages(Account), max_size=5))
def test_an_actor_and_a_model_agree_on_any_messages(told: list[Deposit | Withdraw]) -> None:
    assume(told)
    model = 0

    async def test(actorflow: Harness) -> None:
        nonlocal model
        account = actorflow.at(Account, "a")
        for n, message in enumerate(told):
            change = message.cents if isinstance(message, Deposit) else -message.cents
            if model + change < 0:
                with pytest.raises(Abort):
                    await account.ask(message)
            else:
                model += change
                assert await account.ask(message) == model
            if n == 1:
                await actorflow.crash()

    model = 0
    Harness().play(test)
