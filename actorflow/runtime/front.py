"""What a program does with runs, wherever they are: start one, get a handle, look for some. `Runtime` and `Client` have it."""

from __future__ import annotations

from os import urandom
from typing import Any, TypeVar

from actorflow import records
from actorflow.acting import Publish
from actorflow.actor import Actor
from actorflow.address import Address, Run
from actorflow.clock import Duration, seconds
from actorflow.errors import BadDefinition
from actorflow.message import Message, encode_message
from actorflow.nearby import Nearby
from actorflow.operations import Addressed, Letters, OnConflict, Operations, Page
from actorflow.pool import Pool
from actorflow.records import RunQuery
from actorflow.topic import Topic
from actorflow.workflow import Workflow

A = TypeVar("A", bound=Actor)
W = TypeVar("W", bound=Workflow[Any])


class Front:
    """The typed face of `Operations`."""

    @property
    def operations(self) -> Operations:
        """All acts of clients and operators, by encoded values: what handles and sockets speak to."""
        raise NotImplementedError

    def _met(self, actor: type[Actor]) -> None:
        """A class was used here."""

    async def start(self, workflow: W, *, key: str, on_conflict: OnConflict = "join", deadline: Duration | None = None) -> Run[W]:
        """Accept a run; it is durable on return and will come to its end, whatever happens to this process.

        Args:
            workflow: An instance as a template: its fields are encoded now, and a fresh copy runs.
            key: Names the run, and makes this call repeatable.
            on_conflict: A used key with equal input: "join" returns that run, "reject" raises.
            deadline: Cancel it (and undo) when that time has passed, restarts included.

        Raises:
            KeyTaken: The key was used for another input.
            RunPruned: It was used for a run that is gone.
            UnknownKind, BadKey, NotEncodable, TooLarge: Refused at the door.
        """
        _check_instance(workflow)
        self._met(type(workflow))
        kind, operations = type(workflow).__kind_info__(), self.operations
        run = Run(type(workflow), key, operations)
        deadline_s = None if deadline is None else seconds(deadline)
        fields = kind.encode(workflow)
        request = urandom(16).hex() if on_conflict == "reject" else ""
        at = records.Address(kind.name, key)
        await operations.start(at, input=fields, on_conflict=on_conflict, deadline_s=deadline_s, request=request)
        return run

    def at(self, actor: type[A] | Pool[A], key: str) -> Address[A]:
        """The actor of that class with that key, or the one of that pool that the key belongs to."""
        if isinstance(actor, Pool):
            return self.at(actor.actor, actor.slot(key))
        self._met(actor)
        return Address(actor, key, self.operations, self._nearby(actor))

    def _nearby(self, actor: type[Actor]) -> Nearby | None:
        """The way to an actor of that class without the store, if it is memory-only and of this process."""
        return None

    async def publish(self, topic: str, message: Message[Any], *, key: str | None = None) -> None:
        """Tell all actors that listen to that topic; on return it is durable and will reach each of them once.

        Args:
            topic: Its name.
            message: What to say.
            key: Makes the call repeatable.
        """
        type_, body = encode_message(message)
        await Address(Topic, topic, self.operations).tell(Publish(type_, body.decode()), key=key)

    def run(self, workflow: type[W], key: str) -> Run[W]:
        """The run of that class with that key; whether there is one is found out by the first verb."""
        self._met(workflow)
        return Run(workflow, key, self.operations)

    async def runs(self, query: RunQuery | None = None, /, **filters: Any) -> Page:
        """Runs of workflows that match, newest first, a page at a time: pass `before_id=page.next` for the next one.

        Filters: kind, status, reason, key_prefix, created_after, created_before, limit (up to 1,000). Actors have a list of
        their own, `actors`: there may be a million of them beside ten runs. A `RunQuery` with `actor=None` finds both.
        """
        return await self.operations.runs(query or _query(filters, actor=False))

    async def actors(self, query: RunQuery | None = None, /, **filters: Any) -> Page:
        """Actors that match, newest first, as `runs` does it; `status="idle"` are those for which nothing waits."""
        return await self.operations.runs(query or _query(filters, actor=True))

    async def counts(self, *, actor: bool | None = False) -> dict[str, int]:
        """How many runs there are in each status; with `actor=True` how many actors, None is both."""
        return await self.operations.counts(actor=actor)

    async def dead_letters(self, of: Addressed | None = None, /, *, after: int = 0, limit: int = 100) -> Letters:
        """Messages that nobody handled, oldest first, a page at a time: pass `after=letters.next` for the next one.

        Args:
            of: Only those to that actor or run.
            after: Only those with a larger number.
            limit: At most so many, up to 1,000.

        Raises:
            UnknownRun: There is no such actor or run.
        """
        return await self.operations.dead_letters(None if of is None else of.address, after=after, limit=limit)

    async def resend(self, letter: int) -> None:
        """Put a dead letter back into the mailbox it was for; on return that is durable.

        It keeps its number and its key, comes last in line, and has no deadline any more. The receiver's history says so.

        Args:
            letter: Its number (`DeadLetter.id`).

        Raises:
            UnknownLetter: There is no such dead letter (any more).
            RunEnded, RunEnding, MailboxFull: Its receiver takes nothing; it stays a dead letter.
            InvalidState: Another call is sending it just now.
        """
        await self.operations.resend(letter)


def _query(filters: dict[str, Any], *, actor: bool) -> RunQuery:
    filters.setdefault("actor", actor)
    return RunQuery(**filters)


def _check_instance(given: object) -> None:
    if isinstance(given, Actor) and not isinstance(given, Workflow):
        raise BadDefinition(
            f"{type(given).__qualname__} is an actor: it is not started, the first message makes it. Write "
            f"`runtime.at({type(given).__qualname__}, key)` and `tell` or `ask`; or make it a child of a supervisor."
        )
    if not isinstance(given, Workflow):
        name = given.__qualname__ if isinstance(given, type) else "Shop"
        raise BadDefinition(f"start takes an instance of a workflow, {name}(...), not {given!r:.80}.")
