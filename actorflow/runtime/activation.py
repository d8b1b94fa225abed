"""One live run: its turn, its mailbox and its open calls. Turns stretches of code into commits, and obeys. No policy.

Theory of operation. An outcome goes in through `record`: the code is driven on at once (it is pure), and the outcome, what
the code noted, and where the run then stands go out as one commit. What the code asked for begins when that commit is
durable. A refused commit breaks the chain: this activation is dropped, and the run is loaded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from actorflow.errors import ActorflowError, StoreError
from actorflow.kernel.journal import entry as new_entry
from actorflow.kernel.requests import Again, Asked, Broken, Finished, Note, Stretch
from actorflow.kernel.turn import Turn
from actorflow.kind import Fields, Kind
from actorflow.policies.failure import FailureReport, pause_reason
from actorflow.records import (
    Address,
    Consume,
    Entry,
    Envelope,
    Event,
    Loaded,
    PauseReason,
    Refusal,
    RunStatus,
    SetEnd,
    SetRound,
    SetView,
    Write,
)
from actorflow.runtime import reports
from actorflow.runtime.answers import open_call, unanswered
from actorflow.runtime.calls import Call, Stopper, Unreadable
from actorflow.runtime.delivery import NO_MORE, Answer, Delivery
from actorflow.runtime.finishing import finish
from actorflow.workflow import Answered

if TYPE_CHECKING:
    from actorflow.runtime.host import Host
    from actorflow.runtime.loops import Signal
    from actorflow.runtime.timers import Timer

TOGETHER_MAX = 32  #: ends of children that are looked at together, as long as others await theirs
BURST = 64  #: entries in one commit that were decided without waiting; more of them wait for it to be durable


class Activation(Delivery):
    """A run in memory."""

    round: int
    crashes: int
    wake_at: float | None
    calls: dict[Asked, Call]
    stopping: str | None

    def __init__(self, host: Host, loaded: Loaded, kind: Kind) -> None:
        run = loaded.run
        super().__init__(host, run, loaded.mailbox)
        self.kind: Kind = kind
        self.address: Address = run.address
        self.scope: str = f"{host.lease.store_id}/{run.kind}/{run.key}/{run.round}"  #: of idempotency keys
        self.cursors: dict[tuple[str, int], bytes | None] = (
            {(cursor.branch, cursor.n): cursor.state for cursor in loaded.cursors} if loaded.cursors else {}
        )
        self.children: dict[Address, int] = {child.address: child.id for child in loaded.children} if loaded.children else {}
        self.unanswered: dict[int, Envelope] = (
            unanswered(run.id, loaded.entries) if loaded.entries else {}
        )  #: asks that the code has taken
        self.view: bytes = run.view if run.view is not None else (run.fields or run.input)
        self.deadline: Timer | None = None
        self.halted: tuple[Call, ...] = ()  #: calls that were open when it was told to stop
        self.proven: Signal | None = None  #: somebody waits to see whether it ends its process again
        self.replayed: bool = False  #: this stretch began with a replay
        self.events: Sequence[Event] = loaded.entries  #: until they are replayed
        self._fields_at_start = run.fields if run.fields is not None else run.input
        self.turn: Turn
        self.fields: Fields

    def __str__(self) -> str:
        return str(self.address)

    # --- life -----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Drive the code from the top over what is recorded, and go on from there; unless it was told to stop meanwhile."""
        if self.stopping is not None:
            return
        try:
            stretch = self.replay()
        except Exception as error:  # noqa: BLE001  (whatever a validator of today's class raises)
            self.pause("undecodable", reports.unreadable(error, str(self)), [])
            return
        if self.run.deadline_at is not None:
            self.deadline = self.host.timers.at(self.run.deadline_at, self._deadline_passed)
        for envelope in self.mailbox.waiting.values():
            self._expect(envelope)
        self.replayed = True
        self.go(stretch, [])
        self.replayed = False

    def replay(self) -> Stretch:
        """Drive the code from the top over what is recorded."""
        resources = self.host.resources.fields(self.run.kind)
        instance = self.kind.build(self._fields_at_start, key=self.run.key, resources=resources)
        self.fields = Fields(self.kind, instance)
        self.turn = Turn(
            instance.run(),
            self.host.context.copy(),
            self.events,
            state=self.fields,
            instance=instance,
            now=self.host.clock.wall,
            seed=f"{self.run.seed}/{self.round}",
        )
        self.events = ()
        return self.host.loop.hidden(self.turn.begin)

    def drop(self) -> None:
        """Leave memory; nothing is written. What still runs is cancelled: its outcome could not be recorded."""
        for call in (*self.calls.values(), *self.halted):
            call.kill()
        self.calls.clear()
        self.mailbox.free()
        self.host.direct.untaken(self)
        if self.proven is not None:
            self.proven.set()
        if self.deadline is not None:
            self.deadline.cancel()
        if hasattr(self, "turn") and self.turn.branches:
            self.host.loop.hidden(self.turn.drop)

    def refused(self, refusal: Refusal | StoreError) -> None:
        self.host.refused(self, refusal)

    def _deadline_passed(self) -> None:
        if self.stopping is None:
            self.host.ending.time_out(self)

    def fires(self) -> bool:
        """True if a moment that has come may go on; a paused run's clocks go on, but nothing fires."""
        return self.stopping is None

    @property
    def idle(self) -> bool:
        """True if it only waits and all it said is durable: it may leave memory."""
        at_rest = self.status == "waiting" and not self.inflight and self.stopping is None
        return at_rest and not self.unserved and not self.mailbox.reserved

    # --- stretches ------------------------------------------------------------------------------------------------------

    def record(self, asked: Asked, entry: Entry, more: Iterable[Write] = ()) -> None:
        """The outcome of an open call: recorded, and the code goes on. One that nobody wants any more is dropped."""
        if (call := self.calls.pop(asked, None)) is not None:
            call.forget()
        if not self.turn.wants(asked):
            return
        # What goes with an entry is recorded before it: no entry of a scope comes after the one that closes it.
        self.go(self.host.loop.hidden(self.turn.deliver, entry), [*more, entry])

    def record_each(self, answers: Iterator[Answer]) -> bool:
        """Several in one commit: the code goes on from each before the next one is looked for. False if there is none."""
        for asked, entry, more in answers:
            if self.close(asked):
                self.go(self.host.loop.hidden(self.turn.deliver, entry), [*more, entry], answers)
                return True
        return False

    def go(self, stretch: Stretch, writes: list[Write], answers: Iterator[Answer] = NO_MORE) -> None:
        """Make one commit of what a stretch came to, and of more *answers*; what it asks for begins when that is durable."""
        opened: list[Call] = []
        stretches = [stretch]  # It grows: what is answered drives the code on.
        try:
            for each in stretches:
                if each.notes:
                    writes.extend(self._noted(each.notes))
                if each.end is not None:
                    self.ended(each.end, writes)
                    return
                for asked in each.asks:
                    if len(stretches) > 1 and not self.turn.wants(asked):
                        continue
                    call = open_call(self, asked)
                    if (given := call.input) is not None and len(given) > self.host.limits.payload_bytes_max:
                        self.host.checked(given, f"input of {asked.request.kind} {asked}")
                    answer = call.at_once() if len(writes) < BURST else None
                    if answer is None:
                        self.calls[asked] = call
                        if call.awaits is not None:
                            self.awaited.setdefault(call.awaits, {})[call] = None
                        opened.append(call)
                    else:
                        writes.extend((*answer[1], answer[0]))
                        stretches.append(self.host.loop.hidden(self.turn.deliver, answer[0]))
                if answers is not NO_MORE and each is stretches[-1] and len(writes) < BURST:
                    for asked, entry, more in answers:
                        if self.close(asked):
                            writes.extend((*more, entry))
                            stretches.append(self.host.loop.hidden(self.turn.deliver, entry))
                            break
            if len(stretches) > 1:
                opened = [call for call in opened if self.turn.wants(call.asked)]
            for call in opened:
                writes.extend(call.opening())
            self.place(writes)
            self.submit(writes, self._begin, opened)
        except ActorflowError as error:
            self.unstorable(error, writes)
        except Unreadable as found:
            self.unreadable(found.error, writes)

    def unstorable(self, error: ActorflowError, writes: list[Write]) -> None:
        """A field, a result or a message cannot be stored or read."""
        self.pause(pause_reason(error), reports.broken(self, error), writes)

    def ended(self, end: Finished | Again | Broken, writes: list[Write]) -> None:
        """The code came to an end; *writes* are what its last stretch recorded, and go with it."""
        finish(self, end, writes)

    def _noted(self, notes: Iterable[Note]) -> Iterable[Write]:
        at = self.host.clock.wall()
        for note in notes:
            answers = isinstance(note.effect, Answered)
            input_ = b"%d" % note.effect.message if answers else None
            yield new_entry(self.run.id, self.round, note.kind, note.identity, at=at, input=input_, outcome=note.outcome)
            if answers:
                yield from self.answer(note.effect.message, note.effect.value)

    def answer(self, message: int, value: bytes) -> list[Write]:
        """Answer a message that was taken."""
        envelope = self.unanswered.pop(message, None)
        return [Consume(message, value), *self.host.reply(envelope, value)]

    def place(self, writes: list[Write]) -> None:
        """Where the run stands now: written if it changed."""
        working = False
        for call in self.calls.values():
            if call.working:
                working = True
                break
        if working and self.status == "running" and not self.wake_at and not self.crashes and self.proven is None:
            return  # Where it stood: what most steps come to.
        status: RunStatus = "running" if working else "waiting"
        wake_at: float | None = 0.0
        # One that is held may be answered already.
        unseen = self.unserved or (bool(self.mailbox.waiting) and any(call.held for call in self.calls.values()))
        if not (working or unseen or self.mailbox.reserved):
            dues = [call.due_at for call in self.calls.values() if call.due_at is not None]
            if self.mailbox.waiting and (due := self.mailbox.next_due(now=self.served_at)) is not None:
                dues.append(due)
            if self.run.deadline_at is not None:
                dues.append(self.run.deadline_at)
            wake_at = min(dues, default=None)
        recovered = self.crashes > 0 and any(type(write) is Entry and write.status for write in writes)
        if (status, wake_at) != (self.status, self.wake_at) or recovered:
            self.crashes = 0 if recovered else self.crashes
            writes.append(self.state(status, wake_at=wake_at))
        if not working:
            self.show(writes)
        if self.proven is not None and (not working or not self.crashes):
            self.proven.set()

    def show(self, writes: list[Write]) -> None:
        """The fields to look at from now on, if they have changed."""
        view = self.fields.view()
        if view != self.view:
            self.view = view
            writes.append(SetView(self.run.id, view))

    def _begin(self, opened: list[Call]) -> None:
        for call in opened:
            if self.calls.get(call.asked) is call and self.stopping is None:
                call.held = False
                call.begin()
        if self.stopping is None:
            if self.mailbox.waiting:
                self.serve()
            if self.status == "waiting" or self.run.id in self.host.resting.lines_of:
                self.host.rest(self)

    # --- messages -------------------------------------------------------------------------------------------------------

    def arrived(self, envelope: Envelope) -> None:
        """A message was accepted, durably."""
        self.wake_at = 0.0 if self.status == "waiting" else self.wake_at  # So `Wake` left the row.
        if envelope.type == "~cancel":
            self.host.ending.cancel(self, envelope.body.decode())
            return
        self.mailbox.put(envelope)
        if envelope.due_at is not None:
            self._expect(envelope)
        if self.stopping is None:
            if envelope.type == "~child" and len(self.awaited) > 1 and len(self.mailbox) < TOGETHER_MAX:
                self.unserved = True  # The ends of other children may come with it.
                self.host.direct.soon(self)
                return
            self.serve()
            if self.status == "waiting":
                self.host.rest(self)

    def _expect(self, envelope: Envelope) -> None:
        if envelope.due_at is not None and envelope.due_at > self.host.clock.wall():
            self.host.timers.at(envelope.due_at, self._due)

    def droppable(self) -> Envelope | None:
        """The message that a full mailbox may lose."""
        return next((envelope for envelope in self.mailbox.waiting.values() if not envelope.type.startswith("~")), None)

    @property
    def fields_bytes(self) -> bytes:
        """Its fields as they are kept."""
        return self.view

    def go_on(self) -> None:
        """It was told to stop, and may go on as it is."""
        self.stopping = None
        self.serve()

    def retire(self, done: Callable[[], object], *, why: str = "leave") -> None:
        """Finish what runs, say what is to be said, then *done*."""

        def finished() -> None:
            writes: list[Write] = []
            self.last_words(writes)
            self.submit(writes, done)

        self.halt(why, [], finished)

    def last_words(self, writes: list[Write]) -> None:
        """It leaves memory in an orderly way."""

    def _due(self) -> None:
        if self.live and self.stopping is None:
            self.serve()

    def unreadable(self, error: BaseException, writes: list[Write]) -> None:
        self.pause(pause_reason(error), reports.broken(self, error), writes)

    # --- ends and pauses ------------------------------------------------------------------------------------------------

    def halt(self, why: str, writes: list[Write], then: Callable[[], object], *, cancel: bool = False) -> None:
        """Begin nothing new, end what is running (or let it finish) and record that, then go on with *then*.

        A later halt overtakes an earlier one: its *then* is the one that counts.
        """
        self.stopping = why
        self.submit(writes, _nothing)
        self.halted = (*self.halted, *self.calls.values())
        self.calls = {}
        left = len(self.halted)

        def stopped(late: list[Write]) -> None:
            nonlocal left
            left -= 1
            self.submit(late, then if left == 0 and self.stopping == why else _nothing)

        if not self.halted:
            self.submit([], then)
        for call in self.halted:
            Stopper([call], cancel=cancel, grace_s=self.host.limits.cancel_grace_s if cancel else None, told=stopped)

    def pause(self, reason: PauseReason, report: FailureReport | None, writes: list[Write]) -> None:
        """Stop with a report; nothing is lost or undone."""
        encoded = None if report is None else reports.encode(report)

        def stopped() -> None:
            if self.live and self.stopping == "pause":  # A cancel may have overtaken it.
                wake_at = self.run.deadline_at if reason != "undo" else None  # The deadline is not paused.
                last: list[Write] = [self.state("paused", reason=reason, wake_at=wake_at)]
                last.append(self.log("paused", name=reason, outcome=encoded))
                last.append(SetEnd(run=self.run.id, report=encoded or b""))
                last.extend(self.host.cast.farewells(self.run, self.mailbox.waiting.values(), "paused"))
                self.submit(last, lambda: self.host.gone(self))

        self.halt("pause", writes, stopped)

    def again(self, writes: list[Write]) -> None:
        fields = self.fields.view()
        self.round += 1
        self.scope = f"{self.host.lease.store_id}/{self.run.kind}/{self.run.key}/{self.round}"
        self.host.forget_bugs(self.run.id)
        if fields != self.view:
            self.view = fields
            writes.append(SetView(self.run.id, fields))
        writes.extend((self.log("again"), SetRound(self.run.id, self.round, fields)))
        self._fields_at_start = fields
        writes.append(self.state("running", wake_at=0.0))
        if self.deadline is not None:
            self.deadline.cancel()
        self.cursors.clear()
        self.submit(writes, self.begin)


def _nothing() -> None:
    """What follows from a commit that nothing follows from."""
