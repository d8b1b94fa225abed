"""Attempts of a step: begin one, tell what it came to, try again or record it. What is decided is decided by `policies.retry`."""

from __future__ import annotations

import logging
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from actorflow.attempt import StepInfo, current
from actorflow.clock import moment
from actorflow.codec import coder
from actorflow.errors import ActorflowError, StepInterrupted, StepTimeout, WorkerDied
from actorflow.failures import encode_failure
from actorflow.kernel.requests import Asked
from actorflow.policies import retry
from actorflow.policies.failure import classify
from actorflow.policies.retry import RetryAfter
from actorflow.records import Entry, Write, made
from actorflow.runtime import reports
from actorflow.runtime.calls import Abandonable, Stopped
from actorflow.runtime.performing import perform
from actorflow.runtime.workers import Job
from actorflow.steps import Step, StepCall

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.timers import Timer

log: logging.Logger = logging.getLogger("actorflow")
_any = coder(Any)


class Attempt(Abandonable):
    """A step call: its attempts, one after another."""

    _timed_out = False
    _first_at: float | None = None  #: when the first attempt that failed had begun, if one did
    _beats = 0

    def __init__(self, activation: Activation, asked: Asked) -> None:
        self.activation: Activation = activation
        self.asked: Asked = asked
        self.request: StepCall = asked.request  # type: ignore[assignment]  # `open_call` has looked.
        self.step: Step = self.request.step
        self.input: bytes | None = self.request.payload
        # Here and not in the class, as every attempt looks at them.
        self.working: bool = True
        self.number: int = 1
        self._job: Job | None = None
        self._timer: Timer | None = None  #: of the wait before the next attempt
        self._deadline: Timer | None = None  #: of the attempt
        self._stopped: Stopped | None = None

    def opening(self) -> list[Write]:
        journal = self.activation.turn.journal
        announces = self.step.on_interrupt != "retry"
        if not (announces or journal.open):  # What nearly all are.
            return []
        tries = journal.tries(self.asked.identity)
        intent = journal.intent(self.asked.identity) if announces else None
        if tries:
            self.number = tries[-1].attempt + 1
            self._first_at = tries[0].at
            self.due_at = tries[-1].due_at
            if self.due_at is not None and self.due_at > self.activation.host.clock.wall():
                self.working = False
        if intent is not None and intent.attempt >= self.number:
            self.working = True  # Until its outcome, or the pause, is recorded: a crash must come back to it.
        elif self.working and announces:
            return [self._intent()]
        return []

    def maybe_begun(self) -> bool:
        """True unless the journal proves that an earlier life had not begun the present attempt."""
        journal, now = self.activation.turn.journal, self.activation.host.clock.wall()
        tries, intent = journal.tries(self.asked.identity), journal.intent(self.asked.identity)
        self.number = tries[-1].attempt + 1 if tries else 1
        if self.step.on_interrupt != "retry":
            return intent is not None and intent.attempt >= self.number
        return not tries or (tries[-1].due_at or 0.0) <= now

    def _intent(self) -> Entry:
        # With input and ref: an operator's decision, or a cancel after a crash, makes the outcome of it.
        entry = self.entry(kind="intent", status="", attempt=self.number, ref=self.request.ref)
        return entry._replace(input=self.input)

    def announced(self) -> list[Entry]:
        """What says that it runs now and may have its effect, if it can be undone and has not said so before."""
        undoable = self._job is not None and self.request.ref is not None
        return [self._intent()] if undoable and self.step.on_interrupt == "retry" else []

    def begin(self) -> None:
        if self.step.on_interrupt != "retry":
            intent = self.activation.turn.journal.intent(self.asked.identity)
            if intent is not None and intent.attempt >= self.number:
                self._was_interrupted("its process ended")
                return
        if self.working:
            self._perform()
        else:
            assert self.due_at is not None
            self._timer = self.activation.host.timers.at(self.due_at, self._again)

    def _again(self) -> None:
        """The wait before the next attempt is over."""
        if not self.activation.fires() or self.activation.calls.get(self.asked) is not self:
            return
        self.working, self.due_at = True, None
        writes: list[Write] = [self._intent()] if self.step.on_interrupt != "retry" else []
        self.activation.place(writes)
        self.activation.submit(writes, self._perform)

    # --- one attempt ----------------------------------------------------------------------------------------------------

    def _perform(self) -> None:
        if self._stopped is not None or (self.activation.calls.get(self.asked) is not self):
            return
        self._job = Performance(self)
        self.activation.host.workers.perform(self._job)

    def begun(self, info: StepInfo) -> None:
        """It runs from now on: its time counts."""
        host, timeout_s = self.activation.host, self.step.timeout_s
        if timeout_s is not None:
            info.deadline = moment(host.clock.wall() + timeout_s)
            self._deadline = host.deadlines.after(timeout_s, self._time_out)

    def beat(self, progress: Any) -> None:
        payload = self.activation.host.checked(_any.encode(progress, "heartbeat"), "heartbeat")
        self.activation.host.loop.post(lambda: self._store_beat(payload))

    def _store_beat(self, payload: bytes) -> None:
        if self._job is None or not self.activation.live:
            return
        entry = self.entry(kind="heartbeat", status="", attempt=self.number, outcome=payload)
        self.activation.turn.journal.note(entry)
        if self._beats == 0:  # The latest one goes when the one before it is durable: a beat a microsecond must not flood.
            self._beats = 1
            self.activation.submit([entry], lambda: self._beaten(payload))
        else:
            self._beats = 2

    def _beaten(self, sent: bytes) -> None:
        more, self._beats = self._beats == 2, 0
        latest = self.activation.turn.journal.heartbeat(self.asked.identity)
        if more and latest is not None and latest != sent:
            self._store_beat(latest)

    def _time_out(self) -> None:
        if self._job is not None:
            self._timed_out = True
            host = self.activation.host
            host.workers.cancel(self._job)
            self._deadline = host.deadlines.after(host.limits.cancel_grace_s, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        job = self._job
        if job is not None and job.tell is not None:
            job.tell, self._job = self._late, None
            self._deadline, self._timed_out = None, False
            self._failed(StepTimeout(self.step.name, self.step.timeout_s or 0.0))

    def _late(self, job: Job, value: Any, error: BaseException | None) -> None:
        log.warning("step %s of %s ended after it was abandoned; its outcome is dropped", self.step.name, self.activation)

    # --- what it came to ------------------------------------------------------------------------------------------------

    def told(self, job: Job, value: Any, error: BaseException | None) -> None:
        self._job = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self.activation.live:
            return
        if error is None:
            try:
                step = self.step
                payload = (step.known_outcome or step.outcome).encode(value, step.of_outcome)
                if len(payload) > self.activation.host.limits.payload_bytes_max:
                    self.activation.host.checked(payload, self.step.of_outcome)
            except ActorflowError as refused:
                self._finish(self._entry("failed", refused))
                return
            entry = self._ok(payload)
            if self._stopped is None:
                self.activation.record(self.asked, entry)
            else:
                self._finish(entry)
        elif self._timed_out:
            self._timed_out = False
            self._failed(StepTimeout(self.step.name, self.step.timeout_s or 0.0))
        elif job.ended_by_cancel(error):
            self._was_cancelled()
        elif isinstance(error, anyio.get_cancelled_exc_class()):
            return  # The runtime itself is being torn down: as if the process had died.
        else:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        kind = classify(error, (*self.step.fails, *self.activation.kind.fails))
        if self.step.on_interrupt != "retry" and (kind == "timeout" or isinstance(error, WorkerDied)):
            self._was_interrupted("it timed out" if kind == "timeout" else "its worker process ended")
            return
        host = self.activation.host
        if self._first_at is None:
            self._first_at = host.clock.wall()
        elapsed_s = host.clock.wall() - self._first_at
        decision = retry.decide(self.step.retry, self.number, error, elapsed_s=elapsed_s, die=host.chance.jitter())
        if isinstance(decision, RetryAfter) and kind != "business":
            self._wait(error, decision.delay_s)
        else:
            self._finish(self._entry("timeout" if kind == "timeout" else "failed", error))

    def _wait(self, error: BaseException, delay_s: float) -> None:
        due_at = self.activation.host.clock.wall() + delay_s
        attempt = self.entry(kind="try", status="failed", attempt=self.number, due_at=due_at, outcome=encode_failure(error))
        if self._stopped is not None:  # The run begins nothing new: the next attempt is for who resumes it.
            told, self._stopped = self._stopped, None
            told([attempt])
            return
        self.activation.turn.journal.note(attempt)
        self.number += 1
        self.working, self.due_at = False, due_at
        writes: list[Write] = [attempt]
        self.activation.place(writes)
        self.activation.submit(writes, self._durable_try)

    def _durable_try(self) -> None:
        if self.activation.calls.get(self.asked) is self and self.due_at is not None:
            self._timer = self.activation.host.timers.at(self.due_at, self._again)
            self.activation.host.rest(self.activation)

    def _was_interrupted(self, why: str) -> None:
        error = StepInterrupted(self.step.name, why)
        if self.step.on_interrupt == "ask" and self._stopped is None:
            report = reports.plain("ask", str(error), str(self.asked.identity), attempt=self.number)
            self.activation.pause("ask", report, [])
        else:
            self._finish(self._entry("interrupted", error))

    def _was_cancelled(self) -> None:
        self._finish(self.entry(status="cancelled", attempt=self.number, ref=self.request.ref))

    def _ok(self, payload: bytes) -> Entry:
        """`entry`, for the outcome that nearly all have."""
        activation = self.activation
        branch, name, n = self.asked.identity
        at = activation.host.clock.wall()
        run, round_, ref = activation.run.id, activation.round, self.request.ref
        return made(Entry, (run, round_, "step", branch, name, n, "ok", self.number, at, None, self.input, payload, ref))

    def _entry(self, status: Any, error: BaseException) -> Entry:
        return self.entry(status=status, attempt=self.number, outcome=encode_failure(error), ref=self.request.ref)

    def _finish(self, entry: Entry) -> None:
        if self._stopped is not None:
            told, self._stopped = self._stopped, None
            told([] if entry.status == "cancelled" and self._discards_cancel else [entry])
        elif entry.status == "cancelled":
            return  # Cancelled by nobody who waits: the activation is on its way out.
        else:
            self.activation.record(self.asked, entry)

    _discards_cancel = False

    # --- stopping -------------------------------------------------------------------------------------------------------

    def stop(self, told: Stopped, *, cancel: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._job is None:
            told([])
            return
        self._stopped = told
        if cancel:
            self.activation.host.workers.cancel(self._job)

    def drain(self) -> bool:
        self._discards_cancel = True
        if self._job is None:
            return False
        self.activation.host.workers.cancel(self._job)
        return True

    def abandon(self) -> list[Write]:
        self._stopped = None
        if self._job is not None:
            self._job.tell = self._late
            self._job = None
        return [self.entry(status="cancelled", attempt=self.number, ref=self.request.ref)]

    def kill(self) -> None:
        self.forget()
        job, self._job = self._job, None
        if job is not None:
            job.tell = None
            self.activation.host.workers.cancel(job)

    def forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._deadline is not None:
            self._deadline.cancel()


class Performance(Job):
    """One attempt of a step. What it needs is made when it begins: hundreds may stand in line."""

    __slots__ = ("attempt",)
    context: Context

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(_in_enter, attempt.asked.context, attempt.told)
        self.attempt: Attempt = attempt

    def ready(self) -> Context:
        self.context = context = self.context.copy()
        return context

    def enter(self) -> Any:
        attempt = self.attempt
        step, activation, asked = attempt.step, attempt.activation, attempt.asked
        journal = activation.turn.journal
        progress = journal.heartbeat(asked.identity) if journal.open else None
        info = StepInfo(
            (activation.scope, asked.identity),  # Few steps look at their key.
            step.name,
            attempt.number,
            None,
            None if progress is None else _any.decode(progress, "heartbeat"),
            attempt.beat,
        )
        current.set(info)
        arguments = attempt.request.copied_arguments()
        if step.is_async and activation.host.stage is None:  # One frame less for most steps there are.
            if step.timeout_s is not None:
                attempt.begun(info)
            coro = self._coro = step.call(arguments)
        else:
            coro = self._coro = perform(activation.host, step, arguments, partial(attempt.begun, info))
        return coro.send(None)


def _in_enter() -> Any:
    """`Performance.enter` makes the code itself: one frame less."""
    raise NotImplementedError
