"""One live actor: turn after turn, each the handling of one message and one transaction.

Theory of operation. A turn is driven like a run: by hand, by the same driver. Most turns end in their first stretch; then
what they changed and sent is put beside that of the next waiting message, and up to `TURNS_MAX` of them are one commit.
While a commit is on its way, messages gather; so a busy actor makes large commits, and an idle one answers at once.
A turn that waits (for a step or an ask) is a turn of its own. Its entries belong to a round of its own, which begins with
an entry "turn" that names the message, so that the next process knows what it was about and finishes that first.
What a turn sends leaves with its last commit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from actorflow.errors import ActorflowError, AskExpired, HandlerTimeout, StoreError, UnknownMessage
from actorflow.kernel.outbox import Outbox
from actorflow.kernel.requests import Again, Broken, Finished, Stretch
from actorflow.kernel.turn import Turn
from actorflow.kind import Fields, Kind
from actorflow.policies.failure import FailureReport
from actorflow.policies.handling import failed_at
from actorflow.records import (
    Envelope,
    Event,
    Loaded,
    PauseReason,
    Refusal,
    RunStatus,
    SetAsideEntries,
    Write,
)
from actorflow.runtime import outcomes, parting, reports
from actorflow.runtime.delivery import NO_MORE, Answer
from actorflow.runtime.effects import Effects
from actorflow.runtime.keeping import Keeping
from actorflow.runtime.mail import Mail
from actorflow.runtime.outcomes import Handling
from actorflow.runtime.reading import read_beside

if TYPE_CHECKING:
    from actorflow.runtime.host import Host
    from actorflow.runtime.timers import Timer

log: logging.Logger = logging.getLogger("actorflow")

TURNS_MAX = 64
"""Messages handled in a row under one commit: then the loop gets a turn."""

HANDLED_MAX = 256
"""Messages of one round: to load an actor, the log of its round is looked through."""


class ActorActivation(Keeping):
    """An actor in memory."""

    busy: int
    scope: str
    turn: Turn
    fields: Fields
    events: Sequence[Event]
    crashes: int
    wake_at: float | None
    aside: tuple[PauseReason, FailureReport | None] | None

    def __init__(self, host: Host, loaded: Loaded, kind: Kind) -> None:
        super().__init__(host, loaded, kind)
        self.handling: Handling | None = None  #: the turn that waits for a step or an ask
        opened = outcomes.opened(loaded.entries)
        #: The message of a turn with entries, done or to be resumed.
        self.busy = 0 if opened is None else int(opened.input or b"0")
        self.effects: Effects = Effects(self)
        self.started: bool = False  #: `on_start` is done
        self._announced = False  #: and durable
        self.instance: Any = None
        self.stashed: set[int] = set()
        self.blocked = False  #: the next turn must wait: for a restart, a retry, or to learn where a message goes
        self.leaving: bool = False  #: it stops by itself
        self.said_last: bool = False  #: `on_stop` is done
        self.proved = False  #: it has handled a message in this activation: so that one does not end the process
        self.handled = HANDLED_MAX  #: messages since its round began; those of earlier activations are not counted
        self.expired_at: float = -math.inf
        self._retry: Timer | None = None
        self._late: Timer | None = None

    # --- life -----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Finish the turn that was under way, or start; then handle what waits."""
        if self.stopping is not None:
            return
        try:
            self.instance = self.kind.build(
                self.state_bytes, key=self.run.key, resources=self.host.resources.fields(self.run.kind)
            )
        except Exception as error:  # noqa: BLE001  (whatever a validator of today's class raises)
            self.pause("undecodable", reports.unreadable(error, str(self)), [])
            return
        self.fields = Fields(self.kind, self.instance)
        for envelope in self.mailbox.waiting.values():
            self._expect(envelope)
            self.effects.loaded(envelope)
        writes: list[Write] = parting.expire(self)
        # A message may end the process. That something is being handled is durable before it is, once per activation.
        if self.events or self.kind.starts or self._next() is not None:
            writes.append(self.state("running", wake_at=0.0))
        self.submit(writes, self._first)

    def _first(self) -> None:
        if self.stopping is not None:
            return
        events, self.events = self.events, ()
        if outcomes.opened(events) is not None:
            self._resume(events)
        else:
            self.serve()
        if self.status == "running" and self.handling is None and not self.inflight and not self.blocked:
            self.commit([])  # Nothing that waits is to be handled now, such as a timer's message before its moment.
        self.host.rest(self)

    def _start(self) -> None:
        """The turn before the first message."""
        writes: list[Write] = []
        if not self.kind.starts:
            self.started = True
            self._go_on()
        elif self._handle(None, writes):
            self.commit(writes)

    def pause(self, reason: PauseReason, report: FailureReport | None, writes: list[Write]) -> None:
        self.aside = reason, report
        super().pause(reason, report, writes)

    def _resume(self, events: Sequence[Event]) -> None:
        """The turn that was under way when this actor left memory; if its handler failed, without what it failed at."""
        number = self.busy
        envelope = next((e for e in self.mailbox.waiting.values() if e.id == number), None)
        forgotten = failed_at(events) if self.host.cast.is_again(self, number) else frozenset[int]()
        kept = [event for event in events if event.seq not in forgotten]
        writes: list[Write] = [SetAsideEntries(self.run.id, tuple(sorted(forgotten)))] if forgotten else []
        if number and envelope is None:  # It was answered or given up meanwhile.
            self.next_round(writes)
            self.commit(writes)
        elif self._handle(envelope, writes, kept):
            self.commit(writes)

    def drop(self) -> None:
        for timer in (self._retry, self._late):
            if timer is not None:
                timer.cancel()
        super().drop()

    @property
    def idle(self) -> bool:
        return super().idle and not self.blocked and not self.host.cast.is_static(self)

    @property
    def between_turns(self) -> bool:
        """True if no turn is open, nothing is on its way to the store, and it may begin the next one."""
        return not self.inflight and self.may_begin

    @property
    def may_begin(self) -> bool:
        """True if it begins the next turn as soon as its last commit is durable."""
        return self.handling is None and not self.blocked and self.stopping is None and self.started

    # --- messages -------------------------------------------------------------------------------------------------------

    def takes(self, type_: str) -> bool:
        return self.may_begin and self.proved  # Its first message may end the process: that is counted.

    def arrived(self, envelope: Envelope) -> None:
        self.wake_at = 0.0 if self.status == "waiting" else self.wake_at  # So `Wake` left the row.
        self.mailbox.put(envelope)
        self.effects.loaded(envelope)
        self._expect(envelope)
        if self.stopping is None:
            self.serve()
            self.host.rest(self)

    def serve(self) -> None:
        """Handle what waits, if nothing is under way; give an open turn its answers."""
        if self.handling is not None:
            super().serve()
            if self.handling is not None:  # pyright: ignore[reportUnnecessaryComparison]  # The answer may have ended it.
                read_beside(self)
            return
        if self.inflight or self.blocked or self.stopping is not None:
            return
        if not self.started:
            self._start()
            return
        writes: list[Write] = []
        for _ in range(TURNS_MAX):
            envelope = self._next()
            if envelope is None:
                break
            if not self._handle(envelope, writes):
                return
        if writes or self.status == "running":
            self.commit(writes)

    def _next(self) -> Envelope | None:
        """The oldest message, those of the system first; none that is stashed, watches, or answers nobody any more."""
        if not self.mailbox.waiting:
            return None
        now = self._now()
        return self.mailbox.oldest_ahead(now=now) or self.mailbox.oldest(self._may_be_next, now=now)

    def _now(self) -> float:
        return self.host.clock.wall()

    def _may_be_next(self, envelope: Envelope) -> bool:
        return envelope.id not in self.stashed and envelope.type != "~watch"

    def _handle(self, envelope: Envelope | None, writes: list[Write], events: Sequence[Event] = ()) -> bool:
        """One turn. False if the next one must wait: then it has taken *writes* along."""
        turn = Handling(envelope, None, bool(events))
        try:
            message = None if envelope is None else outcomes.message_of(self, envelope)
            if envelope is not None and message is None:  # Nobody wants it.
                return outcomes.acknowledge(self, turn, envelope, writes)
            if not events and envelope is not None and envelope.expires_at is not None and envelope.expires_at <= self._now():
                return outcomes.refuse(self, turn, AskExpired(self.address), writes)
            if message is None:
                code = self.instance.on_start()
            else:
                turn.handler = self.kind.handler_of(type(message))
                if turn.handler is None:
                    raise UnknownMessage(f"{self.kind.name} handles no {type(message).__qualname__}.")
                code = turn.handler.fn(self.instance, message)
        except Exception as error:  # noqa: BLE001  (a message that today's classes cannot read)
            return outcomes.failed(self, turn, error, writes)
        box = Outbox(self.effects.room, turn.number, message)
        self.turn = Turn(
            code,
            self.host.context.copy(),
            events,
            state=self.fields,
            instance=self.instance,
            now=self.host.clock.wall,
            seed=f"{self.run.seed}/{self.round}/{turn.number}",
            outbox=box,
        )
        stretch = self.host.loop.hidden(self.turn.begin)
        if stretch.end is not None:
            return outcomes.ended(self, turn, stretch.end, writes)
        self._open(turn, stretch, writes, resumed=bool(events))
        return False

    def last_words(self, writes: list[Write]) -> None:
        if self.status == "running" and self.stopping is not None:
            writes.append(self.state("waiting", wake_at=0.0))
        if self.kind.stops and self.handling is None and self.started and not self.blocked and not self.said_last:
            self.said_last = True
            parting.say_last(self, writes)

    # --- turns that wait ------------------------------------------------------------------------------------------------

    def _open(self, turn: Handling, stretch: Stretch, writes: list[Write], *, resumed: bool) -> None:
        """The turn waits: from here on its entries are recorded, under its own round."""
        self.handling = turn
        turn.entries, self.busy = True, turn.number
        if turn.number:  # The same when the message is tried again, and when it was a dead letter and is sent again.
            self.scope = self.scope.rpartition("/")[0] + f"/m{turn.number}"
        self.durable_bytes()
        self.write_state(writes)
        if not resumed:
            self.host.direct.write(turn.envelope, writes)
            opened = self.log("turn", name=turn.name)
            writes.append(opened._replace(input=b"%d" % turn.number))
        if turn.handler is not None:
            self._late = self.host.deadlines.after(turn.handler.timeout_s, self._time_out)
        self.go(stretch, writes)

    def go(self, stretch: Stretch, writes: list[Write], answers: Iterator[Answer] = NO_MORE) -> None:
        super().go(outcomes.allowed(stretch), writes)  # One at a time: each stretch is looked at.

    def _time_out(self) -> None:
        turn = self.handling
        if turn is not None and turn.handler is not None and self.stopping is None:
            writes: list[Write] = []
            if outcomes.failed(self, turn, HandlerTimeout(turn.handler.name, turn.handler.timeout_s), writes):
                self.commit(writes)

    def ended(self, end: Finished | Again | Broken, writes: list[Write]) -> None:
        """A turn that had waited ended."""
        turn = self.handling
        assert turn is not None
        self._close()
        if outcomes.ended(self, turn, end, writes):
            self.commit(writes)

    def roll_back(self) -> None:
        """As before the turn."""
        for call in list(self.calls.values()):
            call.kill()
        self.calls.clear()
        self._close()
        if hasattr(self, "turn"):
            self.host.loop.hidden(self.turn.drop)
        before = self.instance.__dict__
        self.instance = self.kind.build(self.state_bytes, key=self.run.key, resources=self.host.resources.fields(self.run.kind))
        # What is volatile was set by `on_start`, which does not come again: this is no load.
        self.instance.__dict__.update({name: before[name] for name in before if name not in self.kind.fields})
        self.fields = Fields(self.kind, self.instance)

    def _close(self) -> None:
        self.handling = None
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def try_again(self, delay_s: float, *, reload: bool) -> None:
        """The same message again, after a while; with what its turn has recorded, if it has."""

        def again() -> None:
            self._retry, self.blocked = None, False
            if not self.live or self.stopping is not None:
                return
            if reload:
                self.host.reload(self)
            else:
                self.serve()

        self._retry = self.host.deadlines.after(delay_s, again)

    # --- commits --------------------------------------------------------------------------------------------------------

    def commit(self, writes: list[Write]) -> None:
        self.commit_then(writes, self._go_on)

    def commit_then(self, writes: list[Write], durable: Any) -> None:
        self.durable_bytes()
        if self.handled >= HANDLED_MAX and self.handling is None and not self.blocked:
            self.next_round(writes)
        self.write_state(writes)
        if self.kind.retention_s is not None:
            writes.extend(parting.expire(self))
        self.crashes = 0 if self.proved else self.crashes
        self.place(writes)
        self.submit(writes, durable)

    def _told(
        self, refusal: Refusal | StoreError | None, mail: Mail | None, durable: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        # What it told itself arrives before it goes on: the next turn must find all that this one did.
        if mail is not None:
            mail.told(refusal)
        super()._told(refusal, None, durable, args)

    def _go_on(self) -> None:
        if self.proven is not None:  # Its process outlived a turn of it.
            self.proven.set()
        self.effects.durable()
        if not self._announced and self.started:
            self._announced = True
            self.host.cast.started(self)
        if self.leaving:
            self.leaving = False
            self.host.cast.left(self)
            return
        if self.stopping is None:
            self.serve()
            self.host.rest(self)

    def unstorable(self, error: ActorflowError, writes: list[Write]) -> None:
        if self.handling is None or outcomes.failed(self, self.handling, error, writes):
            self.commit(writes)

    def place(self, writes: list[Write]) -> None:
        if self.handling is not None:
            super().place(writes)
            return
        if self.status == "paused":
            return
        now, run = self._now(), self.run.id
        waits = self._next() is None
        # Until it has handled something, the next message may be the one that ends the process: that is counted.
        status: RunStatus = "waiting" if waits or self.proved or self.stopping is not None else "running"
        wake_at: float | None = 0.0
        if not self.mailbox.reserved and waits:
            wake_at = self.mailbox.next_due(now=now)
            for write in writes:
                if type(write) is Envelope and write.run == run and write.state == "pending":
                    due = write.due_at or 0.0
                    wake_at = due if wake_at is None else min(wake_at, due)
        if (status, wake_at) != (self.status, self.wake_at):
            writes.append(self.state(status, wake_at=wake_at))
        if self.proven is not None and status == "waiting":
            self.proven.set()

    def show(self, writes: list[Write]) -> None:
        """Its fields are written with each turn; there is no other view."""
