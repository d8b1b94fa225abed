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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actorflow.acting import Terminated
from actorflow.errors import ActorflowError, AskExpired, HandlerTimeout, UnknownMessage
from actorflow.kernel.outbox import Outbox
from actorflow.kernel.requests import Again, Broken, Finished, Stretch
from actorflow.kernel.turn import Turn
from actorflow.kind import Fields, Kind
from actorflow.message import Message, decode_message
from actorflow.records import Address, Entry, Envelope, Event, Loaded, RunStatus, SetAsideEntries, SetRound, Write
from actorflow.runtime import outcomes, reports
from actorflow.runtime.activation import Activation
from actorflow.runtime.effects import Effects, every_s
from actorflow.runtime.outcomes import Handling
from actorflow.runtime.reading import read_beside
from actorflow.runtime.sending import notice

if TYPE_CHECKING:
    from actorflow.runtime.host import Host
    from actorflow.runtime.timers import Timer

log: logging.Logger = logging.getLogger("actorflow")

TURNS_MAX = 64
"""Messages handled in a row under one commit: then the loop gets a turn."""


class ActorActivation(Activation):
    """An actor in memory."""

    def __init__(self, host: Host, loaded: Loaded, kind: Kind) -> None:
        super().__init__(host, loaded, kind)
        self.handling: Handling | None = None  #: the turn that waits for a step or an ask
        self.state_bytes: bytes = self._fields_at_start  #: the fields as they are durable, or about to be
        self.effects: Effects = Effects(self)
        self.started = False  #: `on_start` is done
        self.written_bytes = self._durable = self.state_bytes
        self.instance: Any = None
        self.stashed: set[int] = set()
        self.blocked = False  #: the next turn must wait: for a restart, a retry, or to learn where a message goes
        self.leaving = self._said = False
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
            self.pause("undecodable", reports.plain("undecodable", f"{type(error).__qualname__}: {error}", str(self)), [])
            return
        self.fields = Fields(self.kind, self.instance)
        for envelope in self.mailbox.waiting.values():
            self._expect(envelope)
            self.effects.loaded(envelope)
        # A message may end the process. That something is being handled is durable before it is, once per activation.
        at_work = bool(self.events) or bool(self.mailbox.waiting)
        self.submit([self.state("running", wake_at=0.0)] if at_work else [], self._first)

    def _first(self) -> None:
        if self.stopping is not None:
            return
        events, self.events = self.events, ()
        opened = next((entry for _, entry in events if entry.kind == "turn"), None)
        if opened is not None:
            self._resume(opened, events)
        else:
            self.serve()
        self.host.rest(self)

    def _start(self) -> None:
        """The turn before the first message."""
        writes: list[Write] = []
        if not self.kind.starts:
            self.is_started()
            self.serve()
        elif self._handle(None, writes):
            self.commit(writes)

    def is_started(self) -> None:
        self.started = True
        self.host.cast.started(self)

    def _resume(self, opened: Entry, events: Sequence[Event]) -> None:
        """The turn that was under way when this actor left memory: its successes are kept, its failures forgotten."""
        number = int(opened.input or b"0")
        envelope = next((e for e in self.mailbox.waiting.values() if e.id == number), None)
        failed = tuple(seq for seq, entry in events if entry.kind == "step" and entry.status not in ("ok", ""))
        kept = [event for event in events if event.seq not in failed]
        writes: list[Write] = [SetAsideEntries(self.run.id, failed)] if failed else []
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
    def fields_bytes(self) -> bytes:
        return self.state_bytes

    def droppable(self) -> Envelope | None:
        """The oldest message that is not being handled."""
        busy = self.handling.number if self.handling is not None else 0
        return next(
            (e for e in self.mailbox.waiting.values() if e.id != busy and not e.type.startswith("~") and every_s(e) is None), None
        )

    # --- messages -------------------------------------------------------------------------------------------------------

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
        if writes:
            self.commit(writes)

    def _next(self) -> Envelope | None:
        """The oldest message, those of the system first; none that is stashed, watches, or answers nobody any more."""
        if not self.mailbox.waiting:
            return None
        now = self.host.clock.wall()
        return self.mailbox.oldest(_is_system, now=now) or self.mailbox.oldest(self._may_be_next, now=now)

    def _may_be_next(self, envelope: Envelope) -> bool:
        return envelope.id not in self.stashed and envelope.type != "~watch"

    def _handle(self, envelope: Envelope | None, writes: list[Write], events: Sequence[Event] = ()) -> bool:
        """One turn. False if the next one must wait: then it has taken *writes* along."""
        turn = Handling(envelope, None)
        try:
            message = None if envelope is None else self._message(envelope)
            if envelope is not None and message is None:  # Nobody wants it.
                return outcomes.acknowledge(self, envelope, writes)
            if envelope is not None and envelope.expires_at is not None and envelope.expires_at <= self.host.clock.wall():
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
        box = Outbox(self.room, turn.number)
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
            turn.entries = bool(events)
            return outcomes.ended(self, turn, stretch.end, writes)
        self._open(turn, stretch, writes, resumed=bool(events))
        return False

    def _message(self, envelope: Envelope) -> Message[Any] | None:
        """What is handled: a user's message, or what the system tells as one; None if nobody wants that."""
        if envelope.type == "~child":
            end = notice.decode(envelope.body, "end of a watched one")
            message: Message[Any] = Terminated(end["of"], end["status"])
            return message if self.kind.handler_of(Terminated) is not None else None
        if envelope.type.startswith("~"):
            return None
        message = decode_message(envelope.type, envelope.body)
        object.__setattr__(message, "__actorflow_id__", envelope.id)
        return message

    def room(self, to: Address, beside: int) -> None:
        """Refuse a message to somebody known to be full. Not on replay: then it was accepted."""
        if self.turn.replaying:
            return
        self.effects.check_room(to, beside)

    def last_words(self, writes: list[Write]) -> None:
        """`on_stop`, if it says anything at once."""
        if self.status == "running" and self.stopping is not None:
            writes.append(self.state("waiting", wake_at=0.0))
        if not self.kind.stops or self.handling is not None or not self.started or self._said:
            return
        self._said = True
        box = Outbox(self.room)
        self.turn = Turn(self.instance.on_stop(), self.host.context.copy(), state=self.fields, instance=self.instance, outbox=box)
        end = self.host.loop.hidden(self.turn.begin).end
        match end:
            case Finished(_, None):
                self.state_bytes = self.fields.view()
                self._write_state(writes)
                if self.effects.known(box.effects):
                    self.effects.add(box.effects, writes)
            case Finished(_, BaseException() as error):
                log.warning("%s.on_stop: %s: %s", self, type(error).__qualname__, error)
            case _:
                log.warning("%s.on_stop waits for something, and was left there", self)

    # --- turns that wait ------------------------------------------------------------------------------------------------

    def _open(self, turn: Handling, stretch: Stretch, writes: list[Write], *, resumed: bool) -> None:
        """The turn waits: from here on its entries are recorded, under its own round."""
        self.handling = turn
        turn.entries = True
        if turn.number:  # The same when the message is tried again, and when it was a dead letter and is sent again.
            self.scope = self.scope.rpartition("/")[0] + f"/m{turn.number}"
        self.durable_bytes()
        self._write_state(writes)
        if not resumed:
            opened = self.log("turn", name=turn.name)
            writes.append(opened._replace(input=b"%d" % turn.number))
        if turn.handler is not None:
            self._late = self.host.deadlines.after(turn.handler.timeout_s, self._time_out)
        self.go(stretch, writes)

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
        self.handling = None
        if self._late is not None:
            self._late.cancel()
        if outcomes.ended(self, turn, end, writes):
            self.commit(writes)

    def roll_back(self) -> None:
        """As before the turn."""
        for call in list(self.calls.values()):
            call.kill()
        self.calls.clear()
        self.handling = None
        if hasattr(self, "turn"):
            self.host.loop.hidden(self.turn.drop)
        self.instance = self.kind.build(self.state_bytes, key=self.run.key, resources=self.host.resources.fields(self.run.kind))
        self.fields = Fields(self.kind, self.instance)

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

    def unstash(self) -> None:
        self.stashed.clear()

    def leave(self) -> None:
        """After the commit of this turn."""
        self.leaving = True

    def durable_bytes(self) -> bytes:
        """The fields as they are known to be durable."""
        if not self.inflight:
            self._durable = self.written_bytes
        return self._durable

    # --- commits --------------------------------------------------------------------------------------------------------

    def _write_state(self, writes: list[Write]) -> None:
        if self.state_bytes != self.written_bytes:
            self.written_bytes = self.state_bytes
            writes.append(SetRound(self.run.id, self.round, self.state_bytes))

    def next_round(self, writes: list[Write]) -> None:
        """The entries of this turn are history."""
        self.durable_bytes()
        self.round += 1
        self.scope = self.scope.rpartition("/")[0] + f"/{self.round}"
        self.written_bytes = self.state_bytes
        writes.append(SetRound(self.run.id, self.round, self.state_bytes))

    def commit(self, writes: list[Write]) -> None:
        self.commit_then(writes, self._go_on)

    def commit_then(self, writes: list[Write], durable: Any) -> None:
        self.durable_bytes()
        self._write_state(writes)
        self.crashes = 0 if writes else self.crashes
        self.place(writes)
        self.submit(writes, durable)

    def _go_on(self) -> None:
        self.effects.durable()
        if self.leaving:
            self.leaving = False
            self.host.cast.left(self)
            return
        if self.stopping is None:
            self.serve()
            self.host.rest(self)

    def broken(self, error: ActorflowError, writes: list[Write]) -> None:
        if self.handling is None or outcomes.failed(self, self.handling, error, writes):
            self.commit(writes)

    def place(self, writes: list[Write]) -> None:
        if self.handling is not None:
            super().place(writes)
            return
        now, run = self.host.clock.wall(), self.run.id
        wake_at: float | None = 0.0
        if not self.mailbox.reserved and self._next() is None:
            dues = [w.due_at or 0.0 for w in writes if type(w) is Envelope and w.run == run and w.state == "pending"]
            dues.extend(due for due in (self.mailbox.next_due(now=now),) if due is not None)
            wake_at = min(dues, default=None)
        status: RunStatus = "waiting"
        if (status, wake_at) != (self.status, self.wake_at):
            writes.append(self.state(status, wake_at=wake_at))

    def show(self, writes: list[Write]) -> None:
        """Its fields are written with each turn; there is no other view."""


def _is_system(envelope: Envelope) -> bool:
    return envelope.type in ("~child", "~reply")
