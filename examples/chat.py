"""A chat: a room keeps the history and publishes what is said on a topic; members come, listen, say something, and go.

    python examples/chat.py

Rooms and members are actors: found by name, made by the first message, kept in the database. Run it twice: nobody has
forgotten anything, and whoever comes in is shown what was said last.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio
from attrs import field

from actorflow import Abort, Actor, Address, Message, Runtime, handler

HISTORY_MAX = 100  #: lines that a room keeps; state is bounded
SHOWN = 3  #: lines that a newcomer gets to see


# --- what they say to each other ---------------------------------------------------------------------------------------


class Said(Message[None]):
    """A line of a room, as it is published."""

    room: str
    number: int
    who: str
    text: str


class Say(Message[int]):
    """Say something in a room; answered by the number of the line."""

    who: str
    text: str


class Last(Message[list[Said]]):
    """What was said last?"""

    count: int


class Join(Message[int]):
    """Go into a room; answered by how many lines one was shown."""

    room: str


class Leave(Message[None]):
    """Go out of a room."""

    room: str


class Speak(Message[int]):
    """Say that, where you are."""

    room: str
    text: str


class Screen(Message[list[str]]):
    """What have you seen?"""


# --- the actors --------------------------------------------------------------------------------------------------------


class Room(Actor):
    """Keeps what was said. Its topic is its key: whoever listens hears every line once, in the order of the room."""

    lines: list[Said] = field(factory=list[Said])
    said: int = 0

    @handler
    async def say(self, m: Say) -> int:
        """The line is kept, published and answered in one transaction, or not at all."""
        self.said += 1
        line = Said(self.me.key, self.said, m.who, m.text)
        self.lines = [*self.lines, line][-HISTORY_MAX:]
        self.publish(self.me.key, line)
        return self.said

    @handler(readonly=True)
    async def last(self, m: Last) -> list[Said]:
        """Reading waits for nobody."""
        return self.lines[-m.count :]


class Member(Actor):
    """Somebody who is in some rooms; the key is the name."""

    rooms: list[str] = field(factory=list[str])
    screen: list[str] = field(factory=list[str])

    @handler
    async def join(self, m: Join) -> int:
        """Ask for what was said before, then listen to what comes."""
        if m.room in self.rooms:
            return 0
        shown = await Room.at(m.room).ask(Last(SHOWN))
        self.subscribe(m.room)
        self.rooms.append(m.room)
        self.screen += [f"({line.number} {line.who}: {line.text})" for line in shown]
        return len(shown)

    @handler
    async def heard(self, m: Said) -> None:
        """What the topic sends; a line may have been on its way when one left."""
        if m.room in self.rooms:
            self.screen.append(f"{m.number} {m.who}: {m.text}")

    @handler
    async def speak(self, m: Speak) -> int:
        """An `Abort` is an answer, not an accident."""
        if m.room not in self.rooms:
            raise Abort(f"{self.me.key} is not in {m.room}")
        return await Room.at(m.room).ask(Say(self.me.key, m.text))

    @handler
    async def leave_room(self, m: Leave) -> None:
        """Hear no more of it."""
        if m.room in self.rooms:
            self.unsubscribe(m.room)
            self.rooms.remove(m.room)

    @handler(readonly=True)
    async def seen(self, m: Screen) -> list[str]:
        """All that this member has seen."""
        return self.screen


# --- the program -------------------------------------------------------------------------------------------------------


async def screen(member: Address[Member], number: int) -> list[str]:
    """What a member has seen, once that line has come: a topic tells its listeners in turns of their own, a moment later."""
    while True:
        lines = await member.ask(Screen())
        if any(line.startswith(f"{number} ") for line in lines):
            return lines
        await anyio.sleep(0.01)


async def main(out: Path) -> None:
    """Three people talk about tea."""
    async with Runtime(f"sqlite:///{out / 'chat.db'}", actors=[Room, Member]) as runtime:
        ann, bob, eve = (runtime.at(Member, name) for name in ("ann", "bob", "eve"))
        await ann.ask(Join("tea"))
        await bob.ask(Join("tea"))
        await ann.ask(Speak("tea", "Is there milk?"))
        drop = await bob.ask(Speak("tea", "The last drop."))
        print(f"eve comes, and is shown {await eve.ask(Join('tea'))} lines")
        await bob.tell(Leave("tea"))
        try:
            await bob.ask(Speak("tea", "Hello?"))
        except Abort as refusal:
            print(f"bob goes: {refusal}")
        black = await eve.ask(Speak("tea", "I take mine black."))
        for member, number in ((ann, black), (bob, drop), (eve, black)):
            print(f"{member.key} has seen", *await screen(member, number), sep="\n    ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat room that remembers.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the database")
    given: Path = parser.parse_args().out.absolute()
    given.mkdir(parents=True, exist_ok=True)
    anyio.run(main, given)
