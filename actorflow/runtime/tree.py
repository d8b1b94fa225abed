"""The live tree: its supervisors, their children, and what there is to see of them.

A service without supervisors has an empty one, so what supervisors are made of is imported with the first of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from actorflow.errors import InvalidState, StoreStopped
from actorflow.operations import TreeNode
from actorflow.records import Address

if TYPE_CHECKING:
    from actorflow.policies.failure import FailureReport
    from actorflow.policies.tree import ChildState
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host
    from actorflow.runtime.lives import Life, Live
    from actorflow.runtime.nodes import Node
    from actorflow.supervisor import Child, Supervisor


class Tree:
    """All supervisors of a runtime."""

    def __init__(self, host: Host, roots: tuple[Supervisor, ...]) -> None:
        self.host = host
        self.roots = roots
        self.nodes: list[Node] = []  #: at the top, in the order of their start
        self.lives: dict[Address, Life] = {}  #: of those that shall be in memory
        self.down: set[int] = set()  #: static children whose mail wakes nobody
        self.closing: bool = False
        self.lost: bool = False  #: the store takes nothing any more: nothing is decided
        self._children: dict[Address, Child[Any]] = {}
        self._above: dict[str, tuple[str, ...]] = {}  #: from the top down
        for root in roots:
            self._register(root, ())

    def _register(self, child: Child[Any] | Supervisor, above: tuple[str, ...]) -> None:
        from actorflow.supervisor import Child  # noqa: PLC0415  (see the top of this module)

        self._above[child.id] = above
        if isinstance(child, Child):
            self._children[Address(child.cls.__kind__, child.key)] = child
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
            node = self._node(spec)
            self.nodes.append(node)
            node.boot()
            await node.settled.wait()
            if not node.ready:
                raise (
                    node.error
                    or self.host.committer.stopped
                    or StoreStopped(f"supervisor {spec.name} was stopped before it was up")
                )

    def _node(self, spec: Supervisor) -> Node:
        from actorflow.runtime.nodes import Node  # noqa: PLC0415  (see the top of this module)

        return Node(self, spec, None)

    async def close(self) -> None:
        """Stop all, last one first; each child has its own time for that."""
        self.closing = True
        for node in reversed(self.nodes):
            node.stop()
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
            top.stop()
        elif (node := self._supervisor_of(name)) is not None:
            node.stop_child(name)

    def start_child(self, name: str) -> None:
        """Start one that is down. No effect on one that is up.

        Raises:
            LookupError: There is none of that name.
            InvalidState: Its supervisor is down; or it was temporary, and has ended.
        """
        top = self._top(name)
        if top is not None:
            if top.ended.is_set:
                again = self._node(top.spec)
                self.nodes[self.nodes.index(top)] = again
                again.boot()
            return
        node = self._supervisor_of(name)
        if node is None:
            above = self._above[name][-1]
            raise InvalidState("start", name, f"below supervisor {above}, which is down", f"Start {above} first.")
        if node.state.child(name) is None:
            above = self._above[name][-1]
            raise InvalidState("start", name, "temporary, and has ended", f"It starts with {above} only.")
        node.start_child(name)

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
