"""Who carries out programs: a workflow, an account, and steps whose effects a ledger outside of the runtime writes down."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, cast

import anyio
from attrs import define, field, frozen

from actorflow.actor import Actor
from actorflow.attempt import current_step
from actorflow.checkpoints import checkpoint
from actorflow.errors import Abort, ActorPaused, ChildFailed, StepInterrupted, StepTimeout, Transient
from actorflow.handlers import handler
from actorflow.message import Message
from actorflow.policies.retry import Retry
from actorflow.records import Address, Commit, Entry, Refusal, Run
from actorflow.steps import step
from actorflow.supervisor import Child, Supervisor
from actorflow.testing.faults import FaultStore, PowerCut
from actorflow.testing.programs import (
    ACCOUNTS,
    ATTEMPT_S_MAX,
    TRIES,
    Ask,
    Break,
    Do,
    Each,
    Fan,
    Hear,
    Kid,
    Once,
    Op,
    Part,
    Program,
    Silence,
    Sleep,
    Stop,
    Tell,
)
from actorflow.value import Value
from actorflow.workflow import Workflow, gather

# --- the ledger --------------------------------------------------------------------------------------------------------


@define(eq=False)
class Ledger:
    """What the world outside has seen of all processes, and what it was told is recorded."""

    store_id: str
    effects: dict[str, Counter[str]] = field(factory=dict[str, Counter[str]])  #: by what had it: how often under which key
    undone: list[str] = field(factory=list[str])  #: first undos, in order
    wrong: list[str] = field(factory=list[str])  #: what must not happen
    recorded: set[str] = field(factory=set[str])  #: idempotency keys of steps whose outcome is durable
    addresses: dict[int, Address] = field(factory=dict[int, Address])
    _turns: dict[tuple[int, int], str] = field(factory=dict[tuple[int, int], str])

    def committed(self, batch: Sequence[Commit], answers: Sequence[Refusal | None]) -> list[int]:
        """A batch is durable. Returns the numbers of the runs that it changed."""
        touched: dict[int, None] = {}
        for commit, refusal in zip(batch, answers, strict=True):
            if refusal is None:
                for write in commit.writes:
                    self._written(write)
                    number = write.id if isinstance(write, Run) else getattr(write, "run", None)
                    touched.update({} if number is None else {number: None})
        return list(touched)

    def _written(self, write: object) -> None:
        match write:
            case Run():
                self.addresses[write.id] = write.address
            case Entry(kind="turn"):
                if write.input and write.input != b"0":
                    self._turns[write.run, write.round] = f"m{int(write.input)}"
            case Entry(kind="step"):
                at = self.addresses[write.run]
                scope = self._turns.get((write.run, write.round), str(write.round))
                self.recorded.add(f"{self.store_id}/{at.kind}/{at.key}/{scope}/{write.branch}/{write.name}/{write.n}")
            case _:
                pass

    def effect(self, what: str, key: str) -> None:
        """It happened, to the world outside."""
        self.effects.setdefault(what, Counter())[key] += 1


@define(eq=False)
class Here:
    """The process in which a step runs."""

    store: FaultStore
    ledger: Ledger
    fenced: bool = False  #: another process took the store: whatever it began before it hears of it may still happen


_here: ContextVar[Here] = ContextVar("actorflow_here")


def live_in(here: Here) -> None:
    """All that this task starts from now on is in that process."""
    _here.set(here)


def _effect(what: str) -> None:
    """This step has its effect now."""
    here, info = _here.get(), current_step()
    if here.store.dead:
        raise PowerCut("a dead process has no effects")
    _, kind, run, round, *_ = info.key.split("/")
    label = f"{run}/{round}/{what}" if kind == "Play" else f"{kind}/{run}/{round}/{what}"
    if info.key in here.ledger.recorded and not here.fenced:
        here.ledger.wrong.append(f"{label} ran again, although its outcome is recorded")
    here.ledger.effect(label, info.key)


# --- steps -------------------------------------------------------------------------------------------------------------

_patient = Retry(attempts=TRIES, first="1s", factor=2.0, on=(Transient, StepTimeout))


async def _done(op: Do) -> str:
    _effect(op.name)
    if current_step().attempt <= op.fails:
        if op.hangs:
            await anyio.sleep(10 * ATTEMPT_S_MAX)
        raise Transient(f"{op.name}, attempt {current_step().attempt}")
    await anyio.sleep(op.takes_s)
    return op.name


@step(retry=_patient, timeout=ATTEMPT_S_MAX)
async def work(op: Do) -> str:
    """A step."""
    return await _done(op)


@step
async def take_back(op: Do, outcome: str | None = None) -> None:  # noqa: ARG001  (so that it is called for what may have landed)
    """An undo."""
    _, _, run, *_ = current_step().key.split("/")
    ledger = _here.get().ledger
    _effect(f"undo of {op.name}")
    if (done := f"{run}/{op.name}") not in ledger.undone:
        ledger.undone.append(done)


@step(retry=_patient, timeout=ATTEMPT_S_MAX, undo=take_back)
async def reversible(op: Do) -> str:
    """A step with an undo."""
    return await _done(op)


@step(on_interrupt="fail")
async def once(op: Once) -> None:
    """A step that runs at most once."""
    _effect(op.name)
    await anyio.sleep(op.takes_s)


@frozen
class Item(Value):
    """One of a loop."""

    name: str
    n: int


@step
async def item(of: Item) -> None:
    """What a loop does."""
    _effect(f"{of.name}.{of.n}")


@step
async def audit(n: int) -> None:
    """A step inside a turn."""
    _effect(f"audit of {n}")


# --- messages and actors -----------------------------------------------------------------------------------------------


class Word(Message[None]):
    """What a program waits for."""

    n: int


class Never(Message[None]):
    """Nobody sends it."""


class Add(Message[int]):
    """To an account."""

    n: int
    sender: str
    seq: int = 0  #: grows with each message of that sender to that account; 0 is not compared
    later_s: float = 0.0


class Due(Message[None]):
    """What a timer brings."""

    n: int


class Boom(Message[None]):
    """What no handler can handle."""


class Total(Message[int]):
    """How much is there?"""


class Account(Actor):
    """Adds up, and knows who said what last."""

    total: int = 0
    heard: dict[str, int] = field(factory=dict[str, int])  #: the last message of each sender

    @handler
    async def add(self, m: Add) -> int:
        if m.seq and m.seq <= self.heard.get(m.sender, 0):
            raise Abort(f"{m.sender} sent {m.seq} before {self.heard[m.sender]}, and it came after it")
        if m.seq:
            self.heard[m.sender] = m.seq
        if m.later_s:
            self.after(m.later_s, Due(m.n), name=f"{m.sender}:{m.seq}")
        else:
            self.total += m.n
        if m.n % 3 == 0:
            await audit(m.n)
        return 2 * m.n

    @handler
    async def due(self, m: Due) -> None:
        self.total += m.n

    @handler
    async def boom(self, m: Boom) -> None:
        self.total += 1_000_000
        raise RuntimeError("boom")

    @handler(Total, readonly=True)
    async def how_much(self, m: Total) -> int:
        return self.total


TREE = Supervisor("accounts", restarts=50, within="60s", children=[Child(Account(), ACCOUNTS[-1])])


# --- the workflow ------------------------------------------------------------------------------------------------------


class Broken(Exception):
    """A branch that ends badly."""


class Play(Workflow[list[str]]):
    """Carries out a program; returns a trace of its last round."""

    program: Program
    round: int = 0
    done: int = 0  #: operations of the trunk, over all rounds
    heard: int = 0  #: words, over all rounds

    async def run(self) -> list[str]:
        trace = [await self.trunk(op, str(place)) for place, op in enumerate(self.program.ops)]
        if self.round + 1 < self.program.rounds:
            self.round += 1
            return self.again()
        return trace

    async def trunk(self, op: Op, path: str) -> str:
        self.done += 1
        return await self.one(op, path)

    async def ops(self, ops: Sequence[Op], path: str) -> str:
        return ",".join([await self.one(op, f"{path}.{place}") for place, op in enumerate(ops)])

    @checkpoint
    async def part(self, op: Part, path: str) -> str:
        return await self.ops(op.ops, path)

    async def one(self, op: Op, path: str) -> str:
        match op:
            case Do(name=name):
                try:
                    return f"{await (reversible if op.undo else work)(op)} done"
                except (Transient, StepTimeout):
                    return f"{name} failed"
            case Once(name=name):
                with suppress(StepInterrupted):  # The process ended meanwhile: that is no news to the trace.
                    await once(op)
                return f"{name} once"
            case Fan(branches=branches):
                try:
                    return " | ".join(cast("list[str]", await gather(*self.branches(branches, path))))
                except Broken:
                    return "broken"
            case Part(name=name):
                return f"{name}({await self.part(op, path)})"
            case Break():
                raise Broken(path)
            case Stop():
                raise Abort("business says no")
            case _:
                return await self.waits(op, path)

    def branches(self, branches: Sequence[Sequence[Op]], path: str) -> list[Coroutine[Any, Any, str]]:
        return [self.ops(each, f"{path}.{place}") for place, each in enumerate(branches)]

    async def waits(self, op: Op, path: str) -> str:
        """What does not end by itself."""
        seq = 1_000 * self.round + int(path) + 1 if path.isdigit() else 0  # In branches nobody knows who is first.
        sender = f"{self.me.key}.{self.round}.{path}" if not seq else self.me.key
        match op:
            case Sleep(s=s):
                await self.sleep(s)
                return "sleep"
            case Hear():
                while (word := await self.receive(Word)).n < self.heard:
                    pass  # It was asked again: the answer to the first one was lost.
                self.heard += 1
                return f"heard {word.n}"
            case Silence(within_s=within_s):
                assert await self.receive(Never, within=within_s) is None
                return "silence"
            case Kid(name=name, ops=ops):
                kid = await self.start(Play(Program(ops)), key=f"{self.me.key}.{name}.{self.round}")
                try:
                    return f"{name}<{','.join(await kid.result())}>"
                except ChildFailed:
                    return f"{name} stopped"
            case Ask(account=account, n=n):
                return f"ask {account} {await self.asked(account, Add(n, sender, seq)) // 2}"
            case Tell(account=account, n=n, later_s=later_s):
                await Account.at(account).tell(Add(n, sender, seq, later_s))
                return f"tell {account} {n}"
            case Each(name=name, items=count):
                progress = await self.each(_items(name, count), item, key=lambda of: of.n, batch=3, total=count)
                return f"{name} {progress.done} of {count}"
            case _:
                raise AssertionError(op)

    async def asked(self, account: str, add: Add) -> int:
        """Its answer, when it is not set aside."""
        while True:
            try:
                return await Account.at(account).ask(add, within="1000d")
            except ActorPaused:
                await self.sleep(20)


def _items(name: str, count: int) -> Any:
    async def source() -> AsyncIterator[Item]:
        for n in range(count):
            yield Item(name, n)

    return source
