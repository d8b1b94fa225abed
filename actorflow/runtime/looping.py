"""`each`: a loop over many items beside the run, with its cursor in one row. What the cursor says is decided by
`policies.cursor`; this module reads, hands out and commits.

Items go from the source to `_ready`, from there into at most `parallel` hands, and from those to `_keys` until the next
write. How many are between the source and the disk is bounded by `policies.cursor.room`: hands wait for the disk rather
than outrun it, so a crash repeats at most a batch and what was in the hands.
"""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from attrs import evolve

from actorflow.codec import Coder, coder
from actorflow.errors import Divergence
from actorflow.failures import in_words, text_of
from actorflow.kernel.requests import Asked
from actorflow.policies import cursor as cursors
from actorflow.policies import retry
from actorflow.policies.cursor import BadItem, Cursor, Progress
from actorflow.policies.failure import FailureReport, classify
from actorflow.policies.retry import RetryAfter
from actorflow.records import SetCursor, Write
from actorflow.runtime import reports
from actorflow.runtime.calls import Abandonable, Stopped
from actorflow.runtime.hands import Hand, Item, TaskHand, ThreadHand, in_thread
from actorflow.runtime.loops import Signal
from actorflow.runtime.sources import Reading, called, size_of, takes_after
from actorflow.steps import Step
from actorflow.verbs import Each, callee

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host
    from actorflow.runtime.timers import Timer

cursor_coder: Coder[Cursor] = coder(Cursor)
progress_coder: Coder[Progress] = coder(Progress)
_text_coder = coder(str)
AHEAD = 256  #: items that are read and not begun: enough for threads to go on without the loop


