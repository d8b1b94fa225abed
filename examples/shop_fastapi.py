"""A shop on FastAPI whose checkouts survive a crash: the runtime lives in the app, an order's id names its run.

    pip install actorflow fastapi uvicorn
    uvicorn --factory shop_fastapi:make_app

    curl -X POST localhost:8000/orders -H 'content-type: application/json' -d '{"id": "o-1", "cents": 4200}'
    curl localhost:8000/orders/o-1
    curl -X POST localhost:8000/orders/o-1/approval -H 'content-type: application/json' -d '{"by": "ann"}'

Send each request twice, kill the server in between, start it again: the customer is charged once.
"""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from actorflow import (
    Abort,
    BadKey,
    KeyTaken,
    Message,
    RunEnded,
    Runtime,
    UnknownRun,
    Workflow,
    current_step,
    query,
    resource,
    step,
)

# --- the workflow ------------------------------------------------------------------------------------------------------


class Order(BaseModel):
    """What a customer wants."""

    id: str
    cents: int


class Bank:
    """Stands for a client of a real bank, with its pool of connections."""

    def __init__(self) -> None:
        self.charges: dict[str, int] = {}

    async def charge(self, key: str, cents: int) -> str:
        """Charge once for each key, however often it is asked."""
        self.charges.setdefault(key, cents)
        return f"payment {len(self.charges)}"


@step(timeout="10s")
async def charge(order: Order, *, bank: Bank = resource()) -> str:
    """Take the money. The key is the same in every attempt, so the bank charges once."""
    return await bank.charge(current_step().key, order.cents)


class Approve(Message[None]):
    """Somebody says yes."""

    by: str


class Checkout(Workflow[str]):
    """Wait for a person, then charge."""

    order: Order
    approved_by: str | None = None

    async def run(self) -> str:
        approval = await self.receive(Approve, within="3d")
        if approval is None:
            raise Abort("nobody approved it in three days")
        self.approved_by = approval.by
        return await charge(self.order)

    @query
    def shown(self) -> str:
        """What a customer sees."""
        return f"approved by {self.approved_by}" if self.approved_by else "waiting for approval"


# --- the web -----------------------------------------------------------------------------------------------------------


class Approval(BaseModel):
    """Who says yes."""

    by: str


class State(BaseModel):
    """What is told of an order."""

    id: str
    status: str
    shown: str


def runtime_of(request: Request) -> Runtime:
    """The runtime that was installed in the app."""
    runtime: Runtime = request.app.state.actorflow
    return runtime


Shop = Annotated[Runtime, Depends(runtime_of)]
routes = APIRouter()


@routes.post("/orders", status_code=202)
async def place(order: Order, shop: Shop) -> State:
    """Accept an order: it is durable when this answers. The same order again joins the run that there is."""
    await shop.start(Checkout(order), key=order.id)
    return await look(order.id, shop)


@routes.get("/orders/{id}")
async def look(id: str, shop: Shop) -> State:
    """How far an order is."""
    run = shop.run(Checkout, id)
    return State(id=id, status=(await run.status()).status, shown=await run.query(Checkout.shown))


@routes.post("/orders/{id}/approval", status_code=202)
async def approve(id: str, approval: Approval, shop: Shop) -> State:
    """Approve an order. The message has a key, so a second click has no second effect."""
    await shop.run(Checkout, id).tell(Approve(by=approval.by), key="approval")
    return await look(id, shop)


REFUSALS: dict[type[Exception], int] = {UnknownRun: 404, KeyTaken: 409, RunEnded: 409, BadKey: 422}
"""No such order; the id was used for another one, or another person approved it; it has ended; that is no id."""


async def refuse(_: Request, error: Exception) -> JSONResponse:
    """What actorflow refused, in its own words."""
    return JSONResponse({"detail": str(error)}, status_code=REFUSALS[type(error)])


def make_app(url: str | None = None, bank: Bank | None = None) -> FastAPI:
    """The app, with its runtime.

    Args:
        url: Where orders are kept; by default in SHOP_DB, or in shop.db here.
        bank: Who is paid.
    """
    app = FastAPI(title="Shop")
    app.include_router(routes)
    for error in REFUSALS:
        app.add_exception_handler(error, refuse)
    url = url or f"sqlite:///{os.environ.get('SHOP_DB', 'shop.db')}"
    Runtime(url, actors=[Checkout], resources=[bank or Bank()]).install(app)
    return app
