"""The orderly end of a runtime: nothing new begins, running steps finish, and what is left is left to the next holder."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
from attrs import frozen

from actorflow.records import Commit, Write
from actorflow.runtime.calls import Abandonable
from actorflow.value import Value

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.host import Host

log: logging.Logger = logging.getLogger("actorflow")

CUT_GRACE_S = 1.0  #: how long a step that is cut may take to end
LOOK_S = 0.005
NAMED_MAX = 20  #: runs named in the log; a report names them all


@frozen(kw_only=True)
class Drained(Value):
    """What a runtime that closed left to the next holder of its store. Nothing of it is lost."""

    took_s: float
    cut: tuple[str, ...]
    """Runs whose step or undo did not end in time, as "Kind/key". It was cancelled, or abandoned in its thread, and is begun
    again as its `on_interrupt` says; that counts as no crash."""
    under_way: int  #: runs that the next holder goes on with at once, those included
    messages: int  #: accepted, and waiting for runs that were in memory
    lost: int = 0  #: messages of memory-only actors that were not handled in time; they are gone
    threads: int  #: of abandoned steps, still running: the process may end only when they do
    written: bool  #: False: the store had stopped taking writes, and what is left is as after a crash

    def __str__(self) -> str:
        said = [f"closed in {self.took_s:.1f} s", f"{self.under_way} runs under way", f"{self.messages} messages waiting"]
        if self.cut:
            more = f" and {len(self.cut) - NAMED_MAX} more" if len(self.cut) > NAMED_MAX else ""
            said.append(f"steps cut in {', '.join(self.cut[:NAMED_MAX])}{more}")
        if self.threads:
            said.append(f"{self.threads} threads of abandoned steps still run; the process may end only when they do")
        if not self.written:
            said.append("the store takes no writes: what is left is as after a crash")
        return "; ".join(said)


async def drain(host: Host, at_once: anyio.Event) -> Drained:
    """Begin nothing new; let running steps finish and record them; leave the rest to the next holder.

    Args:
        host: Whose runs. It takes nothing in any more, for ever.
        at_once: Set it to cut what still runs instead of waiting for it.
    """
    began = anyio.current_time()
    lost = await _tree_down(host, at_once)
    host.closing = True
    left, working = _halted(host)
    await _until_left(host, left, host.limits.drain_s, at_once)
    cut = {str(activation) for activation in left if activation.status == "undoing"}
    if left:
        cut |= {str(call.activation) for call in working if call.drain()}
        await _until_left(host, left, CUT_GRACE_S, anyio.Event())
    messages = sum(activation.mailbox.depth for activation in host.resident.values())
    released: list[Write] = []
    for activation in host.resident.values():
        if activation.status == "running":
            released.append(activation.state("waiting", wake_at=0.0))
        elif activation.status == "undoing":
            released.append(host.ending.released(activation))
    if released and host.committer.stopped is None:
        host.committer.submit(Commit(tuple(released)), lambda _: None)
    await host.committer.drain(within_s=host.limits.drain_s)
    drained = Drained(
        took_s=anyio.current_time() - began,
        cut=tuple(sorted(cut)),
        under_way=len(released),
        messages=messages,
        lost=lost,
        threads=host.threads.abandoned,
        written=host.committer.stopped is None and host.committer.idle,
    )
    _let_go(host)
    log.log(logging.WARNING if cut or drained.threads or not drained.written else logging.INFO, "%s", drained)
    return drained


async def _tree_down(host: Host, at_once: anyio.Event) -> int:
    """Stop the static actors, last one first, each in its own time; intake is still open, as one may tell another.

    Memory-only actors handle what waits before that, in half of the time, and stop after it. Returns how many of their
    messages are lost.
    """
    memory = host.cast.memory
    with anyio.move_on_after(host.limits.drain_s / 2):
        await memory.finish(at_once)

    async def hurry(scope: anyio.CancelScope) -> None:
        await at_once.wait()
        scope.cancel()

    with anyio.move_on_after(host.limits.drain_s):
        async with anyio.create_task_group() as group:
            group.start_soon(hurry, group.cancel_scope)
            await host.cast.tree.close()
            group.cancel_scope.cancel()
    return await memory.close(at_once)


def _halted(host: Host) -> tuple[set[Activation], list[Abandonable]]:
    """Tell all runs to stop: those that have not yet, and the work to cut if they do not in time."""
    left, working = set(host.resident.values()), list[Abandonable]()
    for activation in list(left):
        calls = (*activation.calls.values(), *activation.halted)
        working.extend(call for call in calls if isinstance(call, Abandonable))
        if activation.stopping in (None, "restart"):
            activation.retire(lambda activation=activation: left.discard(activation), why="drain")  # type: ignore[misc]
        # Others are about to be paused or ended, or undo something, and then leave memory by themselves.
    return left, working


async def _until_left(host: Host, left: set[Activation], within_s: float, at_once: anyio.Event) -> None:
    with anyio.move_on_after(within_s):
        while left and host.committer.stopped is None and not at_once.is_set():
            await anyio.sleep(LOOK_S)
            left &= set(host.resident.values())


def _let_go(host: Host) -> None:
    for activation in list(host.resident.values()):
        host.remove(activation)
    for waiters in (*host.results.values(), *host.replies.values()):
        for waiter in waiters:
            waiter.status = "stopped"
            waiter.set()
