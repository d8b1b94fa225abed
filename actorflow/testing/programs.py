"""Random programs: what runs, actors and their clients do in a simulated history, and what must come of it.

A program is data: a tree of operations, drawn by a seed. `players` has the workflow that carries it out with the real verbs;
here is the model, a few lines of plain Python that say what it must come to, whatever fails meanwhile. So everything a program
does is decided by the program alone, and never by who was faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from attrs import define, evolve, field, frozen

from actorflow.value import Value

TRIES = 4  #: of a step: as many of its attempts may fail, and one fewer is harmless
ATTEMPT_S_MAX = 5.0  #: of an attempt; one that hangs is cut then
ACCOUNTS = ("ann", "bob", "static")
"""Keys of actors. The last is a child of a supervisor."""

# --- operations --------------------------------------------------------------------------------------------------------


@frozen
class Do(Value):
    """A step. Its first *fails* attempts raise, or hang until they are cut."""

    name: str
    takes_s: float = 0.0
    fails: int = 0
    hangs: bool = False
    undo: bool = False


@frozen
class Once(Value):
    """A step that is interrupted rather than repeated."""

    name: str
    takes_s: float = 0.0


@frozen
class Sleep(Value):
    """A durable timer."""

    s: float


@frozen
class Hear(Value):
    """The next word of whoever started it."""


@frozen
class Silence(Value):
    """Waits for what never comes."""

    within_s: float


@frozen
class Fan(Value):
    """Branches at the same time."""

    branches: tuple[tuple[Op, ...], ...]


@frozen
class Break(Value):
    """Ends a branch with an error: its siblings are cancelled."""


@frozen
class Part(Value):
    """A checkpoint."""

    name: str
    ops: tuple[Op, ...]


@frozen
class Kid(Value):
    """A child run, waited for."""

    name: str
    ops: tuple[Op, ...]


@frozen
class Ask(Value):
    """Adds to an account, and waits for the answer."""

    account: str
    n: int


@frozen
class Tell(Value):
    """Adds to an account, after a while if *later_s* is not 0."""

    account: str
    n: int
    later_s: float = 0.0


@frozen
class Each(Value):
    """A loop with a cursor."""

    name: str
    items: int


@frozen
class Stop(Value):
    """Business says no: what has an undo is undone, and the run fails."""


Op = Do | Once | Sleep | Hear | Silence | Fan | Break | Part | Kid | Ask | Tell | Each | Stop


@frozen
class Program(Value):
    """What one run does, in so many rounds."""

    ops: tuple[Op, ...]
    rounds: int = 1


# --- acts of clients ---------------------------------------------------------------------------------------------------


@frozen
class Launch(Value):
    """Start that program, say the words it waits for, and wait for its end."""

    key: str
    program: Program
    asks: bool = False  #: True: each word is an ask without a key, and the run itself knows which it has had


@frozen
class Deposit(Value):
    """Add to an account, by an ask or a tell."""

    key: str
    account: str
    n: int
    ask: bool = True
    keyed: bool = True  #: False: the ask has no key, and the account itself knows what it has had


@frozen
class Explode(Value):
    """Send a message whose handler always fails: a dead letter."""

    key: str
    account: str


Act = Launch | Deposit | Explode


@frozen
class Client(Value):
    """One who does one thing after the other, with pauses of *pause_s*."""

    acts: tuple[Act, ...]
    pause_s: float = 0.0


# --- making less of it -------------------------------------------------------------------------------------------------


def reduced(clients: Sequence[Client], keep: Callable[[], bool]) -> tuple[Client, ...]:
    """The same with fewer acts and operations: those for which *keep* says yes, asked in a fixed order."""
    kept = (evolve(client, acts=tuple(_reduced_act(act, keep) for act in client.acts if keep())) for client in clients)
    return tuple(client for client in kept if client.acts)


def _reduced_act(act: Act, keep: Callable[[], bool]) -> Act:
    if not isinstance(act, Launch):
        return act
    return evolve(act, program=evolve(act.program, ops=_reduced_ops(act.program.ops, keep)))


def _reduced_ops(ops: Sequence[Op], keep: Callable[[], bool]) -> tuple[Op, ...]:
    return tuple(_reduced_op(op, keep) for op in ops if keep())


def _reduced_op(op: Op, keep: Callable[[], bool]) -> Op:
    match op:
        case Part() | Kid():
            return evolve(op, ops=_reduced_ops(op.ops, keep))
        case Fan():
            return Fan(tuple(_reduced_ops(branch, keep) for branch in op.branches))
        case _:
            return op


# --- the model ---------------------------------------------------------------------------------------------------------


@define
class Expected:
    """What must have become of everything, once all is over."""

    traces: dict[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])  #: what each launched run returns
    stopped: set[str] = field(factory=set[str])  #: runs that fail, by their keys
    effects: set[str] = field(factory=set[str])  #: of steps: each must have happened
    possible: set[str] = field(factory=set[str])  #: each may have happened: the branch of another broke
    undone: dict[str, list[str]] = field(factory=dict[str, list[str]])  #: undos of each run that failed, in order
    totals: Counter[str] = field(factory=Counter[str])  #: of accounts
    explosions: int = 0  #: dead letters

    @classmethod
    def of(cls, clients: Sequence[Client]) -> Expected:
        """What the acts of those clients come to, in whatever order they are served."""
        expected = cls()
        for act in (act for client in clients for act in client.acts):
            match act:
                case Launch():
                    expected.run(act.key, act.program)
                case Deposit():
                    expected.totals[act.account] += act.n
                case Explode():
                    expected.explosions += 1
        return expected

    def answer(self, act: Act) -> str:
        """What who does that must see."""
        match act:
            case Launch(key=key):
                return "failed: business says no" if key in self.stopped else ", ".join(self.traces[key])
            case Deposit(n=n):
                return str(2 * n) if act.ask else "None"
            case Explode():
                return "HandlerFailed"

    def run(self, key: str, program: Program) -> tuple[str, ...] | None:
        """What the run returns, or None if it fails."""
        trace: list[str] = []
        words = iter(range(1_000_000))
        for round in range(program.rounds):
            undos: list[str] = []
            here = _Round(self, key, round, words, undos)
            trace = here.play(program.ops)
            if any(isinstance(op, Stop) for op in program.ops):
                self.stopped.add(key)
                self.undone[key] = undos[::-1]
                return None
        self.traces[key] = tuple(trace)
        return self.traces[key]


@define
class _Round:
    """One round of one run, as it must go."""

    expected: Expected
    key: str
    round: int
    words: Iterator[int]
    undos: list[str]

    def play(self, ops: Sequence[Op], *, surely: bool = True) -> list[str]:
        trace: list[str] = []
        for op in ops:
            if isinstance(op, Stop | Break):
                break
            trace.append(self.one(op, surely=surely))
        return trace

    def one(self, op: Op, *, surely: bool) -> str:
        match op:
            case Do(name=name):
                self.effect(name, surely=surely)
                if op.undo and (op.fails < TRIES or op.hangs):  # One that was cut may have landed.
                    self.undos.append(name)
                return f"{name} failed" if op.fails >= TRIES else f"{name} done"
            case Once(name=name):
                self.effect(name, surely=False)
                return f"{name} once"
            case Hear():
                return f"heard {next(self.words)}"
            case Fan(branches=branches) if any(Break() in branch for branch in branches):
                for branch in branches:
                    self.play(branch, surely=False)
                return "broken"
            case Fan(branches=branches):
                return " | ".join(",".join(self.play(branch, surely=surely)) for branch in branches)
            case Part(name=name, ops=ops):
                return f"{name}({','.join(self.play(ops, surely=surely))})"
            case Kid(name=name, ops=ops):
                of_kid = self.expected.run(f"{self.key}.{name}.{self.round}", Program(ops))
                return f"{name} stopped" if of_kid is None else f"{name}<{','.join(of_kid)}>"
            case Ask(account=account, n=n) | Tell(account=account, n=n):
                self.expected.totals[account] += n
                return f"{type(op).__name__.lower()} {account} {n}"
            case Each(name=name, items=items):
                for item in range(items):
                    self.effect(f"{name}.{item}", surely=surely)
                return f"{name} {items} of {items}"
            case Silence() | Sleep() | Stop() | Break():
                return type(op).__name__.lower()

    def effect(self, name: str, *, surely: bool) -> None:
        among = self.expected.effects if surely else self.expected.possible
        among.add(f"{self.key}/{self.round}/{name}")


def words_of(program: Program) -> int:
    """How many words it waits for, in all its rounds."""
    return (1 if Stop() in program.ops else program.rounds) * _words(program.ops)


def _words(ops: Sequence[Op]) -> int:
    return sum(_words(op.ops) if isinstance(op, Part) else isinstance(op, Hear) for op in ops)
