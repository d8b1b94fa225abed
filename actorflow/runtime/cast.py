"""What the actors of one process share: how they come to be, how often they failed, and who is told when one goes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import evolve

from actorflow.errors import BadDefinition, HandlerFailed, StoreError, StoreStopped, StoreUnavailable, UnknownKind
from actorflow.failures import failed_answer, in_words, text_of
from actorflow.kernel.journal import entry as new_entry
from actorflow.kernel.outbox import Post
from actorflow.operations import TreeNode
from actorflow.policies.failure import classify
from actorflow.policies.restarts import Backoff, Budget, spend
from actorflow.records import Address, Commit, Consume, Envelope, Identity, Rejected, Run, SetEnd, SetState, Write
from actorflow.runtime import reports
from actorflow.runtime.loops import Signal
from actorflow.runtime.mail import Handed, mail_of
from actorflow.runtime.memory_actors import MemoryActors

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation
    from actorflow.runtime.handling import ActorActivation
    from actorflow.runtime.host import Host
    from actorflow.runtime.tree import Tree

log: logging.Logger = logging.getLogger("actorflow")


class Cast:
    """All actors of a host."""

    def __init__(self, host: Host, tree: Tree) -> None:
        self.host = host
        self.tree = tree
        self.memory: MemoryActors = MemoryActors(host, tree)
        self._budgets: dict[int, Budget] = {}
        self._making: dict[Address, Signal] = {}
        self._tries: dict[tuple[int, int], int] = {}
        self.dropping: dict[int, Envelope] = {}  #: by number; not durably yet
        self._again: set[tuple[int, int]] = set()

    # --- coming to be ---------------------------------------------------------------------------------------------------

    def is_actor(self, kind: str) -> bool:
        """True if that kind is a class of actors, not of workflows."""
        registered = self.host.kinds.get(kind)
        return registered is not None and registered.handlers is not None

    async def receiver(self, to: Address) -> Run | None:
        """Whom messages to that address go to: a run if there is one; an actor in any case, made if nobody wrote to it yet.

        Raises:
            BadDefinition: An actor of that class cannot be made of nothing.
            StoreError: The store cannot be read or written.
        """
        host = self.host
        while (making := self._making.get(to)) is not None:
            await making.wait()
        found = await host.find(to)
        if found is not None or not self.is_actor(to.kind):
            return found
        if to in self._making:
            return await self.receiver(to)
        self._making[to] = Signal(host.loop)
        try:
            await self.make(to, self.first_fields(to))
        finally:
            self._making.pop(to).set()
        return await host.find(to)

    def first_fields(self, to: Address) -> bytes:
        """The fields of a new actor: those of the static child, else the defaults of its class.

        Raises:
            BadDefinition: There are fields without defaults.
            UnknownKind: Its class is not registered.
        """
        kind, given = self.host.kinds.get(to.kind), self.tree.given(to)
        if kind is None:
            raise UnknownKind(to.kind, list(self.host.kinds))
        try:
            return kind.encode(kind.cls() if given is None or isinstance(given, type) else given)
        except Exception as error:  # (whatever a default, a factory or a validator raises)
            why = "has fields without defaults" if isinstance(error, TypeError) else "cannot be made of nothing"
            raise BadDefinition(
                f"{to} cannot be made by writing to it: {kind.name} {why} ({text_of(error)}). Give its fields defaults that do, "
                f"or start it as a static child, Child({kind.cls.__qualname__}(...), {to.key!r})."
            ) from error

    async def make(self, to: Address, fields: bytes) -> None:
        """A new actor; it is in memory on return."""
        host = self.host
        if host.closing:
            raise StoreStopped("the runtime is shutting down")
        if to.kind not in host.kinds:
            raise UnknownKind(to.kind, list(host.kinds))
        new = evolve(host.new_run(to, fields, deadline_at=None), status="waiting", wake_at=None)
        handed = Handed(host, [new, host.begun(new)])
        await handed
        if isinstance(handed.refusal, StoreError):
            raise handed.refusal
        if isinstance(handed.refusal, Rejected):
            raise StoreUnavailable(f"{to} could not be made: {handed.refusal.why}")

    # --- failing --------------------------------------------------------------------------------------------------------

    def tried(self, activation: Activation, message: int) -> int:
        """Count one more failure of that message; returns how many there were."""
        key = (activation.run.id, message)
        self._tries[key] = count = self._tries.get(key, 0) + 1
        return count

    def again(self, activation: Activation, message: int) -> None:
        """The handler of that message failed after it had recorded something, and is tried again."""
        self._again.add((activation.run.id, message))

    def is_again(self, activation: Activation, message: int) -> bool:
        """True, once, if the turn that is resumed was not cut but failed."""
        key = (activation.run.id, message)
        if key in self._again:
            self._again.remove(key)
            return True
        return False

    def forget_tries(self, activation: Activation, message: int) -> None:
        if self._tries:
            self._tries.pop((activation.run.id, message), None)

    def dead(self, activation: Activation, envelope: Envelope, error: BaseException) -> bytes:
        """The answer of a message that was given up."""
        if classify(error) == "data" and isinstance(error, Exception):
            return failed_answer(error)
        failed = HandlerFailed(activation.address, envelope.type, in_words(error)[:2_000])
        failed.__cause__ = error
        return failed_answer(failed)

    def failed(self, activation: ActorActivation, error: BaseException) -> None:
        """It must be restarted, if its budget or its supervisor allows; else it is set aside."""
        if self.is_static(activation):
            activation.halt("restart", [], lambda: self.tree.failed(activation, error))
            return
        budget, verdict = spend(self._budgets.get(activation.run.id, Budget()), now=self.host.clock.monotonic())
        self._budgets[activation.run.id] = budget
        text = in_words(error)
        if verdict == "quarantine":
            what = (
                f"it failed {len(budget.spent)} times within {budget.within_s:g} s, after which it is not restarted; last: {text}"
            )
            activation.pause("bug", reports.plain("bug", what[:2_000], reports.line(error)), [])
            return
        delay_s = Backoff().delay_s(len(budget.spent), die=self.host.chance.jitter())
        log.warning("%s restarts in %.1f s: %s", activation, delay_s, text)
        activation.halt("restart", [], lambda: self._restart(activation, delay_s))

    def _restart(self, activation: ActorActivation, delay_s: float) -> None:
        def again() -> None:
            if activation.live:
                self.host.reload(activation)

        self.host.deadlines.after(delay_s, again)

    def forgive(self, run: int) -> None:
        """An operator resumes it: a new budget."""
        self._budgets.pop(run, None)
        for key in [key for key in self._tries if key[0] == run]:
            del self._tries[key]

    # --- coming and going -----------------------------------------------------------------------------------------------

    def started(self, activation: ActorActivation) -> None:
        """Its `on_start` is done."""
        self.tree.started(activation)

    def left(self, activation: ActorActivation) -> None:
        """It wants to leave memory."""
        if self.is_static(activation):
            activation.retire(lambda: self.tree.left(activation))
        else:
            self.host.passivate(activation)

    def is_static(self, activation: Activation) -> bool:
        """True if it is a child in a tree: it stays in memory."""
        return self.tree.holds(activation.address)

    def may_enter(self, address: Address) -> bool:
        """False for a static child that its supervisor does not want in memory now: its mail waits."""
        return not self.tree.holds(address) or self.tree.wanted(address)

    async def unpause(self, run: Run) -> None:
        """A static child that was set aside is to start again.

        Raises:
            StoreError: Nothing was written.
        """
        at = self.host.clock.wall()
        state = SetState(run=run.id, status="waiting", reason=None, wake_at=0.0, crashes=0, at=at)
        resumed = new_entry(run.id, run.round, "resumed", Identity("", "start", 0), at=at, status="")
        handed = Handed(self.host, (state, resumed, SetEnd(run=run.id, report=b"")))
        await handed
        if isinstance(handed.refusal, StoreError):
            raise handed.refusal

    def shown(self, activation: Activation, state: str) -> TreeNode:
        """An actor in memory, to look at."""
        now = self.host.clock.wall()
        waiting = activation.mailbox.waiting.values()
        mail = [e for e in waiting if not e.type.startswith("~") and (e.due_at is None or e.due_at <= now)]
        return TreeNode(
            name=str(activation),
            what="actor",
            state=state,
            mailbox=len(mail),
            oldest_s=max(0.0, now - mail[0].sent_at) if mail else None,
            waits_for=tuple(str(asked.identity) for asked in activation.calls),
            snapshot_bytes=len(activation.fields_bytes),
        )

    def gone(self, activation: Activation, status: str) -> None:
        """It was set aside."""
        if self.is_static(activation):
            self.tree.set_aside(activation, *(activation.aside or ("", None)))

    def tell_watchers(self, activation: Activation, status: str) -> None:
        """Who watches it is told that it is no more; once."""
        writes = self.farewells(activation.run, activation.mailbox.waiting.values(), status)
        if writes:
            sent = mail_of(self.host, writes)
            self.host.committer.submit(Commit(tuple(writes)), sent.told if sent is not None else lambda _: None)

    def farewells(self, run: Run, mail: Iterable[Envelope], status: str) -> list[Write]:
        """What tells those who watch an actor that it was set aside or stopped."""
        writes: list[Write] = []
        for envelope in mail:
            if envelope.type == "~watch" and envelope.reply_to is not None and run.actor:
                writes.extend(self.host.notice("~child", envelope.reply_to, str(run.address), status, None))
                writes.append(Consume(envelope.id, None))
        return writes

    def set_aside_already(self, run: Run, mail: Iterable[Envelope]) -> None:
        """Somebody wrote to a paused actor; one who began to watch it while it was being paused is told now."""
        writes = self.farewells(run, mail, "paused")
        if writes:
            sent = mail_of(self.host, writes)
            self.host.committer.submit(Commit(tuple(writes)), sent.told if sent is not None else lambda _: None)

    # --- memory-only actors ---------------------------------------------------------------------------------------------

    def in_memory(self, to: Address) -> bool:
        """True if that is a memory-only actor."""
        return self.memory.of(to.kind)

    def tell_in_memory(self, post: Post, sender: str) -> None:
        """A message to one of them, from a turn that is durable."""
        self.memory.told_by_turn(post.to, post.type, post.body, post.after_s, sender)
