"""Histories of supervised trees, and two that live through them: a fake tree that obeys the policy, and a naive OTP.

A `History` is a tree, what happens to it from outside, and a `World` that settles everything else: how long each start and
stop takes and how it ends. Lengths are drawn so that no two things happen at one instant by chance; what then follows from
one cause has one order. The accounts of both, lists of `Line`s for each supervisor, must be equal.

`FakeTree` is the smallest shell for `supervision.decide`, in virtual time. `NaiveTree` is written after the description of
OTP's supervisor instead: each supervisor is a process with a mailbox that does one thing after the other and blocks in
between. It knows nothing of the policy's states, plans or backlogs. From OTP it differs where actorflow means to: a
backoff before restarts, a table of decisions, and a request to stop that is seen between any two operations.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Generator
from random import Random
from typing import Any, Literal

from attrs import define, field, frozen
from hypothesis import strategies as st

from actorflow.actor import Actor
from actorflow.clock import seconds
from actorflow.policies.restarts import Backoff
from actorflow.policies.supervision import decide, supervisor
from actorflow.policies.tree import (
    After,
    Boot,
    Event,
    Exit,
    Exited,
    Failed,
    Keep,
    Ready,
    Report,
    Start,
    StartChild,
    Started,
    Stop,
    StopChild,
    StopRequested,
    SupervisorState,
    Why,
)
from actorflow.supervisor import Child, Supervisor


class Member(Actor):
    """The actor of all histories."""


class Bug(Exception):
    pass


class Outage(ConnectionError):
    pass


class LongOutage(Outage):
    pass


ERRORS = (Bug, Outage, LongOutage)


# --- histories ---------------------------------------------------------------------------------------------------------


@frozen
class Input:
    """Something from outside; `target` counts through the tree's actors (or supervisors, or all children)."""

    what: Literal["end", "stop_child", "start_child", "stop"]
    target: int = 0
    why: Literal["normal", "shutdown", "killed"] | type[Exception] = "normal"
    gap_s: float = 1.0  #: roughly, after the one before


@frozen
class History:
    tree: Supervisor
    inputs: tuple[Input, ...]
    seed: int = 0
    failing: float = 0.25  #: share of starts that fail

    def world(self) -> World:
        return World(self.seed, self.failing)


@frozen
class World:
    """What nobody decides: equal questions get equal answers."""

    seed: int
    failing: float

    def dice(self, *question: object) -> Random:
        return Random("/".join(map(str, (self.seed, *question))))

    def start(self, id: str, nth: int) -> tuple[float, type[Exception] | None]:
        """How long the nth start takes, and what it fails with."""
        dice = self.dice("start", id, nth)
        takes = dice.choice((0.001, 0.1, 2.0)) * (0.5 + dice.random())
        # The first one mostly succeeds: a tree that does not boot has no history.
        return takes, dice.choice(ERRORS) if dice.random() < self.failing * (0.05 if nth == 1 else 1.0) else None

    def stop(self, id: str, nth: int, within_s: float) -> tuple[float, Why]:
        """How long the nth life takes to stop, and with what it ends."""
        dice = self.dice("stop", id, nth)
        takes = dice.choice((0.001, 0.1, 2.0, 6.0)) * (0.5 + dice.random())
        if takes > within_s:
            return within_s + 0.01 * dice.random(), "killed"
        odd: Why = Failed(dice.choice(ERRORS)()) if dice.random() < 0.5 else "normal"
        return takes, odd if dice.random() < 0.2 else "shutdown"

    def die(self, supervisor: str, now: float) -> float:
        return self.dice("die", supervisor, round(now, 6)).random()


@frozen
class Line:
    """One line of an account."""

    at: float
    id: str
    what: str
    why: str = ""


def text(why: object) -> str:
    match why:
        case Failed(error):
            return type(error).__name__
        case type():
            return why.__name__
        case _:
            return str(why)


def walk(top: Supervisor) -> list[tuple[Supervisor, Child[Any] | Supervisor]]:
    """Every child with its supervisor, in order."""
    pairs: list[tuple[Supervisor, Child[Any] | Supervisor]] = []
    for child in top.children:
        pairs.append((top, child))
        if isinstance(child, Supervisor):
            pairs += walk(child)
    return pairs


