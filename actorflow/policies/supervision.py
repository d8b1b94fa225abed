"""What a supervisor does when its children start, fail and end: OTP's rules as one function. Pure.

`decide` is given a supervisor's state, one event, the time and a die; it returns the next state and what to do, in order.
The shell obeys and reports back. A nested supervisor is a child like any other: its `Start` means `Boot` for a state of its
own, its `Stop` means `StopRequested`; its `Ready` is its parent's `Started` and its `Exit` its parent's `Exited`.

Theory of operation. As in OTP a supervisor does one thing at a time: it starts and stops children one after the other, and
whatever ends meanwhile waits in the `backlog` until that `plan` is done. Three things do not wait: an end that is the plan's
own next step, a failure whose decision is "keep", and a request to stop, which cuts the plan short. A restart is counted
when it is decided; then what shares the victim's fate is stopped at once, and a backoff (OTP has none) passes before
anything is started. During it the supervisor is free. Starting is a `generation`: news of an earlier one is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, evolve, field

from actorflow.policies.restarts import Budget, spend
from actorflow.policies.tree import (
    Action,
    After,
    Boot,
    ChildState,
    Decision,
    Event,
    Exit,
    Exited,
    Failed,
    Keep,
    Plan,
    Ready,
    Report,
    RestartDue,
    Start,
    StartChild,
    Started,
    Stop,
    StopChild,
    StopRequested,
    SupervisorSpec,
    SupervisorState,
    Why,
)


def supervisor(spec: SupervisorSpec) -> SupervisorState:
    """A state before `Boot`; each start of a supervisor begins with one of these."""
    children = tuple(ChildState(spec=child) for child in spec.children)
    return SupervisorState(spec=spec, children=children, budget=Budget(spec.restarts, spec.within_s))


def decide(state: SupervisorState, event: Event, *, now: float, die: float) -> tuple[SupervisorState, tuple[Action, ...]]:
    """The next state, and what to do, in order. Obey all of it before the next event is handed in.

    Args:
        state: Of one supervisor.
        event: What happened. What is out of date (an earlier generation, a child that left) changes nothing.
        now: On the monotonic clock; never less than before.
        die: In [0, 1), for the backoff's jitter.
    """
    decision = _Decision(state, now, die)
    decision.take(event)
    decision.go_on()
    return decision.state, tuple(decision.actions)


def decision_on(on: Iterable[tuple[type[Exception], Decision]], error: BaseException) -> Decision:
    """What a supervisor's table says of an exception: the nearest class of its MRO counts; "restart" if there is none.

    >>> decision_on([(Exception, "stop"), (LookupError, "keep")], KeyError("x"))
    'keep'
    """
    table = dict[type, Decision](on)
    for cls in type(error).__mro__:
        if cls in table:
            return table[cls]
    return "restart"


@define
class _Decision:
    state: SupervisorState
    now: float
    die: float
    actions: list[Action] = field(factory=list[Action])

    def take(self, event: Event) -> None:
        """What happens whether or not a plan is under way."""
        state = self.state
        if state.phase in ("exiting", "ended") and not isinstance(event, Started | Exited):
            return
        match event:
            case Boot():
                if state.phase == "new":
                    self.state = evolve(state, phase="booting", plan=Plan(starts=tuple(child.id for child in state.children)))
            case StopRequested():
                self.exit("shutdown")
            case Started(id, generation):
                child = state.child(id)
                if child is not None and (child.generation, child.status) == (generation, "starting"):
                    self.put(child, status="running", since=self.now)
            case Exited(id, generation, why):
                child = state.child(id)
                if child is not None and child.generation == generation:
                    self.exited(child, event, why)
            case RestartDue(id, generation):
                child = state.child(id)
                if child is not None and (child.generation, child.status) == (generation, "restarting"):
                    self.state = evolve(state, backlog=(*state.backlog, event))
            case StopChild(id) | StartChild(id):
                # The later wish counts; so there is room for one of each child.
                others = (e for e in state.backlog if not (isinstance(e, StopChild | StartChild) and e.child == id))
                if state.phase != "new":
                    self.state = evolve(state, backlog=(*others, event))

    def exited(self, child: ChildState, event: Exited, why: Why) -> None:
        match child.status:
            case "stopping":
                self.stopped(child, why)
            case "starting":
                self.not_started(child, why)
            case "running" if self.state.phase != "exiting" and not child.spec.nested and self.on(why) == "keep":
                self.actions += [Report(child.id, "kept", why), Keep(child.id, child.generation)]
            case "running":
                self.put(child, status="exited")
                self.state = evolve(self.state, backlog=(*self.state.backlog, event))
            case _:
                pass  # It has ended already.

    def go_on(self) -> None:
        """Do what can be done now: the plan's next steps, and when there are none, the oldest thing that waits."""
        while self.state.phase not in ("new", "ended") and not self.waiting():
            match self.state:
                case SupervisorState(plan=Plan(stops=(id, *stops)) as plan):
                    self.state = evolve(self.state, plan=evolve(plan, stops=tuple(stops)))
                    self.stop(id)
                case SupervisorState(plan=Plan(starts=(id, *starts)) as plan):
                    self.state = evolve(self.state, plan=evolve(plan, starts=tuple(starts)))
                    self.start(id)
                case SupervisorState(phase="booting"):
                    self.state = evolve(self.state, phase="running", plan=Plan())
                    self.actions.append(Ready())
                case SupervisorState(phase="exiting", why=why):
                    self.state = evolve(self.state, phase="ended", plan=Plan(), backlog=())
                    self.actions.append(Exit(why))
                case SupervisorState(backlog=(event, *backlog)):
                    self.state = evolve(self.state, plan=Plan(), backlog=tuple(backlog))
                    self.handle(event)
                case _:
                    self.state = evolve(self.state, plan=Plan())
                    return

    def waiting(self) -> bool:
        """Is an answer due? One who exits does not wait for a child that starts: it is stopped in its turn."""
        due = ("stopping",) if self.state.phase == "exiting" else ("stopping", "starting")
        return any(child.status in due for child in self.state.children)

    def handle(self, event: Event) -> None:
        """What waited for the plan's end, if it still means something."""
        match event:
            case Exited(id, _, why):
                if (child := self.state.child(id)) is not None and child.status == "exited":
                    self.judge(child, why)
            case RestartDue(id):
                if (child := self.state.child(id)) is not None and child.status == "restarting":
                    starts = tuple(each.id for each in self.group(child) if each.spec.restart != "temporary")
                    self.state = evolve(self.state, plan=Plan(stops=self.others(child), starts=starts))
            case StopChild(id):
                self.state = evolve(self.state, plan=Plan(stops=(id,)))
            case StartChild(id):
                if (child := self.state.child(id)) is not None and child.status == "down":
                    self.state = evolve(self.state, plan=Plan(starts=(id,), asked=True))
            case _:
                raise AssertionError(event)

    # --- one child ------------------------------------------------------------------------------------------------------

    def start(self, id: str) -> None:
        child = self.state.child(id)
        assert child is not None, id
        self.put(child, status="starting", generation=child.generation + 1)
        self.actions.append(Start(id, child.generation + 1))

    def stop(self, id: str) -> None:
        child = self.state.child(id)
        match child:
            case None:
                pass
            case ChildState(status="running" | "starting"):
                self.put(child, status="stopping")
                self.actions.append(Stop(id, child.generation, child.spec.stop_s))
            case ChildState(status="exited"):
                # It was quicker. Its end needs no decision any more.
                [end] = (event for event in self.state.backlog if isinstance(event, Exited) and event.child == id)
                self.state = evolve(self.state, backlog=tuple(event for event in self.state.backlog if event != end))
                self.stopped(child, end.why)
            case _:
                self.leave(child)

    def stopped(self, child: ChildState, why: Why) -> None:
        if why != "shutdown" and not (why == "normal" and child.spec.restart != "permanent"):
            self.actions.append(Report(child.id, "stop_failed", why))
        self.leave(child)

    def leave(self, child: ChildState) -> None:
        """It is down; a temporary one is not known any more."""
        if child.spec.restart == "temporary":
            self.state = evolve(self.state, children=tuple(each for each in self.state.children if each.id != child.id))
        else:
            self.put(child, status="down")

    def not_started(self, child: ChildState, why: Why) -> None:
        self.actions.append(Report(child.id, "not_started", why))
        if self.state.phase == "exiting" or self.state.plan.asked:
            self.leave(child)
        elif self.state.phase == "booting":
            self.leave(child)
            self.exit(why)
        else:
            self.judge(child, why)

    # --- what follows from an end ------------------------------------------------------------------------------------------

    def judge(self, child: ChildState, why: Why) -> None:
        """The decision on a child that ended, or did not start again."""
        started = child.status == "exited"
        abnormal = isinstance(why, Failed) or why == "killed"
        if started and (abnormal or child.spec.restart == "permanent"):
            self.actions.append(Report(child.id, "exited", why))
        match self.on(why):
            case "escalate":
                self.actions.append(Report(child.id, "escalated", why))
                self.leave(child)
                self.exit(why)
            case "stop":
                self.forget(child)
            case _ if not started or child.spec.restart == "permanent" or (abnormal and child.spec.restart == "transient"):
                self.restart(child, why)
            case _:
                self.forget(child)

    def on(self, why: Why) -> Decision:
        return decision_on(self.state.spec.on, why.error) if isinstance(why, Failed) else "restart"

    def forget(self, child: ChildState) -> None:
        self.leave(child)
        if not child.spec.significant:
            return
        left = any(each.spec.significant and each.status != "down" for each in self.state.children)
        match self.state.spec.auto_shutdown:
            case "any_significant":
                self.exit("shutdown")
            case "all_significant" if not left:
                self.exit("shutdown")
            case _:
                pass

    def restart(self, child: ChildState, why: Why) -> None:
        budget, verdict = spend(self.state.budget, now=self.now)
        self.state = evolve(self.state, budget=budget)
        if verdict == "quarantine":
            self.actions.append(Report(child.id, "too_many_restarts", why))
            self.leave(child)
            self.exit("shutdown")
            return
        ran = child.since is not None and self.now - child.since > budget.within_s
        failures = 1 if ran else child.failures + 1
        self.put(child, status="restarting", failures=failures, since=None)
        delay_s = self.state.spec.backoff.delay_s(failures, die=self.die)
        self.actions.append(After(delay_s, RestartDue(child.id, child.generation)))
        self.state = evolve(self.state, plan=Plan(stops=self.others(child)))

    def group(self, child: ChildState) -> tuple[ChildState, ...]:
        """Who shares the fate of *child*, in the order of their start."""
        children = self.state.children
        match self.state.spec.strategy:
            case "one_for_one":
                return (child,)
            case "rest_for_one":
                return children[[each.id for each in children].index(child.id) :]
            case _:
                return children

    def others(self, child: ChildState) -> tuple[str, ...]:
        """Who of the group is not down, last one first."""
        return tuple(each.id for each in reversed(self.group(child)) if each.id != child.id and each.status != "down")

    def exit(self, why: Why) -> None:
        """Stop what is left, last one first, and then end."""
        stops = tuple(child.id for child in reversed(self.state.children) if child.status != "down")
        self.state = evolve(self.state, phase="exiting", plan=Plan(stops=stops), why=why)

    def put(self, child: ChildState, **changes: Any) -> None:
        new = evolve(child, **changes)
        self.state = evolve(self.state, children=tuple(new if each.id == child.id else each for each in self.state.children))
