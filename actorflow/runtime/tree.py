"""The live tree: supervisors that obey `policies.supervision`, and what there is to see of them.

A supervisor here is no task: it is handed events and does at once what the policy says. Starting a child is loading its
actor and waiting for its `on_start`; stopping one lets its turn finish, then cancels it.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, evolve, field

from actorflow.errors import StoreStopped
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
from actorflow.runtime.loops import Signal
from actorflow.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.handling import ActorActivation
    from actorflow.runtime.host import Host
    from actorflow.runtime.memory_actor import MemoryActor

log: logging.Logger = logging.getLogger("actorflow")


class Placed(Protocol):
    """A live actor."""

    address: Address


@define(eq=False)
class Node:
    """One live supervisor."""

    tree: Tree
    spec: Supervisor
    parent: Node | None
    generation: int = 0  #: as its parent counts its starts
    state: SupervisorState = field(init=False)
    nodes: dict[str, Node] = field(factory=dict[str, "Node"])
    failures: dict[str, str] = field(factory=dict[str, str])  #: the last one of each child
    restarts: dict[str, int] = field(factory=dict[str, int])
    over: Signal | None = None  #: set when all its children are up, or it has ended
    why: Why | None = None  #: with what it ended
    _events: deque[Event] = field(factory=deque[Event])
    _busy: bool = False

    def __attrs_post_init__(self) -> None:
        self.state = supervision.supervisor(self.spec.spec())

    def hand(self, event: Event) -> None:
        """Something happened: decide, and do it. What that leads to at once waits in line."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            host = self.tree.host
            while self._events:
                event = self._events.popleft()
                now, die = host.clock.monotonic(), host.chance.jitter()
                self.state, actions = supervision.decide(self.state, event, now=now, die=die)
                for action in actions:
                    self._obey(action)
        finally:
            self._busy = False

    def _obey(self, action: Action) -> None:
        match action:
            case Start(id, generation):
                self.restarts[id] = generation - 1
                if id in self.nested:
                    self._start_supervisor(self.nested[id], generation)
                else:
                    self.tree.start(self, self.actors[id], generation)
            case Stop(id, generation, within_s):
                if id in self.nested:
                    self._stop_supervisor(id, generation)
                else:
                    self.tree.stop(self, self.actors[id], generation, within_s)
            case Keep(id):
                self.tree.keep(self.actors[id])
            case After(delay_s, event):
                self.tree.host.deadlines.after(delay_s, lambda: self.hand(event))
            case Report():
                self._report(action)
            case Ready():
                self._told()
                if self.parent is not None:
                    self.parent.hand(Started(self.spec.id, self.generation))
            case Exit(why):
                self.why = why
                self._told()
                if self.parent is not None:
                    self.parent.hand(Exited(self.spec.id, self.generation, why))
                elif why != "shutdown" or not self.tree.closing:
                    log.critical("supervisor %s has ended (%s) and stays down", self.spec.name, _text(why))

    def _start_supervisor(self, spec: Supervisor, generation: int) -> None:
        node = self.nodes[spec.id] = Node(self.tree, spec, self, generation)
        node.hand(Boot())

    def _stop_supervisor(self, id: str, generation: int) -> None:
        node = self.nodes.get(id)
        if node is None or node.why is not None:
            self.hand(Exited(id, generation, "shutdown"))
        else:
            node.hand(StopRequested())

    def _report(self, report: Report) -> None:
        self.failures[report.child] = _text(report.why)
        where = f"{self.spec.name} > {report.child}"
        log.warning("%s: %s (%s)", where, report.what.replace("_", " "), _text(report.why))

    def _told(self) -> None:
        if self.over is not None:
            self.over.set()

    @property
    def nested(self) -> dict[str, Supervisor]:
        return {child.id: child for child in self.spec.children if isinstance(child, Supervisor)}

    @property
    def actors(self) -> dict[str, Child[Any]]:
        return {child.id: child for child in self.spec.children if isinstance(child, Child)}


