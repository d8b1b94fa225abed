"""How runs end: completed, failed after their undos, cancelled. What is undone next is decided by `policies.saga`."""

from __future__ import annotations

import logging
import typing
from collections.abc import Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio
from attrs import evolve

from actorflow.attempt import StepInfo, current
from actorflow.clock import moment
from actorflow.codec import RecordCoder
from actorflow.errors import RunCancelled, RunEnded, RunTimedOut, StepTimeout, StoreError, Undecodable
from actorflow.failures import decode_failure, encode_failure, failed_answer, in_words
from actorflow.kernel.journal import entry as new_entry
from actorflow.kernel.requests import Closing, Finished
from actorflow.policies import retry, saga
from actorflow.policies.failure import FailureReport
from actorflow.policies.retry import RetryAfter
from actorflow.policies.saga import Undo
from actorflow.records import URGENT, Bury, Commit, Entry, Envelope, Event, Identity, Run, RunStatus, SetEnd, Wake, Write
from actorflow.resources import injected
from actorflow.runtime import reports
from actorflow.runtime.attempts import Attempt
from actorflow.runtime.calls import REPEAT_S
from actorflow.runtime.mail import given_up, mail_of
from actorflow.runtime.performing import perform
from actorflow.runtime.workers import Job
from actorflow.steps import Step, StepCall, declaration, find_step

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host

log: logging.Logger = logging.getLogger("actorflow")
_start_input = RecordCoder({"run": str, "input": Any})
STOPPED = "an operator paused it while it was undoing"


