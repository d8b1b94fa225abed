"""`each`: a loop over many items beside the run, with its cursor in one row. What the cursor says is decided by
`policies.cursor`; this module iterates, performs and commits.

What is finished and not yet written never exceeds `batch`: workers wait for the disk rather than outrun it, so a crash
repeats at most that and what was in their hands.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from attrs import evolve

from actorflow.codec import coder
from actorflow.errors import Abort, Divergence, StepTimeout
from actorflow.kernel.requests import Asked
from actorflow.policies import cursor as cursors
from actorflow.policies import retry
from actorflow.policies.cursor import BadItem, Cursor, Progress
from actorflow.policies.failure import classify
from actorflow.policies.retry import RetryAfter
from actorflow.records import SetCursor, Write
from actorflow.runtime import reports
from actorflow.runtime.attempts import perform
from actorflow.runtime.calls import Abandonable, Stopped
from actorflow.step import Step, StepInfo, current, declaration
from actorflow.verbs import Each

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.timers import Timer

cursor_coder = coder(Cursor)
progress_coder = coder(Progress)
AHEAD = 64  #: items read from a sync source in one hop to its thread



class Looping(Abandonable):
    """An `each` that is under way."""

    working = True

    def __init__(self, activation: Activation, asked: Asked) -> None:
        super().__init__(activation, asked)
        assert isinstance(asked.request, Each)
        self.request: Each = asked.request
        found = declaration(self.request.do)
        self.step = found if found is not None else Step(self.request.do, getattr(self.request.do, "__qualname__", "item"))
        stored = activation.cursors.get((asked.identity.branch, asked.identity.n))
        self.cursor = Cursor(begun_at=activation.host.clock.wall())
        self._resumed = stored is not None
        if stored is not None:
            self.cursor = cursor_coder.decode(stored, f"cursor of {asked}")
        self.since = activation.host.clock.wall()
        self.finished_before = self.cursor.done + self.cursor.set_aside
        self._keys: dict[int, str] = {}  #: finished since the last write
        self._bad: list[BadItem] = []
        self._writing: dict[int, str] = {}
        self._started = self.cursor.started
        self._room: anyio.Event | None = None
        self._flush_timer: Timer | None = None
        self._scope: anyio.CancelScope | None = None
        self._stopped: Stopped | None = None
        self._failure: BaseException | None = None
        self._source: AsyncIterator[tuple[int, Any]] | None = None
        self._turnstile = anyio.Lock()  #: one worker at a time asks the source

    def progress(self) -> Progress:
        """How far it is, as written."""
        now = self.activation.host.clock.wall()
        return cursors.progress(self.cursor, now=now, since=self.since, finished_before=self.finished_before)

    def begin(self) -> None:
        if self._resumed:
            again = max(0, self.cursor.started - self.cursor.done - self.cursor.set_aside)
            self.cursor = evolve(self.cursor, repeated=self.cursor.repeated + again)
            if cursors.over_budget(self.cursor, self.request.on_error, ended=False):
                self.cursor = cursors.forgive(self.cursor)
        total = self.request.total if self.request.total is not None else _length(self.request.items)
        self.cursor = evolve(self.cursor, total=total)
        self.activation.cursors[self.asked.identity.branch, self.asked.identity.n] = cursor_coder.encode(self.cursor, "cursor")
        self.activation.host.spawn(self._run)

    # --- the loop -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        with anyio.CancelScope() as self._scope:
            if self._stopped is not None:
                self._scope.cancel()
            try:
                async with anyio.create_task_group() as group:
                    self._source = self._items()
                    for _ in range(self.request.parallel):
                        group.start_soon(self._work)
            except* (Exception, Divergence) as group_error:
                self._failure = self._failure or _first(group_error)
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if self.activation.host.live(self.activation):
            await self._settle()

    async def _work(self) -> None:
        assert self._source is not None
        while True:
            while len(self._keys) + len(self._writing) >= self.request.batch:
                self._room = self._room or anyio.Event()
                await self._room.wait()
            async with self._turnstile:
                try:
                    index, item = await anext(self._source)
                except StopAsyncIteration:
                    return
                self._started = max(self._started, index + 1)
            key = str(self.request.key(item))
            bad = await self._item(index, key, item)
            self._finished(index, key, bad)

    async def _item(self, index: int, key: str, item: Any) -> BadItem | None:
        """Perform one item, with the callee's retry and timeout; what is to be set aside, if anything."""
        host, attempt, first_at = self.activation.host, 1, self.activation.host.clock.wall()
        while True:
            try:
                await self._attempt(index, key, item, attempt)
            except Abort:
                raise
            except Exception as error:  # noqa: BLE001  (whatever an item raises is judged)
                elapsed_s = host.clock.wall() - first_at
                decision = retry.decide(self.step.retry, attempt, error, elapsed_s=elapsed_s, die=host.chance.jitter())
                if not isinstance(decision, RetryAfter):
                    if self.request.on_error is None:
                        raise _Bad(index, key, error) from error
                    return BadItem(index=index, key=key, error=f"{type(error).__qualname__}: {_text(error)}")
                attempt += 1
                await anyio.sleep(decision.delay_s)
            else:
                return None

    async def _attempt(self, index: int, key: str, item: Any, attempt: int) -> None:
        host = self.activation.host
        info = StepInfo(
            key=f"{host.idempotency_key(self.activation, self.asked.identity)}/{index}:{key}",
            name=self.step.name,
            attempt=attempt,
            deadline=None,
        )
        token = current.set(info)
        try:
            arguments = self.step.bind((item,), {})
            if self.step.timeout_s is None:
                await perform(host, self.step, arguments)
                return
            with anyio.move_on_after(self.step.timeout_s) as scope:
                await perform(host, self.step, arguments)
            if scope.cancelled_caught:
                raise StepTimeout(self.step.name, self.step.timeout_s)
        finally:
            current.reset(token)

    # --- the cursor -----------------------------------------------------------------------------------------------------

    def _finished(self, index: int, key: str, bad: BadItem | None) -> None:
        self._keys[index] = key
        if bad is not None:
            self._bad.append(bad)
        if len(self._keys) >= max(1, self.request.batch // 2):
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = self.activation.host.deadlines.after(self.request.flush_s, self._flush)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._writing or not self._keys or self._scope is None or self._scope.cancel_called:
            return
        writes = self._advance()
        if self.activation.crashes:  # Progress was made: it is no crash loop.
            self.activation.crashes = 0
            writes.append(self.activation.state(self.activation.status, wake_at=self.activation.wake_at))
        self.activation.submit(writes, self._written)

    def _advance(self) -> list[Write]:
        bad, self._bad = tuple(self._bad), []
        self._writing, self._keys = self._keys, {}
        self.cursor = cursors.advance(self.cursor, self._writing, bad=bad, started=self._started)
        state = cursor_coder.encode(self.cursor, "cursor")
        branch, _, n = self.asked.identity
        self.activation.cursors[branch, n] = state
        writes: list[Write] = [SetCursor(self.activation.run.id, self.activation.round, branch, n, state)]
        for item in bad:
            text = f"{item.index}:{item.key}: {item.error}"
            writes.append(self.entry(kind="set_aside", status="failed", outcome=_text_coder.encode(text, "bad item")))
        return writes

    def _written(self) -> None:
        self._writing = {}
        if self._room is not None:
            self._room.set()
            self._room = None
        if cursors.over_budget(self.cursor, self.request.on_error, ended=False):
            self._fail(_Spent())
        elif len(self._keys) >= max(1, self.request.batch // 2):
            self._flush()
        elif self._keys and self._flush_timer is None:
            self._flush_timer = self.activation.host.deadlines.after(self.request.flush_s, self._flush)

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        if self._scope is not None:
            self._scope.cancel()

    # --- its end --------------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """All workers have ended: write what they finished, then say how it ended."""
        writes = self._advance() if self._keys else []
        if self._stopped is not None:
            told, self._stopped = self._stopped, None
            told(writes)
            return
        if self.activation.calls.get(self.asked) is not self:
            return
        failure = self._failure
        if failure is None and cursors.over_budget(self.cursor, self.request.on_error, ended=True):
            failure = _Spent()
        where = str(self.asked.identity)
        match failure:
            case None if self._scope is not None and self._scope.cancel_called:
                return  # The runtime itself is being torn down.
            case None:
                payload = progress_coder.encode(self.progress(), "progress")
                self.activation.record(self.asked, self.entry(outcome=payload), writes)
            case _Bad(item=item, error=error):
                report = reports.plain("failure", f"item {item}: {type(error).__qualname__}: {_text(error)}", where)
                self.activation.pause("failure", report, writes)
            case _Spent():
                self.activation.pause("budget", self._spent(), writes)
            case Divergence():
                self.activation.pause("diverged", reports.plain("diverged", str(failure), where), writes)
            case Abort():
                self.activation.record(self.asked, self.failed(failure), writes)
            case Exception() if classify(failure) == "business":
                self.activation.record(self.asked, self.failed(failure), writes)
            case error:
                report = reports.plain("bug", f"{type(error).__qualname__}: {_text(error)}", where)
                self.activation.pause("bug", report, writes)

    def _spent(self) -> Any:
        cursor, last = self.cursor, self.cursor.bad[-1] if self.cursor.bad else None
        what = f"{cursor.set_aside} of {cursor.done + cursor.set_aside} items were set aside, over the budget"
        return reports.plain("budget", what, str(self.asked.identity), input=f"{last.key}: {last.error}" if last else "")

    def stop(self, told: Stopped, *, cancel: bool) -> None:
        self._stopped = told
        if self._scope is not None:
            self._scope.cancel()
        elif self.held:
            self._stopped = None
            told([])

    def abandon(self) -> list[Write]:
        self._stopped = None
        return []

    def kill(self) -> None:
        self.forget()
        if self._scope is not None:
            self._scope.cancel()

    def forget(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()

    # --- the source -----------------------------------------------------------------------------------------------------

    async def _items(self) -> AsyncIterator[tuple[int, Any]]:
        """Items that are not finished yet, with their indexes."""
        items, low, start = self.request.items, self.cursor.low, 0
        source: Any = items
        if callable(items) and not hasattr(items, "__aiter__") and not hasattr(items, "__iter__"):
            if low and self.cursor.last_key is not None and "after" in inspect.signature(items).parameters:
                source, start = items(after=self.cursor.last_key), low
            elif "after" in inspect.signature(items).parameters:
                source = items(after=None)
            else:
                source = items()
        index = start
        async for item in _iterate(source, self.activation.host.threads):
            if index == low - 1 and str(self.request.key(item)) != self.cursor.last_key:
                raise Divergence(f"item {index} with key {self.request.key(item)!r}", [f"key {self.cursor.last_key!r} there"])
            if not cursors.finished(self.cursor, index):
                yield index, item
            index += 1


class _Spent(Exception):  # noqa: N818
    """The error budget is spent."""


class _Bad(Exception):  # noqa: N818
    """An item failed and there is no budget for that."""

    def __init__(self, index: int, key: str, error: Exception) -> None:
        self.item, self.error = f"{index}:{key}", error
        super().__init__(self.item)


_text_coder = coder(str)


async def _iterate(source: Any, limiter: anyio.CapacityLimiter) -> AsyncIterator[Any]:
    if hasattr(source, "__aiter__"):
        async for item in source:
            yield item
        return
    if inspect.isawaitable(source):
        async for item in _iterate(await source, limiter):
            yield item
        return
    iterator: Iterator[Any] = iter(source)
    ahead: deque[Any] = deque()
    while True:
        chunk = await anyio.to_thread.run_sync(lambda: list(islice(iterator, AHEAD)), limiter=limiter)
        if not chunk:
            return
        ahead.extend(chunk)
        while ahead:
            yield ahead.popleft()


def _length(items: Any) -> int | None:
    return len(items) if isinstance(items, Sized) else None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
        if isinstance(error, Exception | Divergence):
            return error
    return RuntimeError(str(group))


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:  # noqa: BLE001  (a `__str__` of the user's)
        return "<its text cannot be made>"


