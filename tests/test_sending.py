"""What runs and actors send, where it cannot arrive: an outcome for a run, a dead letter in the log of an actor."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import Actor, KeyTaken, MailboxFull, Message, Run, RunEnded, UnknownRun, Workflow, handler
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import Log, Note, Read, both, runtime, virtual


class Ear(Workflow[int]):
    """Takes what it is told, once it is told to."""

    wanted: int = 1

    async def run(self) -> int:
        await self.sleep("1m")
        return sum([(await self.receive(Note)).n for _ in range(self.wanted)])


class Fleeting(Actor, durable=False, mailbox=1):
    @handler
    async def note(self, m: Note) -> None:
        await anyio.sleep(3_600)


class Sender(Workflow[str]):
    what: str

    async def run(self) -> str:
        try:
            await self.tried()
        except Exception as error:
            said = type(error).__name__
        else:
            said = "sent"
        await self.sleep("1h")  # It is loaded again, and replays.
        return said

    async def tried(self) -> Any:
        to = Run(Ear, "ear")
        match self.what:
            case "the same again":
                await to.tell(Note(1), key="n")
                await to.tell(Note(1), key="n")
            case "another under the key":
                await to.tell(Note(1), key="n")
                await to.tell(Note(2), key="n")
            case "nobody":
                await Run(Ear, "nobody").tell(Note(1))
            case "ended":
                await Run(Ear, "ended").tell(Note(1))
            case "full":
                await to.tell(Note(1))
                for n in range(5):
                    await Fleeting.at("f").tell(Note(n))
            case "to one in memory":
                await to.tell(Note(1))
                await Fleeting.at("f").tell(Note(1))


SAID = {
    "the same again": "sent",
    "another under the key": KeyTaken.__name__,
    "nobody": UnknownRun.__name__,
    "ended": RunEnded.__name__,
    "full": MailboxFull.__name__,
    "to one in memory": "sent",
}


@both
@pytest.mark.parametrize("what", list(SAID))
def test_what_a_sender_is_told_is_the_same_after_a_restart(backend: Backend, what: str) -> None:
    async def main() -> str:
        memory = MemoryStore()
        async with runtime(Sender, Ear, Fleeting, store=memory) as opened:
            await (await opened.start(Ear(0), key="ended")).result()
            await opened.start(Ear(), key="ear")
            await opened.start(Sender(what), key="s")
            await anyio.sleep(100.0)
            if what not in ("nobody", "ended"):
                assert await opened.run(Ear, "ear").result() == 1
        async with runtime(Sender, Ear, Fleeting, store=MemoryStore(share=memory)) as opened:
            return await opened.run(Sender, "s").result()

    assert virtual(backend, main) == SAID[what]


class Needs(Actor):
    """Cannot be made by writing to it."""

    name: str

    @handler
    async def note(self, m: Note) -> None: ...


class Tries(Message[None]):
    what: str


class Careless(Actor):
    @handler
    async def tries(self, m: Tries) -> None:
        match m.what:
            case "another under the key":
                await Log.at("log").tell(Note(1), key="n")
                await Log.at("log").tell(Note(2), key="n")
            case "the same again":
                await Log.at("log").tell(Note(1), key="n")
                await Log.at("log").tell(Note(1), key="n")
            case "nobody":
                await Run(Ear, "nobody").tell(Note(1))
            case "cannot be made":
                await Needs.at("n").tell(Note(1))
            case "ended":
                await Run(Ear, "ended").tell(Note(1))


@both
@pytest.mark.parametrize(
    ("what", "lost", "noted"),
    [
        ("another under the key", "KeyTaken", [1]),
        ("the same again", "", [1]),
        ("nobody", "UnknownRun", []),
        ("cannot be made", "UnknownRun", []),
    ],
)
def test_what_an_actor_tells_nobody_is_a_dead_letter_in_its_own_log(
    backend: Backend, what: str, lost: str, noted: list[int]
) -> None:
    async def main() -> tuple[list[str], list[int]]:
        async with runtime(Careless, Log, Ear, Needs) as opened:
            at = opened.at(Careless, "c")
            await at.ask(Tries(what))
            await at.ask(Tries(what))
            await anyio.sleep(5.0)
            dead = [entry.outcome for entry in await at.history() if entry.kind == "dead"]
            return dead, await opened.at(Log, "log").ask(Read())

    dead, seen = virtual(backend, main)

    assert seen == noted
    assert len(dead) == (2 if lost else 0)
    assert all(lost in each for each in dead)


@both
def test_what_is_told_to_one_that_has_ended_is_a_dead_letter_of_that(backend: Backend) -> None:
    async def main() -> list[str | None]:
        async with runtime(Careless, Ear) as opened:
            await (await opened.start(Ear(0), key="ended")).result()
            await opened.at(Careless, "c").ask(Tries("ended"))
            return [letter.why for letter in (await opened.dead_letters()).letters]

    [why] = virtual(backend, main)

    assert "RunEnded" in (why or "")
