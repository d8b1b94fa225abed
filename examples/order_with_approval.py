"""An order that a person has to approve: charge, wait for a message, ship. A rejection undoes the charge.

    python examples/order_with_approval.py

Run it twice: the second time it joins the orders of the first, prints the same, and charges nobody again. What was really
done is written to `ledger.txt` beside the database, so you can count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio
from attrs import frozen

from actorflow import Abort, Message, Runtime, Workflow, current_step, query, step


@frozen
class Order:
    """What a customer wants."""

    id: str
    cents: int
    ledger: str  #: the file that stands for the bank and the post


@frozen
class Payment:
    """What the bank answered."""

    reference: str


# --- steps: what touches the world -------------------------------------------------------------------------------------


def write(order: Order, line: str) -> None:
    """Add a line to the ledger."""
    with Path(order.ledger).open("a", encoding="utf-8") as ledger:
        ledger.write(f"{order.id}: {line}\n")


@step
def refund(order: Order, *, outcome: Payment | None) -> None:
    """Give the money back. `outcome` is None if nobody knows whether the charge came through."""
    write(order, f"refund {order.cents} ({outcome.reference if outcome else 'if it was charged'})")


@step(timeout="10s", undo=refund)
def charge(order: Order) -> Payment:
    """Take the money. A real bank gets the key, which is the same in every attempt: it charges once."""
    write(order, f"charge {order.cents}")
    return Payment(reference=current_step().key.partition("/")[2])


@step
def ship(order: Order) -> str:
    """Hand it to the post."""
    write(order, "ship")
    return f"parcel-{order.id}"


# --- the workflow ------------------------------------------------------------------------------------------------------


class Approve(Message[None]):
    """Somebody says yes."""

    by: str


class Reject(Message[None]):
    """Somebody says no."""

    by: str
    why: str


class Checkout(Workflow[str]):
    """Charge, wait for a person, ship."""

    order: Order
    approved_by: str | None = None

    async def run(self) -> str:
        payment = await charge(self.order)
        match await self.receive(Approve, Reject, within="3d"):
            case Approve(by):
                self.approved_by = by
            case Reject(by, why):
                raise Abort(f"{by} rejected it: {why}")  # `refund` runs before the run ends.
            case None:
                raise Abort("nobody answered in three days")
        parcel = await ship(self.order)
        return f"{parcel}, approved by {self.approved_by}, paid with {payment.reference}"

    @query
    def waiting_for(self) -> str:
        """What a dashboard shows."""
        return "nothing" if self.approved_by else f"approval of {self.order.cents} cents"


# --- the program -------------------------------------------------------------------------------------------------------


async def main(out: Path) -> None:
    """Place two orders; approve one, reject the other."""
    ledger = out / "ledger.txt"
    async with Runtime(f"sqlite:///{out / 'orders.db'}", actors=[Checkout]) as runtime:
        for key, answer in (("o-1", Approve("ann")), ("o-2", Reject("bob", "too expensive"))):
            run = await runtime.start(Checkout(Order(key, 4_200, str(ledger))), key=key)
            if (await run.status()).status in ("running", "waiting"):
                print(f"{key} waits for {await run.query(Checkout.waiting_for)}")
                await run.tell(answer, key="answer")
            try:
                print(f"{key} is done: {await run.result()}")
            except Abort as abort:
                print(f"{key} failed: {abort}")
    print(await anyio.Path(ledger).read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An order that a person has to approve.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the database and the ledger")
    given: Path = parser.parse_args().out.absolute()
    given.mkdir(parents=True, exist_ok=True)
    anyio.run(main, given)
