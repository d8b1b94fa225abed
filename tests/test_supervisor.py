"""Supervisors as data: what cannot be one is refused when it is written, with its place and the remedy."""

from __future__ import annotations

import attrs
import pytest
from attrs import field

from actorflow import Workflow
from actorflow.actor import Actor, volatile
from actorflow.errors import BadDefinition
from actorflow.policies.restarts import Backoff
from actorflow.policies.tree import ChildSpec, SupervisorSpec
from actorflow.supervisor import CHILDREN_MAX, DEPTH_MAX, Child, Supervisor, checked_tree


class Inventory(Actor):
    items: int = 0
    seen: int = volatile(default=0)


class PriceFeed(Actor):
    currency: str
    rates: list[int] = field(factory=list)


class Job(Workflow[None]):
    async def run(self) -> None: ...


def test_a_supervisor_is_frozen_data_with_otps_defaults() -> None:
    shop = Supervisor("shop", children=[Child(Inventory, "main")])

    assert (shop.strategy, shop.restarts, shop.within, shop.auto_shutdown) == ("one_for_one", 3, "60s", "never")
    assert (shop.children[0].restart, shop.children[0].significant) == ("permanent", False)
    assert shop == Supervisor("shop", children=(Child(Inventory, "main"),))
    assert hash(shop) == hash(Supervisor("shop", children=(Child(Inventory, "main"),)))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        shop.restarts = 4  # type: ignore[misc]


def test_children_and_decisions_are_copied() -> None:
    children, on = [Child(Inventory, "a")], {ValueError: "stop"}
    shop = Supervisor("shop", children=children, on=on)  # type: ignore[arg-type]

    children.append(Child(Inventory, "b"))
    on[ValueError] = "keep"

    assert len(shop.children) == 1
    assert shop.on[ValueError] == "stop"
    with pytest.raises(TypeError):
        shop.on[KeyError] = "keep"  # type: ignore[index]


def test_the_policy_gets_all_of_it_in_seconds_and_ids() -> None:
    shop = Supervisor(
        "shop",
        strategy="rest_for_one",
        restarts=5,
        within="2m",
        backoff=Backoff("1s", "2s"),
        auto_shutdown="any_significant",
        on={ConnectionError: "escalate"},
        children=[
            Child(Inventory, "main", shutdown="1m"),
            Child(PriceFeed("eur"), "eur", restart="transient", significant=True),
            Supervisor("inner", restart="temporary"),
        ],
    )

    assert shop.spec() == SupervisorSpec(
        name="shop",
        strategy="rest_for_one",
        restarts=5,
        within_s=120.0,
        backoff=Backoff("1s", "2s"),
        auto_shutdown="any_significant",
        on=((ConnectionError, "escalate"),),
        children=(
            ChildSpec(id="Inventory/main", stop_s=60.0),
            ChildSpec(id="PriceFeed/eur", restart="transient", significant=True),
            ChildSpec(id="inner", nested=True, restart="temporary", stop_s=None),
        ),
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Child(Job, "j"), "runtime.start"),
        (lambda: Child(Job(), "j"), "Workflow runs once"),
        (lambda: Child(int, "j"), "no Actor"),  # type: ignore[type-var]
        (lambda: Child(Actor, "j"), "no Actor"),
        (lambda: Child("Inventory", "j"), "no Actor"),  # type: ignore[arg-type]
        (lambda: Child(PriceFeed, "eur"), "nobody gives it currency"),
        (lambda: Child(Inventory, ""), "it is empty"),
        (lambda: Child(Inventory, "a\nb"), "control character"),
        (lambda: Child(Inventory, 7), "not a str"),  # type: ignore[arg-type]
        (lambda: Child(Inventory, "a", restart="always"), "'permanent', 'transient', 'temporary'"),  # type: ignore[arg-type]
        (lambda: Child(Inventory, "a", shutdown="soon"), "shutdown: 'soon' is no duration"),
        (lambda: Child(Inventory, "a", significant=True), "never significant"),
    ],
)
def test_what_cannot_be_a_child_is_refused(make: object, says: str) -> None:
    """O7."""

    with pytest.raises(BadDefinition, match=says) as caught:
        make()  # type: ignore[operator]
    assert str(caught.value).startswith("Child(")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Supervisor(""), "1 to 256"),
        (lambda: Supervisor("a/b"), 'without "/"'),
        (lambda: Supervisor("a\n"), "printable"),
        (lambda: Supervisor("\ud800"), "printable"),
        (lambda: Supervisor(7), "a name is"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", strategy="one_for_two"), "'one_for_all'"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", auto_shutdown="always"), "'any_significant'"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", restart="no"), "'transient'"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", restarts=-1), "restarts is -1"),
        (lambda: Supervisor("s", restarts=10**6), "to 10_000"),
        (lambda: Supervisor("s", restarts=True), "restarts is True"),
        (lambda: Supervisor("s", within=0), "longer than 0"),
        (lambda: Supervisor("s", within="-1s"), "within"),
        (lambda: Supervisor("s", backoff="1s"), "backoff is '1s'"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", children=Child(Inventory, "a")), "Write a list"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", children=[Inventory]), "Wrap an actor"),  # type: ignore[list-item]
        (lambda: Supervisor("s", children=[Child(Inventory, str(n)) for n in range(CHILDREN_MAX + 1)]), "over 1000"),
        (lambda: Supervisor("s", on={"ValueError": "stop"}), "classes of exceptions"),  # type: ignore[dict-item]
        (lambda: Supervisor("s", on={KeyboardInterrupt: "stop"}), "classes of exceptions"),  # type: ignore[dict-item]
        (lambda: Supervisor("s", on={ValueError: "ignore"}), "'escalate'"),  # type: ignore[dict-item]
        (lambda: Supervisor("s", on="stop"), "Write a dict"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", significant=True), "never significant"),
        (lambda: Supervisor("s", children=[Child(Inventory, "a", restart="transient", significant=True)]), "means nothing"),
        (
            lambda: Supervisor("s", children=[Supervisor("t", restart="temporary", significant=True)]),
            "t is significant, but auto_shutdown",
        ),
    ],
)
def test_what_cannot_be_a_supervisor_is_refused(make: object, says: str) -> None:
    with pytest.raises(BadDefinition, match=says) as caught:
        make()  # type: ignore[operator]
    assert str(caught.value).startswith("Supervisor")


