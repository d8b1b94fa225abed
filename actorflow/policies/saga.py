"""Undoing: what is undone, in which order, and what cannot be. Pure.

Sagas (Garcia-Molina and Salem, 1987): each step with an `undo` is compensated after a business failure or a cancel, in
reverse journal order over all branches. An undo is itself a step: recorded, retried, once.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from actorflow.records import Entry, Event
from actorflow.value import Value

UNDO_BRANCH = "~undo"


@frozen
class Undo(Value):
    """Undo what this entry did. `seq` names it in the store."""

    seq: int
    entry: Entry

    @property
    def branch(self) -> str:
        """The branch in which this undo is recorded; it names what is undone."""
        return f"{UNDO_BRANCH}/{self.seq}"


#: Steps that may have had their effect.
MAY_HAVE_LANDED = frozenset(("ok", "interrupted", "timeout", "cancelled"))


def pending(events: Sequence[Event]) -> list[Undo]:
    """What is still to be undone, next first.

    Args:
        events: The round's entries with a `ref` and its undo entries, in journal order.
    """
    undone = {entry.branch for _, entry in events if entry.kind == "undo" and entry.status != "failed"}  # A failed one is a try.
    todo = [
        Undo(seq, entry)
        for seq, entry in events
        if entry.kind in ("step", "start") and entry.ref is not None and entry.status in MAY_HAVE_LANDED
    ]
    return [undo for undo in reversed(todo) if undo.branch not in undone]