class Tree:
    """What both trees share: virtual time, the account, and the actors themselves."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.world = history.world()
        self.now = 0.0
        self.account: list[Line] = []
        self.pairs = walk(history.tree)
        self.parent = {child.id: parent for parent, child in self.pairs}
        self.node: dict[str, Child[Any] | Supervisor] = {child.id: child for _, child in self.pairs}
        self.actors: dict[str, str] = {}  #: "starting", "running" or "stopping"; those that are not here are down
        self.starts = Counter[str]()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._tie = itertools.count()
        self.ended = False

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + delay_s, next(self._tie), do))

    def write(self, id: str, what: str, why: object = "") -> None:
        self.account.append(Line(round(self.now, 6), id, what, text(why)))

    def live(self) -> dict[str, list[Line]]:
        """Live through the history: at its end all is stopped. The account of each supervisor, by its name.

        There is no order between what two supervisors do at one instant, so there is no account of all.
        """
        at = 0.0
        for n, given in enumerate((*self.history.inputs, Input("stop"))):
            at += given.gap_s * (0.5 + self.world.dice("gap", n).random())
            self.after(at, lambda given=given: self.input(given))  # type: ignore[misc]
        self.boot()
        while self._agenda and not self.ended:
            self.now, _, do = heapq.heappop(self._agenda)
            do()
            assert len(self.account) < 20_000
        assert self.ended, "it did not stop"
        assert not self.actors, f"left behind: {self.actors}"
        accounts: dict[str, list[Line]] = {}
        for line in self.account:
            of = line.id if line.what in ("ready", "exit") else self.parent[line.id].id
            accounts.setdefault(of, []).append(line)
        return accounts

    def input(self, given: Input) -> None:
        match given.what:
            case "stop":
                self.request_stop()
            case "end":
                ids = [child.id for _, child in self.pairs if isinstance(child, Child)]
                if ids and self.actors.get(id := ids[given.target % len(ids)]) == "running":
                    why: Why = Failed(given.why()) if isinstance(given.why, type) else given.why
                    del self.actors[id]
                    self.write(id, "ended", why)
                    self.actor_ended(id, why)
            case wish if self.pairs:
                parent, child = self.pairs[given.target % len(self.pairs)]
                self.wish(parent.id, wish, child.id)
            case _:
                pass

    def start_actor(self, id: str, up: Callable[[], None], down: Callable[[Why], None]) -> None:
        self.starts[id] += 1
        nth = self.starts[id]
        assert id not in self.actors, f"{id} is started twice"
        self.actors[id] = "starting"
        self.write(id, "start")
        takes, error = self.world.start(id, nth)

        def done() -> None:
            if self.actors.get(id) != "starting" or self.starts[id] != nth:
                return
            if error is None:
                self.actors[id] = "running"
                self.write(id, "up")
                up()
            else:
                del self.actors[id]
                self.write(id, "failed", error)
                down(Failed(error()))

        self.after(takes, done)

    def stop_actor(self, id: str, down: Callable[[Why], None]) -> None:
        node = self.node[id]
        assert isinstance(node, Child)
        self.actors[id] = "stopping"
        self.write(id, "stop")
        takes, why = self.world.stop(id, self.starts[id], seconds(node.shutdown))

        def done() -> None:
            del self.actors[id]
            self.write(id, "stopped", why)
            down(why)

        self.after(takes, done)

    # What differs:

    def boot(self) -> None:
        raise NotImplementedError

    def request_stop(self) -> None:
        raise NotImplementedError

    def wish(self, supervisor: str, what: str, child: str) -> None:
        raise NotImplementedError

    def actor_ended(self, id: str, why: Why) -> None:
        raise NotImplementedError


# --- the policy, obeyed ------------------------------------------------------------------------------------------------


class FakeTree(Tree):
    """Hands events to the policy and obeys its actions; it has no rules of its own."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.states: dict[str, SupervisorState] = {}
        self.generation: dict[str, int] = {}
        self.boots = Counter[str]()  #: of supervisors
        self._events = deque[tuple[str, Event]]()
        self._obeying = False

    def hand_in(self, supervisor: str, event: Event) -> None:
        # One event after the other: the actions of one are obeyed before the next is decided.
        self._events.append((supervisor, event))
        if self._obeying:
            return
        self._obeying = True
        while self._events:
            id, event = self._events.popleft()
            if id in self.states:
                state, actions = decide(self.states[id], event, now=self.now, die=self.world.die(id, self.now))
                self.states[id] = state
                assert len(state.backlog) <= 3 * len(state.spec.children)
                assert len(state.budget.spent) <= state.spec.restarts + 1
                for action in actions:
                    self.obey(id, action)
        self._obeying = False

    def obey(self, me: str, action: object) -> None:
        match action:
            case Start(id, generation):
                self.generation[id] = generation
                match self.node[id]:
                    case Supervisor() as nested:
                        self.write(id, "start")
                        self.states[id] = supervisor(nested.spec())
                        self.boots[id] += 1
                        self.hand_in(id, Boot())
                    case _:
                        self.start_actor(id, lambda: self.tell_up(id), lambda why: self.tell_exit(id, why))
            case Stop(id):
                if isinstance(self.node[id], Supervisor):
                    self.hand_in(id, StopRequested())
                else:
                    self.stop_actor(id, lambda why: self.tell_exit(id, why))
            case Keep(id):
                self.actors[id] = "running"
            case After(delay_s, event):
                boot = self.boots[me]
                # A delay of an earlier life of this supervisor says nothing to the present one.
                self.after(delay_s, lambda: self.hand_in(me, event) if self.boots[me] == boot else None)
            case Report(id, what, why):
                self.write(id, f"report {what}", why)
            case Ready():
                self.write(me, "ready")
                self.tell_up(me)
            case Exit(why):
                self.write(me, "exit", why)
                assert all(child.status == "down" for child in self.states.pop(me).children)
                self.tell_exit(me, why)
            case _:
                raise AssertionError(action)

    def tell_up(self, id: str) -> None:
        if id in self.parent:
            self.hand_in(self.parent[id].id, Started(id, self.generation[id]))

    def tell_exit(self, id: str, why: Why) -> None:
        if id in self.parent:
            self.hand_in(self.parent[id].id, Exited(id, self.generation[id], why))
        else:
            self.ended = True

    def boot(self) -> None:
        top = self.history.tree
        self.states[top.id] = supervisor(top.spec())
        self.hand_in(top.id, Boot())

    def request_stop(self) -> None:
        self.hand_in(self.history.tree.id, StopRequested())

    def wish(self, supervisor: str, what: str, child: str) -> None:
        self.hand_in(supervisor, StopChild(child) if what == "stop_child" else StartChild(child))

    def actor_ended(self, id: str, why: Why) -> None:
        self.tell_exit(id, why)


