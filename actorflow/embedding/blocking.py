"""The verbs of runs for code that blocks: Flask, Django under WSGI, scripts. They wait in the caller's thread; runs and async
steps live on an event loop in another one.

Each verb is that of `Runtime`, `Address` or `Run`, and says there what it does and raises.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import anyio

from actorflow import records
from actorflow.actor import Actor
from actorflow.address import Address, GiveUp, Landed, Run, RunAgain
from actorflow.clock import Duration, seconds
from actorflow.embedding.portal import Backend, LoopThread
from actorflow.message import Message
from actorflow.operations import Addressed, HistoryEntry, Letters, OnConflict, Page, RunInfo, TreeNode
from actorflow.policies.limits import Limits
from actorflow.pool import Pool
from actorflow.records import RunQuery
from actorflow.runtime.client import Client
from actorflow.runtime.draining import Drained
from actorflow.runtime.front import Front
from actorflow.runtime.runtime import Runtime
from actorflow.runtime.watchdog import Stall
from actorflow.stores import Durability
from actorflow.supervisor import Supervisor
from actorflow.workflow import Workflow

A_co = TypeVar("A_co", bound=Actor, covariant=True)
W_co = TypeVar("W_co", bound=Workflow[Any], covariant=True)
A = TypeVar("A", bound=Actor)
W = TypeVar("W", bound=Workflow[Any])
T = TypeVar("T")
P = ParamSpec("P")


class SyncAddress(Generic[A_co]):
    """An `Address` for code that blocks. It outlives a `close`: after the next `open` it leads to the same actor."""

    def __init__(self, loop: LoopThread[Front], actor: type[A_co], key: str) -> None:
        self._loop = loop
        self._actor = actor
        self._to: Address[A_co] = Address(actor, key)

    def _wait(self, verb: Callable[[Address[A_co]], Coroutine[Any, Any, T]]) -> T:
        return self._loop.call(lambda front: verb(front.at(self._actor, self.key)))

    @property
    def kind(self) -> str:
        """The registered name of its class."""
        return self._to.kind

    @property
    def key(self) -> str:
        """Which one of its kind."""
        return self._to.key

    @property
    def address(self) -> records.Address:
        """Kind and key, as values."""
        return self._to.address

    def __str__(self) -> str:
        return str(self._to)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SyncAddress) and self._at() == other._at()  # pyright: ignore[reportUnknownMemberType]

    def __hash__(self) -> int:
        return hash(self._to)

    def _at(self) -> Address[Any]:
        return self._to

    def tell(self, message: Message[Any], *, key: str | None = None, after: Duration | None = None) -> None:
        """Put a message into the mailbox; on return it is durable and will be handled once."""
        self._wait(lambda to: to.tell(message, key=key, after=after))

    def ask(self, message: Message[T], *, within: Duration = "5s", key: str | None = None) -> T:
        """Put a message into the mailbox and wait for its reply, which is durable when it is seen."""
        return self._wait(lambda to: to.ask(message, within=within, key=key))

    def query(self, q: Callable[Concatenate[A_co, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask a `@query`; it reads the last durable view."""
        return self._wait(lambda to: to.query(q, *args, **kwargs))

    def status(self) -> RunInfo:
        """What there is to say of it: where it stands, and the report if it is paused."""
        return self._wait(lambda to: to.status())

    def pause(self) -> None:
        """Nothing new starts; running steps finish and are recorded."""
        self._wait(lambda to: to.pause())

    def resume(self) -> None:
        """Go on from what is durable, with a new budget."""
        self._wait(lambda to: to.resume())

    def history(self, *, after: int = 0, limit: int = 1_000) -> tuple[HistoryEntry, ...]:
        """What happened to it, in order; *after* is the `seq` of the last one seen."""
        return self._wait(lambda to: to.history(after=after, limit=limit))

    def why(self) -> str:
        """One sentence: what it waits for and what comes next."""
        return self._wait(lambda to: to.why())

    def reset(self) -> None:
        """Give an actor the state of a new one; it must be idle or paused."""
        self._wait(lambda to: to.reset())


