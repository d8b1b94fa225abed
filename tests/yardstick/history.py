"""A history as the cases write it, made of a run's journal and of what its programs told of themselves.

From the journal: every outcome, failed try, timer, start of a child, and how the run ended. From the ledger: that a step, a
checkpoint, a gather or the wait for a callback began, and that a process came to rest or died. Who may write what is the whole
translation; nothing is made up for a case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from actorflow.records import Entry, Run
from actorflow.testing.scenario import World
from tests.yardstick.ledger import Json, Mark, marks, settled_after

POLL = "WaitForCondition"
"""The context of a loop that looks, and sleeps, and looks again: its steps are one operation, its sleeps are their delays."""

_LINE = re.compile(r"(?P<parent>.*)/(?:task:(?P<key>[^/]*)|task#\d+)")
_OF_GATHER = re.compile(r"(?P<scope>.*/gather#\d+)\.(?P<index>\d+)")
_ENDS = {"completed": "SUCCEEDED", "failed": "FAILED", "cancelled": "CANCELLED"}


def status_of(run: Run) -> str:
    """How the run ended, in the words of the cases; what has no such word, as we say it."""
    return _ENDS.get(run.status) or f"{run.status} ({run.reason})"


@define
class History:
    """The events of one run, as they are made."""

    of: World
    run: Run
    contexts: dict[str, Mark] = field(init=False)  #: by their scope
    events: list[Json] = field(factory=list[Json], init=False)
    _timers: dict[tuple[str, str, int], Entry] = field(factory=dict[tuple[str, str, int], Entry], init=False)

    def __attrs_post_init__(self) -> None:
        self.contexts = {mark.scope: mark for mark in marks(self.of) if mark.what == "context"}

    # --- where something is ---------------------------------------------------------------------------------------------

    def _place(self, branch: str) -> Json:
        """Name and parent of what is done in that branch: the key of its task, and the context around it."""
        place: Json = {}
        if (line := _LINE.fullmatch(branch)) and line["key"] is not None:
            place["Name"] = line["key"]
        while branch:
            gathered = _OF_GATHER.fullmatch(branch)
            if (scope := gathered["scope"] if gathered else branch) in self.contexts:
                return {**place, "ParentId": scope}
            branch = branch.rpartition("/")[0]
        return place

    def _context(self, scope: str, ending: str, **details: Any) -> None:
        kind = self.contexts[scope].more["kind"]
        if kind == POLL:
            return
        branch, _, name = scope.rpartition("/")
        place = {"Name": name.partition("#")[0], **self._place(branch)}
        self._add(f"Context{ending}", kind, scope, place, details)

    def _add(self, what: str, kind: str | None, id: str | None, place: Json, details: Json) -> None:
        event: Json = {"EventType": what, "EventId": len(self.events) + 2, **place, f"{what}Details": details}
        if kind is not None:
            event["SubType"] = kind
        if id is not None:
            event["Id"] = id
        self.events.append(event)

    def _step(self, what: str, scope: str, details: Json, name: str | None = None) -> None:
        branch, _, called = scope.rpartition(":")
        context = self.contexts.get(branch)
        if context is not None and context.more["kind"] == POLL:
            outside = self._place(branch.rpartition("/")[0])
            self._add(what, POLL, branch, {"Name": name or called.partition("#")[0], **outside}, details)
        else:
            self._add(what, "Step", scope, {"Name": name or called.partition("#")[0], **self._place(branch)}, details)

    # --- from the ledger ------------------------------------------------------------------------------------------------

    def tell(self, mark: Mark) -> None:
        match mark.what:
            case "step":
                self._step("StepStarted", mark.scope, {})
            case "context":
                self._context(mark.scope, "Started")
            case "context failed":
                self._context(mark.scope, "Failed", Error=_error(type(mark.more["error"]).__qualname__, str(mark.more["error"])))
            case "context succeeded":
                self._context(mark.scope, "Succeeded")
            case "callback":
                self._add("CallbackStarted", "Callback", mark.scope, self._place(mark.scope), self._callback(mark))
            case "rest":
                self._add("InvocationCompleted", None, None, {}, {})
            case "crash":
                details = {"Error": _error("Runtime.ExitError", "the process died")}
                self._add("InvocationCompleted", None, None, {}, details)
            case _:
                pass

    def _callback(self, mark: Mark) -> Json:
        """Its timeout is what was recorded of it, wherever in the journal that comes."""
        entries = self.of.memory._memory.entries.values()
        timer = next((e for e in entries if e.kind == "timer" and e.branch == mark.scope and e.due_at is not None), None)
        timeout = {} if timer is None else {"HeartbeatTimeout" if mark.more["heartbeat"] else "Timeout": _between(timer)}
        return {"CallbackId": mark.scope, **timeout}

    # --- from the journal -----------------------------------------------------------------------------------------------

    def record(self, entry: Entry) -> None:
        scope = f"{entry.branch}:{entry.name}#{entry.n}"
        match entry.kind:
            case "try":
                retry: Json = {"CurrentAttempt": entry.attempt}
                if entry.due_at is not None:
                    retry["NextAttemptDelaySeconds"] = _between(entry)
                self._step("StepFailed", scope, {"Error": _failure(entry), "RetryDetails": retry})
            case "step" if entry.status == "ok":
                result = {"Payload": _text(entry.outcome), "Truncated": False}
                self._step("StepSucceeded", scope, {"Result": result, "RetryDetails": {"CurrentAttempt": entry.attempt}})
            case "step":
                details = {"Error": _failure(entry), "RetryDetails": {"CurrentAttempt": entry.attempt}}
                self._step("StepFailed", scope, details)
            case "timer" if entry.name == "self.sleep":
                self._timers[entry.identity] = entry
                self._wait("WaitStarted", entry, _between(entry))
            case "sleep":
                self._wait("WaitSucceeded", entry, _seconds(entry.at - self._timers[entry.identity].at))
            case "receive":
                self._received(entry)
            case "checkpoint":
                context = f"{entry.branch}/{entry.name}#{entry.n}"
                value = json.loads(entry.outcome or b"null")["value"]
                self._context(context, "Succeeded", Result={"Payload": json.dumps(value)})
            case "start":
                asked = json.loads(entry.input or b"null")
                details = {"FunctionName": asked["run"].partition("/")[0], "DurableExecutionArn": asked["run"]}
                details["Input"] = {"Payload": json.dumps(asked["input"].get("input"))}
                self._add("ChainedInvokeStarted", None, asked["run"], self._place(entry.branch), details)
            case "result":
                ok, child = entry.status == "ok", json.loads(entry.input or b"null")
                details = {"Result": {"Payload": _text(entry.outcome)}} if ok else {"Error": _failure(entry)}
                self._add(f"ChainedInvoke{'Succeeded' if ok else 'Failed'}", None, child, self._place(entry.branch), details)
            case _:
                pass

    def _wait(self, what: str, entry: Entry, duration: float) -> None:
        context = self.contexts.get(entry.branch)
        if context is None or context.more["kind"] != POLL:
            self._add(what, "Wait", f"{entry.branch}:wait#{entry.n}", self._place(entry.branch), {"Duration": duration})
        elif what == "WaitStarted":  # Of a poll: the delay until it looks again.
            self.events[-1]["StepSucceededDetails"]["RetryDetails"]["NextAttemptDelaySeconds"] = duration

    def _received(self, entry: Entry) -> None:
        mark = next(mark for mark in marks(self.of) if mark.what == "callback" and mark.scope == entry.branch)
        place = self._place(entry.branch)
        if entry.outcome is None:
            error = _error(f"Callback.{'Heartbeat' if mark.more['heartbeat'] else 'Timeout'}", "it was not completed in time")
            self._add("CallbackTimedOut", "Callback", mark.scope, place, {"Error": error})
            return
        message = json.loads(entry.outcome)
        match entry.ref:
            case "yardstick-refused":
                details = {"Error": _error(message["type"], message["message"])}
                self._add("CallbackFailed", "Callback", mark.scope, place, details)
            case "yardstick-beat":
                pass
            case _:
                result = {"Payload": json.dumps(message.get("payload"))}
                self._add("CallbackSucceeded", "Callback", mark.scope, place, {"Result": result})

    def end(self) -> None:
        match self.run.status:
            case "completed":
                self._add("ExecutionSucceeded", None, None, {}, {"Result": {"Payload": _text(self.run.outcome)}})
            case "failed":
                failure = json.loads(self.run.outcome or b"null")
                details = {"Error": _error(failure["qualname"], failure["message"])}
                self._add("ExecutionFailed", None, None, {}, details)
            case _:
                pass


def history(of: World, run: Run) -> list[Json]:
    """Its events, in the one order in which they became true."""
    made = History(of, run)
    journal = [(seq, entry) for seq, entry in of.memory._memory.entries.items() if entry.run == run.id]
    for mark in marks(of):
        after = settled_after(of, mark, run.id)
        while journal and journal[0][0] <= after:
            made.record(journal.pop(0)[1])
        made.tell(mark)
    for _, entry in journal:
        made.record(entry)
    made.end()
    return made.events


def apart(events: Sequence[Json]) -> list[Json]:
    """The same events, those of each branch of a gather together: what branches do at the same time has no order between them.

    Only what happened between two rests is moved, so that what was done before a crash stays before it. Events are numbered
    anew.
    """
    ordered: list[Json] = []
    stretch: list[Json] = []
    for event in events:
        if event["EventType"] == "InvocationCompleted":
            ordered += [*_by_branch(stretch, 0), event]
            stretch = []
        else:
            stretch.append(event)
    ordered += _by_branch(stretch, 0)
    return [{**event, "EventId": index + 2} for index, event in enumerate(ordered)]


def _by_branch(events: Sequence[Json], depth: int) -> Iterator[Json]:
    """Events between which others of the same depth stand are of the same gather: durable code waits for one at a time."""
    together: list[tuple[int, Json]] = []
    for event in [*events, None]:
        path = [] if event is None else _branches(event)
        if event is not None and len(path) > depth:
            together.append((path[depth], event))
            continue
        for index in sorted({index for index, _ in together}):
            yield from _by_branch([each for of, each in together if of == index], depth + 1)
        together = []
        if event is not None:
            yield event


def _branches(event: Json) -> list[int]:
    return [int(index) for index in re.findall(r"/gather#\d+\.(\d+)(?=[/:]|$)", event.get("Id", ""))]


# --- values ------------------------------------------------------------------------------------------------------------


def _text(payload: bytes | None) -> str:
    return (payload or b"null").decode()


def _seconds(length: float) -> float:
    """A length as the cases write it: 2, not 2.0000001 (a moment since the epoch has a last digit)."""
    rounded = round(length, 4)
    return int(rounded) if rounded == int(rounded) else rounded


def _between(entry: Entry) -> float:
    assert entry.due_at is not None
    return _seconds(entry.due_at - entry.at)


def _error(type: str, message: str) -> Json:
    return {"Payload": {"ErrorType": type, "ErrorMessage": message}}


def _failure(entry: Entry) -> Json:
    failure = json.loads(entry.outcome or b"null")
    return _error(failure["qualname"], failure["message"])
