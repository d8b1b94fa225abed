"""The nouns of supervision: who is supervised by which rules, what happens, what is to be done. Pure values.

`supervision.decide` takes the events and returns the actions.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from actorflow.policies.restarts import Backoff, Budget
from actorflow.value import Value

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
RestartType = Literal["permanent", "transient", "temporary"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]
Decision = Literal["restart", "keep", "stop", "escalate"]
ChildStatus = Literal["down", "starting", "running", "exited", "restarting", "stopping"]
Phase = Literal["new", "booting", "running", "exiting", "ended"]


# --- who is supervised -----------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ChildSpec(Value):
    """One static child. Its `id` is unique in its tree."""

    id: str
    nested: bool = False  #: a supervisor: once it has ended there is nothing that could be kept
    restart: RestartType = "permanent"
    stop_s: float | None = 5.0  #: how long it may take to stop before it is cancelled; None is without limit
    significant: bool = False


@frozen(kw_only=True)
class SupervisorSpec(Value):
    """One supervisor: whom it watches, and by which rules."""

    name: str
    strategy: Strategy = "one_for_one"
    restarts: int = 3
    within_s: float = 60.0
    backoff: Backoff = field(factory=Backoff)
    auto_shutdown: AutoShutdown = "never"
    on: tuple[tuple[type[Exception], Decision], ...] = ()
    children: tuple[ChildSpec, ...] = ()


@frozen
class Failed(Value):
    """It ended with an exception."""

    error: BaseException


Why = Literal["normal", "shutdown", "killed"] | Failed
"""Why something ended: by itself; because it was told to; cancelled for not stopping in time; with an exception."""


# --- events: what happened -------------------------------------------------------------------------------------------


@frozen
class Boot(Value):
    """Start all children in order. The first event of every state."""


@frozen
class Started(Value):
    """A child's `on_start` is done; a nested supervisor is `Ready`."""

    child: str
    generation: int


@frozen
class Exited(Value):
    """A child has ended: failed to start, ended by itself or by an exception, or was stopped. It takes no turn any more,
    unless `Keep` answers.
    """

    child: str
    generation: int
    why: Why


@frozen
class RestartDue(Value):
    """The delay of an `After` has passed."""

    child: str
    generation: int


@frozen
class StopRequested(Value):
    """Stop all children in reverse order and exit. Comes from the parent, or from the runtime that closes."""


@frozen
class StopChild(Value):
    """An operator wants a child stopped. It stays down until a `StartChild` or a restart of its group."""

    child: str


@frozen
class StartChild(Value):
    """An operator wants a child that is down started. If that fails it stays down and nothing is counted."""

    child: str


Event = Boot | Started | Exited | RestartDue | StopRequested | StopChild | StartChild


# --- actions: what to do ---------------------------------------------------------------------------------------------


@frozen
class Start(Value):
    """Start a child from its spec; answer with `Started` or `Exited` of that generation."""

    child: str
    generation: int


@frozen
class Stop(Value):
    """Ask a child to stop, cancel it if it takes longer, wait for its end without limit, and answer with `Exited`. It may
    still be starting, or have ended already.
    """

    child: str
    generation: int
    within_s: float | None  #: None (a nested supervisor): it is never cancelled, its subtree would leak


@frozen
class Keep(Value):
    """Let a child that failed go on as it is, with its next message."""

    child: str
    generation: int


@frozen
class After(Value):
    """Hand in the event when so many seconds have passed. It need not be cancelled: an old one is ignored."""

    delay_s: float
    event: RestartDue


@frozen
class Report(Value):
    """Tell whoever watches: a child ended, did not start, was kept, did not stop as it should, was restarted too often
    (the supervisor exits), or passes its failure on to the parent.
    """

    child: str
    what: Literal["exited", "not_started", "kept", "stop_failed", "too_many_restarts", "escalated"]
    why: Why


@frozen
class Ready(Value):
    """All children are up."""


@frozen
class Exit(Value):
    """All children are down and the supervisor has ended; its state takes no more events.

    `why` is "shutdown" after a request, an auto-shutdown or too many restarts; otherwise the child's whose start failed at
    boot, or whose failure is escalated.
    """

    why: Why


Action = Start | Stop | Keep | After | Report | Ready | Exit


# --- state -----------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ChildState(Value):
    """A child as its supervisor sees it."""

    spec: ChildSpec
    status: ChildStatus = "down"  #: "exited" waits for the decision on its end, "restarting" for its delay
    generation: int = 0  #: of its latest start, from 1
    failures: int = 0  #: in a row
    since: float | None = None  #: when it last became "running"; None once a restart was decided

    @property
    def id(self) -> str:
        """Its name in the tree."""
        return self.spec.id


@frozen(kw_only=True)
class Plan(Value):
    """What is still to be done, in order: first the stops, then the starts."""

    stops: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    asked: bool = False  #: by an operator: a failed start is then not tried again


@frozen(kw_only=True)
class SupervisorState(Value):
    """All that a supervisor knows between two events."""

    spec: SupervisorSpec
    phase: Phase = "new"
    children: tuple[ChildState, ...] = ()  #: in the order of their start; temporary ones leave it when they end
    budget: Budget = field(factory=Budget)
    plan: Plan = field(factory=Plan)
    backlog: tuple[Event, ...] = ()  #: what waits for the plan's end, oldest first; at most three for each child
    why: Why = "shutdown"  #: with what it exits

    def child(self, id: str) -> ChildState | None:
        """The child of that id, unless it has left."""
        return next((child for child in self.children if child.id == id), None)