class SyncRun(SyncAddress[W_co]):
    """A `Run` for code that blocks."""

    def _run(self, verb: Callable[[Run[W_co]], Coroutine[Any, Any, T]]) -> T:
        return self._loop.call(lambda front: verb(front.run(self._actor, self.key)))

    def result(self: SyncRun[Workflow[T]], *, within: Duration | None = None, wait_paused: bool = False) -> T:
        """Wait for the end; the value that `run()` returned.

        Args:
            within: How long to wait; None is without end. A web worker that waits serves nobody else.
            wait_paused: Wait on while the run is paused.

        Raises:
            TimeoutError: It has not ended in that time; it goes on.
            RunPaused, RunCancelled, RunTimedOut, Exception: As `Run.result`.
        """
        within_s = None if within is None else seconds(within)

        async def result(run: Run[Workflow[T]]) -> T:
            with anyio.move_on_after(within_s):
                return await run.result(wait_paused=wait_paused)
            raise TimeoutError(f"{self} has not ended within {within_s:g} s; it goes on.")

        return self._run(result)

    def fork(self, key: str, *, at: int | None = None, input: W_co | None = None, keep: bool = False) -> SyncRun[W_co]:
        """A new run from this one's past."""
        fork = self._run(lambda run: run.fork(key, at=at, input=input, keep=keep))
        return SyncRun(self._loop, self._actor, fork.key)

    def cancel(self, why: str = "cancelled by an operator") -> bool:
        """Cancel it: no new step starts, what was done is undone. False if it had ended."""
        return self._run(lambda run: run.cancel(why))

    def retry(self) -> None:
        """Perform the failed call that its report names once more, and go on from there."""
        self._run(lambda run: run.retry())

    def skip(self, value: Any = None) -> None:
        """Record *value* as the outcome of the failed call that its report names, and go on from there."""
        self._run(lambda run: run.skip(value))

    def decide(self, call: str, decision: Landed[Any] | RunAgain | GiveUp) -> None:
        """Say what became of an interrupted step; *call* is as its report names it."""
        self._run(lambda run: run.decide(call, decision))

    def prune(self) -> None:
        """Delete it, once it has ended. Its key stays used."""
        self._run(lambda run: run.prune())


class SyncFront:
    """What `SyncRuntime` and `SyncClient` have: the verbs of `Runtime` and `Client`, from any thread."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Front]], backend: Backend) -> None:
        self._loop = LoopThread(make, type(self).__name__, backend)

    def open(self) -> Self:
        """Begin: what entering `async with` does. No effect if it is open; after `close` it begins anew.

        Call it after a fork, never before: a server that forks its workers has a hook for that.

        Raises:
            NotRunning: It was opened in the process that this one was forked from.
            Exception: Whatever the runtime or client raises on entry.
        """
        self._loop.open()
        return self

    def close(self) -> None:
        """End: what leaving `async with` does. No effect if it is not open. It is called at the end of the process, too."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def start(self, workflow: W, *, key: str, on_conflict: OnConflict = "join", deadline: Duration | None = None) -> SyncRun[W]:
        """Accept a run; it is durable on return and will come to its end, whatever happens to this process."""
        self._loop.call(lambda front: front.start(workflow, key=key, on_conflict=on_conflict, deadline=deadline))
        return SyncRun(self._loop, type(workflow), key)

    def at(self, actor: type[A] | Pool[A], key: str) -> SyncAddress[A]:
        """The actor of that class with that key, or the one of that pool that the key belongs to."""
        if isinstance(actor, Pool):
            return self.at(actor.actor, actor.slot(key))
        return SyncAddress(self._loop, actor, key)

    def publish(self, topic: str, message: Message[Any], *, key: str | None = None) -> None:
        """Tell all actors that listen to that topic."""
        self._loop.call(lambda front: front.publish(topic, message, key=key))

    def run(self, workflow: type[W], key: str) -> SyncRun[W]:
        """The run of that class with that key; whether there is one is found out by the first verb."""
        return SyncRun(self._loop, workflow, key)

    def runs(self, query: RunQuery | None = None, /, **filters: Any) -> Page:
        """Runs that match, newest first, a page at a time: pass `before_id=page.next` for the next one."""
        return self._loop.call(lambda front: front.runs(query, **filters))

    def actors(self, query: RunQuery | None = None, /, **filters: Any) -> Page:
        """Actors that match, newest first, as `runs` does it."""
        return self._loop.call(lambda front: front.actors(query, **filters))

    def counts(self, *, actor: bool | None = False) -> dict[str, int]:
        """How many runs there are in each status; with `actor=True` how many actors, None is both."""
        return self._loop.call(lambda front: front.counts(actor=actor))

    def dead_letters(self, of: Addressed | None = None, /, *, after: int = 0, limit: int = 100) -> Letters:
        """Messages that nobody handled, oldest first, a page at a time: pass `after=letters.next` for the next one."""
        whose = None if of is None else of.address
        return self._loop.call(lambda front: front.operations.dead_letters(whose, after=after, limit=limit))

    def resend(self, letter: int) -> None:
        """Put a dead letter back into the mailbox it was for, last in line."""
        self._loop.call(lambda front: front.resend(letter))