class Ending:
    """Ends runs of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._undoing: dict[Activation, _Undoing] = {}  #: the undos that run now
        self._pausing: set[Activation] = set()  #: an operator wants them to stop between their undos

    # --- ways to end ----------------------------------------------------------------------------------------------------

    def end(self, activation: Activation, status: RunStatus, outcome: bytes, writes: list[Write]) -> None:
        """The code returned: stop what its branches left open, then end."""
        if activation.calls:
            activation.halt("end", writes, lambda: self._last(activation, status, outcome, [], None), cancel=True)
        else:
            activation.stopping = "end"
            self._last(activation, status, outcome, writes, None)

    def undo(
        self,
        activation: Activation,
        outcome: bytes,
        writes: list[Write],
        *,
        report: FailureReport | None,
        log: Entry | None = None,
    ) -> None:
        """A business failure or a cancel: in one commit nothing new may start; then the undos run; then it ends."""
        payload = None if report is None else reports.encode(report)
        if log is not None:
            writes.append(log)
        writes.extend(self._maybe_landed(activation))
        activation.crashes = 0  # Those were of its code; its undos have a budget of their own.
        writes.extend((activation.state("undoing", wake_at=0.0), SetEnd(run=activation.run.id, outcome=outcome, report=payload)))
        writes.extend(self._cancelled_children(activation))
        if hasattr(activation, "turn"):
            self.host.loop.hidden(activation.turn.drop)
        activation.halt("undo", writes, lambda: self.host.spawn(lambda: self._undo(activation, outcome, report)), cancel=True)

    def cancel(self, activation: Activation, why: str) -> None:
        """Cancel it, unless it is ending."""
        if activation.stopping not in ("undo", "end"):
            error = RunCancelled(activation.run.address, why)
            self.undo(activation, encode_failure(error), [], report=None, log=activation.log("cancelling", name=why[:200]))

    def time_out(self, activation: Activation) -> None:
        """Its deadline passed."""
        error = RunTimedOut(activation.run.address)
        report = FailureReport(
            failure="timeout",
            reason=None,
            what=str(error),
            where="deadline",
            remedy="Start another run with a later deadline, or `fork` this one.",
        )
        self.undo(activation, encode_failure(error), [], report=report, log=activation.log("cancelling", name="deadline"))

    def resume(self, activation: Activation) -> None:
        """A run that was undoing when its process ended, or whose undo was paused."""
        activation.stopping = "undo"
        outcome = activation.run.outcome or b"null"
        report = reports.decode(activation.run.report)
        at = self.host.clock.wall()
        cancelled: list[Write] = [
            intent._replace(kind="step", status="cancelled", at=at) for intent in _unanswered(activation.events)
        ]
        # Counted before, as who ends its process counts nothing; an outcome, or leaving in order, takes it back.
        activation.crashes += 1
        cancelled.append(activation.state("undoing", wake_at=0.0))
        activation.submit(cancelled, lambda: self.host.spawn(lambda: self._undo(activation, outcome, report)))

    def _maybe_landed(self, activation: Activation) -> list[Write]:
        """What says of steps without a recorded outcome that their effects may have happened, so that they are undone.

        Those that run now are announced: they have a while to end, and a crash in that while must not forget them. After a
        load it is not known which ones an earlier life had begun: whatever the code would ask now may have been.
        """
        if hasattr(activation, "turn"):
            attempts = [call for call in (*activation.calls.values(), *activation.halted) if isinstance(call, Attempt)]
            return [entry for attempt in attempts for entry in attempt.announced()]
        try:
            stretch = activation.replay()
        except Exception:  # noqa: BLE001  (today's class cannot read it: nobody can tell what it would ask)
            return []
        asks = stretch.end.dropped if isinstance(stretch.end, Finished) else tuple(stretch.asks)
        known = {entry.identity for entry in activation.turn.journal.order}
        behind = [asked for closing in asks if isinstance(closing.request, Closing) for asked in closing.request.dropped]
        return [
            attempt.entry(status="cancelled", attempt=attempt.number, ref=asked.request.ref)
            for asked in (*asks, *behind)
            if asked.identity not in known
            and isinstance(asked.request, StepCall)
            and asked.request.ref is not None
            and (attempt := Attempt(activation, asked)).maybe_begun()
        ]

    # --- the undos ------------------------------------------------------------------------------------------------------

    def pause(self, activation: Activation, *, cancel: bool) -> None:
        """Pause a run that is undoing: after the undo that runs now, or cancel that."""
        self._pausing.add(activation)
        if cancel and activation in self._undoing:
            self._undoing[activation].cancel()

    async def _undo(self, activation: Activation, outcome: bytes, report: FailureReport | None) -> None:
        try:
            await self._undo_all(activation, outcome, report)
        finally:
            self._pausing.discard(activation)
            self._undoing.pop(activation, None)

    async def _undo_all(self, activation: Activation, outcome: bytes, report: FailureReport | None) -> None:
        host, not_undone = self.host, list[str]()
        events = await self._undoable(activation)
        for undo in saga.pending(events):
            if not activation.live or activation.stopping != "undo":
                return
            undoing = self._undoing[activation] = _Undoing(host, activation, undo, events, not_undone)
            if host.closing:
                activation.submit([self.released(activation)], lambda: host.remove(activation))
            elif activation.crashes >= host.limits.crashes_max:
                undoing.pause(f"its process ended {activation.crashes} times while it undid {undo.entry.name}")
            elif activation in self._pausing:
                undoing.pause(STOPPED)
            elif await undoing.run():
                continue
            return
        if activation.live and activation.stopping == "undo":
            activation.crashes = 0
            if not_undone:
                report = evolve(report or _plain_report(outcome), not_undone=tuple(not_undone))
            self._last(activation, status_after(outcome), outcome, [], report)

    def released(self, activation: Activation) -> Write:
        """What says that the next holder goes on with a run that is undoing, and that its undo ended nobody's process."""
        activation.crashes = max(0, activation.crashes - 1)
        return activation.state("undoing", wake_at=0.0)

    async def _undoable(self, activation: Activation) -> list[Event]:
        while True:
            try:
                return await self.host.store.undoable(activation.run.id, activation.round)
            except StoreError as error:
                if self.host.committer.stopped is not None:
                    raise
                log.warning("what to undo of %s could not be read: %s", activation, error)
                await anyio.sleep(REPEAT_S)

    # --- the last commit ------------------------------------------------------------------------------------------------

    def _last(
        self, activation: Activation, status: RunStatus, outcome: bytes, writes: list[Write], report: FailureReport | None
    ) -> None:
        host, run = self.host, activation.run
        payload = None if report is None else reports.encode(report)
        writes.append(activation.state(status))
        writes.append(SetEnd(run=run.id, outcome=outcome, report=payload, ended_at=host.clock.wall()))
        writes.append(activation.log(status, outcome=outcome))
        if activation.children:
            writes.extend(self._cancelled_children(activation))
        unanswered = [*activation.unanswered.values(), *activation.mailbox.waiting.values()]
        if unanswered:
            answer = failed_answer(RunEnded(run.address, status))
            for envelope in unanswered:
                writes.extend(given_up(host, envelope, answer))
        if activation.mailbox.waiting or activation.mailbox.reserved:
            writes.append(Bury(run.id))
        if run.parent is not None:
            writes.extend(host.notice("~child", run.parent, str(run.address), status, outcome))
        for envelope in unanswered:
            if envelope.type == "~watch" and envelope.reply_to is not None:
                writes.extend(host.notice("~child", envelope.reply_to, str(run.address), status, outcome))
        activation.submit(writes, self._over, activation, status, outcome, unanswered)

    def _over(self, activation: Activation, status: RunStatus, outcome: bytes, told: list[Envelope]) -> None:
        self.host.ended(activation, status, outcome)
        if activation.mailbox.waiting:
            known = {envelope.id for envelope in told}
            late = [envelope for envelope in activation.mailbox.waiting.values() if envelope.id not in known]
            if late:  # It was on its way when this was.
                self.too_late(evolve(activation.run, status=status, outcome=outcome), late)

    def too_late(self, run: Run, envelopes: Sequence[Envelope]) -> None:
        """Mail for a run that has ended: whoever waits for an answer to it is told, and it is a dead letter."""
        answer = failed_answer(RunEnded(run.address, run.status))
        writes: list[Write] = [Bury(run.id)]
        for envelope in envelopes:
            writes.extend(given_up(self.host, envelope, answer))
            if envelope.type == "~watch" and envelope.reply_to is not None:
                writes.extend(self.host.notice("~child", envelope.reply_to, str(run.address), run.status, run.outcome))
        mail = mail_of(self.host, writes)
        self.host.committer.submit(Commit(tuple(writes)), mail.told if mail is not None else lambda _: None)

    def _cancelled_children(self, activation: Activation) -> list[Write]:
        writes: list[Write] = []
        for child in activation.children.values():
            writes.append(self.host.envelope(child, "~cancel", b"its parent ended", sender=str(activation)))
            writes.append(Wake(child, URGENT))
        activation.children.clear()
        return writes


