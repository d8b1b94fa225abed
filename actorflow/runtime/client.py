"""`Client`: the verbs of runs from another process than the one that runs them.

It speaks to the holder of the store over a socket. If there is none, it reads by itself, writes as the one writer for that act,
and waits where waiting is what was asked for. Calls survive the end of a holder: what may be repeated is repeated.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from actorflow.actor import Actor
from actorflow.clock import Duration, seconds
from actorflow.errors import AskTimeout, BadDefinition, FateUnknown, OutsideTurn, StoreBusy
from actorflow.kind import Kind
from actorflow.operations import Operations, TreeNode
from actorflow.policies.limits import Limits
from actorflow.runtime import alone
from actorflow.runtime.alone import READS, NobodyRuns
from actorflow.runtime.front import Front
from actorflow.runtime.link import Link, Lost
from actorflow.runtime.place import Facts, Place, reach
from actorflow.runtime.wire import Act, Calls

REPEATABLE = READS | {"start", "tell", "ask", "result", "cancel", "pause"}
"""What may be asked of the next holder when the last one died over it: reading, what has a key, and what is true once it was
done. The others (`skip` above all) could hit another failure than the one that the operator saw."""

LOOK_S_FIRST, LOOK_S_MAX = 0.05, 1.0
"""Between two looks for a holder, while there is none."""


class Client(Front):
    """Runs of a store that another process holds (or that nobody does), from `async with` to its end.

    A `tell` without a key is given one, so that it can be repeated when its holder dies over it; the store keeps the key (a
    short row) as long as the run. `resume`, `retry`, `skip`, `decide`, `fork`, `prune`, `reset` and `resend` are not repeated
    then, and raise `FateUnknown`.

    Args:
        url: `sqlite:///file.db` or `sqlite:////absolute/file.db`, as the service has it.
        actors: Classes whose runs are read while no holder is there (`query`); those that are used here are known by themselves.
        patience: How long what would be done at once (all but `ask` and `result`) waits for a holder that starts or leaves.
        limits: What is accepted while no holder is there.

    Raises (on entry):
        StoreUnavailable: There is no such file, or it belongs to another user.
        ValueError: The URL names no file.
    """

    def __init__(
        self, url: str, *, actors: Sequence[type[Actor]] = (), patience: Duration = "60s", limits: Limits | None = None
    ) -> None:
        self._place = Place.of(url)
        self._kinds: dict[str, Kind] = {}
        for actor in actors:
            self._met(actor)
        self._patience_s = seconds(patience)
        self._limits = limits or Limits()
        self._group: TaskGroup | None = None
        self._link: Link | None = None
        self._connecting, self._writing = anyio.Lock(), anyio.Lock()
        self._operations = Calls.on(self._call)

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise BadDefinition("a Client is entered once; make another one.")
        self._place.check()
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._group is not None
        self._group.cancel_scope.cancel()
        if not isinstance(error, anyio.get_cancelled_exc_class()):
            # The body's own error passes as it is; the group would wrap it.
            kind = error = traceback = None
        await self._group.__aexit__(kind, error, traceback)

    @property
    def operations(self) -> Operations:
        """All acts of clients and operators, by encoded values: what handles speak to."""
        if self._group is None:
            raise OutsideTurn("a Client that was not entered (`async with Client(...)`)")
        return self._operations

    def _met(self, actor: type[Actor]) -> None:
        kind = actor.__kind_info__()
        self._kinds[kind.name] = kind

    async def tree(self) -> TreeNode:
        """The live tree of the service: every supervisor and static child, what it is doing, and what it has left.

        Raises:
            NotRunning: Nobody holds the store, so that there is no live tree.
        """
        return await self.operations.tree()

    # --- calls ----------------------------------------------------------------------------------------------------------

    async def _call(self, act: Act, values: dict[str, Any]) -> Any:
        if act.name in ("tell", "ask") and values.get("key") is None:
            values["key"] = f"{act.name}-{uuid.uuid4().hex}"
        if act.name != "ask":
            return await self._until_done(act, values)
        within_s = values["within_s"]
        until = anyio.current_time() + within_s
        with anyio.move_on_after(within_s):
            return await self._until_done(act, values, until=until)
        raise AskTimeout(values["to"], within_s)

    async def _until_done(self, act: Act, values: dict[str, Any], *, until: float | None = None) -> Any:
        looks = _Looks(self._place, self._patience_s)
        while True:
            link = await self._connected()
            if until is not None:
                values = {**values, "within_s": max(0.0, until - anyio.current_time())}
            try:
                if link is not None:
                    return await link.call(act, values)
                if looks.worth(act):
                    return await self._alone(act, values)
            except Lost as lost:
                if lost.unknown and act.name not in REPEATABLE:
                    raise FateUnknown(act.name, values.get("to")) from None
                looks.again()
            except NobodyRuns:
                pass
            except StoreBusy as busy:
                looks.busy(busy)
            await looks.pause()

    async def _connected(self) -> Link | None:
        """The connection to the holder, or None if none can be reached.

        Raises:
            StoreUnavailable: There is no file, or it is another user's.
            Refused: The holder does not take this client.
        """
        async with self._connecting:
            if self._link is not None and not self._link.closed.is_set():
                return self._link
            self._link = None
            facts = self._place.facts()
            stream = await reach(facts)
            if stream is None:
                return None
            assert self._group is not None
            link = Link(stream, facts.token)
            problem: Exception | None = await self._group.start(link.run)
            if isinstance(problem, Lost):
                return None
            if problem is not None:
                raise problem
            self._link = link
            return link

    async def _alone(self, act: Act, values: dict[str, Any]) -> Any:
        """Nobody can be reached: do it here, if it can be done here.

        Raises:
            NobodyRuns: It needs a holder.
            StoreBusy: There is one, which cannot be reached (now).
        """
        self._place.check()
        if act.name in READS or act.name == "result":
            return await alone.look(self._place, act, values, kinds=self._kinds, limits=self._limits)
        if act.name == "ask":
            raise NobodyRuns
        async with self._writing:  # One after the other; against each other they would only find the lock taken.
            return await alone.write(self._place, act, values, kinds=self._kinds, limits=self._limits)


@define(eq=False, repr=False)
class _Looks:
    """One call's looking for a holder: when to look again, and when to give up."""

    place: Place
    patience_s: float
    _wait_s: float = field(default=LOOK_S_FIRST, init=False)
    _since: float | None = field(default=None, init=False)
    _seen: Facts | None = field(default=None, init=False)

    def worth(self, act: Act) -> bool:
        """Whether to do it alone. A run can have ended only if there was another holder since the last look."""
        if act.name not in ("ask", "result"):
            return True
        before, self._seen = self._seen, self.place.facts()
        return before != self._seen

    def again(self) -> None:
        """There was a holder: the next one may come soon."""
        self._seen = None

    def busy(self, error: StoreBusy) -> None:
        """Somebody holds it and cannot be reached: one that starts, leaves or acts for a moment; or one that never listens.

        Raises:
            StoreBusy: It is the latter, or has lasted too long.
        """
        self._since = self._since or anyio.current_time()
        if self.place.facts().silent or anyio.current_time() - self._since >= self.patience_s:
            raise error

    async def pause(self) -> None:
        """Wait a little, then a little longer.

        Raises:
            StoreBusy: A runtime that does not listen holds the store: nobody here would learn what becomes of its runs.
        """
        facts = self.place.facts()
        if facts.silent:
            raise StoreBusy(self.place.path, f"{self.place.holder()} (a runtime with `socket=False`)")
        await anyio.sleep(self._wait_s)
        self._wait_s = min(LOOK_S_MAX, self._wait_s * 2)
