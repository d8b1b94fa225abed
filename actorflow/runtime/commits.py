"""The commits of one run or actor: in order, each seen by others when it is durable, and none after one that was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow.errors import StoreError
from actorflow.policies.failure import FailureReport
from actorflow.records import Chain, Commit, Entry, PauseReason, Refusal, Run, RunStatus, SetState, Write, made
from actorflow.runtime.mail import Mail, mail_of

if TYPE_CHECKING:
    from actorflow.runtime.host import Host


class Commits(Chain):
    """What an activation writes, and where it says that it stands: the chain of its commits."""

    def __init__(self, host: Host, run: Run) -> None:
        self.broken: bool = False
        self.host: Host = host
        self.run: Run = run
        self.live: bool = False  #: in memory; no more once it was dropped
        self.round: int = run.round
        self.status: RunStatus = run.status
        self.crashes: int = run.crashes
        self.wake_at: float | None = run.wake_at
        self.inflight: int = 0  #: commits that are not durable yet
        self.aside: tuple[PauseReason, FailureReport | None] | None = None  #: why an actor is set aside

    def state(self, status: RunStatus, *, reason: PauseReason | None = None, wake_at: float | None = None) -> SetState:
        """The write that puts the run there."""
        self.status, self.wake_at = status, wake_at
        return made(SetState, (self.run.id, status, reason, wake_at, self.crashes, self.host.clock.wall()))

    def submit(self, writes: list[Write], durable: Callable[..., object], *args: object) -> None:
        """Commit, then go on with `durable(*args)`; with nothing to write, and nothing on its way, at once."""
        if not writes and not self.inflight:
            durable(*args)
            return
        self.inflight += 1
        mail = mail_of(self.host, writes)
        self.host.committer.submit(made(Commit, (tuple(writes), self)), self._told, (mail, durable, args))

    def _told(
        self, refusal: Refusal | StoreError | None, mail: Mail | None, durable: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        self.inflight -= 1
        if mail is not None:
            mail.told(refusal)
        if refusal is not None:
            self.refused(refusal)
        elif self.live:
            durable(*args)

    def log(self, kind: str, *, outcome: bytes | None = None, name: str = "") -> Entry:
        """An event of this run's life."""
        at = self.host.clock.wall()
        return made(Entry, (self.run.id, self.round, kind, "", name, 0, "ok", 0, at, None, None, outcome, None))

    def refused(self, refusal: Refusal | StoreError) -> None:
        """A commit was not taken."""
        raise NotImplementedError
