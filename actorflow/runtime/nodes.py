"""One supervisor of the live tree: it obeys `policies.supervision`.

It is no task: it is handed events and does at once what the policy says. What its end means for others ends with its parents:
at the top it is logged, and all else in the runtime goes on.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from attrs import define, field

from actorflow.policies import supervision
from actorflow.policies.tree import (
    Action,
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
from actorflow.runtime.lives import Life, text_of
from actorflow.runtime.loops import Signal
from actorflow.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from actorflow.runtime.tree import Tree

log: logging.Logger = logging.getLogger("actorflow")


@define(eq=False, repr=False)
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

    def boot(self) -> None:
        """Start all its children, in order."""
        self.hand(Boot())

    def stop(self) -> None:
        """Stop all its children, last one first."""
        self.hand(StopRequested())

    def stop_child(self, name: str) -> None:
        """Stop one. No effect on one that is down."""
        self.hand(StopChild(name))

    def start_child(self, name: str) -> None:
        """Start one. No effect on one that is up."""
        self.hand(StartChild(name))

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
                node.boot()
            case Start(id, generation):
                Life(self, self._actors[id], generation).begin()
            case Stop(id, generation) if id in self._nested:
                self.nodes[id].stop()
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
    def error(self) -> BaseException | None:
        """What it failed with, if it has."""
        return self.why.error if isinstance(self.why, Failed) else None

    @property
    def failure(self) -> str | None:
        """What made it end, if that was no request and no end of a significant child."""
        return text_of(self.why) if isinstance(self.why, Failed) else self.gave_up