@define(eq=False)
class Tree:
    """All supervisors of a runtime."""

    host: Host
    roots: tuple[Supervisor, ...]
    nodes: list[Node] = field(factory=list[Node], init=False)
    closing: bool = field(default=False, init=False)  #: the runtime stops it, in order
    _place: dict[Address, tuple[Node, int]] = field(factory=dict[Address, "tuple[Node, int]"], init=False)
    _all: frozenset[Address] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._all = frozenset(_addresses(self.roots))

    # --- life -----------------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Start all, in order.

        Raises:
            Exception: What kept a child from starting. What was up by then is stopped.
        """
        for spec in self.roots:
            node = Node(self, spec, None)
            node.over = Signal(self.host.loop)
            self.nodes.append(node)
            node.hand(Boot())
            await node.over.wait()
            if node.why is not None:
                raise node.why.error if isinstance(node.why, Failed) else StoreStopped(f"supervisor {spec.name} did not start")

    async def close(self) -> None:
        """Stop all, last one first; each child has its own time for that."""
        self.closing = True
        for node in reversed(self.nodes):
            if node.why is None:
                node.over = Signal(self.host.loop)
                node.hand(StopRequested())
                await node.over.wait()

    def holds(self, address: Address) -> bool:
        """True if that actor is a static child: it is in memory only when its supervisor wants it."""
        return address in self._all

    def wanted(self, address: Address) -> bool:
        """True if its supervisor wants it in memory now."""
        return address in self._place

    def child(self, name: str) -> tuple[Node, str]:
        """The supervisor of the child of that name ("kind/key", or a supervisor's name).

        Raises:
            LookupError: There is no such child.
        """
        todo = list(self.nodes)
        while todo:
            node = todo.pop()
            if node.state.child(name) is not None:
                return node, name
            todo.extend(node.nodes.values())
        raise LookupError(f"the tree has no child {name!r}; `runtime.tree()` shows those there are")

    def stop_child(self, name: str) -> None:
        """It stays down until `start_child`, or a restart of its group."""
        node, id = self.child(name)
        node.hand(StopChild(id))

    def start_child(self, name: str) -> None:
        """Start one that is down."""
        node, id = self.child(name)
        node.hand(StartChild(id))

    # --- one child ------------------------------------------------------------------------------------------------------

    def start(self, node: Node, child: Child[Any], generation: int) -> None:
        """Load it; it is started when its `on_start` is done."""
        address = _address(child)
        self._place[address] = (node, generation)
        self.host.spawn(lambda: self._start(node, child, generation))

    async def _start(self, node: Node, child: Child[Any], generation: int) -> None:
        host, address = self.host, _address(child)
        try:
            if host.cast.in_memory(address):
                host.cast.memory.start(address, child)
                return
            activation = host.by_address.get(address)
            if activation is not None:
                host.remove(activation)
            run = await host.find(address)
            if run is None:
                given = child.actor if not isinstance(child.actor, type) else child.actor()
                await host.cast.make(address, child.cls.__kind_info__().encode(given))
            elif address not in host.by_address:
                if run.status == "paused":
                    await host.cast.unpause(run)
                await host.loading.load(run.id)
            if address not in host.by_address and self._place.get(address) == (node, generation):
                raise StoreStopped(f"{address} could not be loaded")
        except Exception as error:  # noqa: BLE001  (whatever keeps it from starting is its supervisor's matter)
            self.gone(address, Failed(error))

    def started(self, activation: Placed) -> None:
        """Its `on_start` is done."""
        placed = self._place.get(activation.address)
        if placed is not None:
            node, generation = placed
            node.hand(Started(str(activation.address), generation))

    def failed(self, activation: Placed, error: BaseException) -> None:
        """It has stopped after a failure, and waits for the decision."""
        placed = self._place.get(activation.address)
        if placed is not None:
            node, generation = placed
            node.hand(Exited(str(activation.address), generation, Failed(error)))

    def left(self, activation: ActorActivation, why: Why = "normal") -> None:
        """It has ended by itself, or could not be loaded."""
        self.host.remove(activation)
        self.gone(activation.address, why)

    def gone(self, address: Address, why: Why) -> None:
        """It is down."""
        placed = self._place.pop(address, None)
        if placed is not None:
            node, generation = placed
            node.hand(Exited(str(address), generation, why))

    def keep(self, child: Child[Any]) -> None:
        """It failed, and goes on as it is."""
        activation = self._live(_address(child))
        if activation is not None:
            activation.go_on()

    def _live(self, address: Address) -> Activation | MemoryActor | None:
        return self.host.by_address.get(address) or self.host.cast.memory.find(address)

    def stop(self, node: Node, child: Child[Any], generation: int, within_s: float | None) -> None:
        """Let it finish its turn; cancel it if that takes too long."""
        address = _address(child)
        activation = self._live(address)
        if activation is None:
            self._place[address] = (node, generation)
            self.gone(address, "shutdown")
            return
        stopped = False

        def end(why: Why) -> None:
            nonlocal stopped
            if not stopped:
                stopped = True
                timer.cancel()
                activation.dismiss()
                self.gone(address, why)

        timer = self.host.deadlines.after(within_s if within_s is not None else 1e9, lambda: end("killed"))
        activation.retire(lambda: end("shutdown"))

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
            last_failure=None if node.why in (None, "shutdown") else _text(node.why),
            children=children,
        )

    def _child(self, node: Node, child: ChildState) -> TreeNode:
        if child.id in node.nested:
            below = node.nodes.get(child.id)
            shown = TreeNode(name=child.id, what="supervisor", state=child.status) if below is None else self._shown(below)
        else:
            kind, _, key = child.id.partition("/")
            activation = self.host.by_address.get(Address(kind, key))
            shown = TreeNode(name=child.id, what="actor", state=child.status)
            if activation is not None:
                shown = self.host.cast.shown(activation, child.status)
            elif (actor := self.host.cast.memory.find(Address(kind, key))) is not None:
                shown = evolve(shown, mailbox=len(actor.mail))
        failure = node.failures.get(child.id, shown.last_failure)
        return evolve(shown, restarts=node.restarts.get(child.id, 0), last_failure=failure)


def _address(child: Child[Any]) -> Address:
    return Address(child.cls.__kind__, child.key)


def _addresses(supervisors: tuple[Any, ...]) -> list[Address]:
    found: list[Address] = []
    for each in supervisors:
        found.extend(_addresses(each.children) if isinstance(each, Supervisor) else [_address(each)])
    return found


def _text(why: Why | None) -> str:
    if isinstance(why, Failed):
        return f"{type(why.error).__qualname__}: {why.error}"[:500]
    return str(why)
