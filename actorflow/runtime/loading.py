"""Loading runs into memory: after a start, when a moment comes, when a message arrives. A few at a time.

Runs that wait are rows. This room holds the next moments of those that are not in memory (a window over the index of
`wake_at`), and loads a run when its time has come.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from actorflow.errors import StoreError, Undecodable
from actorflow.kind import blank_kind
from actorflow.records import ENDED, Commit, Envelope, Loaded, RunQuery
from actorflow.runtime import reports
from actorflow.runtime.activation import Activation
from actorflow.runtime.calls import REPEAT_S
from actorflow.runtime.handling import ActorActivation
from actorflow.runtime.loops import Signal

if TYPE_CHECKING:
    from actorflow.runtime.host import Host

log: logging.Logger = logging.getLogger("actorflow")

SUSPECT_CRASHES = 2  #: from so many on, a run is started alone
SUSPECT_ALONE_S = 30.0
SLICE = 32  #: runs and entries of theirs that are driven in a row before the loop gets a turn: a millisecond or two


class Loading:
    """Who is to be loaded, and when."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._queue: OrderedDict[int, None] = OrderedDict()
        self._arrivals: dict[int, list[Envelope]] = {}  #: by run, until it is loaded
        self._once_more: set[int] = set()  #: runs that were wanted while they were being loaded
        self._wake: anyio.Event | None = None
        self._horizon: tuple[float, int] = (-math.inf, 0)  #: all rows up to here are known
        self._loaded: dict[int, Signal] = {}  #: for who waits until it is loaded
        self._suspects = anyio.Lock()
        self._in_line: dict[int, Signal] = {}  #: runs that wait to be started alone

    def wake(self, run: int, envelope: Envelope | None = None) -> None:
        """Load that run soon; a message that arrived meanwhile is handed over then."""
        if self.host.closing or run in self.host.cast.tree.down:
            return
        if run in self.host.resident:
            if envelope is not None:
                self.host.resident[run].arrived(envelope)
            return
        if run in self._arrivals:
            self._once_more.add(run)
        else:
            self._arrivals[run] = []
            self._queue[run] = None
            if self._wake is not None:
                self._wake.set()
        if envelope is not None:
            self._arrivals[run].append(envelope)

    async def load(self, run: int) -> None:
        """Load that run now; on return it is in memory, or cannot be, or stands in line to be started alone."""
        self.wake(run)
        if run in self._queue:  # Somebody waits for it: before those for whom nobody does.
            self._queue.move_to_end(run, last=False)
        while run in self._arrivals:
            signal = self._loaded.setdefault(run, Signal(self.host.loop))
            await signal.wait()

    async def out_of_line(self, run: int) -> None:
        """Wait until that run does not stand in line."""
        if (signal := self._in_line.get(run)) is not None:
            await signal.wait()

    def expect(self, due: float, run: int) -> None:
        """That run, not in memory, goes on at *due*; one beyond the window is found when the window gets there."""
        if (due, run) <= self._horizon:
            self.host.timers.at(due, lambda: self._due(run))

    def _due(self, run: int) -> None:
        if run not in self.host.resident:
            self.wake(run)

    async def look_ahead(self) -> None:
        """Move the window over the rows by one page."""
        limit = self.host.limits.timers_ahead_max
        rows = await self.host.store.due(after=self._horizon, limit=limit)
        self._horizon = rows[-1] if len(rows) == limit else (math.inf, 0)
        for due, run in rows:
            self.host.timers.at(due, lambda run=run: self._due(run))  # type: ignore[misc]
        if rows and self._horizon[0] < math.inf:
            self.host.timers.at(self._horizon[0], lambda: self.host.spawn(self.look_ahead))

    async def run(self) -> None:
        """Load for ever, a few at a time."""
        while True:
            while self._queue:
                await self._load_next()
            self._wake = anyio.Event()
            await self._wake.wait()
            self._wake = None

    async def _load_next(self) -> None:
        """Read those who are next in line, together, and let them in one by one."""
        few = min(len(self._queue), self.host.limits.recoveries_max)
        runs = deque(self._queue.popitem(last=False)[0] for _ in range(few))
        replayed = 0
        try:
            found = await self._read_together(tuple(runs))
            while runs:
                loaded = found.get(runs[0])
                try:
                    await self._load(runs[0], loaded)
                finally:
                    self._over(runs.popleft())
                replayed += 1 if loaded is None else 1 + len(loaded.entries)
                if replayed >= SLICE or not runs:
                    replayed = 0
                    await anyio.lowlevel.checkpoint()
        finally:
            for run in runs:
                self._over(run)

    async def _read_together(self, runs: Sequence[int]) -> dict[int, Loaded | None]:
        """What there is of them. Nothing if one cannot be read: then each is read by itself, and what is wrong is told of it."""
        if len(runs) > 1:
            try:
                return dict(zip(runs, await self.host.store.load_many(runs), strict=True))
            except (StoreError, Undecodable):
                pass
            except Exception:
                log.exception("runs %s could not be loaded together", ", ".join(map(str, runs)))
        return {}

    async def _load(self, run: int, loaded: Loaded | None) -> None:
        try:
            if loaded is None:
                loaded = await self._read(run)
            if loaded is not None:
                self._let_in(loaded)
        except StoreError as error:
            log.warning("run %s could not be loaded: %s", run, error)
            if self.host.committer.stopped is None:  # Nobody else would think of it again.
                self.host.deadlines.after(REPEAT_S, lambda: self.wake(run))
        except Exception:
            log.exception("run %s could not be loaded", run)

    def _over(self, run: int) -> None:
        """It was loaded, or cannot be."""
        self._arrivals.pop(run, None)
        if run in self._once_more:  # It was dropped again while it was being loaded.
            self._once_more.discard(run)
            self.wake(run)
        if (signal := self._loaded.pop(run, None)) is not None:
            signal.set()

    async def _read(self, run: int) -> Loaded | None:
        try:
            return await self.host.store.load(run)
        except Undecodable as error:
            # As lists show it: its own row may be what cannot be read.
            rows = await self.host.store.runs(RunQuery(before_id=run + 1, limit=1))
            if rows and rows[0].id == run and rows[0].status not in (*ENDED, "paused"):
                self.host.committer.submit(Commit(tuple(self.host.unreadable(rows[0], error))), lambda _: None)
            return None

    def _let_in(self, loaded: Loaded) -> None:
        run = loaded.run.id
        arrivals = self._arrivals[run]
        if (activation := self.host.resident.get(run)) is not None:  # Somebody else was quicker.
            for envelope in arrivals:
                activation.arrived(envelope)
            return
        suspect = SUSPECT_CRASHES <= loaded.run.crashes < self.host.limits.crashes_max
        if suspect and not self.host.cast.tree.holds(loaded.run.address):  # Static children start one by one anyway.
            if run not in self._in_line:
                self._in_line[run] = Signal(self.host.loop)
                self.host.spawn(lambda: self._alone(run))
        else:
            self.enter(loaded, arrivals)

    async def _alone(self, run: int) -> None:
        """Start a run that has ended its process before, beside no other such run, until it has got further or waits."""
        try:
            async with self._suspects:
                loaded = await self.host.store.load(run)  # Anew: messages may have come while it stood in line.
                if loaded is not None and run not in self.host.resident:
                    self.enter(loaded, [])
                self._leave_line(run)
                activation = self.host.resident.get(run)
                if activation is not None and activation.status == "running" and activation.crashes:
                    activation.proven = Signal(self.host.loop)
                    with anyio.move_on_after(SUSPECT_ALONE_S):
                        await activation.proven.wait()
        finally:
            self._leave_line(run)

    def _leave_line(self, run: int) -> None:
        if (signal := self._in_line.pop(run, None)) is not None:
            signal.set()

    def enter(self, loaded: Loaded, arrivals: list[Envelope], *, why: str | None = None) -> None:
        """Put a run into memory and let it go on; or cancel it, with *why*."""
        host, run = self.host, loaded.run
        if host.closing or host.committer.stopped is not None or run.id in host.resident:
            return
        if not host.cast.may_enter(address := run.address):
            return
        mail = {envelope.id: envelope for envelope in (*loaded.mailbox, *arrivals)} if loaded.mailbox or arrivals else {}
        if run.status in ENDED:
            if mail:
                host.ending.too_late(run, list(mail.values()))
            return
        cancel = next((e for e in mail.values() if e.type == "~cancel"), None) if mail else None
        why = cancel.body.decode() if cancel is not None else why
        late = run.deadline_at is not None and run.deadline_at <= host.clock.wall()
        if run.status == "paused" and (run.reason == "undo" or not (late or why is not None)):
            host.cast.set_aside_already(run, mail.values())
            return
        registered = host.kinds.get(run.kind)
        is_actor = registered is not None and registered.handlers is not None
        of = ActorActivation if is_actor else Activation
        activation = of(host, loaded, registered or blank_kind(run.kind))
        host.add(activation)
        for envelope in arrivals:
            activation.mailbox.put(envelope)
        for envelope in mail.values():  # Who waits for it, also if that one sleeps: a circle of asks must be seen.
            if envelope.reply_to is not None and envelope.key is not None and envelope.expires_at is not None:
                host.asks.setdefault(envelope.reply_to, {})[envelope.key] = run.id
        if run.status == "undoing":
            host.ending.resume(activation)
        elif why is not None:
            if cancel is not None:
                activation.mailbox.remove(cancel)
            host.ending.cancel(activation, why)
        elif late:
            host.ending.time_out(activation)
        elif run.crashes >= host.limits.crashes_max:
            what = f"its process ended {run.crashes} times while it was at work"
            activation.pause("interrupted", reports.plain("interrupted", what, str(address)), [])
        elif registered is None or not registered.durable:
            memory_only = " and durable: it is memory-only now" if registered is not None else ""
            what = f"no class of kind {run.kind!r} is registered{memory_only}"
            activation.pause("unregistered", reports.plain("unregistered", what, str(address)), [])
        elif run.actor != is_actor:
            was, now = ("an actor", "workflows") if run.actor else ("a run of a workflow", "actors")
            what = f"it was made as {was}, and {run.kind!r} is now a class of {now}: give the new class another `kind=`"
            activation.pause("unregistered", reports.plain("unregistered", what, str(address)), [])
        else:
            activation.begin()
