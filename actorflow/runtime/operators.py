"""The acts of clients and operators, as the holder performs them. Each checks where the run stands, then writes one commit."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve

from actorflow.errors import (
    InvalidState,
    KeyTaken,
    RunEnded,
    RunPaused,
    RunPruned,
    StoreError,
    StoreStopped,
    UnknownKind,
    UnknownRun,
)
from actorflow.failures import decode_failure
from actorflow.operations import Decision, HistoryEntry, OnConflict, Page, RunInfo
from actorflow.records import (
    ENDED,
    Address,
    Commit,
    Prune,
    Refusal,
    Run,
    RunQuery,
    Taken,
    Write,
)
from actorflow.runtime import inspection, repairs, reports
from actorflow.runtime.door import Door
from actorflow.runtime.loops import Signal
from actorflow.runtime.mail import Waiter, mail_of

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host


class Operators:
    """`Operations` on the runs of this process's store."""

    def __init__(self, host: Host) -> None:
        self.host: Host = host
        self.door: Door = Door(self)
        self._starting: dict[Address, Signal] = {}

    # --- writing --------------------------------------------------------------------------------------------------------

    async def write(self, writes: list[Write]) -> Refusal | None:
        """Commit at the door: durable on return, or refused. Its mail is delivered also if the caller is gone by then.

        Raises:
            StoreError: Nothing was written.
        """
        host = self.host
        if host.closing:
            raise StoreStopped("the runtime is shutting down")
        mail, done = mail_of(host, writes), Signal(host.loop)
        outcome: list[Refusal | StoreError | None] = []

        def told(refusal: Refusal | StoreError | None) -> None:
            outcome.append(refusal)
            if mail is not None:
                mail.told(refusal)
            done.set()

        host.committer.submit(Commit(tuple(writes)), told, door=True)
        await done.wait()
        if isinstance(outcome[0], StoreError):
            raise outcome[0]
        return outcome[0]

    async def run(self, to: Address, *, whole: bool = False) -> Run:
        """The run under that address.

        Raises:
            UnknownRun: There is none.
            RunPruned: There was one; only its key is left.
        """
        if self.host.closing:
            raise StoreStopped("the runtime is shutting down")
        found = await self.host.find(to, whole=whole)
        if found is None:
            raise UnknownRun(to)
        if not found.input:
            raise RunPruned(to)
        return found

    # --- start ----------------------------------------------------------------------------------------------------------

    async def start(self, to: Address, *, input: bytes, on_conflict: OnConflict, deadline_s: float | None, request: str) -> None:
        host = self.host
        if to.kind not in host.kinds:
            raise UnknownKind(to.kind, list(host.kinds))
        if len(input) > host.limits.payload_bytes_max:
            host.checked(input, f"input of {to}")
        while (starting := self._starting.get(to)) is not None:
            await starting.wait()
        activation = host.by_address.get(to)
        if activation is not None:
            if on_conflict == "reject":  # The same call may have come before, from a client that did not see its answer.
                await self._join_stored(activation.run, input, on_conflict, request)
            else:
                self._join(activation.run, input, on_conflict)
            return
        self._starting[to] = Signal(host.loop)
        try:
            deadline_at = None if deadline_s is None else host.clock.wall() + deadline_s
            new = host.new_run(to, input, deadline_at=deadline_at)
            refusal = await self.write([new, host.begun(new, request)])
            if isinstance(refusal, Taken):
                await self._join_stored(refusal.run, input, on_conflict, request)
            elif refusal is not None:
                raise StoreStopped(f"the start was refused: {refusal}")
        finally:
            self._starting.pop(to).set()

    async def _join_stored(self, run: Run, input: bytes, on_conflict: OnConflict, request: str) -> None:
        found = await self.host.store.find(run.address)
        if found is None or found.input == b"":
            raise RunPruned(run.address)
        if on_conflict == "reject":
            first = await self.host.store.history(found.id, limit=1)
            if first and first[0].entry.ref == request:
                return
        self._join(found, input, on_conflict)

    def _join(self, run: Run, input: bytes, on_conflict: OnConflict) -> None:
        coder = self.host.kinds[run.kind].coder
        same = run.input == input or coder.decode(run.input, "recorded input") == coder.decode(input, "input")
        if not same:
            raise KeyTaken(run.address, reports.shown(run.input), reports.shown(input))
        if on_conflict == "reject":
            raise KeyTaken(run.address, "a run with equal input", 'the same, with on_conflict="reject"')

    # --- messages -------------------------------------------------------------------------------------------------------

    async def tell(self, to: Address, *, type: str, body: bytes, key: str | None, after_s: float | None) -> None:
        await self.door.tell(to, type, body, key=key, after_s=after_s)

    async def ask(self, to: Address, *, type: str, body: bytes, key: str, within_s: float) -> bytes:
        return await self.door.ask(to, type, body, key=key, within_s=within_s)

    # --- waiting and looking --------------------------------------------------------------------------------------------

    async def result(self, to: Address, *, wait_paused: bool) -> bytes:
        host = self.host
        while True:
            activation = host.by_address.get(to)
            target = activation.run if activation is not None else await self.run(to)
            waiter = Waiter(Signal(host.loop))
            waiters = host.results.setdefault(target.id, [])
            waiters.append(waiter)
            try:
                if target.id not in host.resident:
                    target = await self.run(to, whole=True)
                    if not waiter.status:
                        waiter.status, waiter.payload = target.status, target.outcome or b"null"
                if host.committer.stopped is not None:
                    waiter.status = "stopped"
                elif not waiter.status or waiter.status in ("running", "waiting", "undoing", "pending"):
                    waiter.status = ""
                    await waiter.signal.wait()
                elif waiter.status == "paused" and wait_paused:
                    await waiter.signal.wait()
            finally:
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters and host.results.get(target.id) is waiters:
                    del host.results[target.id]
            match waiter.status:
                case "completed":
                    return waiter.payload
                case "failed" | "cancelled":
                    raise decode_failure(waiter.payload)
                case "paused" if not wait_paused:
                    stored = await host.store.find(to)
                    if stored is not None and stored.status == "paused":
                        raise RunPaused(to, stored.reason or "", reports.decode(stored.report))
                case "stopped":
                    raise host.committer.stopped or StoreStopped("the runtime is shutting down")
                case _:
                    pass

    async def query(self, to: Address, *, name: str, arguments: bytes) -> bytes:
        return inspection.query(self.host, await self.run(to, whole=True), name, arguments)

    async def status(self, to: Address) -> RunInfo:
        return await inspection.info(self.host, await self.run(to, whole=True))

    async def history(self, to: Address, *, after: int, limit: int) -> tuple[HistoryEntry, ...]:
        run = await self.run(to)
        events = await self.host.store.history(run.id, after=after, limit=max(1, min(limit, 10_000)))
        return tuple(inspection.shown(event) for event in events)

    async def why(self, to: Address) -> str:
        return await inspection.why(self.host, await self.run(to, whole=True))

    async def runs(self, query: RunQuery) -> Page:
        query = evolve(query, limit=max(1, min(query.limit, 1_000)))
        rows = await self.host.store.runs(query)
        infos = [await inspection.info(self.host, row, loops=False) for row in rows]
        return Page(runs=tuple(infos), next=rows[-1].id if len(rows) == query.limit else None)

    async def counts(self) -> dict[str, int]:
        return await self.host.store.counts()

    # --- operators ------------------------------------------------------------------------------------------------------

    async def _activation(self, to: Address, verb: str) -> Activation:
        """The run in memory (loaded if need be, not driven), for an act that changes it."""
        host = self.host
        while True:
            run = await self.run(to)
            if (activation := host.by_address.get(to)) is not None:
                return activation
            if run.status in ENDED:
                raise RunEnded(to, run.status)
            if host.committer.stopped is not None:
                raise host.committer.stopped
            await host.loading.load(run.id)
            if host.by_address.get(to) is None and (await self.run(to)).status == "paused":
                raise InvalidState(verb, to, "paused", "")

    async def cancel(self, to: Address, *, why: str) -> bool:
        host = self.host
        run = await self.run(to)
        if run.status in ENDED:
            return False
        if host.cast.is_actor(to.kind):
            raise InvalidState("cancel", to, run.status, "An actor is not cancelled, it has no end: `pause` it.")
        if run.status == "paused":
            await repairs.cancel_paused(self, run, why)
            return True
        try:
            activation = await self._activation(to, "cancel")
        except RunEnded:
            return False
        except InvalidState:
            return await self.cancel(to, why=why)
        host.ending.cancel(activation, why)
        await self.settled()
        return True

    async def settled(self) -> None:
        """Wait until all that was submitted so far is durable."""
        done = Signal(self.host.loop)
        self.host.committer.submit(Commit(()), lambda _: done.set())
        await done.wait()

    async def pause(self, to: Address) -> None:
        run = await self.run(to)
        if self.host.cast.tree.holds(to):
            raise InvalidState(
                "pause", to, "a static child", f"Its supervisor would start it again: `runtime.stop_child({str(to)!r})`."
            )
        if run.status == "paused":
            return
        await self._pause(to, cancel_undo=False)

    async def stop_undo(self, run: Run) -> Run:
        """Pause a run that is undoing at the undo that runs now, which is cancelled; returns the run as it is then."""
        await self._pause(run.address, cancel_undo=True)
        return await self.run(run.address, whole=True)

    async def _pause(self, to: Address, *, cancel_undo: bool) -> None:
        activation = await self._activation(to, "pause")
        run = activation.run
        if activation.stopping is None:
            activation.pause("operator", reports.plain("operator", "an operator paused it"), [])
        elif activation.stopping == "undo":
            self.host.ending.pause(activation, cancel=cancel_undo)
        while activation.live and activation.stopping in ("pause", "undo"):
            waiter = Waiter(Signal(self.host.loop))
            self.host.results.setdefault(run.id, []).append(waiter)
            await waiter.signal.wait()
            if waiter.status == "stopped":
                raise self.host.committer.stopped or StoreStopped("the runtime is shutting down")

    async def resume(self, to: Address) -> None:
        await repairs.resume(self, await self.run(to, whole=True))
        if self.host.cast.tree.holds(to):
            with suppress(InvalidState):  # Its supervisor is down, and will start it.
                self.host.cast.tree.start_child(str(to))

    async def retry(self, to: Address) -> None:
        await repairs.retry(self, await self.run(to, whole=True))

    async def skip(self, to: Address, *, value: bytes) -> None:
        await repairs.skip(self, await self.run(to, whole=True), value)

    async def decide(self, to: Address, *, call: str, decision: Decision) -> None:
        await repairs.decide(self, await self.run(to, whole=True), call, decision)

    async def fork(self, to: Address, *, key: str, at: int | None, input: bytes | None, keep: bool) -> None:
        await repairs.fork(self, await self.run(to, whole=True), key, at, input, keep=keep)

    async def prune(self, to: Address) -> None:
        run = await self.run(to)
        if run.status not in ENDED:
            raise InvalidState("prune", to, run.status, "Only a run that has ended can be pruned.")
        await self.write([Prune(run.id)])
