"""Handles: `Address` (where messages go) and `Run` (an address plus the verbs of a run).

One class serves two callers. In durable code a verb is a journaled request of the code; elsewhere it is a call to the
runtime (or to a `Client`), and what it did is durable when it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from actorflow import records
from actorflow.attempt import StepInfo, current
from actorflow.clock import Duration, seconds
from actorflow.codec import coder
from actorflow.errors import BadDefinition, OutsideTurn, StepInsideStep
from actorflow.kernel.branches import driven, here
from actorflow.kernel.outbox import Post
from actorflow.message import Message, asked_type, encode_message
from actorflow.nearby import Nearby, There, living
from actorflow.operations import Decision, HistoryEntry, Operations, RunInfo
from actorflow.policies.limits import checked_key
from actorflow.verbs import Ask, ResultOf, Tell

if TYPE_CHECKING:
    from actorflow.actor import Actor
    from actorflow.workflow import Workflow

    A_co = TypeVar("A_co", bound=Actor, covariant=True)
    W_co = TypeVar("W_co", bound="Workflow[Any]", covariant=True)
else:
    A_co = TypeVar("A_co", covariant=True)
    W_co = TypeVar("W_co", covariant=True)
T = TypeVar("T")
P = ParamSpec("P")


class Landed(Generic[T]):
    """Decision on an interrupted step: its effect happened, and this is its value."""

    def __init__(self, value: T) -> None:
        self.value = value


class RunAgain:
    """Decision on an interrupted step: it did not happen (or may happen twice), run it again."""


class GiveUp:
    """Decision on an interrupted step: treat it as failed (`GaveUp`)."""


class Address(Generic[A_co]):
    """Where an actor or run is found; what is sent there waits in its mailbox."""

    there: There | None = None

    def __init__(self, actor: type[A_co], key: str, operations: Operations | None = None, nearby: Nearby | None = None) -> None:
        self._actor = actor
        self.key: str = checked_key(key)
        self._at = records.Address(self.kind, key)
        self._operations = operations
        self._nearby = nearby

    @property
    def kind(self) -> str:
        """The registered name of its class."""
        name: str = getattr(self._actor, "__kind__")  # noqa: B009
        return name

    @property
    def address(self) -> records.Address:
        """Kind and key, as values."""
        return self._at

    @property
    def durable(self) -> bool:
        """Whether what is sent there is stored; False for memory-only actors."""
        options: dict[str, Any] = getattr(self._actor, "__options__")  # noqa: B009
        durable: bool = options["durable"]
        return durable

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self._at == other._at

    def __hash__(self) -> int:
        return hash(self._at)

    def _outside(self, verb: str) -> Operations:
        """The runtime behind this handle, for a caller that is no durable code."""
        if self._operations is not None:
            return self._operations
        if (alive := living.get()) is not None:
            return alive.nearby.operations
        match current.get():
            case StepInfo(name=outer):
                raise StepInsideStep(f"{self}.{verb}", outer)
            case _:
                raise OutsideTurn(verb)

    def _near(self) -> Nearby | None:
        """The way there without the store, if that is a memory-only actor of this process and the caller no durable code."""
        if self._nearby is None and self._operations is None and not self.durable and (alive := living.get()) is not None:
            self._nearby = alive.nearby
        return self._nearby

    async def tell(self, message: Message[Any], *, key: str | None = None, after: Duration | None = None) -> None:
        """Put a message into the mailbox; on return it is durable and will be handled once.

        Args:
            message: What to say.
            key: Makes the call repeatable: the same key and message again has no second effect.
            after: Not to be seen before that time has passed.

        Raises:
            UnknownRun, RunEnded, RunEnding, RunPruned: It will not be handled.
            KeyTaken: The key was used for another message.
            MailboxFull: Too many wait there.
            BadDefinition: A key for a memory-only actor, which remembers none.
        """
        there = self.there
        if there is not None and key is None and after is None and here.turn is None and not here.leaving:  # noqa: SIM102
            if there.accept(message):  # What most messages to memory-only actors are.
                return
        if here.turn is None and key is None and not here.leaving and (near := self._nearby or self._near()) is not None:
            if after is not None:
                near.tell_later(self, message, seconds(after))
            elif (place := near.tell(self, message)) is not None:
                await place
            return
        type_, body = encode_message(message)
        after_s = None if after is None else seconds(after)
        if key is not None:
            self._check_key(key)
        if driven():
            box = here.turn.outbox if here.turn is not None else None
            if box is not None:  # An actor's turn: it leaves when that is over.
                box.add(Post(self._at, type_, body, key, after_s))
            else:
                await Tell(self._at, type_, body, key, after_s)
        else:
            await self._outside("tell").tell(self._at, type=type_, body=body, key=key, after_s=after_s)

    async def ask(self, message: Message[T], *, within: Duration = "5s", key: str | None = None) -> T:
        """Put a message into the mailbox and wait for its reply, which is durable when it is seen.

        With a key the message is durable before it is handled: it will be, also if the process dies over it, and asking again
        gets its first answer. Without one nobody could ask for that answer, so an actor that is free, or a run that waits for
        such a message, accepts it in the commit of its reply: one instead of two.

        Raises:
            BadDefinition: The message says nothing of a reply.
            AskTimeout: No answer in time; what became of the message is unknown. The same key gets the first answer.
        """
        if here.turn is None and key is None and not here.leaving and (near := self._nearby or self._near()) is not None:
            asked_type(type(message))
            return cast("T", await near.ask(self, message, seconds(within), living.get()))
        type_, body = encode_message(message)
        returns = asked_type(type(message))
        within_s = seconds(within)
        if driven():
            return cast("T", await Ask(self._at, type_, body, within_s, returns))
        if key is not None:
            self._check_key(key)
        answer = await self._outside("ask").ask(self._at, type=type_, body=body, key=key, within_s=within_s)
        return cast("T", coder(returns).decode(answer, f"reply of {self}"))

    def _check_key(self, key: str) -> None:
        checked_key(key)
        if not self.durable:
            raise BadDefinition(
                f"{self} is memory-only: it remembers no message, so `key=` would not make the call repeatable. Leave it out."
            )

    async def query(self, q: Callable[Concatenate[A_co, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask a `@query`; it reads the last durable view, also of a run that sleeps, is paused or has ended."""
        question = self._actor.__kind_info__().queries.get(q.__name__)
        if question is None:
            raise BadDefinition(f"{getattr(q, '__qualname__', q)} is no @query of {self._actor.__qualname__}.")
        arguments = question.coder.encode(question.bind((None, *args), kwargs), f"argument of query {q.__name__}")
        payload = await self._outside("query").query(self._at, name=q.__name__, arguments=arguments)
        return cast("T", question.outcome.decode(payload, f"answer of query {q.__name__}"))

    async def status(self) -> RunInfo:
        """What there is to say of it: where it stands, what it waits for, and the report if it is paused."""
        return await self._outside("status").status(self._at)

    async def pause(self) -> None:
        """Nothing new starts; running steps finish and are recorded. Messages are still accepted."""
        await self._outside("pause").pause(self._at)

    async def resume(self) -> None:
        """Go on from what is durable, with a new budget. No effect on one that is not paused."""
        await self._outside("resume").resume(self._at)

    async def history(self, *, after: int = 0, limit: int = 1_000) -> tuple[HistoryEntry, ...]:
        """What happened to it, in order; *after* is the `seq` of the last one seen."""
        return await self._outside("history").history(self._at, after=after, limit=limit)

    async def why(self) -> str:
        """One sentence: what it waits for and what comes next."""
        return await self._outside("why").why(self._at)

    async def reset(self) -> None:
        """Give an actor the state of a new one: the defaults of its class, or the fields of its static child.

        For an operator whose actor has a state that no code should have written. The history keeps what it was; the mailbox
        and the timers stay. Wants an actor that is idle or paused.

        Raises:
            InvalidState: It is at work, or it is a run.
            BadDefinition: Its class has fields without defaults.
        """
        await self._outside("reset").reset(self._at)


