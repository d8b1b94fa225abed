"""What operators and clients see of actors, and what they can do to them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve, field

from actorflow import (
    Actor,
    ActorPaused,
    AskTimeout,
    BadDefinition,
    Child,
    Client,
    Fatal,
    InvalidState,
    MailboxFull,
    Message,
    NotRunning,
    Runtime,
    Supervisor,
    UnknownRun,
    Workflow,
    handler,
    query,
    step,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import both, runtime, virtual


class Deposit(Message[int]):
    amount: int


class Remind(Message[None]): ...


class Slow(Message[int]): ...


@step
async def wait_long() -> int:
    await anyio.sleep(60)
    return 1


class Account(Actor, kind="operated:Account", mailbox=3):
    balance: int = 0

    @handler
    async def deposit(self, m: Deposit) -> int:
        if m.amount < 0:
            raise Fatal("less than nothing")
        self.balance += m.amount
        return self.balance

    @handler(timeout="1h")
    async def slow(self, m: Slow) -> int:
        self.balance += await wait_long()
        return self.balance

    @handler
    async def remind(self, m: Remind) -> None:
        self.every("1h", Remind(), name="reminder")

    @query
    def shown(self) -> int:
        return self.balance


class Named(Actor, kind="operated:Named"):
    name: str
    seen: list[int] = field(factory=list[int])

    @handler
    async def deposit(self, m: Deposit) -> int:
        self.seen.append(m.amount)
        return len(self.seen)


class Checkout(Workflow[None], kind="operated:Checkout"):
    async def run(self) -> None:
        await self.receive(Remind)


# --- what is said of them -----------------------------------------------------------------------------------------------


@both
def test_an_actor_for_which_nothing_waits_is_idle(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Deposit(1))
            await anyio.sleep(1)

            status = await ann.status()

            assert (status.status, status.what) == ("idle", "actor")
            assert status.actor is not None
            assert (status.actor.mailbox, status.actor.handling, status.actor.last) == (
                0,
                None,
                "tests.test_operating_actors:Deposit",
            )
            assert "operated:Account/ann is idle; it handled tests.test_operating_actors:Deposit last, at " in await ann.why()

    virtual(backend, scenario)


@both
def test_a_turn_that_is_open_is_said_with_what_it_waits_for_and_what_is_behind_it(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account) as opened:
            ann = opened.at(Account, "ann")
            await ann.tell(Slow())
            await anyio.sleep(1)
            await ann.tell(Deposit(1))
            await ann.tell(Deposit(2))

            status = await ann.status()

            assert status.status == "running"
            assert status.actor is not None
            assert status.actor.mailbox == 3
            assert status.actor.handling == "tests.test_operating_actors:Slow"
            assert status.actor.waits_for == ("step :wait_long#0",)
            why = await ann.why()
            assert why == (
                "operated:Account/ann handles tests.test_operating_actors:Slow and waits for step :wait_long#0; "
                "2 messages behind it."
            )

    virtual(backend, scenario)


@both
def test_timers_are_said_with_their_moments(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Remind())
            await anyio.sleep(1)

            status = await ann.status()

            assert status.status == "idle"
            assert status.actor is not None
            (timer,) = status.actor.timers
            assert (timer.name, timer.every_s, status.actor.mailbox) == ("reminder", 3_600.0, 0)
            assert timer.due_at == status.wake_at
            assert "its timer reminder is due at" in await ann.why()

    virtual(backend, scenario)


@both
def test_what_is_said_of_an_actor_that_is_not_in_memory_is_the_same(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Remind())
            await anyio.sleep(1)
            before = await ann.status()
            await anyio.sleep(1_000)
            assert not opened._running().resident

            assert evolve(await ann.status(), updated_at=before.updated_at) == before
            assert not opened._running().resident

    virtual(backend, scenario)


@both
def test_runs_and_actors_have_a_list_each(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account, Checkout) as opened:
            await opened.start(Checkout(), key="c")
            for key in ("ann", "bob", "eve"):
                await opened.at(Account, key).ask(Deposit(1))
            await opened.at(Account, "bob").pause()
            await opened.at(Account, "eve").tell(Slow())
            await anyio.sleep(1)

            async def keys(**filters: Any) -> list[str]:
                return [info.key for info in (await opened.actors(**filters)).runs]

            assert [info.key for info in (await opened.runs()).runs] == ["c"]
            assert [info.key for info in (await opened.runs(status="waiting")).runs] == ["c"]
            assert await keys() == ["eve", "bob", "ann"]
            assert await keys(status="idle") == ["ann"]
            assert await keys(status="running") == ["eve"]
            assert await keys(status="paused") == ["bob"]
            assert await keys(status="waiting") == []
            assert await opened.counts() == {"waiting": 1}
            assert await opened.counts(actor=True) == {"idle": 1, "paused": 1, "running": 1}

    virtual(backend, scenario)


# --- verbs --------------------------------------------------------------------------------------------------------------


@both
def test_verbs_of_runs_are_refused_with_what_to_do_instead(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account) as opened:
            ann, operations = opened.at(Account, "ann"), opened.operations
            await ann.ask(Deposit(1))
            refused: dict[str, Callable[[], Awaitable[object]]] = {
                "`pause` it": lambda: operations.cancel(ann.address, why="x"),
                "`resume` it": lambda: operations.retry(ann.address),
                r"\(`resend`\)": lambda: operations.skip(ann.address, value=b"1"),
                "with another key": lambda: operations.fork(ann.address, key="b", at=None, input=None, keep=False),
                "`reset` gives": lambda: operations.prune(ann.address),
                "`ask` it": lambda: operations.result(ann.address, wait_paused=False),
                "send it a message": lambda: operations.start(
                    ann.address, input=b"{}", on_conflict="join", deadline_s=None, request=""
                ),
            }
            for said, call in refused.items():
                with pytest.raises(InvalidState, match=said):
                    await call()
            assert (await ann.status()).status == "idle"

    virtual(backend, scenario)


@both
def test_reset_gives_an_idle_actor_the_state_of_a_new_one_and_the_history_keeps_what_it_was(backend: Backend) -> None:
    """G12."""

    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Account, store=store) as opened:
            ann = opened.at(Account, "ann")
            await ann.ask(Deposit(7))
            await ann.ask(Remind())
            await ann.reset()
            assert await ann.query(Account.shown) == 0
            assert await ann.ask(Deposit(1)) == 1
            entry = next(entry for entry in await ann.history() if entry.kind == "reset")
            assert (entry.input, entry.outcome) == ('{"balance":7}', '{"balance":0}')
            facts = (await ann.status()).actor
            assert facts is not None
            assert [timer.name for timer in facts.timers] == ["reminder"]
        async with runtime(Account, store=store) as opened:
            assert await opened.at(Account, "ann").ask(Deposit(1)) == 2

    virtual(backend, scenario)


@both
def test_reset_of_one_that_left_memory_or_is_paused(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account) as opened:
            for key in ("ann", "bob"):
                await opened.at(Account, key).ask(Deposit(7))
            await opened.at(Account, "bob").pause()
            await opened.at(Account, "bob").tell(Deposit(2))
            await anyio.sleep(1_000)

            await opened.at(Account, "ann").reset()
            await opened.at(Account, "bob").reset()
            await opened.at(Account, "bob").resume()
            await anyio.sleep(1)

            assert await opened.at(Account, "ann").query(Account.shown) == 0
            assert await opened.at(Account, "bob").query(Account.shown) == 2

    virtual(backend, scenario)


@both
def test_reset_is_refused_while_a_turn_is_open_and_of_what_is_no_actor(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Account, Checkout, Named, tree=[Supervisor("s", children=[Child(Named("n"), "n")])]) as opened:
            ann = opened.at(Account, "ann")
            await ann.tell(Slow())
            await anyio.sleep(1)
            with pytest.raises(InvalidState, match="at work"):
                await ann.reset()
            run = await opened.start(Checkout(), key="c")
            with pytest.raises(InvalidState, match="`fork` it"):
                await run.reset()
            with pytest.raises(UnknownRun):
                await opened.at(Account, "nobody").reset()
            await anyio.sleep(100)
            assert await ann.query(Account.shown) == 1

    virtual(backend, scenario)


@both
def test_a_static_child_is_reset_to_the_fields_that_the_tree_gives_it(backend: Backend) -> None:
    async def scenario() -> None:
        store = MemoryStore()
        async with runtime(Named, store=store, tree=[Supervisor("s", children=[Child(Named("first"), "n")])]) as opened:
            named = opened.at(Named, "n")
            assert await named.ask(Deposit(1)) == 1
            await named.reset()
            assert await named.ask(Deposit(1)) == 1
            assert "reset" in [entry.kind for entry in await named.history()]
            assert opened.tree().children[0].children[0].state == "running"
        async with runtime(Named, store=store) as opened:  # Nobody gives it its name any more.
            with pytest.raises(BadDefinition, match="fields without defaults"):
                await opened.at(Named, "n").reset()

    virtual(backend, scenario)


# --- clients ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="af-") as made:
        yield f"sqlite:///{Path(made)}/shop.db"


@asynccontextmanager
async def service(url: str, **options: Any) -> AsyncIterator[Runtime]:
    with anyio.fail_after(30):
        async with Runtime(url, actors=[Account, Checkout, Named], **options) as opened:
            yield opened


@pytest.mark.anyio
async def test_a_client_has_the_verbs_of_actors(url: str) -> None:
    async with service(url), Client(url) as client:
        ann = client.at(Account, "ann")
        assert await ann.ask(Deposit(3)) == 3
        await ann.tell(Deposit(4))
        assert await ann.ask(Deposit(1)) == 8
        assert await ann.query(Account.shown) == 8
        await ann.pause()
        assert (await ann.status()).status == "paused"
        assert "is paused (operator)" in await ann.why()
        with pytest.raises(ActorPaused):
            await ann.ask(Deposit(1))
        await ann.resume()
        assert await ann.ask(Deposit(1)) == 9
        with pytest.raises(Fatal):
            await ann.ask(Deposit(-1), key="bad")
        (letter,) = (await client.dead_letters(ann)).letters
        assert (letter.key, letter.report is not None) == ("bad", True)
        await client.resend(letter.id)
        kinds = [entry.kind for entry in await ann.history()]
        assert kinds[:6] == ["started", "handled", "handled", "handled", "paused", "resumed"]
        assert [info.key for info in (await client.actors()).runs] == ["ann"]


@pytest.mark.anyio
async def test_a_client_sees_the_live_tree(url: str) -> None:
    tree = [Supervisor("shop", children=[Child(Named("x"), "a"), Child(Named("y"), "b")])]
    async with service(url, tree=tree) as opened, Client(url) as client:
        assert await client.tree() == opened.tree()
        assert [child.name for child in (await client.tree()).children[0].children] == ["operated:Named/a", "operated:Named/b"]
    async with Client(url) as client:
        with pytest.raises(NotRunning, match="nobody runs this store"):
            await client.tree()


@pytest.mark.anyio
async def test_without_a_holder_a_message_makes_its_actor_and_waits_for_one(url: str) -> None:
    async with service(url):
        pass
    async with Client(url) as client:
        ann = client.at(Account, "ann")
        with anyio.fail_after(30):
            await ann.tell(Deposit(3))
            await ann.tell(Deposit(4))
            status = await ann.status()
            assert (status.status, status.actor and status.actor.mailbox) == ("waiting", 2)
            assert await ann.why() == "operated:Account/ann has 2 messages to handle."
            with pytest.raises(AskTimeout):
                await ann.ask(Deposit(1), within="200ms")
            await ann.tell(Deposit(0))
            with pytest.raises(MailboxFull):
                await ann.tell(Deposit(9))
            with pytest.raises(BadDefinition, match="fields without defaults"):
                await client.at(Named, "n").tell(Deposit(1))
            with pytest.raises(UnknownRun):
                await client.at(Account, "bob").pause()
    async with service(url) as opened:
        ann = opened.at(Account, "ann")
        while await ann.query(Account.shown) != 7:
            await anyio.lowlevel.checkpoint()
        assert await ann.ask(Deposit(1)) == 8


@pytest.mark.anyio
async def test_without_a_holder_actors_are_paused_reset_resumed_and_their_letters_sent_again(url: str) -> None:
    async with service(url) as opened:
        ann = opened.at(Account, "ann")
        await ann.ask(Deposit(5))
        with pytest.raises(Fatal):
            await ann.ask(Deposit(-1))
    async with Client(url) as client:
        ann = client.at(Account, "ann")
        with anyio.fail_after(30):
            with pytest.raises(InvalidState, match="`pause` it first"):
                await ann.reset()
            await ann.pause()
            await ann.reset()
            assert await ann.query(Account.shown) == 0
            (letter,) = (await client.dead_letters()).letters
            await client.resend(letter.id)
            assert (await client.dead_letters()).letters == ()
            await ann.resume()
            with pytest.raises(InvalidState, match="`pause` it"):
                await client.operations.cancel(ann.address, why="x")
    async with service(url) as opened:
        ann = opened.at(Account, "ann")
        assert await ann.ask(Deposit(2)) == 2
        kinds = [entry.kind for entry in await ann.history()]
        assert kinds == ["started", "handled", "dead", "paused", "reset", "resent", "resumed", "dead", "handled"]