class Looping(Abandonable):
    """An `each` that is under way."""

    working: bool = True

    def __init__(self, activation: Activation, asked: Asked) -> None:
        super().__init__(activation, asked)
        assert isinstance(asked.request, Each)
        self.request: Each = asked.request
        self.host: Host = activation.host
        self.context: Context = asked.context
        self.step: Step = callee(self.request.do)
        self.key: str = self.host.idempotency_key(activation, asked.identity)
        stored = activation.cursors.get((asked.identity.branch, asked.identity.n))
        self._resumed = stored is not None
        self.since: float = self.host.clock.wall()
        self.cursor: Cursor = Cursor(begun_at=self.since) if stored is None else cursor_coder.decode(stored, f"cursor of {asked}")
        self.finished_before: int = self.cursor.done + self.cursor.set_aside
        self._hand = ThreadHand if self.host.stage is None and in_thread(self.step) else TaskHand
        self._reading = True  #: there may be more items to come
        self._scope = anyio.CancelScope()  #: of the reading
        self._room: Signal | None = None  #: what the reading waits for
        self._ready: deque[Item] = deque()
        self._hands: set[Hand] = set()
        self._waiting: dict[Item, Timer] = {}  #: failed, and to be tried again
        self._open = 0  #: items read and not yet written as finished
        self._started = self.cursor.started
        self._keys: dict[int, str] = {}  #: finished since the last write
        self._bad: list[BadItem] = []
        self._writing: dict[int, str] = {}
        self._flush_timer: Timer | None = None
        self._closing = False  #: nothing new begins
        self._over = False  #: what it came to is told
        self._stopped: Stopped | None = None
        self._failure: BaseException | None = None

    def progress(self) -> Progress:
        """How far it is, as written."""
        now = self.host.clock.wall()
        return cursors.progress(self.cursor, now=now, since=self.since, finished_before=self.finished_before)

    def begin(self) -> None:
        if self._resumed:
            again = max(0, self.cursor.started - self.cursor.done - self.cursor.set_aside)
            self.cursor = evolve(self.cursor, repeated=self.cursor.repeated + again)
            if self.cursor.spent:
                self.cursor = cursors.forgive(self.cursor)
        request = self.request
        self._set_total(size_of(request.items) if request.total is None else request.total)
        self.host.spawn(self._read)

    def _set_total(self, total: int | None) -> None:
        self.cursor = evolve(self.cursor, total=total)
        self._set_cursor()

    # --- reading --------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        with self._scope:
            try:
                await self._read_all()
            except (Exception, SystemExit, Divergence) as error:  # noqa: BLE001  (whatever a source raises stops the loop)
                self._fail(_Unreadable(error) if not isinstance(error, Divergence) else error)
        self._reading = False
        self._go_on()

    async def _read_all(self) -> None:
        before = self.cursor
        skips = before.low and before.last_key is not None and takes_after(self.request.items)
        index = start = before.low if skips else 0
        after, staged = before.last_key if skips else None, self.host.stage is not None
        reading = Reading(self.request.items, after, self.host.loop, self.context, in_place=staged)
        async with aclosing(reading.chunks()) as chunks:
            async for chunk in chunks:
                if reading.size is not None and self.cursor.total is None:
                    self._set_total(start + reading.size)
                for value in chunk:
                    await self._read_one(index, value, before)
                    index += 1
                self._go_on()

    async def _read_one(self, index: int, value: Any, before: Cursor) -> None:
        if index < before.low - 1:
            return
        key = str(called(self.request.key, value))
        if index == before.low - 1 and key != before.last_key:
            raise Divergence(f"item {index} with key {key!r}", [f"key {before.last_key!r} there"])
        if not cursors.finished(before, index):
            await self._put(Item(index, key, value))

    async def _put(self, item: Item) -> None:
        while not self._has_room():
            self._go_on()
            if not self._has_room():
                self._room = Signal(self.host.loop)
                await self._room.wait()
        self._open += 1
        self._ready.append(item)

    def _has_room(self) -> bool:
        request = self.request
        room = cursors.room(self.cursor, open_=self._open, batch=request.batch, parallel=request.parallel)
        return room and len(self._ready) < AHEAD

    # --- handing out ----------------------------------------------------------------------------------------------------

    def take(self) -> Item | None:
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def _go_on(self) -> None:
        """Fill the hands, ask for more, or end."""
        if self._over:
            return
        free = self.request.parallel - len(self._hands) - len(self._waiting)
        for _ in range(min(free, len(self._ready))):
            hand = self._hand(self)
            self._hands.add(hand)
            hand.begin()
        if self._room is not None and self._has_room():
            room, self._room = self._room, None
            room.set()
        if not (self._reading or self._ready or self._hands or self._waiting):
            self._settle()

    def told(self, hand: Hand, ended: list[tuple[Item, BaseException | None]], trouble: BaseException | None = None) -> None:
        self._hands.discard(hand)
        if self._over or not self.activation.live:
            return
        self._started = max(self._started, hand.started())
        for item, error in ended:
            if error is None:
                self._finished(item, None)
            else:
                self._judge(item, error)
        if trouble is not None:
            self._fail(trouble)
        self._go_on()

    def _judge(self, item: Item, error: BaseException) -> None:
        """An attempt failed: try again, set the item aside, or stop the loop."""
        if classify(error, (*self.step.fails, *self.activation.kind.fails)) == "business":
            self._fail(error, cancel=True)
            return
        now = self.host.clock.wall()
        item.failed_at = item.failed_at or now
        elapsed_s = now - item.failed_at
        decision = retry.decide(self.step.retry, item.attempt, error, elapsed_s=elapsed_s, die=self.host.chance.jitter())
        if isinstance(decision, RetryAfter):
            item.attempt += 1
            if not self._closing:
                self._waiting[item] = self.host.deadlines.after(decision.delay_s, partial(self._again, item))
        elif self.request.on_error is None:
            self._fail(_Bad(item, error))
        else:
            self._finished(item, BadItem(index=item.index, key=item.key, error=in_words(error)[:500]))

    def _again(self, item: Item) -> None:
        """The wait before the next attempt is over."""
        if self._waiting.pop(item, None) is not None:
            self._ready.appendleft(item)
            self._go_on()

    # --- the cursor -----------------------------------------------------------------------------------------------------

    def _finished(self, item: Item, bad: BadItem | None) -> None:
        self._keys[item.index] = item.key
        if bad is not None:
            self._bad.append(bad)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Write now if there is half a batch, so that the other half can be done meanwhile; else soon."""
        if len(self._keys) >= max(1, self.request.batch // 2):
            self._flush()
        elif self._keys and self._flush_timer is None:
            self._flush_timer = self.host.deadlines.after(self.request.flush_s, self._flush)

    def _flush(self) -> None:
        self._no_flush_timer()
        if self._writing or not self._keys or self._closing:
            return
        writes = self._advance()
        if self.activation.crashes:  # Progress was made: it is no crash loop.
            self.activation.crashes = 0
            writes.append(self.activation.state(self.activation.status, wake_at=self.activation.wake_at))
        self.activation.submit(writes, self._written)

    def _advance(self) -> list[Write]:
        bad, self._bad = tuple(self._bad), []
        self._writing, self._keys = self._keys, {}
        started = max((self._started, *(hand.started() for hand in self._hands)))
        self.cursor = cursors.advance(self.cursor, self._writing, bad=bad, started=started)
        writes: list[Write] = [self._set_cursor()]
        for item in bad:
            text = f"{item.index}:{item.key}: {item.error}"
            writes.append(self.entry(kind="set_aside", status="failed", outcome=_text_coder.encode(text, "bad item")))
        return writes

    def _set_cursor(self) -> SetCursor:
        branch, _, n = self.asked.identity
        state = cursor_coder.encode(self.cursor, "cursor")
        self.activation.cursors[branch, n] = state
        return SetCursor(self.activation.run.id, self.activation.round, branch, n, state)

    def _written(self) -> None:
        self._open -= len(self._writing)
        self._writing = {}
        if cursors.over_budget(self.cursor, self.request.on_error, ended=False):
            self._fail(_Spent())
        elif not self._closing:
            self._flush_soon()
        self._go_on()

    def _no_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    # --- its end --------------------------------------------------------------------------------------------------------

    def _fail(self, failure: BaseException, *, cancel: bool = False) -> None:
        self._failure = self._failure or failure
        self._close(cancel=cancel)

    def _close(self, *, cancel: bool) -> None:
        """Begin nothing new; let the hands finish, or cancel them."""
        self._closing = True
        self._no_flush_timer()
        self._scope.cancel()
        self._ready.clear()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        if cancel:
            for hand in tuple(self._hands):
                hand.cancel()
            if self._hands and not self._over:
                self.host.deadlines.after(self.host.limits.cancel_grace_s, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        self._let_go()
        self._go_on()

    def _let_go(self) -> None:
        for hand in self._hands:
            hand.let_go()
        self._hands.clear()

    def _settle(self) -> None:
        """All hands are free: write what they finished, then say how it ended."""
        self._over = True
        self._no_flush_timer()
        if not self.activation.live:
            return
        writes = self._advance() if self._keys else []
        if self._stopped is not None:
            told, self._stopped = self._stopped, None
            told(writes)
        elif self.activation.calls.get(self.asked) is self:
            self._tell(writes)

    def _tell(self, writes: list[Write]) -> None:
        failure, where = self._failure, str(self.asked.identity)
        if failure is None and cursors.over_budget(self.cursor, self.request.on_error, ended=True):
            failure = _Spent()
        match failure:
            case None:
                payload = progress_coder.encode(self.progress(), "progress")
                self.activation.record(self.asked, self.entry(outcome=payload), writes)
            case Divergence():
                self.activation.pause("diverged", reports.plain("diverged", str(failure), where), writes)
            case _Spent():
                self.cursor = evolve(self.cursor, spent=True)
                self.activation.pause("budget", self._spent(where), [*writes, self._set_cursor()])
            case _Bad(item=item, error=error):
                what = f"item {item.index}:{item.key}: {in_words(error)[:500]}"
                report = reports.plain("failure", what, where, attempt=item.attempt)
                self.activation.pause("failure", evolve(report, failure=classify(error), remedy=RESUME), writes)
            case _Unreadable(error=error):
                report = reports.plain("failure", f"the source of the loop failed: {in_words(error)[:500]}", where)
                self.activation.pause("failure", evolve(report, failure=classify(error), remedy=RESUME), writes)
            case error if classify(error, (*self.step.fails, *self.activation.kind.fails)) == "business":
                self.activation.record(self.asked, self.failed(error), writes)
            case error:
                self.activation.pause("bug", reports.plain("bug", in_words(error)[:500], where), writes)

    def _spent(self, where: str) -> FailureReport:
        cursor, last = self.cursor, self.cursor.bad[-1] if self.cursor.bad else None
        what = f"{cursor.set_aside} of {cursor.done + cursor.set_aside} items were set aside, over the budget"
        return reports.plain("budget", what, where, input=f"{last.index}:{last.key}: {last.error}" if last else "")

    # --- stopping -------------------------------------------------------------------------------------------------------

    def stop(self, told: Stopped, *, cancel: bool) -> None:
        if self._over or self.held:
            self._over = True
            told([])
            return
        self._stopped = told
        self._close(cancel=cancel)
        self._go_on()

    def drain(self) -> bool:
        ran = bool(self._hands)
        self._close(cancel=True)
        return ran

    def abandon(self) -> list[Write]:
        self._stopped, self._over = None, True
        self._let_go()
        return self._advance() if self._keys else []

    def kill(self) -> None:
        self._over = True
        self._close(cancel=True)
        self._let_go()

    def forget(self) -> None:
        self._no_flush_timer()


RESUME = "When the cause is mended, `resume` goes on at the item where the loop stands."


class _Spent(Exception):
    """The error budget is spent."""


class _Bad(Exception):
    """An item failed and there is no budget for that."""

    def __init__(self, item: Item, error: BaseException) -> None:
        self.item, self.error = item, error
        super().__init__(item.key)


class _Unreadable(Exception):
    """The source failed."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(text_of(error))
