"""One live memory-only actor: its instance, its mailbox, and the job in which its handlers run.

Theory of operation. While messages wait, one job of the workers handles them, one after another; a handler that does not
wait costs no task, no scope and no timer. At the first thing that a handler waits for, the job has its task to itself, and
the handler's deadline begins. A handler that has waited ends its job, and one that failed does: the next messages are the
next job's. So a cancel (past the deadline, or by a supervisor) never reaches the handler of another message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context, copy_context
from itertools import repeat
from typing import TYPE_CHECKING, Any

from actorflow.attempt import current
from actorflow.errors import ActorPaused, HandlerFailed
from actorflow.failures import copy_failure, in_words
from actorflow.kind import Kind
from actorflow.nearby import living
from actorflow.policies.failure import classify
from actorflow.policies.handling import TRIES, GiveUp, after_failure
from actorflow.policies.restarts import Backoff, Budget, spend
from actorflow.records import Address
from actorflow.runtime import reports
from actorflow.runtime.at_once import AtOnce
from actorflow.runtime.memory_mailbox import MemoryMailbox
from actorflow.runtime.serving import Serving
from actorflow.runtime.tickets import Letter, Question, Tick

if TYPE_CHECKING:
    from actorflow.runtime.host import Host
    from actorflow.runtime.memory_actors import MemoryActors

log: logging.Logger = logging.getLogger("actorflow")

BATCH = 64
"""Messages handled in a row: then other actors get their turn."""


class MemoryActor(MemoryMailbox):
    """A memory-only actor. Its address is known as long as it is `live`."""

    room: int
    busy: bool

    def __init__(self, all_: MemoryActors, kind: Kind, address: Address, make: Callable[[], Any]) -> None:
        self.nearby: MemoryActors = all_
        self.host: Host = all_.host
        super().__init__(kind, address, self.host.mailbox_max(kind.name))
        self.timers: dict[str, Tick] = {}
        self.watchers: dict[Address, MemoryActor] = {}
        self.watching: set[Address] = set()
        self.asking: list[MemoryActor] = []  #: whose replies its handlers wait for
        self.current: Letter | None = None  #: what is being handled
        self.job: Serving | None = None
        self.beside: set[Serving] = set()  #: readonly handlers that run beside one that waits
        self.paused: ActorPaused | None = None
        self.stash_current: bool = False
        self.leaving: bool = False
        self.noted: bool = False  #: one of these was set while a handler ran, or it waited
        self.box: AtOnce = AtOnce(self)
        self.instance: Any = None
        self.make: Callable[[], Any] = make
        self.active: bool = False  #: it did something since it was looked after
        self.looked_after: bool = False  #: somebody does, and counts its idle time
        self._started = False
        self._stopped: Callable[[], object] | None = None  #: told, once, when it has stopped
        self._budget = Budget()
        self._reads = any(handler.readonly for handler in (kind.handlers or {}).values())
        self.context: Context = self.host.context.run(copy_context)
        self.context.run(living.set, self)
        self.context.run(current.set, None)

    def __str__(self) -> str:
        return str(self.address)

    # --- mail -----------------------------------------------------------------------------------------------------------

    def deliver(self, letter: Letter) -> None:
        """Put a letter in, whatever the bound."""
        job = self.job
        if self._reads and letter[1].readonly and job is not None and job.blocked:
            self._read_beside(letter)
            return
        self.mail.append(letter)
        if not self.busy:
            self.perform()

    @property
    def working(self) -> bool:
        """True if it is on its way through its mail: places become free by themselves, soon."""
        return self.job is not None and not self.job.blocked

    # --- life -----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make its instance anew, and go on with what waits.

        Raises:
            Exception: Whatever keeps the instance from being made.
        """
        self.instance = self.make()
        self._started, self.busy, self.paused, self._stopped = False, False, None, None
        if self.kind.starts or self.mail:
            self.perform()
        if not self.kind.starts:
            self._is_started()

    def _is_started(self) -> None:
        self._started = True
        if self.nearby.is_static(self):
            self.nearby.tree.started(self)

    def perform(self) -> None:
        """Handle what waits, soon."""
        self.busy = True
        self.noted = False
        self.job = Serving(self, self._serve, self._served)

    async def _serve(self) -> None:
        if not self._started:
            await self.instance.on_start()
            self._is_started()
        mail, instance, job = self.mail, self.instance, self.job
        assert job is not None
        if job.blocked:
            return
        for _ in repeat(None, min(BATCH, len(mail))):
            self.current = letter = mail.popleft()
            message, handler, ticket = letter
            if ticket is None:
                await handler.fn(instance, message)
            elif not ticket.gone:
                value = await handler.fn(instance, message)
                if not self.stash_current:
                    ticket.handled(value, handler, message)
            if self.noted:
                self.noted = False
                if self.stash_current:
                    self.stash_current = False
                    self.stashed.append(letter)
                    self.room -= 1
                if self.leaving or job.blocked:
                    return

    def waits(self, job: Serving) -> None:
        """What runs in this job waits for something."""
        if job is self.job:
            self.noted = True
            if self._reads:
                self._read_what_waits()

    def _served(self, _: Any, error: BaseException | None) -> None:
        """The job has ended: all of its messages were handled, or the last one failed."""
        letter, self.current, self.job = self.current, None, None
        if not self.live:
            return
        if self.freed:
            self.free()
        if error is None or not self._failed(letter, error):
            self._go_on()

    def _go_on(self) -> None:
        if self._stopped is not None or self.leaving:
            self._last_words()
        elif self.mail:
            self.perform()
        else:
            self.busy, self.active = False, True
            if not self.looked_after:
                self.nearby.rest(self)

    # --- reading --------------------------------------------------------------------------------------------------------

    def _read_what_waits(self) -> None:
        reads = [letter for letter in self.mail if letter[1].readonly]
        if reads:
            kept = [letter for letter in self.mail if not letter[1].readonly]
            self.mail.clear()
            self.mail.extend(kept)
            for letter in reads:
                self._read_beside(letter)

    def _read_beside(self, letter: Letter) -> None:
        """A readonly handler beside one that waits; it sees the fields as they are by then."""
        message, handler, ticket = letter

        async def read() -> None:
            value = await handler.fn(self.instance, message)
            if ticket is not None:
                ticket.handled(value, handler, message)

        def told(_: Any, error: BaseException | None) -> None:
            self.beside.discard(job)
            self.room += 1
            if error is not None:
                self._answer(letter, error)

        if ticket is None or not ticket.gone:
            job = Serving(self, read, told, letter)
            self.beside.add(job)
            self.room -= 1

    # --- failures -------------------------------------------------------------------------------------------------------

    def _answer(self, letter: Letter, error: BaseException) -> None:
        if letter[2] is not None:
            letter[2].failed(copy_failure(error)[1])

    def _failed(self, letter: Letter | None, error: BaseException) -> bool:
        """What follows a failure; True if the next message must wait for it."""
        self.stash_current = False
        if letter is None:  # It had not started.
            self._restart(error)
            return True
        message, handler, _ = letter
        # Nothing was rolled back, so the same message is never tried again.
        decision = after_failure(error, TRIES.attempts, die=0.0, fails=self.kind.fails)
        if not isinstance(decision, GiveUp) or handler.readonly:
            self._answer(letter, error)
            return False
        text = in_words(error)[:2_000]
        log.error("%s failed at %s, which is lost: %s", self, type(message).__qualname__, text)
        data = classify(error, self.kind.fails) == "data" and isinstance(error, Exception)
        self._answer(letter, error if data else HandlerFailed(self.address, type(message).__qualname__, text))
        if decision.restart:
            self._restart(error)
        return decision.restart

    def _restart(self, error: BaseException) -> None:
        """Begin anew, if its supervisor or its budget allows. Its mail waits."""
        self.busy = True
        if self._stopped is not None:
            self.end()
        elif self.nearby.is_static(self):
            self.nearby.tree.failed(self, error)
        else:
            text = in_words(error)
            self._budget, verdict = spend(self._budget, now=self.host.clock.monotonic())
            if verdict == "quarantine":
                self._set_aside(f"it failed too often; last: {text}"[:2_000], error)
                return
            delay_s = Backoff().delay_s(len(self._budget.spent), die=self.host.chance.jitter())
            log.warning("%s begins anew in %.1f s: %s", self, delay_s, text)
            self._forget()
            self.host.deadlines.after(delay_s, self.anew)

    def anew(self) -> None:
        """Begin again with what waits; or, if that fails, after a while."""
        if not self.live:
            return
        if self._stopped is not None:
            self.end()
            return
        try:
            self.begin()
        except Exception as error:  # noqa: BLE001  (the defaults of the user's class)
            self._restart(error)

    def _set_aside(self, what: str, error: BaseException) -> None:
        self.paused = ActorPaused(self.address, "bug", reports.plain("bug", what, reports.line(error)))
        log.error("%s", self.paused)
        self._forget()
        for letter in self.mail:  # Who asks is not to wait in vain.
            if isinstance(letter[2], Question):
                letter[2].failed(self.paused)
        self.nearby.gone(self, "paused")

    def resume(self) -> None:
        """An operator resumes it: a new budget."""
        if self.paused is not None:
            self._budget = Budget()
            self.paused = None
            self.anew()

    def _forget(self) -> None:
        """Nothing of what it did goes on."""
        for tick in self.timers.values():
            tick.cancel()
        self.timers.clear()
        self.watching.clear()
        self.stash_current = self.leaving = False
        self.unstash()

    # --- leaving --------------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """It has failed, and goes on as it is."""
        self._go_on()

    @property
    def idle(self) -> bool:
        """True if it only waits."""
        return not (self.busy or self.mail or self.beside)

    @property
    def may_leave(self) -> bool:
        """True if nobody would miss it but for its state: it has no timers, put nothing aside and watches nobody."""
        return self.idle and not (self.timers or self.stashed or self.later or self.watching or self.nearby.is_static(self))

    def stop(self, told: Callable[[], object]) -> None:
        """Let it finish what it handles, and say its last words."""
        self._stopped = told
        if self.job is None:
            self._last_words()

    def _last_words(self) -> None:
        self.busy = True
        if not self.kind.stops or not self._started:
            self.end()
            return

        def told(_: Any, error: BaseException | None) -> None:
            self.job = None
            if error is not None:
                log.warning("%s.on_stop: %s: %s", self, type(error).__qualname__, error)
            self.end()

        self._started = False
        self.job = Serving(self, self.instance.on_stop, told)

    def end(self) -> None:
        """It has stopped. What waits for it waits until it comes back, if it does."""
        told, self._stopped = self._stopped, None
        left = self.leaving
        self._cut()
        if told is not None:
            told()
        elif left:
            self.nearby.left(self)

    def retire(self, done: Callable[[], object]) -> None:
        """As `stop`: what a supervisor says."""
        self.stop(done)

    def kill(self, error: Exception | None = None) -> None:
        """End it now; what runs is cancelled, and nobody waits for that."""
        self._stopped = None
        self._cut(error)

    def _cut(self, error: Exception | None = None) -> None:
        self.busy = True
        for job in (self.job, *self.beside):
            if job is not None:
                job.cut()
        if self.current is not None and self.current[2] is not None:
            self.current[2].failed(error or ActorPaused(self.address, "stopped", None))
        self.job = self.current = None
        self.room += len(self.beside)
        self.beside.clear()
        self._forget()
        self.instance = None