class Run(Address[W_co]):
    """A run: its address, and what a client or operator may do with it."""

    _actor: type[W_co]

    async def result(self: Run[Workflow[T]], *, wait_paused: bool = False) -> T:
        """Wait for the end; the value that `run()` returned. In durable code: a child's result, journaled.

        Raises:
            RunPaused: It stopped with a report (unless *wait_paused*). In durable code a paused child keeps its parent waiting.
            RunCancelled, RunTimedOut: It was cancelled.
            ChildFailed: In durable code: the child ended otherwise; the cause is its failure.
            Exception: What it failed with (`Abort`, or a class named in `fails=`).
        """
        kind = self._actor.__kind_info__()
        if driven():
            return cast("T", await ResultOf(self._at, kind.returns))
        payload = await self._outside("result").result(self._at, wait_paused=wait_paused)
        value: T = kind.outcome.decode(payload, f"result of {kind.name}/{self.key}")
        return value

    async def cancel(self, why: str = "cancelled by an operator") -> bool:
        """Cancel it: no new step starts, running ones are cancelled, what was done is undone. False if it had ended."""
        return await self._outside("cancel").cancel(self._at, why=why)

    async def retry(self) -> None:
        """Perform the failed call that its report names once more, and go on from there."""
        await self._outside("retry").retry(self._at)

    async def skip(self, value: Any = None) -> None:
        """Record *value* as the outcome of the failed call that its report names, and go on from there."""
        await self._outside("skip").skip(self._at, value=coder(_type_of(value)).encode(value, "skipped value"))

    async def decide(self, call: str, decision: Landed[Any] | RunAgain | GiveUp) -> None:
        """Say what became of an interrupted step (`on_interrupt="ask"`); *call* is as its report names it."""
        match decision:
            case Landed(value=value):
                act = Decision(act="landed", value=coder(_type_of(value)).encode(value, "landed value"))
            case RunAgain():
                act = Decision(act="run_again")
            case _:
                act = Decision(act="give_up")
        await self._outside("decide").decide(self._at, call=call, decision=act)

    async def fork(self, key: str, *, at: int | None = None, input: W_co | None = None, keep: bool = False) -> Run[W_co]:
        """A new run from this one's past.

        Args:
            key: Of the new run.
            at: The event (`history().seq`) before which it begins to differ; None is the end of what is recorded.
            input: Other fields to start from; inherited outcomes are then not compared with their inputs.
            keep: Leave a paused original paused, instead of cancelling it without undo.
        """
        fields = None if input is None else self._actor.__kind_info__().encode(input)
        await self._outside("fork").fork(self._at, key=checked_key(key), at=at, input=fields, keep=keep)
        return Run(self._actor, key, self._operations)

    async def prune(self) -> None:
        """Delete it, once it has ended. Its key stays used."""
        await self._outside("prune").prune(self._at)


def _type_of(value: object) -> Any:
    """The type to encode an operator's value by: its own class, if that says all; else plain JSON."""
    return Any if value is None or isinstance(value, str | int | float | bool | list | dict) else type(value)