# --- OTP, naively ------------------------------------------------------------------------------------------------------


@frozen
class Mail:
    what: Literal["up", "exit", "again", "shutdown", "stop_child", "start_child"]
    id: str = ""
    pid: object = None
    why: Why = "normal"


Waiting = Generator[Callable[[Mail], bool], Mail, Any]


class Leaving(Exception):
    """The supervisor terminates: unwinds whatever it was doing."""

    def __init__(self, why: Why) -> None:
        self.why = why


@define(eq=False)
class Restarting:
    """Stands in the place of a pid while a restart waits."""


@define(eq=False)
class Entry:
    """A child of a supervisor: its spec, and its pid if it has one."""

    spec: Child[Any] | Supervisor
    pid: object = None
    in_a_row: int = 0
    up_at: float | None = None
    starting: bool = False
    failed_to_start: bool = False  #: while the supervisor was leaving


@define(eq=False)
class NaiveSupervisor:
    tree: NaiveTree
    spec: Supervisor
    pid: object
    children: list[Entry] = field(factory=list)
    restarts: list[float] = field(factory=list)
    mailbox: list[Mail] = field(factory=list)
    leaving: bool = False
    _code: Waiting | None = None
    _wants: Callable[[Mail], bool] | None = None

    # A process: code that waits for mail it wants, and is resumed by it.

    def spawn(self) -> None:
        self._code = self.main()
        self.tree.schedule(self)

    def send(self, mail: Mail) -> None:
        for child in self.children:
            if self.leaving and child.starting and child.pid is mail.pid:
                # The start that a shutdown cut into has come to its end.
                child.starting, child.failed_to_start = False, mail.what == "exit"
                if child.failed_to_start:
                    self.report(child, "not_started", mail.why)
        self.mailbox.append(mail)
        self.tree.schedule(self)

    def run(self) -> None:
        """Go on until there is no mail that it wants."""
        try:
            while self._code is not None:
                if self._wants is None:
                    self._wants = next(self._code)
                mail = next((mail for mail in self.mailbox if self._wants(mail)), None)
                if mail is None:
                    return
                self.mailbox.remove(mail)
                self._wants = self._code.send(mail)
        except StopIteration:
            self._code = None

    # The supervisor's own code.

    def main(self) -> Waiting:
        try:
            yield from self.init()
            self.tree.write(self.spec.id, "ready")
            self.tree.up(self.spec.id, self.pid)
            yield from self.loop()
        except Leaving as leaving:
            self.leaving = True
            for child in reversed(list(self.children)):
                yield from self.terminate_child(child)
            self.tree.write(self.spec.id, "exit", leaving.why)
            self.tree.down(self.spec.id, self.pid, leaving.why)

    def init(self) -> Waiting:
        self.children = [Entry(spec) for spec in self.spec.children]
        for child in self.children:
            why = yield from self.start_child(child)
            if why is not None:
                raise Leaving(why)

    def loop(self) -> Waiting:
        while True:
            mail = yield lambda mail: True
            child = next((child for child in self.children if child.spec.id == mail.id), None)
            match mail.what:
                case "shutdown":
                    raise Leaving("shutdown")
                case "exit" if child is not None and child.pid is mail.pid:
                    yield from self.child_exited(child, mail.why)
                case "again" if child is not None and child.pid is mail.pid:
                    yield from self.restart_group(child)
                case "stop_child" if child is not None:
                    yield from self.terminate_child(child)
                    self.see_shutdown()
                case "start_child" if child is not None and child.pid is None:
                    yield from self.start_child(child)
                case _:
                    pass

    def asked_to_leave(self) -> bool:
        return self.leaving or any(mail.what == "shutdown" for mail in self.mailbox)

    def see_shutdown(self) -> None:
        if self.asked_to_leave():
            raise Leaving("shutdown")

    def start_child(self, child: Entry) -> Waiting:
        """Why it did not start, or None."""
        child.pid = pid = object()
        child.starting = True
        self.tree.spawn(child.spec, pid)
        mail = yield lambda mail: mail.what == "shutdown" or (mail.what in ("up", "exit") and mail.pid is pid)
        match mail.what:
            case "shutdown":
                raise Leaving("shutdown")
            case "exit":
                child.pid, child.starting = None, False
                self.report(child, "not_started", mail.why)
                return mail.why
            case _:
                child.up_at, child.starting = self.tree.now, False
                return None

    def terminate_child(self, child: Entry) -> Waiting:
        pid, child.pid = child.pid, None
        if pid is not None and not isinstance(pid, Restarting):
            if not any(mail.what == "exit" and mail.pid is pid for mail in self.mailbox):
                child.starting = False
                self.tree.stop(child.spec, pid)
            mail = yield lambda mail: mail.what == "exit" and mail.pid is pid
            expected = mail.why == "shutdown" or (mail.why == "normal" and child.spec.restart != "permanent")
            if not expected and not child.failed_to_start:
                self.report(child, "stop_failed", mail.why)
        if child.spec.restart == "temporary":
            self.children.remove(child)

    def child_exited(self, child: Entry, why: Why) -> Waiting:
        if child.spec.restart == "permanent" or isinstance(why, Failed) or why == "killed":
            self.report(child, "exited", why)
        decision = self.table(why)
        if decision == "escalate":
            self.escalate(child, why)
        elif decision == "stop":
            self.delete(child)
        elif child.spec.restart == "permanent":
            yield from self.restart(child, why)
        elif why in ("normal", "shutdown"):
            self.delete(child)
        elif child.spec.restart == "transient":
            yield from self.restart(child, why)
        else:
            self.delete(child)

    def table(self, why: Why) -> str | None:
        if isinstance(why, Failed):
            for cls in type(why.error).__mro__:
                for error, decision in self.spec.on.items():
                    if error is cls:
                        return decision
        return None

    def escalate(self, child: Entry, why: Why) -> None:
        child.pid = None
        self.report(child, "escalated", why)
        raise Leaving(why)

    def delete(self, child: Entry) -> None:
        child.pid = None
        if child.spec.restart == "temporary":
            self.children.remove(child)
        if child.spec.significant:
            left = [other for other in self.children if other.spec.significant and other.pid is not None]
            auto = self.spec.auto_shutdown
            if auto == "any_significant" or (auto == "all_significant" and not left):
                raise Leaving("shutdown")

    def restart(self, child: Entry, why: Why) -> Waiting:
        now = self.tree.now
        self.restarts = [now, *itertools.takewhile(lambda at: at >= now - seconds(self.spec.within), self.restarts)]
        if len(self.restarts) > self.spec.restarts:
            self.report(child, "too_many_restarts", why)
            child.pid = None
            raise Leaving("shutdown")
        long_lived = child.up_at is not None and now - child.up_at > seconds(self.spec.within)
        child.in_a_row = 1 if long_lived else child.in_a_row + 1
        child.up_at = None
        child.pid = token = Restarting()
        backoff = self.spec.backoff
        wait = min(seconds(backoff.cap), seconds(backoff.first) * 2.0 ** (child.in_a_row - 1))
        wait *= 1.0 + backoff.jitter * self.tree.world.die(self.spec.id, now)
        self.tree.after(wait, lambda: self.send(Mail("again", child.spec.id, token)))
        yield from self.terminate_others(child)

    def split(self, child: Entry) -> list[Entry]:
        if self.spec.strategy == "one_for_one":
            return [child]
        if self.spec.strategy == "rest_for_one":
            return self.children[self.children.index(child) :]
        return list(self.children)

    def terminate_others(self, child: Entry) -> Waiting:
        for other in reversed(self.split(child)):
            if other is not child:
                yield from self.terminate_child(other)
                self.see_shutdown()

    def restart_group(self, child: Entry) -> Waiting:
        yield from self.terminate_others(child)
        for member in self.split(child):
            why = yield from self.start_child(member)
            if why is None:
                continue
            decision = self.table(why)
            if decision == "escalate":
                self.escalate(member, why)
            if decision == "stop":
                self.delete(member)
                continue
            yield from self.restart(member, why)
            return

    def report(self, child: Entry, what: str, why: Why) -> None:
        self.tree.write(child.spec.id, f"report {what}", why)


