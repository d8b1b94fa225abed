"""Crash points in words: what a process was at when it died, for somebody who does not know what a commit is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from actorflow.records import Commit, Entry, Envelope, Run, SetCursor, Write
from actorflow.testing.bodies import Body

_SAID: dict[str, Callable[[Entry], str]] = {
    "step": lambda e: f"the {'outcome' if e.status == 'ok' else 'failure'} of `{e.name}`",
    "undo": lambda e: f"the undo of `{e.branch.rpartition('/')[0].rpartition('/')[2] or e.name}`",
    "try": lambda e: f"that attempt {e.attempt} of `{e.name}` failed",
    "intent": lambda e: f"that `{e.name}` begins",
    "checkpoint": lambda e: f"the outcome of the checkpoint `{e.name}`",
    "completed": lambda _: "the end of the run",
    "failed": lambda _: "the failure of the run",
    "cancelled": lambda _: "that the run was cancelled",
    "receive": lambda _: "that the run received a message",
    "sleep": lambda _: "that a sleep was over",
    "timer": lambda _: "that a wait began",
    "gather": lambda _: "the outcomes of a `gather`",
    "each": lambda _: "the end of a loop",
    "start": lambda _: "the start of a child run",
    "result": lambda _: "the result of a child run",
    "tell": lambda _: "that a message was sent",
    "ask": lambda _: "the answer to an ask",
    "handled": lambda e: f"that the message `{_short(e.name)}` was handled",
    "dead": lambda e: f"that the message `{_short(e.name)}` was given up",
    "turn": lambda e: f"that the handling of `{_short(e.name)}` began",
    "paused": lambda e: f"that the run was paused ({e.name})",
    "again": lambda _: "that a new round began",
    "started": lambda e: f"the start of a `{e.name}`",
}
"""What a commit records, the most telling first."""


def of_commit(batch: Sequence[Commit]) -> str:
    """What those commits record: "the outcome of `charge`"."""
    writes = [write for commit in batch for write in commit.writes]
    entries = [write for write in writes if isinstance(write, Entry)]
    for kind, said in _SAID.items():
        for entry in entries:
            if entry.kind == kind:
                return said(entry)
    return _of_write(writes)


def _of_write(writes: Sequence[Write]) -> str:
    for write in writes:
        match write:
            case Envelope(type=type_):
                return f"the message `{_short(type_)}`"
            case Run(kind=kind):
                return f"the start of a `{kind}`"
            case SetCursor():
                return "how far a loop is"
            case _:
                pass
    return "where the run stands"


def of_fault(mode: str, batch: Sequence[Commit]) -> str:
    """What happened at a commit."""
    what = of_commit(batch)
    step = next((w for c in batch for w in c.writes if isinstance(w, Entry) and w.kind == "step" and w.status == "ok"), None)
    match mode:
        case "before" if step is not None:
            return f"the process died after `{step.name}` had its effect and before its outcome was recorded"
        case "torn" if step is not None:
            return f"the process died while the outcome of `{step.name}` was being written, after its effect"
        case "before":
            return f"the process died before {what} was recorded"
        case "torn":
            return f"the process died while {what} was being written"
        case "after":
            return f"the process died when {what} had been recorded, before anybody was told so"
        case "lost_ack":
            return f"{what} was recorded, and for a second nobody was told so"
        case "unavailable":
            return f"the store took nothing when {what} was to be recorded, and was asked again"
        case _:
            return f"the store took a second to record {what}"


def of_await(open: Sequence[Body], last: str | None) -> str:
    """What the process was at when it was killed between two of its awaits."""
    if open:
        doing = " and ".join(f"`{body.step.name}` was running{_at(body)}" for body in open[:3])
        return f"the process died while {doing}"
    return f"the process died shortly after {last} was recorded" if last is not None else "the process died before it did anything"


def _at(body: Body) -> str:
    line = body.line()
    if line is None:
        return ""
    path, _, number = line.rpartition(":")
    return f" (it waited at {Path(path).name}:{number})"


def _short(type_: str) -> str:
    return type_.rpartition(":")[2].rpartition(".")[2] or type_
