"""The mailbox of one actor: what waits, in which order it is taken. Pure.

Order is that of acceptance (P5). A message with a moment (`due_at`) is not there before it. System messages (their type
begins with "~") are never bound by the depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from actorflow.records import EVERY, TIMER, Envelope


def is_bound(envelope: Envelope) -> bool:
    """True for messages of users: not the system's, and not what the actor's own timers will send."""
    sender = envelope.sender
    return envelope.type[:1] != "~" and not (sender and sender.startswith((TIMER, EVERY)))


def depth(envelopes: Iterable[Envelope]) -> int:
    """How many of them are messages of users."""
    return sum(map(is_bound, envelopes))


NONE: frozenset[int] = frozenset()


class Mailbox:
    """Pending envelopes, oldest first (dead letters that were sent again: last), as the store hands them out."""

    def __init__(self, envelopes: Sequence[Envelope] = ()) -> None:
        self.waiting: dict[int, Envelope] = {}  #: oldest first
        self.unbound: dict[int, Envelope] = {}  #: those of them that the bound does not count
        self.notices: dict[tuple[str, str], dict[int, Envelope]] = {}  #: those of the system, by type and sender
        self._loaded = NONE
        if envelopes:
            self.waiting.update((envelope.id, envelope) for envelope in envelopes)
            for envelope in envelopes:
                if not is_bound(envelope):
                    self._unbound(envelope)
            self._loaded = frozenset(self.waiting)
        self.reserved = 0  #: places of messages on their way into the store
        self.freed: tuple[Callable[[], object], ...] = ()  #: who is told, once, when a place becomes free

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def depth(self) -> int:
        """Messages of users, waiting or on their way: what the bound counts."""
        return self.reserved + len(self.waiting) - len(self.unbound)

    def put(self, envelope: Envelope) -> None:
        """A message was accepted. Ids grow, so the order of the dict is the order of acceptance.

        One that came while its receiver was being loaded may have been loaded with it, and even taken by now: it is not new.
        """
        if envelope.id not in self._loaded:
            self.waiting[envelope.id] = envelope
            if not is_bound(envelope):
                self._unbound(envelope)

    def keep(self, envelope: Envelope) -> None:
        """The oldest, which was to be dropped, stays after all."""
        self.waiting = {envelope.id: envelope, **self.waiting}

    def again(self, envelope: Envelope) -> None:
        """A dead letter is to be handled after all: it comes last, whatever its number."""
        self._loaded -= {envelope.id}
        self.put(envelope)

    def remove(self, envelope: Envelope) -> None:
        """A message was taken."""
        self.waiting.pop(envelope.id, None)
        if self.unbound.pop(envelope.id, None) is not None and envelope.type[:1] == "~":
            notices = self.notices[envelope.type, envelope.sender]
            del notices[envelope.id]
            if not notices:
                del self.notices[envelope.type, envelope.sender]
        if self.freed:
            self.free()

    def _unbound(self, envelope: Envelope) -> None:
        self.unbound[envelope.id] = envelope
        if envelope.type[:1] == "~":
            self.notices.setdefault((envelope.type, envelope.sender), {})[envelope.id] = envelope

    @property
    def has_mail(self) -> bool:
        """True if messages wait that are not the system's."""
        return len(self.waiting) > sum(map(len, self.notices.values())) if self.notices else bool(self.waiting)

    def free(self) -> None:
        """Tell who waits for a place to look again."""
        freed, self.freed = self.freed, ()
        for tell in freed:
            tell()

    def oldest(self, wanted: Callable[[Envelope], bool], *, now: float) -> Envelope | None:
        """The oldest message that may be seen at *now* and is wanted."""
        return _oldest(self.waiting, wanted, now)

    def oldest_notice(self, of: tuple[str, str], wanted: Callable[[Envelope], bool], *, now: float) -> Envelope | None:
        """The oldest message of the system, of that type and sender, that may be seen at *now* and is wanted."""
        notices = self.notices.get(of)
        return None if notices is None else _oldest(notices, wanted, now)

    def oldest_ahead(self, *, now: float) -> Envelope | None:
        """The oldest message of the system, which goes ahead of all others, that may be seen at *now*."""
        return _oldest(self.unbound, _goes_ahead, now) if self.unbound else None

    def next_due(self, *, now: float) -> float | None:
        """When the next delayed message may be seen."""
        if not self.waiting:
            return None
        return min((e.due_at for e in self.waiting.values() if e.due_at is not None and e.due_at > now), default=None)


def _oldest(waiting: Mapping[int, Envelope], wanted: Callable[[Envelope], bool], now: float) -> Envelope | None:
    for envelope in waiting.values():
        if (envelope.due_at is None or envelope.due_at <= now) and wanted(envelope):
            return envelope
    return None


def _goes_ahead(envelope: Envelope) -> bool:
    return envelope.type in ("~child", "~reply")
