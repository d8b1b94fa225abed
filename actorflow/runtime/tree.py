"""The live tree: supervisors that obey `policies.supervision`, and what there is to see of them.

A supervisor here is no task: it is handed events and does at once what the policy says. What a supervisor's end means for
others ends with its parents: at the top it is logged, and all else in the runtime goes on.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from actorflow.errors import InvalidState, StoreStopped
from actorflow.operations import TreeNode
from actorflow.policies import supervision
from actorflow.policies.tree import (
    Action,
    After,
    Boot,
    ChildState,
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
from actorflow.records import Address
from actorflow.runtime.lives import Life, address_of, text_of
from actorflow.runtime.loops import Signal
from actorflow.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from actorflow.policies.failure import FailureReport
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host
    from actorflow.runtime.lives import Live

log: logging.Logger = logging.getLogger("actorflow")


@define(eq=False)
class Node:
    """One start of one supervisor, to its end."""

    tree: Tree
    spec: Supervisor
    parent: Node | None
    generation: int = 0  #: as its parent counts its starts
    state: SupervisorState = field(init=False)
    nodes: dict[str, Node] = field(factory=dict[str, "Node"])
    failures: dict[str, str] = field(factory=dict[str, str])  #: the last one of each child
    ready: bool = False  #: all its children were up
    gave_up: str | None = None  #: it restarted somebody too often
    why: Why | None = None  #: with what it ended
    settled: Signal = field(init=False)  #: it was ready, or has ended
    ended: Signal = field(init=False)
    _events: deque[Event] = field(factory=deque[Event])
    _busy: bool = False
    _nested: dict[str, Supervisor] = field(init=False)
    _actors: dict[str, Child[Any]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = supervision.supervisor(self.spec.spec())
        self.settled, self.ended = Signal(self.tree.host.loop), Signal(self.tree.host.loop)
        self._nested = {child.id: child for child in self.spec.children if isinstance(child, Supervisor)}
        self._actors = {child.id: child for child in self.spec.children if isinstance(child, Child)}

    def hand(self, event: Event) -> None:
        """Something happened: decide, and do it. What that leads to at once waits in line."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                self._decide(self._events.popleft())
        finally:
            self._busy = False

    def _decide(self, event: Event) -> None:
        host = self.tree.host
        if self.tree.lost:
            return
        now, die = host.clock.monotonic(), host.chance.jitter()
        self.state, actions = supervision.decide(self.state, event, now=now, die=die)
        if isinstance(event, Exited) and not any(isinstance(action, Keep) for action in actions):
            life = self.tree.life(event.child, event.generation)
            if life is not None:
                life.over(for_good=self._for_good(event.child))
        for action in actions:
            self._obey(action)

    def _for_good(self, id: str) -> bool:
        """True if that child, which has ended, does not come back by itself, as far as is known here."""
        state, child = self.state, self.state.child(id)
        if self.tree.closing or (child is not None and child.status != "down"):
            return False
        if state.phase in ("exiting", "ended"):
            return self.parent is None
        return not state.plan.stops and not state.plan.starts and all(each.status != "restarting" for each in state.children)

    def _obey(self, action: Action) -> None:
        match action:
            case Start(id, generation) if id in self._nested:
                node = self.nodes[id] = Node(self.tree, self._nested[id], self, generation)
                node.hand(Boot())
            case Start(id, generation):
                Life(self, self._actors[id], generation).begin()
            case Stop(id, generation) if id in self._nested:
                self.nodes[id].hand(StopRequested())
            case Stop(id, generation, within_s):
                life = self.tree.life(id, generation)
                if life is None:
                    self.hand(Exited(id, generation, "shutdown"))
                else:
                    life.stop(within_s or 0.0)
            case Keep(id, generation):
                life = self.tree.life(id, generation)
                if life is not None and life.actor is not None:
                    life.actor.go_on()
            case After(delay_s, event):
                self.tree.host.deadlines.after(delay_s, lambda: self.hand(event))
            case Report():
                self._report(action)
            case Ready():
                self.ready = True
                self.settled.set()
                if self.parent is not None:
                    self.parent.hand(Started(self.spec.id, self.generation))
            case Exit(why):
                self.end(why)

    def _report(self, report: Report) -> None:
        what = f"{report.what.replace('_', ' ')} ({text_of(report.why)})"
        self.failures[report.child] = text_of(report.why)
        if report.what == "too_many_restarts":
            self.gave_up = f"{report.child}: {what}"
        log.warning("%s > %s: %s", self.spec.name, report.child, what)

    def end(self, why: Why) -> None:
        """All its children are down."""
        self.why = why
        self.settled.set()
        self.ended.set()
        if self.parent is not None:
            self.parent.hand(Exited(self.spec.id, self.generation, why))
        elif self.failure is not None:
            log.critical(
                "supervisor %s has ended and stays down, with all below it: %s. Everything else goes on. Mend what failed, "
                "then `runtime.start_child(%r)`.",
                self.spec.name,
                self.failure,
                self.spec.name,
            )
        else:
            log.info("supervisor %s has ended", self.spec.name)

    @property
    def failure(self) -> str | None:
        """What made it end, if that was no request and no end of a significant child."""
        return text_of(self.why) if isinstance(self.why, Failed) else self.gave_up