def _unanswered(events: Sequence[Event]) -> list[Entry]:
    """Announced attempts that can be undone and whose outcome nobody lived to record."""
    known = {entry.identity for _, entry in events if entry.kind == "step"}
    last = {entry.identity: entry for _, entry in events if entry.kind == "intent" and entry.ref is not None}
    return [entry for identity, entry in last.items() if identity not in known]


def status_after(outcome: bytes) -> RunStatus:
    """How a run ends once its undos are done."""
    error = decode_failure(outcome)
    return "cancelled" if isinstance(error, RunCancelled) and not isinstance(error, RunTimedOut) else "failed"


def _plain_report(outcome: bytes) -> FailureReport:
    return FailureReport(failure="cancelled", reason=None, what=str(decode_failure(outcome)), where="")


class _Undoing:
    """One undo: its attempts, until it is recorded or paused."""

    def __init__(self, host: Host, activation: Activation, undo: Undo, events: list[Event], not_undone: list[str]) -> None:
        self.host = host
        self.activation = activation
        self.undo = undo
        self.events = events
        self.not_undone = not_undone
        self._scope: anyio.CancelScope | None = None
        self._stopped = False
        self._error: BaseException | None = None  #: what the last attempt raised

    def cancel(self) -> None:
        """Stop it; it may have had its effect. The run is paused before it."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> bool:
        """True if the next undo may begin."""
        try:
            return await self._run()
        except Undecodable as error:
            return self.pause(str(error))

    async def _run(self) -> bool:
        entry = self.undo.entry
        found = find_step(entry.ref or "")
        fn = found.undo if found is not None and entry.kind == "step" else (found.fn if found is not None else None)
        if fn is None:
            return self.pause(f"step {entry.ref} has no undo any more, or cannot be imported")
        step = declaration(fn) or Step(injected(fn), getattr(fn, "__qualname__", "undo"))
        identity = Identity(self.undo.branch, step.name, 0)
        arguments = self._arguments(found, step) if entry.kind == "step" and found is not None else self._child_key()
        if arguments is None:
            self.not_undone.append(f"{entry.name} ({entry.status}): its undo does not take an unknown outcome")
            return await self._record(identity, "", 0, None)
        return await self._attempts(step, identity, *arguments)

    def _child_key(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        started = _start_input.decode(self.undo.entry.input or b"null", "start of a child")
        return (started["run"].partition("/")[2],), {}

    def _arguments(self, of: Step, step: Step) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The step's arguments, and its outcome if the undo takes it; None if it does not take an unknown one."""
        entry = self.undo.entry
        values = of.coder.decode(entry.input or b"null", f"recorded input of step {of.name}")
        args, kwargs = of.split(values)
        if "outcome" in step.signature.parameters and "outcome" not in of.signature.parameters:
            if entry.status == "ok":
                kwargs["outcome"] = of.outcome.decode(entry.outcome or b"null", f"recorded outcome of step {of.name}")
            elif not _takes_none(step.hints.get("outcome", Any)):
                return None
            else:
                kwargs["outcome"] = None
        return tuple(args), kwargs

    async def _attempts(self, step: Step, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tries = [e for _, e in self.events if e.kind == "undo" and e.status == "failed" and e.branch == identity.branch]
        number = len(tries) + 1
        first_at = tries[0].at if tries else self.host.clock.wall()
        delay_s = 0.0
        while not self._stopped:
            error: BaseException | None = None
            with anyio.CancelScope() as self._scope:
                await anyio.sleep(delay_s)
                error = await self._attempt(step, identity, number, args, kwargs)
            if self._scope.cancelled_caught:
                break
            if error is None:
                return await self._record(identity, "ok", number, None)
            elapsed_s = self.host.clock.wall() - first_at
            decision = retry.decide(step.retry, number, error, elapsed_s=elapsed_s, die=self.host.chance.jitter())
            if not isinstance(decision, RetryAfter):
                return self.pause(f"undo {step.name} failed: {in_words(error)}", number)
            await self._record(identity, "failed", number, encode_failure(error))
            number, delay_s = number + 1, decision.delay_s
        return self.pause(STOPPED, number)

    async def _attempt(
        self, step: Step, identity: Identity, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BaseException | None:
        """What it raised, whatever that is: an undo ends nobody but itself."""
        info = StepInfo(key=self.host.idempotency_key(self.activation, identity), name=step.name, attempt=number)
        context = copy_context()
        context.run(current.set, info)
        self.host.resources.entered(context)
        with anyio.CancelScope() as scope:

            def begun() -> None:
                if step.timeout_s is not None:
                    scope.deadline = anyio.current_time() + step.timeout_s
                    info.deadline = moment(self.host.clock.wall() + step.timeout_s)

            self._error = None
            job = Job(lambda: perform(self.host, step, step.bind(args, kwargs), begun), context, self._told)
            job.worker = scope
            if not job.run():
                await job
        return StepTimeout(step.name, step.timeout_s or 0.0) if scope.cancelled_caught else self._error

    def _told(self, job: Job, value: Any, error: BaseException | None) -> None:
        self._error = error
        self.host.workers.ended(job)

    async def _record(self, identity: Identity, status: Any, number: int, outcome: bytes | None) -> bool:
        at = self.host.clock.wall()
        entry = new_entry(
            self.activation.run.id, self.activation.round, "undo", identity, at=at, status=status, attempt=number, outcome=outcome
        )
        durable = anyio.Event()
        writes: list[Write] = [entry]
        if self.activation.crashes:
            self.activation.crashes = 0
            writes.append(self.activation.state("undoing", wake_at=0.0))
        self.activation.submit(writes, durable.set)
        await durable.wait()
        return self.activation.live

    def pause(self, what: str, number: int = 0) -> bool:
        """Pause the run with a report that names this undo; False: the next one must not begin."""
        report = reports.plain("undo", what, f"{self.undo.branch}:{self.undo.entry.name}#0", attempt=number)
        if what == STOPPED:
            report = evolve(report, failure="cancelled", remedy="`resume` goes on with this undo; `skip` leaves it out.")
        self.activation.pause("undo", report, [])
        return False


def _takes_none(annotation: Any) -> bool:
    return annotation in (Any, None, type(None), object) or type(None) in typing.get_args(annotation)
