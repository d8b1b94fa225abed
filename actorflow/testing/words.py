"""Crash points in words: what a process was at when it died, for somebody who does not know what a commit is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from actorflow.records import Commit, Entry, Envelope, Run, SetCursor, Write
from actorflow.testing.bodies import Body

_SAID: dict[str, Callable[[Entry], str]] = {
    "step": lambda e: f"the {'outcome' if e.status == 'ok' else 'failure'} of `{e.name}`",
    "undo": lambda e: f"the undo `{e.name}`",
    "try": lambda e: f"the failure of attempt {e.attempt} of `{e.name}`",
    "intent": lambda e: f"the beginning of `{e.name}`",
    "checkpoint": lambda e: f"the outcome of the checkpoint `{e.name}`",
    "completed": lambda _: "the end of the run",
    "failed": lambda _: "the failure of the run",
    "cancelled": lambda _: "the end of the cancelled run",
    "receive": lambda _: "the receipt of a message",
    "sleep": lambda _: "the end of a sleep",
    "timer": lambda _: "the beginning of a wait",
    "gather": lambda _: "the end of a `gather`",
    "each": lambda _: "the end of a loop",
    "start": lambda _: "the start of a child run",
    "result": lambda _: "the result of a child run",
    "tell": lambda _: "the sending of a message",
    "ask": lambda _: "the answer to an ask",
    "handled": lambda e: f"the handling of the message `{_short(e.name)}`",
    "dead": lambda e: f"the dead letter `{_short(e.name)}`",
    "turn": lambda e: f"the beginning of the turn for `{_short(e.name)}`",
    "paused": lambda e: f"the pause of the run ({e.name})",
    "again": lambda _: "the beginning of a new round",
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
            return of_effect(step.name)
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


def of_await(open: Sequence[Body], unrecorded: Sequence[Body], last: str | None) -> str:
    """What the process was at when it was killed between two of its awaits.

    Args:
        open: Functions of steps that were running.
        unrecorded: Those that had come to their end, and whose outcome was not durable yet.
        last: What it recorded last.
    """
    if unrecorded:
        return of_effect(unrecorded[-1].step.name)
    if open:
        doing = " and ".join(f"`{body.step.name}` was running{_at(body)}" for body in open[:3])
        return f"the process died while {doing}"
    if last is None:
        return "the process died while it was starting"
    return f"the process died shortly after {last} was recorded"


def of_effect(name: str) -> str:
    """The crash point that matters most."""
    return f"the process died after `{name}` had its effect and before its outcome was recorded"


def _at(body: Body) -> str:
    line = body.line()
    if line is None:
        return ""
    path, _, number = line.rpartition(":")
    return f" (it waited at {Path(path).name}:{number})"


def _short(type_: str) -> str:
    return type_.rpartition(":")[2].rpartition(".")[2] or type_
