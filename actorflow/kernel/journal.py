"""What was recorded of one run, and whether today's code still agrees with it. Pure.

Because a branch waits for one thing at a time, its recorded entries are a queue: what it asks must be the head of that
queue, and an empty queue is the frontier. This one comparison finds renamed, removed, inserted and swapped calls before
anything new begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import define

from actorflow.errors import Divergence
from actorflow.records import Entry, EntryStatus, Event, Identity

#: Kinds that code asks for and replay hands back, in journal order.
DELIVERED = frozenset(("step", "receive", "sleep", "tell", "ask", "start", "result", "checkpoint", "gather", "each"))
#: Kinds that are answered on the spot: the code never waited for them.
SPOT = frozenset(("now", "reply", "full"))
#: Kinds that belong to a call and end nothing.
BELONGING = frozenset(("try", "intent", "timer", "heartbeat"))
NOT_COMPARED = b"~"
"""The input of an entry that a fork with other fields inherited: it is taken as it is. No encoded value is that text."""


@define(eq=False, repr=False)
class Belongings:
    """What was recorded of one open call beside its outcome."""

    tries: tuple[Entry, ...] = ()
    intent: Entry | None = None
    due_at: float | None = None
    heartbeat: bytes | None = None


_NONE = Belongings()  #: most calls have none
_UNPATCHED: Mapping[str, bool] = MappingProxyType({})


class Journal:
    """The recorded entries of a run's current round: what was not yet asked for, and what belongs to open calls."""

    def __init__(self, events: Sequence[Event] = ()) -> None:
        self.order: Sequence[Entry] = ()  #: all that is delivered or answered on the spot, in journal order
        self.patches: Mapping[str, bool] = _UNPATCHED
        self._unclaimed: dict[str, deque[Entry]] = {}
        self.open: dict[Identity, Belongings] = {}  #: what belongs to open calls, if something does
        if events:
            self._read(events)

    def _read(self, events: Sequence[Event]) -> None:
        order: list[Entry] = []
        for _, entry in events:
            if entry.kind in DELIVERED or entry.kind in SPOT:
                order.append(entry)
                self._unclaimed.setdefault(entry.branch, deque()).append(entry)
            elif entry.kind == "patch":
                self.patch(entry.name, answer=entry.outcome == b"true")
            elif entry.kind in BELONGING:
                self.note(entry)
        self.order = order

    def patch(self, flag: str, *, answer: bool) -> None:
        """The answer that `patched(flag)` has in this round."""
        self.patches = {**self.patches, flag: answer}

    # --- what code asks for -------------------------------------------------------------------------------------------

    def head(self, branch: str) -> Entry | None:
        """The next recorded entry of that branch, or None at its frontier."""
        queue = self._unclaimed.get(branch) if self._unclaimed else None
        return queue[0] if queue else None

    def claim(self, kind: str, names: Sequence[str], identity: Identity) -> Entry | None:
        """The recorded entry that answers this call, or None at the branch's frontier.

        Args:
            kind: What the entry must be.
            names: Names under which it may have been recorded: today's, then those of `was=`.
            identity: The call; its `n` counts calls of today's name.

        Raises:
            Divergence: Something else is recorded there.
        """
        branch, _, n = identity
        queue = self._unclaimed.get(branch)
        if queue is None:
            return None
        entry = queue[0]
        if entry.kind != kind or entry.n != n or entry.name not in names:
            raise self.divergence(f"{kind} {identity}", branch)
        queue.popleft()
        if not queue:  # There is none that is empty.
            del self._unclaimed[branch]
        return entry

    def unclaimed(self, entry: Entry) -> bool:
        """True if nobody has asked for this entry yet."""
        return self.head(entry.branch) is entry

    def begun_as(self, parent: str, names: Sequence[str], n: int) -> str:
        """The name, of today's and earlier ones, under which an open checkpoint has recorded something; else today's."""
        if len(names) == 1:
            return names[0]
        branches = {*self._unclaimed, *(identity.branch for identity in self.open)}
        for name in names:
            scope = f"{parent}/{name}#{n}"
            if any(branch == scope or branch.startswith(f"{scope}/") for branch in branches):
                return name
        return names[0]

    def adopt(self, earlier: Sequence[str], identity: Identity) -> None:
        """What was recorded of an open call under an earlier name is of this call now: its tries are spent, its attempt begun."""
        for name in earlier:
            before = identity._replace(name=name)
            if before in self.open:
                self.open[identity] = self.open.pop(before)

    def close(self, branch: str, error: BaseException | None = None) -> None:
        """The branch ended (by *error*, if one is given): nothing of it may be left.

        Raises:
            Divergence: The code ended before it asked for all that was recorded.
        """
        if self._unclaimed and branch in self._unclaimed:
            raise self.divergence(f"the end of branch {branch!r}" if branch else "the end of the run", branch) from error

    def forget(self, branch: str) -> None:
        """The branch was cancelled: what it had recorded beyond that point stays history."""
        self._unclaimed.pop(branch, None)

    def divergence(self, asked: str, branch: str) -> Divergence:
        recorded = self._unclaimed.get(branch, ())
        return Divergence(asked, [f"{entry.kind} {entry.identity}" for entry, _ in zip(recorded, range(5), strict=False)])

    # --- what belongs to open calls -----------------------------------------------------------------------------------

    def tries(self, identity: Identity) -> Sequence[Entry]:
        """Attempts of this call that failed by themselves, in order."""
        return self.open.get(identity, _NONE).tries

    def intent(self, identity: Identity) -> Entry | None:
        """The last attempt of this call that was announced before it began."""
        return self.open.get(identity, _NONE).intent

    def due_at(self, identity: Identity) -> float | None:
        """When this wait ends, if that was recorded."""
        return self.open.get(identity, _NONE).due_at

    def heartbeat(self, identity: Identity) -> bytes | None:
        """The last progress that this step stored."""
        return self.open.get(identity, _NONE).heartbeat

    def note(self, entry: Entry) -> None:
        """Keep what belongs to an open call and was recorded just now (a try, an intent, a timer, a heartbeat)."""
        belongings = self.open.setdefault(entry.identity, Belongings())
        match entry.kind:
            case "try":
                belongings.tries += (entry,)
            case "intent":
                belongings.intent = entry
            case "timer":
                belongings.due_at = entry.due_at
            case _:
                belongings.heartbeat = entry.outcome


def entry(
    run: int,
    round: int,
    kind: str,
    identity: Identity,
    *,
    at: float,
    status: EntryStatus = "ok",
    attempt: int = 0,
    due_at: float | None = None,
    input: bytes | None = None,
    outcome: bytes | None = None,
    ref: str | None = None,
) -> Entry:
    """An entry by name, not by position."""
    branch, name, n = identity
    return Entry(run, round, kind, branch, name, n, status, attempt, at, due_at, input, outcome, ref)


def short(payload: bytes | None) -> str:
    """A payload in a message for people."""
    text = "nothing" if payload is None else payload.decode("utf-8", "replace")
    return text if len(text) <= 200 else text[:200] + "..."
