"""One life of a static child: from the moment when its supervisor starts it to its end, which is told once.

A child that starts is loaded (or made, the very first time) and is up when its `on_start` is durable. One that stops finishes
its turn; when its time is over its steps are cancelled, and one that does not even end then is left to itself. Between two
lives it is not in memory, and its mail waits as rows.

One that was at work in several unclean ends of the process is not even tried: it is down, and the tree does without it until
an operator starts it. Else it would take the whole service along again and again.

A memory-only child has neither row nor commits: it is up as soon as its `on_start` has ended, and one whose time is over is left
to itself at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field

from actorflow.errors import ActorPaused, StoreUnavailable
from actorflow.policies.supervision import decision_on
from actorflow.policies.tree import Exited, Failed, Started, StopChild, Why
from actorflow.records import Address
from actorflow.runtime import reports
from actorflow.runtime.calls import Abandonable
from actorflow.runtime.timers import Timer
from actorflow.supervisor import Child

if TYPE_CHECKING:
    from actorflow.policies.failure import FailureReport
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.memory_actor import MemoryActor
    from actorflow.runtime.nodes import Node

    Live: TypeAlias = Activation | MemoryActor

log: logging.Logger = logging.getLogger("actorflow")


def address_of(child: Child[Any]) -> Address:
    """Where its mail goes."""
    return Address(child.cls.__kind__, child.key)


def text_of(why: Why) -> str:
    """For people."""
    if isinstance(why, Failed):
        return f"{type(why.error).__qualname__}: {why.error}"[:500]
    return why


@define(eq=False, repr=False)
class Life:
    """One start of one child. News of a life that is over changes nothing."""

    node: Node
    child: Child[Any]
    generation: int  #: as its supervisor counts its starts
    address: Address = field(init=False)
    _ends_as: Why = field(default="shutdown", init=False)
    _late: Timer | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)
    _asked: bool = field(init=False)  #: an operator wants it

    def __attrs_post_init__(self) -> None:
        self.address = address_of(self.child)
        self._asked = self.node.state.plan.asked

    def current(self) -> bool:
        """True until its end."""
        return self.node.tree.lives.get(self.address) is self

    @property
    def activation(self) -> Activation | None:
        """It, in memory, if it is durable."""
        return self.node.tree.host.by_address.get(self.address)

    @property
    def actor(self) -> Live | None:
        """It, in memory."""
        return self.activation or self.node.tree.host.cast.memory.find(self.address)

    # --- its beginning --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Load it, beside."""
        self.node.tree.lives[self.address] = self
        self.node.tree.host.spawn(self._begin)

    async def _begin(self) -> None:
        try:
            await self._load()
        except Exception as error:  # noqa: BLE001  (whatever keeps it from starting is its supervisor's matter)
            self.end(Failed(error))

    async def _load(self) -> None:
        host, tree = self.node.tree.host, self.node.tree
        if host.cast.in_memory(self.address):
            if self.current():
                host.cast.memory.start(self.address, self.child)
            return
        run = await host.cast.receiver(self.address)
        assert run is not None
        if self.current() and run.status == "paused":
            found = await host.store.get(run.id)
            if found is not None and found.reason == "interrupted" and not self._asked:
                self.set_aside("interrupted", reports.decode(found.report))
                return
            await host.cast.unpause(run)  # A start is what it needs; why it was set aside is in its log.
        if not self.current():
            return
        tree.down.discard(run.id)
        if self.activation is None:
            await host.loading.load(run.id)
        if not self.current() or self.activation is not None:
            return
        # It ended before anybody saw it in memory, or cannot be loaded at all.
        found = await host.store.get(run.id)
        if found is not None and found.status == "paused":
            raise ActorPaused(self.address, found.reason or "", reports.decode(found.report))
        raise StoreUnavailable(f"{self.address} could not be loaded from the store; the log says why. Start it again.")

    def started(self) -> None:
        """Its `on_start` is done, and durable if it is."""
        self.node.hand(Started(str(self.address), self.generation))

    # --- its end --------------------------------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> None:
        """It takes no turn any more, unless its supervisor says "keep"; otherwise `over` follows."""
        self.node.hand(Exited(str(self.address), self.generation, Failed(error)))

    def set_aside(self, reason: str, report: FailureReport | None) -> None:
        """Its row says that it cannot go on; so there is nothing that could be kept."""
        if not self.current():
            return
        error = ActorPaused(self.address, reason, report)
        if reason == "interrupted":
            log.error("%s stays down until `runtime.start_child(%r)`: %s", self.address, str(self.address), error)
            self.node.failures[str(self.address)] = text_of(Failed(error))
            self.started()  # For those that come after it.
            self.node.hand(StopChild(str(self.address)))
            return
        state = self.node.state.child(str(self.address))
        running = state is not None and state.status == "running"
        kept = running and decision_on(self.node.state.spec.on, error) == "keep"
        self.end("killed" if kept else Failed(error))
        self.node.failures[str(self.address)] = text_of(Failed(error))

    def stop(self, within_s: float) -> None:
        """Let it finish its turn; cancel that if it takes longer."""
        actor = self.actor
        if actor is None:  # It is still being loaded.
            self.end("shutdown")
            return
        self._stopping = True
        self._late = self.node.tree.host.deadlines.after(within_s, self._cut)
        actor.retire(self._finished)

    def _finished(self) -> None:
        self.end(self._ends_as)

    def _cut(self) -> None:
        """Its time is over. What it leaves is as after a crash that nobody counts; the next life goes on with it."""
        self._ends_as, activation, host = "killed", self.activation, self.node.tree.host
        if activation is not None:
            self._late = host.deadlines.after(host.limits.cancel_grace_s, self._abandon)
            for call in (*activation.calls.values(), *activation.halted):
                if isinstance(call, Abandonable):
                    call.drain()
        elif self.actor is not None:
            self.end("killed")

    def _abandon(self) -> None:
        """Not even the cancellation ended it."""
        if (activation := self.activation) is not None:
            activation.submit([activation.state("waiting", wake_at=0.0)], lambda: None)
        self.end("killed")

    def dropped(self) -> None:
        """A commit of it was refused; it left memory, and is loaded again unless it was to leave anyway."""
        if self._stopping:
            self.end(self._ends_as)

    def end(self, why: Why) -> None:
        """It has ended."""
        if self._late is not None:
            self._late.cancel()
        if self.current() and not self._over:
            self._over = True
            self.node.hand(Exited(str(self.address), self.generation, why))

    def over(self, *, for_good: bool) -> None:
        """Its supervisor knows of its end. Out of memory; from here on its mail waits."""
        if self._late is not None:
            self._late.cancel()
        tree = self.node.tree
        del tree.lives[self.address]
        if (activation := self.activation) is not None:
            tree.down.add(activation.run.id)
            tree.host.remove(activation)
            if for_good:
                tree.host.cast.tell_watchers(activation, "stopped")
        elif (actor := tree.host.cast.memory.find(self.address)) is not None:
            actor.kill()
            if for_good:
                tree.host.cast.memory.gone(actor, "stopped")
