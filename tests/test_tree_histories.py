"""The live tree lives through random histories as the policy alone does: the same lines at the same moments.

`FakeTree` (see `supervision_model`) obeys the policy with actors that are a few lines of Python. Here the actors are real:
their `on_start` takes time and fails, their handlers fail, end, or hang when they are to stop. What is not compared are the
three tries of a message, which take time of their own: here a failure costs a restart at once.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve, frozen

from actorflow import Actor, Child, Message, Runtime, Supervisor, handler, step
from actorflow.clock import seconds
from actorflow.errors import InvalidState, StoreStopped
from actorflow.policies import supervision
from actorflow.policies.handling import GiveUp
from actorflow.policies.tree import Action, Event, Exit, Exited, Keep, Ready, Report, Start, Started, Stop, SupervisorState
from actorflow.runtime import outcomes
from actorflow.runtime.lives import Life
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend, LoopClock, run_virtual
from tests.supervision_model import ERRORS, FakeTree, History, Input, Line, World, random_history, text, walk

HISTORIES = int(os.environ.get("ACTORFLOW_HISTORIES", "0")) // 2 or 100
"""For each loop. The variable says how many in all."""
CHUNKS = 4
BY_NAME = {error.__name__: error for error in ERRORS}
here: list[LiveTree] = []


@frozen
class LiveWorld(World):
    """Stops come to their end, or are cut; an actor that was told to stop cannot fail any more."""

    def stop(self, id: str, nth: int, within_s: float) -> tuple[float, Any]:
        takes, why = World.stop(self, id, nth, within_s)
        return takes, why if why == "killed" else "shutdown"

    def die(self, supervisor: str, now: float) -> float:
        return self.dice("die", supervisor).random()  # The two clocks differ far behind the comma.


@frozen
class LiveHistory(History):
    """A history whose actors are alive: they end by themselves normally, or with an exception."""

    def world(self) -> World:
        return LiveWorld(self.seed, self.failing)


def alive(history: History) -> LiveHistory:
    inputs = tuple(evolve(i, why="normal") if i.why in ("shutdown", "killed") else i for i in history.inputs)
    return LiveHistory(_alive(history.tree), inputs, history.seed, history.failing)


def _alive(node: Any) -> Any:
    if isinstance(node, Supervisor):
        return evolve(node, children=[_alive(child) for child in node.children])
    return evolve(node, actor=Living)


# --- the actors --------------------------------------------------------------------------------------------------------


class Work(Message[None]):
    life: int


@step
async def starting(id: str) -> tuple[int, str]:
    tree = here[0]
    life = tree.starts[id]
    takes, error = tree.world.start(id, life)
    told = await tree.hears(id, within_s=takes)
    return life, error.__name__ if error is not None and told is None else ""


@step
async def working(id: str, life: int) -> str:
    tree = here[0]
    if life != tree.starts[id]:
        return ""  # Begun in an earlier life.
    return await tree.hears(id) or ""


class Living(Actor):
    async def on_start(self) -> None:
        id = f"Living/{self.me.key}"
        life, error = await starting(id)
        while life != here[0].starts[id]:  # What an earlier life had recorded before it was stopped.
            life, error = await starting(id)
        if error:
            raise BY_NAME[error]
        await Living.at(self.me.key).tell(Work(life))

    @handler(timeout="10000d")
    async def work(self, m: Work) -> None:
        told = await working(f"Living/{self.me.key}", m.life)
        if told in BY_NAME:
            raise BY_NAME[told]
        if told == "normal":
            self.leave()


# --- the tree, looked at -----------------------------------------------------------------------------------------------


class LiveTree:
    """A runtime with that tree, and the account of what its supervisors heard and did."""

    def __init__(self, history: LiveHistory) -> None:
        self.history = history
        self.world = history.world()
        self.account: list[Line] = []
        self.pairs = walk(history.tree)
        self.parent = {child.id: parent for parent, child in self.pairs}
        self.node: dict[str, Child[Any] | Supervisor] = {child.id: child for _, child in self.pairs}
        self.actors: dict[str, str] = {}  #: as in the model
        self.starts = Counter[str]()
        self.generation: dict[str, int] = {}
        self.listening: dict[str, anyio.Event] = {}  #: actors at work, that can be told something
        self.said: dict[str, str] = {}
        self.dies_at: dict[str, float] = {}
        self.stops: dict[str, tuple[Life, float]] = {}  #: of actors that are not at work yet
        self.began = anyio.current_time()
        self.runtime = Runtime(actors=[Living], tree=[history.tree], store=MemoryStore(), clock=LoopClock())

    @property
    def now(self) -> float:
        return anyio.current_time() - self.began

    def write(self, id: str, what: str, why: object = "") -> None:
        self.account.append(Line(self.now, id, what, text(why)))
        assert len(self.account) < 20_000

    # What actors do:

    async def hears(self, id: str, *, within_s: float | None = None) -> str | None:
        """What it was told; None if that took too long. One that is to stop takes its time."""
        told = self.listening[id] = anyio.Event()
        try:
            if id in self.stops:
                life, stop_s = self.stops.pop(id)
                REAL_STOP(life, stop_s)
            with anyio.move_on_after(within_s):
                if id not in self.said:
                    await told.wait()
            if id in self.dies_at:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(self.dies_at.pop(id) - self.now)
                await anyio.lowlevel.checkpoint()
                return ""
            return self.said.pop(id, None)
        finally:
            if self.listening.get(id) is told:
                del self.listening[id]

    def tell(self, id: str, what: str) -> None:
        self.said[id] = what
        if id in self.listening:
            self.listening[id].set()

    def stop(self, life: Life, within_s: float) -> None:
        # In the model to stop takes a time from any state; here somebody must be at work for that.
        id = str(life.address)
        if id in self.listening:
            REAL_STOP(life, within_s)
        else:
            self.stops[id] = life, within_s

    def begin(self, life: Life) -> None:
        assert life.activation is None, f"{life.address} is in memory already"
        assert life.address not in life.node.tree.lives
        REAL_BEGIN(life)

    # What supervisors hear and do:

    def decide(
        self, state: SupervisorState, event: Event, *, now: float, die: float
    ) -> tuple[SupervisorState, tuple[Action, ...]]:
        me = state.spec.name
        self.heard(event)
        state, actions = REAL_DECIDE(state, event, now=now, die=self.world.die(me, self.now))
        for action in actions:
            self.saw(me, action)
        return state, actions

    def heard(self, event: Event) -> None:
        match event:
            case Started(id, generation) if self.generation.get(id) == generation and self.actors.get(id) == "starting":
                self.actors[id] = "running"
                self.write(id, "up")
            case Exited(id, generation, why) if self.generation.get(id) == generation:
                status = self.actors.pop(id)
                self.said.pop(id, None)
                self.write(id, {"starting": "failed", "running": "ended", "stopping": "stopped"}[status], why)
            case _:
                pass

    def saw(self, me: str, action: Action) -> None:
        match action:
            case Start(id, generation):
                self.write(id, "start")
                if isinstance(self.node[id], Child):
                    assert id not in self.actors, f"{id} is started twice"
                    self.actors[id], self.generation[id] = "starting", generation
                    self.starts[id] += 1
            case Stop(id):
                node = self.node[id]
                if isinstance(node, Child):
                    self.actors[id] = "stopping"
                    self.write(id, "stop")
                    takes, _ = self.world.stop(id, self.starts[id], seconds(node.shutdown))
                    self.dies_at[id] = self.now + takes
                    self.tell(id, "")
            case Keep(id):
                self.actors[id] = "running"
                address = Living.at(id.partition("/")[2])
                life = self.starts[id]
                self.host.spawn(lambda: self.runtime.at(Living, address.key).tell(Work(life)))
            case Report(id, what, why):
                self.write(id, f"report {what}", why)
            case Ready():
                self.write(me, "ready")
            case Exit(why):
                self.write(me, "exit", why)
            case _:
                pass

    # What happens to it:

    @property
    def host(self) -> Any:
        return self.runtime._host  # pyright: ignore[reportPrivateUsage]

    async def happens(self) -> None:
        at = 0.0
        for n, given in enumerate((*self.history.inputs, Input("stop"))):
            at += given.gap_s * (0.5 + self.world.dice("gap", n).random())
            await anyio.sleep(self.began + at - anyio.current_time())
            self.input(given)

    def input(self, given: Input) -> None:
        tree = self.host.cast.tree
        assert {str(address) for address in self.host.by_address} <= set(self.actors), "somebody unwanted is in memory"
        match given.what:
            case "stop":
                tree.stop_child(self.history.tree.id)
            case "end":
                ids = [child.id for _, child in self.pairs if isinstance(child, Child)]
                if ids and self.actors.get(id := ids[given.target % len(ids)]) == "running":
                    self.tell(id, given.why.__name__ if isinstance(given.why, type) else given.why)
            case wish if self.pairs:
                _, child = self.pairs[given.target % len(self.pairs)]
                with suppress(InvalidState):  # Its supervisor is down, or does not know it any more.
                    tree.stop_child(child.id) if wish == "stop_child" else tree.start_child(child.id)
            case _:
                pass

    async def live(self) -> dict[str, list[Line]]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.happens)
            with anyio.fail_after(100_000), suppress(*ERRORS, StoreStopped):
                async with self.runtime:
                    await self.host.cast.tree.nodes[0].ended.wait()
                    assert not self.host.by_address
            group.cancel_scope.cancel()
        assert not self.actors, f"left behind: {self.actors}"
        assert self.account[-1].what == "exit"
        accounts: dict[str, list[Line]] = {}
        for line in self.account:
            of = line.id if line.what in ("ready", "exit") else self.parent[line.id].id
            accounts.setdefault(of, []).append(line)
        return accounts


REAL_DECIDE = supervision.decide
REAL_STOP = Life.stop
REAL_BEGIN = Life.begin


def give_up(*_: Any, **__: Any) -> GiveUp:
    return GiveUp(restart=True)


def stop(life: Life, within_s: float) -> None:
    here[0].stop(life, within_s)


def begin(life: Life) -> None:
    here[0].begin(life)


def lived(history: LiveHistory, backend: Backend) -> dict[str, list[Line]]:
    async def scenario() -> dict[str, list[Line]]:
        tree = LiveTree(history)
        here[:] = [tree]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervision, "decide", tree.decide)
            patch.setattr(Life, "stop", stop)
            patch.setattr(Life, "begin", begin)
            patch.setattr(outcomes, "after_failure", give_up)
            return await tree.live()

    return run_virtual(scenario, backend=backend)


def differences(real: dict[str, list[Line]], pure: dict[str, list[Line]]) -> list[str]:
    """The first difference of each supervisor's account, with what came before."""
    found = list[str]()
    for name in sorted({*real, *pure}):
        ours, theirs = real.get(name, []), pure.get(name, [])
        for n in range(max(len(ours), len(theirs))):
            a, b = (lines[n] if n < len(lines) else None for lines in (ours, theirs))
            if a is None or b is None or (a.id, a.what, a.why) != (b.id, b.what, b.why) or abs(a.at - b.at) > 1e-3:
                found.append("\n".join((f"{name}:", *map(str, theirs[max(0, n - 5) : n]), f"live {a}", f"pure {b}")))
                break
    return found


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_live_tree_does_what_the_policy_says(backend: Backend, chunk: int) -> None:
    """O1: `ACTORFLOW_HISTORIES` says how many; a failure names its seed."""
    for seed in range(chunk, HISTORIES, CHUNKS):
        history = alive(random_history(Random(seed)))
        found = differences(lived(history, backend), FakeTree(history).live())
        assert not found, f"seed {seed}: " + "\n".join(found)
