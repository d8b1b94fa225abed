"""Dead letters: seen with their reason, and sent again. On both loops, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import field

from actorflow import (
    Actor,
    AskTimeout,
    HandlerFailed,
    InvalidState,
    Limits,
    MailboxFull,
    Message,
    RunEnded,
    Runtime,
    UnknownLetter,
    UnknownRun,
    Workflow,
    handler,
    step,
)
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import both, runtime, virtual

world: dict[str, Any] = {}
charged: list[str] = []


@pytest.fixture(autouse=True)
def _anew() -> None:
    world.clear()
    charged.clear()


class Put(Message[int]):
    what: str


class Box(Actor):
    """Keeps what it is given, unless it is broken."""

    kept: list[str] = field(factory=list[str])

    @handler
    async def put(self, m: Put) -> int:
        if world.get("broken") == m.what:
            raise ValueError(f"{m.what} does not fit")
        self.kept.append(m.what)
        return len(self.kept)


class Kept(Message[list[str]]): ...


class Shelf(Box):
    @handler(Kept, readonly=True)
    async def all(self, m: Kept) -> list[str]:
        return self.kept


async def spoil(opened: Runtime, key: str = "s", what: str = "ball") -> int:
    """Make a dead letter; returns its number."""
    world["broken"] = what
    with pytest.raises(HandlerFailed):
        await opened.at(Shelf, key).ask(Put(what), within="1h", key=f"put-{what}")
    world.clear()
    return (await opened.dead_letters(opened.at(Shelf, key))).letters[-1].id


@both
def test_a_dead_letter_is_shown_with_why_and_the_report_of_its_handler(backend: Backend) -> None:
    """F1."""

    async def scenario() -> None:
        async with runtime(Shelf) as opened:
            id = await spoil(opened)
            await spoil(opened, key="other")

            page = await opened.dead_letters(opened.at(Shelf, "s"))

            (letter,) = page.letters
            assert page.next is None
            assert (letter.id, letter.to, letter.key, letter.body) == (id, "Shelf/s", "put-ball", '{"what":"ball"}')
            assert letter.type == "tests.test_letters:Put"
            assert "ValueError: ball does not fit" in letter.why
            assert letter.report is not None
            assert letter.report.what == "ValueError: ball does not fit"
            assert "test_letters.py" in letter.report.where
            assert [letter.to for letter in (await opened.dead_letters()).letters] == ["Shelf/s", "Shelf/other"]

    virtual(backend, scenario)


@both
def test_dead_letters_are_read_in_pages(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Shelf) as opened:
            ids = [await spoil(opened, what=what) for what in ("a", "b", "c")]

            first = await opened.dead_letters(limit=2)
            rest = await opened.dead_letters(after=first.next or 0, limit=2)

            assert [letter.id for letter in (*first.letters, *rest.letters)] == ids
            assert rest.next is None
            with pytest.raises(UnknownRun):
                await opened.dead_letters(opened.at(Shelf, "nobody"))

    virtual(backend, scenario)


@both
def test_a_letter_that_is_sent_again_is_handled_and_kept_no_longer(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Shelf) as opened:
            id = await spoil(opened)

            await opened.resend(id)
            await anyio.sleep(1)

            shelf = opened.at(Shelf, "s")
            assert await shelf.ask(Kept()) == ["ball"]
            assert (await opened.dead_letters()).letters == ()
            assert await shelf.ask(Put("ball"), key="put-ball") == 1  # The answer of the second time is the one that counts.
            told = [(entry.kind, entry.call) for entry in await shelf.history()]
            assert [kind for kind, _ in told] == ["started", "dead", "resent", "handled"]
            assert told[1][1] == told[2][1] == f":tests.test_letters:Put#{id}"
            with pytest.raises(UnknownLetter, match=f"no dead letter {id}"):
                await opened.resend(id)

    virtual(backend, scenario)


@both
def test_one_that_fails_again_is_the_same_dead_letter_again(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Shelf) as opened:
            id = await spoil(opened)
            world["broken"] = "ball"

            await opened.resend(id)
            await anyio.sleep(3_600)

            assert [letter.id for letter in (await opened.dead_letters()).letters] == [id]
            kinds = [entry.kind for entry in await opened.at(Shelf, "s").history()]
            assert kinds == ["started", "dead", "resent", "dead"]

    virtual(backend, scenario)


@pytest.mark.parametrize("reload", [False, True])
@both
def test_it_comes_last_in_line_also_when_its_actor_is_loaded_anew(backend: Backend, reload: bool) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Shelf, store=store) as opened:
            shelf = opened.at(Shelf, "s")
            id = await spoil(opened)
            await shelf.pause()
            await shelf.tell(Put("early"))
            await opened.resend(id)
            await shelf.tell(Put("late"))
            if not reload:
                await shelf.resume()
                await anyio.sleep(1)
        async with runtime(Shelf, store=store) as opened:
            shelf = opened.at(Shelf, "s")
            await shelf.resume()
            await anyio.sleep(1)
            assert await shelf.ask(Kept()) == ["early", "ball", "late"]

    virtual(backend, scenario)


@both
def test_a_letter_is_sent_again_once_however_many_ask_for_it(backend: Backend) -> None:
    """F16."""

    async def scenario() -> None:
        async with runtime(Shelf) as opened:
            id = await spoil(opened)
            refused: list[Exception] = []

            async def again() -> None:
                try:
                    await opened.resend(id)
                except (InvalidState, UnknownLetter) as error:
                    refused.append(error)

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(again)
            await anyio.sleep(1)

            assert len(refused) == 4
            assert await opened.at(Shelf, "s").ask(Kept()) == ["ball"]

    virtual(backend, scenario)


@both
def test_the_deadline_of_an_ask_is_over_but_its_letter_can_be_sent_again(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Shelf) as opened:
            world["broken"] = "ball"
            with pytest.raises(HandlerFailed):
                await opened.at(Shelf, "s").ask(Put("ball"), within="1m")
            world.clear()
            await anyio.sleep(3_600)
            (letter,) = (await opened.dead_letters()).letters

            await opened.resend(letter.id)
            await anyio.sleep(1)

            assert await opened.at(Shelf, "s").ask(Kept()) == ["ball"]

    virtual(backend, scenario)


@both
def test_a_full_mailbox_takes_no_letter_back(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Shelf, limits=Limits(mailbox_depth_max=2)) as opened:
            shelf = opened.at(Shelf, "s")
            id = await spoil(opened)
            await shelf.pause()
            await shelf.tell(Put("a"))
            await shelf.tell(Put("b"))

            with pytest.raises(MailboxFull):
                await opened.resend(id)

            assert [letter.id for letter in (await opened.dead_letters()).letters] == [id]

    virtual(backend, scenario)


@step
async def charge(what: str) -> str:
    from actorflow import current_step

    charged.append(current_step().key)
    return what


class Buy(Message[str]):
    what: str


class Shop(Actor):
    sold: int = 0

    @handler
    async def buy(self, m: Buy) -> str:
        bill = await charge(m.what)
        if world.get("broken"):
            raise ValueError("late")
        self.sold += 1
        return bill


@both
def test_its_steps_have_the_same_idempotency_keys(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Shop) as opened:
            world["broken"] = True
            with pytest.raises(HandlerFailed):
                await opened.at(Shop, "s").ask(Buy("a"), within="1h")
            world.clear()
            assert await opened.at(Shop, "s").ask(Buy("b")) == "b"
            (letter,) = (await opened.dead_letters()).letters

            await opened.resend(letter.id)
            await anyio.sleep(1)

            assert len({*charged}) == 2
            assert f"/Shop/s/m{letter.id}/" in charged[0]

    virtual(backend, scenario)


class Stop(Message[None]): ...


class Listens(Workflow[None]):
    async def run(self) -> None:
        await self.receive(Stop)


@both
def test_what_a_run_never_read_says_so_and_is_not_sent_again_to_a_run_that_ended(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(Listens) as opened:
            run = await opened.start(Listens(), key="l")
            with pytest.raises(AskTimeout):
                await run.ask(Put("x"), within="1s")
            await run.tell(Put("y"))
            await run.tell(Stop())
            await run.result()

            letters = (await opened.dead_letters(run)).letters

            assert ["RunEnded" in letters[0].why, letters[1].why] == [True, "Listens/l completed before it took it"]
            with pytest.raises(RunEnded):
                await opened.resend(letters[1].id)

    virtual(backend, scenario)