class NaiveTree(Tree):
    """OTP's algorithm, as its documentation tells it, one process for each supervisor."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.supervisors: dict[str, NaiveSupervisor] = {}
        self.pids: dict[str, object] = {}
        self._ready = deque[NaiveSupervisor]()
        self._scheduling = False

    def schedule(self, process: NaiveSupervisor) -> None:
        # A process runs until it waits; only then the next one does.
        self._ready.append(process)
        if self._scheduling:
            return
        self._scheduling = True
        while self._ready:
            self._ready.popleft().run()
        self._scheduling = False

    def boot(self) -> None:
        self.spawn(self.history.tree, object())

    def spawn(self, spec: Child[Any] | Supervisor, pid: object) -> None:
        self.pids[spec.id] = pid
        if isinstance(spec, Supervisor):
            if spec.id in self.parent:
                self.write(spec.id, "start")
            self.supervisors[spec.id] = NaiveSupervisor(self, spec, pid)
            self.supervisors[spec.id].spawn()
        else:
            self.start_actor(spec.id, lambda: self.up(spec.id, pid), lambda why: self.down(spec.id, pid, why))

    def stop(self, spec: Child[Any] | Supervisor, pid: object) -> None:
        if isinstance(spec, Supervisor):
            self.supervisors[spec.id].send(Mail("shutdown"))
        else:
            self.stop_actor(spec.id, lambda why: self.down(spec.id, pid, why))

    def up(self, id: str, pid: object) -> None:
        if id in self.parent:
            self.supervisors[self.parent[id].id].send(Mail("up", id, pid))

    def down(self, id: str, pid: object, why: Why) -> None:
        self.supervisors.pop(id, None)
        if id in self.parent:
            self.supervisors[self.parent[id].id].send(Mail("exit", id, pid, why))
        else:
            self.ended = True

    def request_stop(self) -> None:
        self.supervisors[self.history.tree.id].send(Mail("shutdown"))

    def wish(self, supervisor: str, what: str, child: str) -> None:
        if supervisor in self.supervisors:
            process = self.supervisors[supervisor]
            process.mailbox = [m for m in process.mailbox if not (m.what in ("stop_child", "start_child") and m.id == child)]
            process.send(Mail("stop_child" if what == "stop_child" else "start_child", child))

    def actor_ended(self, id: str, why: Why) -> None:
        above = self.supervisors[self.parent[id].id]
        if above.table(why) == "keep" and not above.asked_to_leave():
            self.write(id, "report kept", why)
            self.actors[id] = "running"
        else:
            self.down(id, self.pids[id], why)


# --- random ones ---------------------------------------------------------------------------------------------------------


def random_tree(dice: Random, *, depth: int = 3) -> Supervisor:
    """A tree of at most *depth* levels, four children each."""
    count = itertools.count()

    def one(depth: int, restart: Any, *, significant: bool) -> Supervisor:
        auto: Any = dice.choice(("never", "any_significant", "all_significant"))
        name = f"s{next(count)}"
        children: list[Child[Any] | Supervisor] = []
        for _ in range(dice.choice((1, 2, 3, 3, 4, 0))):
            type_: Any = dice.choice(("permanent", "permanent", "transient", "temporary"))
            matters = auto != "never" and type_ != "permanent" and dice.random() < 0.5
            if depth > 1 and dice.random() < 0.25:
                children.append(one(depth - 1, type_, significant=matters))
            else:
                shutdown = dice.choice(("5s", "1s", "0s"))
                children.append(Child(Member, f"a{next(count)}", restart=type_, shutdown=shutdown, significant=matters))
        table: dict[type[Exception], Any] = {
            dice.choice((Exception, Bug, ConnectionError, Outage, LongOutage)): dice.choice(
                ("restart", "keep", "stop", "escalate")
            )
            for _ in range(dice.choice((0, 0, 1, 2)))
        }
        return Supervisor(
            name,
            strategy=dice.choice(("one_for_one", "one_for_all", "rest_for_one")),
            restarts=dice.choice((3, 0, 1, 2, 6, 6)),
            within=dice.choice(("1s", "10s", "60s")),
            backoff=dice.choice((Backoff("0s", "0s"), Backoff("50ms", "1s"), Backoff("1s", "8s", jitter=1.0), Backoff())),
            children=children,
            auto_shutdown=auto,
            on=table,
            restart=restart,
            significant=significant,
        )

    return one(depth, "permanent", significant=False)


def random_history(dice: Random, *, depth: int = 3) -> History:
    """A tree and up to 20 things that happen to it, mostly ends of actors."""
    tree = random_tree(dice, depth=depth)
    inputs = [
        Input(
            dice.choice(("end", "end", "end", "end", "end", "end", "stop_child", "start_child")),
            dice.randrange(30),
            dice.choice(("normal", "shutdown", "killed", Bug, Bug, Outage, LongOutage)),
            dice.choice((0.003, 0.1, 0.1, 1.0, 1.0, 5.0, 30.0)),
        )
        for _ in range(dice.randrange(21))
    ]
    if dice.random() < 0.25:
        inputs.insert(dice.randrange(len(inputs) + 1), Input("stop", gap_s=dice.choice((0.003, 0.1, 1.0))))
    return History(tree, tuple(inputs), dice.randrange(2**32), dice.choice((0.0, 0.05, 0.25, 0.6)))


def histories(*, depth: int = 3) -> st.SearchStrategy[History]:
    """Random histories that Hypothesis can make smaller."""
    return st.randoms(use_true_random=False).map(lambda dice: random_history(dice, depth=depth))
