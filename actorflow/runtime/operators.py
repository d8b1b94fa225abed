"""The acts of clients and operators, as the holder performs them. Each checks where the run stands, then writes one commit."""

from __future__ import annotations

from collections.abc import Callable
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
from actorflow.operations import Decision, HistoryEntry, Letters, OnConflict, Page, RunInfo, TreeNode
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
from actorflow.runtime import actors, inspection, letters, repairs, reports, resetting
from actorflow.runtime.door import Door
from actorflow.runtime.loops import Signal
from actorflow.runtime.mail import Handed, Waiter

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host

HISTORY_PAGE_MAX = 10_000
"""Events of one page: with their payloads they travel in one answer."""


class Operators:
    """`Operations` on the runs of this process's store."""

    def __init__(self, host: Host) -> None:
        self.host: Host = host
        self.door: Door = Door(self)
        self.resending: set[int] = set()  #: dead letters that are on their way back
        host.cast.memory.operations = self
        self._starting: dict[Address, Signal] = {}

    # --- writing --------------------------------------------------------------------------------------------------------

    async def write(self, writes: list[Write], *, durable: Callable[[], object] | None = None) -> Refusal | None:
        """Commit at the door: durable on return, or refused. Its mail is delivered also if the caller is gone by then.

        Args:
            writes: What is written together.
            durable: What follows from that as soon as it is, before anything that is written later.

        Raises:
            StoreError: Nothing was written.
        """
        host = self.host
        if host.closing:
            raise StoreStopped("the runtime is shutting down")
        handed = Handed(host, writes, durable)
        await handed
        if isinstance(handed.refusal, StoreError):
            raise handed.refusal
        return handed.refusal

    async def run(self, to: Address, *, whole: bool = False) -> Run:
        """The run under that address.

        Raises:
            UnknownRun: There is none.
            RunPruned: There was one; only its key is left.
        """
        if self.host.closing:
            raise StoreStopped("the runtime is shutting down")
        if self.host.cast.in_memory(to):
            raise InvalidState("look at", to, "memory-only", "It has no row in the store: it takes `tell`, `ask` and `resume`.")
        found = await self.host.find(to, whole=whole)
        if found is None:
            raise UnknownRun(to)
        if not found.input:
            raise RunPruned(to)
        return found

    # --- start ----------------------------------------------------------------------------------------------------------

    async def start(self, to: Address, *, input: bytes, on_conflict: OnConflict, deadline_s: float | None, request: str) -> None:
        host = self.host
        kind = host.kinds.get(to.kind)
        if kind is None:
            raise UnknownKind(to.kind, list(host.kinds))
        if kind.handlers is not None:
            raise InvalidState("start", to, "an actor", actors.NOT_FOR_ACTORS["start"])
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

    async def ask(self, to: Address, *, type: str, body: bytes, key: str | None, within_s: float) -> bytes:
        return await self.door.ask(to, type, body, key=key, within_s=within_s)

    # --- waiting and looking --------------------------------------------------------------------------------------------

    async def result(self, to: Address, *, wait_paused: bool) -> bytes:
        host = self.host
        while True:
            activation = host.by_address.get(to)
            target = activation.run if activation is not None else await self.run(to)
            actors.refuse("result", target)
            waiter = Waiter(host.loop)
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
                    await waiter
                elif waiter.status == "paused" and wait_paused:
                    await waiter
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
        events = await self.host.store.history(run.id, after=after, limit=max(1, min(limit, HISTORY_PAGE_MAX)))
        return tuple(inspection.shown(event) for event in events)

    async def latest(self, to: Address, *, limit: int) -> tuple[HistoryEntry, ...]:
        run = await self.run(to)
        events = await self.host.store.latest(run.id, limit=max(1, min(limit, HISTORY_PAGE_MAX)))
        return tuple(inspection.shown(event) for event in events)

    async def why(self, to: Address) -> str:
        return await inspection.why(self.host, await self.run(to, whole=True))

    async def runs(self, query: RunQuery) -> Page:
        query = evolve(query, limit=max(1, min(query.limit, 1_000)))
        wanted = query.status
        if wanted == "idle":  # As its row says it.
            query = evolve(query, status="waiting", actor=True)
        rows = await self.host.store.runs(query)
        infos = [await inspection.info(self.host, row, more=False) for row in rows]
        shown = tuple(info for info in infos if wanted in (None, info.status))
        return Page(runs=shown, next=rows[-1].id if len(rows) == query.limit else None)

    async def counts(self, *, actor: bool | None) -> dict[str, int]:
        counts = await self.host.store.counts(actor=actor)
        return {"idle" if actor and status == "waiting" else status: count for status, count in counts.items()}

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
            await host.loading.out_of_line(run.id)
            if host.by_address.get(to) is None and (await self.run(to)).status == "paused":
                raise InvalidState(verb, to, "paused", "")

    async def cancel(self, to: Address, *, why: str) -> bool:
        host = self.host
        run = await self.run(to)
        if run.status in ENDED:
            return False
        actors.refuse("cancel", run)
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
        """Wait until all that was submitted so far is durable.

        Raises:
            StoreError: It never will be: the store takes no more writes.
        """
        done, failed = Signal(self.host.loop), list[StoreError]()

        def told(answer: Refusal | StoreError | None) -> None:
            failed.extend([answer] if isinstance(answer, StoreError) else [])
            done.set()

        self.host.committer.submit(Commit(()), told)
        await done.wait()
        if failed:
            raise failed[0]

    async def pause(self, to: Address) -> None:
        run = await self.run(to)
        if self.host.cast.tree.holds(to):
            remedy = f"Its supervisor would start it again: `runtime.stop_child({str(to)!r})`."
            raise InvalidState("pause", to, "a static child", remedy)
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
            waiter = Waiter(self.host.loop)
            self.host.results.setdefault(run.id, []).append(waiter)
            await waiter
            if waiter.status == "stopped":
                raise self.host.committer.stopped or StoreStopped("the runtime is shutting down")

    async def resume(self, to: Address) -> None:
        if self.host.cast.in_memory(to):
            if (actor := self.host.cast.memory.find(to)) is not None:
                actor.resume()
            return
        await repairs.resume(self, await self.run(to, whole=True))
        if self.host.cast.tree.holds(to):
            with suppress(InvalidState):  # Its supervisor is down, and will start it.
                self.host.cast.tree.start_child(str(to))

    async def retry(self, to: Address) -> None:
        await repairs.retry(self, await self._of_workflow(to, "retry"))

    async def skip(self, to: Address, *, value: bytes) -> None:
        await repairs.skip(self, await self._of_workflow(to, "skip"), value)

    async def decide(self, to: Address, *, call: str, decision: Decision) -> None:
        await repairs.decide(self, await self.run(to, whole=True), call, decision)

    async def fork(self, to: Address, *, key: str, at: int | None, input: bytes | None, keep: bool) -> None:
        await repairs.fork(self, await self._of_workflow(to, "fork"), key, at, input, keep=keep)

    async def _of_workflow(self, to: Address, verb: str) -> Run:
        run = await self.run(to, whole=True)
        actors.refuse(verb, run)
        return run

    async def prune(self, to: Address) -> None:
        run = await self.run(to)
        actors.refuse("prune", run)
        if run.status not in ENDED:
            raise InvalidState("prune", to, run.status, "Only a run that has ended can be pruned.")
        await self.write([Prune(run.id)])

    async def reset(self, to: Address) -> None:
        await resetting.reset(self, await self.run(to, whole=True))

    # --- dead letters, and the tree ---------------------------------------------------------------------------------------

    async def dead_letters(self, to: Address | None, *, after: int, limit: int) -> Letters:
        return await letters.page(self.host, None if to is None else await self.run(to), after=after, limit=limit)

    async def resend(self, letter: int) -> Address:
        return await letters.resend(self, letter)

    async def tree(self) -> TreeNode:
        if self.host.closing:
            raise StoreStopped("the runtime is shutting down")
        return self.host.cast.tree.shown()