class SyncRuntime(SyncFront):
    """A `Runtime` for code that blocks: Flask, Django under WSGI, scripts.

    Its verbs may be called by many threads at a time. One process can have a store: of several workers of a server one opens a
    SyncRuntime, the others a `SyncClient`.

    Args:
        url, actors, resources, durability, standby, limits, socket, tree, watchdog: As `Runtime` has them.
        backend: Which event loop runs its steps.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        actors: Sequence[type[Actor]],
        resources: Sequence[object] = (),
        durability: Durability = "full",
        standby: bool = False,
        limits: Limits | None = None,
        socket: bool = True,
        tree: Sequence[Supervisor] = (),
        watchdog: Duration | None = "100ms",
        backend: Backend = "asyncio",
    ) -> None:
        self._last: Runtime | None = None

        def make() -> Runtime:
            self._last = Runtime(
                url,
                actors=actors,
                resources=resources,
                durability=durability,
                standby=standby,
                limits=limits,
                socket=socket,
                tree=tree,
                watchdog=watchdog,
            )
            return self._last

        super().__init__(make, backend)

    def tree(self) -> TreeNode:
        """The live tree: every supervisor and static child, what it is doing, and what it has left."""
        return self._on_loop(lambda runtime: runtime.tree())

    def stop_child(self, name: str) -> None:
        """Stop a static child ("kind/key") or a supervisor; it stays down until `start_child`, or a restart of its group."""
        self._on_loop(lambda runtime: runtime.stop_child(name))

    def start_child(self, name: str) -> None:
        """Start a static child or supervisor that is down."""
        self._on_loop(lambda runtime: runtime.start_child(name))

    def stalls(self) -> tuple[Stall, ...]:
        """When the event loop stood still for longer than `watchdog`, and who held it."""
        return () if self._last is None else self._last.stalls()

    def _on_loop(self, look: Callable[[Runtime], T]) -> T:
        async def looking(front: Front) -> T:
            assert isinstance(front, Runtime)
            return look(front)

        return self._loop.call(looking)

    @property
    def drained(self) -> Drained | None:
        """What was left when it was closed; None before."""
        return None if self._last is None else self._last.drained


class SyncClient(SyncFront):
    """A `Client` for code that blocks: the runs of a store that another process has.

    Args:
        url, actors, patience, limits: As `Client` has them.
        backend: Which event loop it speaks through.
    """

    def __init__(
        self,
        url: str,
        *,
        actors: Sequence[type[Actor]] = (),
        patience: Duration = "60s",
        limits: Limits | None = None,
        backend: Backend = "asyncio",
    ) -> None:
        super().__init__(lambda: Client(url, actors=actors, patience=patience, limits=limits), backend)

    def tree(self) -> TreeNode:
        """The live tree of the service: every supervisor and static child."""

        async def looking(front: Front) -> TreeNode:
            return await front.operations.tree()

        return self._loop.call(looking)
