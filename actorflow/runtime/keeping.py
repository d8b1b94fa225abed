"""The fields of a live actor as bytes: as they are now, as they were last written, and as they are known to be durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.kernel.mailbox import is_bound
from actorflow.kind import Kind
from actorflow.records import Envelope, Loaded, SetRound, Write
from actorflow.runtime.activation import Activation

if TYPE_CHECKING:
    from actorflow.runtime.host import Host


class Keeping(Activation):
    """An actor's snapshot."""

    round: int
    scope: str
    handled: int = 0  #: messages since its round began
    busy: int = 0  #: the message whose turn is open, as far as that is recorded

    def __init__(self, host: Host, loaded: Loaded, kind: Kind) -> None:
        super().__init__(host, loaded, kind)
        self.state_bytes: bytes = self._fields_at_start  #: the fields as they are durable, or about to be
        self.written_bytes: bytes = self.state_bytes  #: the fields as they were last written
        self._durable = self.state_bytes

    @property
    def fields_bytes(self) -> bytes:
        return self.state_bytes

    def droppable(self) -> Envelope | None:
        return next((e for e in self.mailbox.waiting.values() if e.id != self.busy and is_bound(e)), None)

    def durable_bytes(self) -> bytes:
        """The fields as they are known to be durable."""
        if not self.inflight:
            self._durable = self.written_bytes
        return self._durable

    def write_state(self, writes: list[Write]) -> None:
        """The fields, if they are not as they were last written."""
        if self.state_bytes != self.written_bytes:
            self.written_bytes = self.state_bytes
            writes.append(SetRound(self.run.id, self.round, self.state_bytes))

    def next_round(self, writes: list[Write]) -> None:
        """The entries of this turn are history."""
        self.durable_bytes()
        self.round += 1
        self.scope = self.scope.rpartition("/")[0] + f"/{self.round}"
        self.handled = self.busy = 0
        self.written_bytes = self.state_bytes
        writes.append(SetRound(self.run.id, self.round, self.state_bytes))