def test_one_actor_cannot_have_two_supervisors_anywhere_in_a_tree() -> None:
    twice = [Supervisor("a", children=[Child(Inventory, "main")]), Supervisor("b", children=[Child(Inventory(3), "main")])]

    with pytest.raises(BadDefinition, match="Inventory/main is an actor that the tree has twice: under a and under b"):
        checked_tree(twice)
    with pytest.raises(BadDefinition, match="under top > a and under top > b"):
        Supervisor("top", children=twice)
    with pytest.raises(BadDefinition, match="under s and under s"):
        Supervisor("s", children=[Child(Inventory, "a"), Child(Inventory, "a")])


def test_actors_of_two_classes_may_share_a_key() -> None:
    tree = Supervisor("s", children=[Child(Inventory, "a"), Child(PriceFeed("eur"), "a")])

    assert checked_tree([tree]) == (tree,)


def test_two_supervisors_cannot_have_one_name() -> None:
    with pytest.raises(BadDefinition, match="a is a supervisor that the tree has twice: under the top and under b"):
        checked_tree([Supervisor("a"), Supervisor("b", children=[Supervisor("a")])])


def test_a_supervisor_cannot_be_below_itself() -> None:
    a = Supervisor("a")
    b = Supervisor("b", children=[a])
    object.__setattr__(a, "children", (b,))

    with pytest.raises(BadDefinition, match="b > a > b: a supervisor cannot be below itself"):
        checked_tree([b])


def test_a_tree_has_a_limit_of_depth() -> None:
    tree = Supervisor("s0")
    for n in range(1, DEPTH_MAX):
        tree = Supervisor(f"s{n}", children=[tree])

    with pytest.raises(BadDefinition, match="over 16 levels"):
        Supervisor("one more", children=[tree])


def test_only_supervisors_stand_at_the_top() -> None:
    with pytest.raises(BadDefinition, match="cannot stand at the top"):
        checked_tree([Child(Inventory, "a")])  # type: ignore[list-item]