@define(eq=False)
class Tree:
    """All supervisors of a runtime."""

    host: Host
    roots: tuple[Supervisor, ...]
    nodes: list[Node] = field(factory=list[Node], init=False)  #: at the top, in the order of their start
    lives: dict[Address, Life] = field(factory=dict[Address, Life], init=False)  #: of the static children that shall be in memory
    down: set[int] = field(factory=set[int], init=False)  #: static children whose mail wakes nobody
    closing: bool = field(default=False, init=False)
    lost: bool = field(default=False, init=False)  #: the store takes nothing any more: nothing is decided
    _children: dict[Address, Child[Any]] = field(init=False)
    _above: dict[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]], init=False)  #: from the top down

    def __attrs_post_init__(self) -> None:
        self._children = {}
        for root in self.roots:
            self._register(root, ())

    def _register(self, child: Child[Any] | Supervisor, above: tuple[str, ...]) -> None:
        self._above[child.id] = above
        if isinstance(child, Child):
            self._children[address_of(child)] = child
            return
        for each in child.children:
            self._register(each, (*above, child.id))

    # --- life -----------------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Start all, in order.

        Raises:
            Exception: What kept a child from starting. What was up by then is to be stopped by `close`.
        """
        for spec in self.roots:
            node = Node(self, spec, None)
            self.nodes.append(node)
            node.hand(Boot())
            await node.settled.wait()
            if not node.ready:
                if isinstance(node.why, Failed):
                    raise node.why.error
                raise self.host.committer.stopped or StoreStopped(f"supervisor {spec.name} was stopped before it was up")

    async def close(self) -> None:
        """Stop all, last one first; each child has its own time for that."""
        self.closing = True
        for node in reversed(self.nodes):
            node.hand(StopRequested())
            await node.ended.wait()

    def abandon(self) -> None:
        """The store takes nothing any more, so nobody is in memory: it is as if the process had died."""
        self.lost = True
        self.lives.clear()
        for node in self.nodes:
            node.settled.set()
            node.ended.set()

    # --- static children ------------------------------------------------------------------------------------------------

    def holds(self, address: Address) -> bool:
        """True if that actor is a static child: it is in memory only when its supervisor wants it."""
        return address in self._children

    def wanted(self, address: Address) -> bool:
        """True if its supervisor wants it in memory now."""
        return address in self.lives

    def given(self, address: Address) -> Any:
        """The fields for its very first start: an instance, or its class if the defaults will do; None if it is no child."""
        child = self._children.get(address)
        return None if child is None else child.actor

    def life(self, id: str, generation: int) -> Life | None:
        """That life of that child, if it is not over."""
        life = self.lives.get(_address(id))
        return life if life is not None and life.generation == generation else None

    def started(self, actor: Live) -> None:
        """Its `on_start` is done, and durable if it is."""
        if (life := self.lives.get(actor.address)) is not None:
            life.started()

    def failed(self, actor: Live, error: BaseException) -> None:
        """It has stopped after a failure, and waits for the decision."""
        if (life := self.lives.get(actor.address)) is not None:
            life.failed(error)

    def left(self, actor: Live) -> None:
        """It has ended by itself."""
        if (life := self.lives.get(actor.address)) is not None:
            life.end("normal")

    def set_aside(self, activation: Activation, reason: str, report: FailureReport | None) -> None:
        """Its row says that it cannot go on."""
        if (life := self.lives.get(activation.address)) is not None:
            life.set_aside(reason, report)

    def dropped(self, activation: Activation) -> None:
        """A commit of it was refused."""
        if (life := self.lives.get(activation.address)) is not None:
            life.dropped()

    # --- operators ------------------------------------------------------------------------------------------------------

    def stop_child(self, name: str) -> None:
        """It stays down until `start_child`, or a restart of its group. No effect on one that is down.

        Raises:
            LookupError: There is none of that name.
        """
        top = self._top(name)
        if top is not None:
            top.hand(StopRequested())
        elif (node := self._supervisor_of(name)) is not None:
            node.hand(StopChild(name))

    def start_child(self, name: str) -> None:
        """Start one that is down. No effect on one that is up.

        Raises:
            LookupError: There is none of that name.
            InvalidState: Its supervisor is down; or it was temporary, and has ended.
        """
        top = self._top(name)
        if top is not None:
            if top.ended.is_set:
                again = Node(self, top.spec, None)
                self.nodes[self.nodes.index(top)] = again
                again.hand(Boot())
            return
        node = self._supervisor_of(name)
        if node is None:
            above = self._above[name][-1]
            raise InvalidState("start", name, f"below supervisor {above}, which is down", f"Start {above} first.")
        if node.state.child(name) is None:
            above = self._above[name][-1]
            raise InvalidState("start", name, "temporary, and has ended", f"It starts with {above} only.")
        node.hand(StartChild(name))

    def _top(self, name: str) -> Node | None:
        if name not in self._above:
            raise LookupError(f"the tree has no child {name!r}; `runtime.tree()` shows those there are")
        return next((node for node in self.nodes if node.spec.id == name), None)

    def _supervisor_of(self, name: str) -> Node | None:
        """The live supervisor of that child; None if it is down."""
        top, *between = self._above[name]
        node = next((node for node in self.nodes if node.spec.id == top), None)
        for id in between:
            node = None if node is None else node.nodes.get(id)
        return None if node is None or node.why is not None else node

    # --- to look at -----------------------------------------------------------------------------------------------------

    def shown(self) -> TreeNode:
        """The tree as values."""
        return TreeNode(name="tree", what="runtime", children=tuple(self._shown(node) for node in self.nodes))

    def _shown(self, node: Node) -> TreeNode:
        now, state = self.host.clock.monotonic(), node.state
        spent = sum(1 for at in state.budget.spent if at >= now - state.budget.within_s)
        children = tuple(self._child(node, child) for child in state.children)
        return TreeNode(
            name=node.spec.name,
            what="supervisor",
            state=state.phase if node.why is None else "ended",
            restarts_left=max(0, state.budget.restarts - spent),
            last_failure=node.failure,
            children=children,
        )

    def _child(self, node: Node, child: ChildState) -> TreeNode:
        below = node.nodes.get(child.id)
        if below is not None:
            shown = self._shown(below)
            if child.status in ("restarting", "down"):
                shown = evolve(shown, state=child.status)
        elif (life := self.life(child.id, child.generation)) is not None and life.activation is not None:
            shown = self.host.cast.shown(life.activation, child.status)
        else:
            kind: Any = "supervisor" if child.spec.nested else "actor"
            shown = TreeNode(name=child.id, what=kind, state=child.status)
            if (actor := self.host.cast.memory.find(_address(child.id))) is not None:
                shown = evolve(shown, mailbox=len(actor.mail))
        failure = node.failures.get(child.id, shown.last_failure)
        return evolve(shown, restarts=max(0, child.generation - 1), last_failure=failure)


def _address(id: str) -> Address:
    kind, _, key = id.partition("/")
    return Address(kind, key)
