"""How a case is played: its program is run on the memory store in virtual time, on both loops, and in two ways.

*Killed*: whenever the run comes to rest, because it waits for a moment or for somebody outside, the process loses its power
and the next one takes over, as the cases' own platform ends an invocation there. So everything is replayed from the journal
each time. *Straight*: one process from beginning to end. Both must give the expected history, result and logs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, get_args

import anyio
from attrs import define, field

from actorflow import RunEnded, records
from actorflow.records import ENDED
from actorflow.runtime.runtime import Runtime
from actorflow.testing.clock import EPOCH_S, Backend
from actorflow.testing.scenario import Failed, Scenario, World, enumerate_crashes, play
from tests.yardstick.cases import REFERENCE, Action, Case, Json, Placeholders
from tests.yardstick.history import apart, history, status_of
from tests.yardstick.ledger import OVER, marks, note
from tests.yardstick.programs.program import Beat, Program, Refused

SETTLED_S = 0.01
"""Nothing in the programs takes time but waits, and those take longer: after so long all is done that can be done now."""
RESTS_MAX = 50

KEY = "case"
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Way = Literal["killed", "straight"]
WAYS: tuple[Way, ...] = get_args(Way)


class Stuck(AssertionError):
    """The run waits for nothing that could ever happen."""


@define
class _Outside:
    """The world outside: it sees callbacks begin, and completes them one after the other."""

    case: Case
    used: list[Action] = field(factory=list[Action])
    completed: set[str] = field(factory=set[str])
    next: tuple[float, str, str, Action] | None = None  #: when, which callback, its type, what is done to it

    def look(self, of: World, now: float) -> None:
        if self.next is not None:
            return
        for mark in marks(of):
            if mark.what != "callback" or mark.scope in self.completed:
                continue
            name = mark.scope.rpartition("/task:")[2]
            action = next((a for a in self.case.actions if a not in self.used and a.name in ("*", name)), None)
            if action is None:
                continue
            self.used.append(action)
            if action.operation != "heartbeat":
                self.completed.add(mark.scope)
            self.next = (now + action.delay_s, mark.scope, mark.more["type"], action)
            return

    async def act(self, runtime: Runtime, program: type[Program]) -> None:
        assert self.next is not None
        _, callback, type, action = self.next
        match action.operation:
            case "success":
                body = {"callback": callback, "payload": action.payload}
            case "failure":
                error = {"type": action.payload["ErrorType"], "message": action.payload["ErrorMessage"]}
                type, body = Refused.__tag__, {"callback": callback, **error}
            case "heartbeat":
                type, body = Beat.__tag__, {"callback": callback}
            case other:
                raise AssertionError(f"nobody here knows what a {other} does to a callback")
        at = records.Address(program.__kind_info__().name, KEY)
        key = f"action-{len(self.used)}"
        with suppress(RunEnded):  # It was told before the process died, and that was the last thing it waited for.
            await runtime.operations.tell(at, type=type, body=json.dumps(body).encode(), key=key, after_s=None)
        self.next = None


@define
class Play:
    """One playing of a case."""

    case: Case
    program: type[Program]
    backend: Backend
    way: Way
    _world: World | None = field(default=None, init=False)  #: where it is played now
    run: records.Run = field(init=False)
    outside: _Outside = field(init=False)
    _told: int = field(default=0, init=False)  #: how many events there were at the last rest

    def complaints(self) -> list[str]:
        """What is not as expected; empty if all is."""
        try:
            play(self.scenario(), self.backend)
        except Failed as failure:
            return [str(failure)]
        return self._compared()

    def scenario(self) -> Scenario:
        """The case as a scenario. What its script returns is how the run ends, which must not depend on crashes."""
        return Scenario(name=f"case {self.case.id}", actors=(self.program, *self.program.beside), script=self._script)

    @property
    def world(self) -> World:
        assert self._world is not None, "nothing was played"
        return self._world

    # --- playing --------------------------------------------------------------------------------------------------------

    async def _script(self, runtime: Runtime, world: World) -> Any:
        """The client of one life."""
        if self._world is not world:
            self._world, self.outside, self._told = world, _Outside(self.case), 0
        await runtime.start(self.program(self.case.input), key=KEY)
        for _ in range(RESTS_MAX):
            await anyio.sleep(SETTLED_S)
            if world.store.dead:
                raise world.store.cut()
            self.run = self._stored()
            ended = self.run.status in ENDED or self.run.status == "paused"
            if news := self._news():
                note(world, "rest")
                self._told = len(history(world, self.run))
            if ended:  # Without news, if the process died after it had told them.
                note(world, OVER)
                return self._end()
            if news and self.way == "killed":
                raise world.store.cut()
            await self._until_next(runtime)
        raise Stuck(f"it came to rest {RESTS_MAX} times")

    def _end(self) -> tuple[str, Any]:
        outcome = json.loads(self.run.outcome or b"null")
        failed = self.run.status == "failed"
        return status_of(self.run), (outcome["qualname"], outcome["message"]) if failed else outcome

    def _stored(self) -> records.Run:
        kind = self.program.__kind_info__().name
        return next(run for run in self.world.memory._memory.runs.values() if run.address == (kind, KEY))

    def _news(self) -> bool:
        """True if anything happened since the last rest. (A heartbeat is none: it leaves no event.)"""
        return len(history(self.world, self.run)) > self._told

    async def _until_next(self, runtime: Runtime) -> None:
        """Sleep until a timer is due or the world outside acts."""
        now = anyio.current_time()
        self.outside.look(self.world, now)
        runs = (run for run in self.world.memory._memory.runs.values() if run.status not in ENDED and run.wake_at is not None)
        timer = min((max(0.0, run.wake_at - EPOCH_S) for run in runs if run.wake_at is not None), default=math.inf)
        act_at = math.inf if self.outside.next is None else self.outside.next[0]
        if (wake_at := min(timer, act_at)) == math.inf:
            raise Stuck(f"it is {status_of(self.run)} and waits for nothing that will happen; events so far: {self._shown()}")
        await anyio.sleep(max(0.0, wake_at - now))
        if act_at <= timer:
            await self.outside.act(runtime, self.program)

    def _shown(self) -> str:
        return ", ".join(event["EventType"] for event in history(self.world, self.run)[-5:]) or "none"

    # --- comparing ------------------------------------------------------------------------------------------------------

    def _compared(self) -> list[str]:
        bound = Placeholders(dict(self.case.bindings))
        return [*self._history(bound), *self._result(bound), *self._logs(bound)]

    def _history(self, bound: Placeholders) -> list[str]:
        got = apart(history(self.world, self.run))
        by_number = {event["EventId"]: event for event in got}
        complaints: list[str] = []
        for expected in self.case.history:
            event = by_number.get(expected["EventId"])
            where = f"event {expected['EventId']} ({expected['EventType']})"
            if event is None:
                complaints.append(f"{where}: there is none")
            elif event["EventType"] != expected["EventType"]:
                complaints.append(f"{where}: got {event['EventType']}")
            else:
                complaints += bound.differences({**expected, "EventTimestamp": "*"}, event, where)
                if "ParentId" in event and "ParentId" not in expected:
                    complaints.append(f"{where}: got it in {event['ParentId']}")
            if complaints:
                return complaints  # What follows is out of step.
        return [*self._alike(bound), *self._too_many(got)]

    def _alike(self, bound: Placeholders) -> list[str]:
        """Operations with different names are different ones."""
        names = {name for event in self.case.history for name in REFERENCE.findall(str(event.get("Id", "")))}
        of: dict[str, str] = {}
        return [
            f"{name} and {other} are both {bound.values[name]}"
            for name in sorted(names)
            if (other := of.setdefault(bound.values[name], name)) != name
        ]

    def _too_many(self, got: Sequence[Json]) -> list[str]:
        """A history that is told to its end has nothing after it, but perhaps that end."""
        last = self.case.history[-1]["EventType"]
        if self.case.status is None or not last.startswith(("InvocationCompleted", "Execution")):
            return []
        after = [event["EventType"] for event in got if event["EventId"] > self.case.history[-1]["EventId"]]
        if last == "InvocationCompleted" and after and after[0].startswith("Execution"):
            after = after[1:]
        return [f"after its last event: got {', '.join(after)}"] if after else []

    def _result(self, bound: Placeholders) -> list[str]:
        if self.case.status is None:
            return []
        if (status := status_of(self.run)) != self.case.status:
            return [f"status: expected {self.case.status}, got {status}"]
        if not self.case.has_result or self.case.status != "SUCCEEDED":
            return []
        expected, got = bound.filled(self.case.result), json.loads(self.run.outcome or b"null")
        return [] if expected == got else [f"result: expected {expected!r}, got {got!r}"]

    def _logs(self, bound: Placeholders) -> list[str]:
        complaints: list[str] = []
        lines = [mark.more["text"] for mark in marks(self.world) if mark.what == "log"]
        for wanted in self.case.logs:
            pattern = bound.filled(wanted["match"]["message"]).strip("/")
            found = sum(bool(re.search(pattern, line)) for line in lines)
            if found != wanted["count"]:
                complaints.append(f"log /{pattern}/: expected {wanted['count']} lines, got {found}")
        return complaints


def measure(case: Case, program: type[Program]) -> list[str]:
    """Play a case in every way there is; what is not as expected."""
    ways = ((way, backend) for backend in BACKENDS for way in WAYS)
    return [f"{way} on {backend}: {line}" for way, backend in ways for line in Play(case, program, backend, way).complaints()]


def crashed(case: Case, program: type[Program], *, points_max: int = 40) -> tuple[int, list[str]]:
    """Play a case straight, crashed at its commits and awaits; how many crashes, and what they changed.

    What a crash must not change is how the run ends and which effects it has; no step whose outcome is recorded runs again. Cases
    in which the process dies by itself are left out: a step that may run once has not run if it is cut short before it begins.
    """
    cuts, complaints = 0, list[str]()
    for backend in BACKENDS:
        calm = Play(case, program, backend, "straight")
        try:
            play(calm.scenario(), backend)
            if not any(mark.what == "crash" for mark in marks(calm.world)):
                cuts += enumerate_crashes(calm.scenario(), backend, points_max=points_max)
        except Failed as failure:
            complaints.append(f"crashed on {backend}: {failure}")
    return cuts, complaints
