"""How an order is tested: its days of waiting, its undo, and its crashes.

    pytest examples/test_order.py -v

A test that asks for the fixture `actorflow` runs in virtual time, and its process can die. With `survives` it does: once for
every place there is to die in. Take `key=current_step().key` out of `charge` to see what is said then.
"""

from __future__ import annotations

import anyio
import pytest
from attrs import frozen
from hypothesis import strategies as st

from actorflow import Abort, Message, Retry, Transient, Workflow, current_step, resource, step
from actorflow.testing import Harness
from actorflow.testing.strategies import values

# --- the shop ----------------------------------------------------------------------------------------------------------


@frozen
class Order:
    """What a customer wants."""

    customer: str
    cents: int


class Bank:
    """Stands for the bank: it does what has a key once, whoever asks again."""

    def __init__(self) -> None:
        self.accounts: dict[str, int] = {"ann": 10_000, "shop": 0}
        self._done: set[str] = set()

    async def move(self, source: str, target: str, cents: int, *, key: str) -> None:
        """Move money."""
        await anyio.sleep(0.2)
        if key not in self._done:
            self._done.add(key)
            self.accounts[source] -= cents
            self.accounts[target] += cents
        await anyio.sleep(0.2)


@step
async def refund(order: Order, *, bank: Bank = resource()) -> None:
    """Give the money back."""
    await bank.move("shop", order.customer, order.cents, key=current_step().key)


@step(undo=refund, retry=Retry(attempts=3, first="1s"))
async def charge(order: Order, *, bank: Bank = resource()) -> None:
    """Take the money."""
    await bank.move(order.customer, "shop", order.cents, key=current_step().key)


class Approve(Message[None]):
    """Somebody says yes."""

    by: str


class Checkout(Workflow[str]):
    """Charge, wait for a person."""

    order: Order

    async def run(self) -> str:
        await charge(self.order)
        approval = await self.receive(Approve, within="3d")
        if approval is None:
            raise Abort("nobody approved it in three days")
        return f"approved by {approval.by}"


# --- its tests ---------------------------------------------------------------------------------------------------------


ORDER = Order("ann", 4_200)


@pytest.fixture
def bank(actorflow: Harness) -> Bank:
    """The bank of the service under test."""
    bank = Bank()
    actorflow.use(resources=[bank])
    return bank


def no_money_is_lost(bank: Bank) -> None:
    """Whenever a process has ended, however it did."""
    assert sum(bank.accounts.values()) == 10_000


@pytest.mark.survives(invariant=no_money_is_lost)
async def test_an_order_is_paid_once(actorflow: Harness, bank: Bank) -> None:
    """Killed at every commit and every await of it, the order is paid once, and its answer is the same."""
    run = await actorflow.start(Checkout(ORDER), key="o-1")
    await actorflow.skip("2 days")
    await run.tell(Approve(by="bob"))

    assert await run.result() == "approved by bob"
    assert bank.accounts == {"ann": 5_800, "shop": 4_200}


@pytest.mark.survives(points=60, invariant=no_money_is_lost)
async def test_what_nobody_approves_is_paid_back(actorflow: Harness, bank: Bank) -> None:
    """Three days later the undo has run."""
    run = await actorflow.start(Checkout(ORDER), key="o-1")
    await actorflow.skip("3 days")

    with pytest.raises(Abort, match="nobody approved it"):
        await run.result()
    assert bank.accounts == {"ann": 10_000, "shop": 0}


async def test_a_bank_that_is_down_is_asked_again(actorflow: Harness) -> None:
    """A mock takes the place of the step's function; that it is retried is the step's affair."""
    actorflow.mock(charge, side_effect=[Transient("busy"), Transient("busy"), None])
    run = await actorflow.start(Checkout(ORDER), key="o-1")
    await run.tell(Approve(by="bob"))

    assert await run.result() == "approved by bob"
    assert actorflow.calls(charge) == 3
    assert actorflow.arguments(charge)[0] == {"order": ORDER}


ORDERS: st.SearchStrategy[Order] = values(Order, customer=st.just("ann"), cents=st.integers(1, 10_000))
"""Any order that the bank's one customer can pay: for a test with `@given`."""
