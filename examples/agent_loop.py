"""An agent: a model picks tools until it has its answer, and a person may steer it on the way.

    python examples/agent_loop.py

The "model" is a plain function here; put the call to a real one in `think`. What it said and what the tools found is in the
fields, and each round ends with `return self.again()`: nothing to replay, so an agent may go on for years. Kill it at any
moment: no finished call of the model or of a tool is paid for twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio
from attrs import frozen

from actorflow import Message, Retry, Runtime, Workflow, gather, query, step


@frozen
class Call:
    """A tool that the model wants, and what for."""

    tool: str
    about: str


@frozen
class Turn:
    """One line of the conversation."""

    role: str  #: "user", "model" or "tool"
    text: str


@frozen
class Thought:
    """What the model says: tools to call, or the answer if there are none."""

    text: str
    calls: tuple[Call, ...] = ()


POPULATION = {"Bern": 134_000, "Oslo": 709_000, "Rome": 2_750_000}
AREA_KM2 = {"Bern": 52, "Oslo": 454, "Rome": 1_285}


# --- steps -------------------------------------------------------------------------------------------------------------


@step(retry=Retry(attempts=5), timeout="60s")
async def think(history: tuple[Turn, ...]) -> Thought:
    """Ask the model. This one looks up what it does not know yet about the cities that were named, one city a round."""
    known = {turn.text.partition(":")[0] for turn in history if turn.role == "tool"}
    named = [word.strip("?!.,") for turn in history if turn.role == "user" for word in turn.text.split()]
    cities = [city for city in dict.fromkeys(named) if city in POPULATION]
    for city in cities:
        if f"population of {city}" not in known:
            return Thought(f"I need facts about {city}.", (Call("population", city), Call("area", city)))
    densest = max(cities, key=lambda city: POPULATION[city] / AREA_KM2[city])
    return Thought(f"Of {', '.join(cities)}, {densest} is the densest.")


@step(timeout="10s")
async def use(call: Call) -> str:
    """Call a tool."""
    table = {"population": POPULATION, "area": AREA_KM2}[call.tool]
    return f"{call.tool} of {call.about}: {table[call.about]:,}"


# --- the agent ---------------------------------------------------------------------------------------------------------


class Say(Message[None]):
    """A person steers the agent."""

    text: str


class Enough(Message[None]):
    """A person has what they wanted."""


class Agent(Workflow[str]):
    """Think, use tools, remember, again; with an answer, wait for what the person says to it."""

    history: tuple[Turn, ...]
    rounds: int = 0  #: since a person said something
    rounds_max: int = 20  #: a model that never comes to an end must

    async def run(self) -> str:
        while (said := await self.receive(Say, within=0)) is not None:
            self.listen(said.text)
        thought = await think(self.history)
        self.history += (Turn("model", thought.text),)
        self.rounds += 1
        if thought.calls and self.rounds < self.rounds_max:
            found = await gather([use(call) for call in thought.calls])
            self.history += tuple(Turn("tool", text) for text in found)
            return self.again()
        match await self.receive(Say, Enough, within="1d"):
            case Say(text):
                self.listen(text)
                return self.again()
            case _:
                return thought.text

    def listen(self, text: str) -> None:
        """A person said something: the model starts anew with it."""
        self.history += (Turn("user", text),)
        self.rounds = 0

    @query
    def transcript(self) -> tuple[Turn, ...]:
        """The conversation so far."""
        return self.history


async def main(out: Path) -> None:
    """Ask one question, and add to it."""
    question = Agent((Turn("user", "Which is the densest city, Oslo or Rome?"),))
    async with Runtime(f"sqlite:///{out / 'agents.db'}", actors=[Agent]) as runtime:
        run = await runtime.start(question, key="cities")
        if (await run.status()).ended_at is None:
            await run.tell(Say("And Bern?"), key="bern")  # It is heard in the middle of the work, or after the answer.
            await run.tell(Enough(), key="enough")
        await run.result()
        for turn in await run.query(Agent.transcript):
            print(f"{turn.role:>5}  {turn.text}")
        print(f"rounds {(await run.status()).round + 1}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An agent that survives being killed.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the database")
    given: Path = parser.parse_args().out.absolute()
    given.mkdir(parents=True, exist_ok=True)
    anyio.run(main, given)
