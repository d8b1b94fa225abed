"""`Runtime`: the durable part of a service, as one `async with` block."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup

from actorflow.actor import Actor
from actorflow.clock import Chance, Clock, Duration, SystemClock, seconds
from actorflow.errors import BadDefinition, BadDuration, NotRunning, StoreStopped
from actorflow.kind import Kind
from actorflow.nearby import Nearby
from actorflow.operations import Operations, TreeNode
from actorflow.policies.limits import Limits
from actorflow.resources import Resources
from actorflow.runtime.draining import Drained, drain
from actorflow.runtime.front import Front
from actorflow.runtime.host import Host
from actorflow.runtime.leaks import Leaks
from actorflow.runtime.loops import current_loop
from actorflow.runtime.operators import Operators
from actorflow.runtime.performing import Stage
from actorflow.runtime.place import Announces
from actorflow.runtime.socket import Server, take
from actorflow.runtime.watchdog import Stall, Watchdog
from actorflow.stores import Durability, Store, open_store
from actorflow.topic import Topic

if TYPE_CHECKING:
    from actorflow.embedding.asgi import AsgiApp, WithRuntime
    from actorflow.supervisor import Supervisor

STALL_S_MIN = 0.01  #: the shortest stall that a watchdog can tell from a loop at work


class Runtime(Front):
    """Runs workflows over one store, from `async with` to its end.

    On entry it takes the store (one holder at a time), and every run that was under way goes on by itself. On exit nothing
    new begins, running steps get `limits.drain_s` to finish, and the rest is left to the next holder: see `drained`.

    Args:
        url: `sqlite:///file.db`, `sqlite:////absolute/file.db` or `memory://`.
        actors: The classes it runs.
        resources: What fields and parameters declared `resource()` are filled with, found by their annotations.
        durability: "full" survives a power cut, "normal" only the process.
        standby: If another process holds the store, wait for it instead of raising `StoreBusy`.
        limits: Every bound.
        clock, chance: Time and chance, for tests.
        store: A store object instead of the one that *url* names.
        tree: Supervisors of actors that are always there. They start in order before `async with` goes on, and stop in
            reverse order when it ends, each child in its own time, all in `limits.drain_s`.
        socket: Whether a `Client` in another process can reach it (a store in a file only).
        watchdog: How long the event loop may stand still before a warning says who holds it; at least 10 ms. None is
            without, and so is any *clock* but the machine's.

    Raises:
        BadDefinition: A class cannot be stored as it is, or one of its resources is missing.

    Raises (on entry):
        StoreBusy, StoreBroken, StoreTooNew, StoreUnavailable: The store cannot be had; nothing was written.
        Exception: What kept a child of *tree* from starting. Those already up were stopped, the store is given back.
    """

    _stage: Stage | None = None  #: a test's

    def __init__(
        self,
        url: str = "memory://",
        *,
        actors: Sequence[type[Actor]],
        resources: Sequence[object] = (),
        durability: Durability = "full",
        standby: bool = False,
        limits: Limits | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
        store: Store | None = None,
        socket: bool = True,
        tree: Sequence[Supervisor] = (),
        watchdog: Duration | None = "100ms",
    ) -> None:
        self._store = store if store is not None else open_store(url, durability=durability)
        self._tree, static = _checked(tree) if tree else ((), [])
        self._kinds = _registered([*actors, *(of for of in static if of not in actors)])
        self._resources = Resources.of(resources)
        for kind in self._kinds.values():
            self._resources.bind(kind.name, kind.cls.__qualname__, kind.resources)
        self._standby = standby
        self._limits = limits or Limits()
        self._clock: Clock = clock or SystemClock()
        self._chance = chance or Chance()
        self._host: Host | None = None
        self._operators: Operators | None = None
        self._group: TaskGroup | None = None
        self._held: anyio.CancelScope  #: made on entry: a Runtime may be built where no loop runs
        self._socket = socket
        self._server: Server | None = None
        self._stall_s = None if watchdog is None else _stall_s(watchdog)
        self._watchdog: Watchdog | None = None
        self._at_once: anyio.Event
        self._given_back: anyio.Event
        self._app: object = None  #: where it was installed
        self.drained: Drained | None = None  #: what was left, once it has closed

    # --- life -----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise BadDefinition("a Runtime is entered once; make another one.")
        lease = await take(self._store, now=self._clock.wall(), standby=self._standby)
        self._held = anyio.CancelScope(shield=True)
        self._at_once, self._given_back = anyio.Event(), anyio.Event()
        outer = self._group = anyio.create_task_group()
        await outer.__aenter__()
        try:
            group = await self._begin(outer)
        except BaseException:
            self._held.cancel()
            await outer.__aexit__(None, None, None)
            raise
        host = self._host = Host(
            store=self._store,
            lease=lease,
            kinds=self._kinds,
            limits=self._limits,
            clock=self._clock,
            chance=self._chance,
            loop=current_loop(),
            group=group,
            tree=self._tree,
            resources=self._resources,
            stage=self._stage,
        )
        host.workers.on_spawned = Leaks(host.loop).look_after
        self._operators = Operators(host)
        try:
            await host.loading.look_ahead()
            await self._listen(self._operators, group)
        except BaseException:
            self._close_door()
            self._held.cancel()
            await outer.__aexit__(None, None, None)
            raise
        for serve in (host.committer.run, host.timers.run, host.deadlines.run, host.loading.run):
            host.loop.undisturbed(serve)
            group.start_soon(serve)
        if self._stall_s is not None and isinstance(self._clock, SystemClock):
            self._watchdog = Watchdog(host.loop, self._stall_s)
            self._watchdog.start()
        try:
            await host.cast.tree.boot()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._group is not None
        assert self._host is not None
        try:
            await self.drain()
        finally:
            if self._watchdog is not None:
                self._watchdog.stop()
            self._held.cancel()
            if not isinstance(error, anyio.get_cancelled_exc_class()):
                # The body's own error passes as it is; the group would wrap it.
                kind = error = traceback = None
            await self._group.__aexit__(kind, error, traceback)

    async def _begin(self, outer: TaskGroup) -> TaskGroup:
        """Let it hold; returns what all that runs is started in.

        Not by `outer.start`: to cancel that in the very moment is to wait for ever for a child that is shielded.
        """
        held: list[TaskGroup] = []
        begun = anyio.Event()
        outer.start_soon(self._hold, held, begun)
        with anyio.CancelScope(shield=True):
            await begun.wait()
        return held[0]

    async def _hold(self, held: list[TaskGroup], begun: anyio.Event) -> None:
        """Hold all that the runtime runs, in a group that is told as *held*.

        Shielded: whoever cancels the service around it wants it to drain, and to drain it needs its writer, its timers and
        the steps that shall finish. The store is given back here and not by the service's own task, which asyncio lets
        anybody cancel again and again, shielded or not.
        """
        try:
            with self._held:
                async with anyio.create_task_group() as group:
                    held.append(group)
                    begun.set()
                    await anyio.sleep_forever()
        except BaseExceptionGroup as failures:
            if len(failures.exceptions) == 1:  # The outer group wraps it again.
                raise failures.exceptions[0] from None
            raise
        finally:
            with anyio.CancelScope(shield=True):
                if self._host is not None:
                    self._host.committer.stop(StoreStopped("the runtime has shut down"))
                try:
                    await self._store.close()
                finally:
                    self._given_back.set()

    async def _listen(self, operators: Operators, group: TaskGroup) -> None:
        """Let clients in, or say that none can come."""
        if not isinstance(self._store, Announces):
            return
        if self._socket:
            self._server = Server(operators, self._store, group)
            await self._server.open()
        else:
            await self._store.announce(socket=None)

    def _close_door(self) -> None:
        if self._server is not None:
            self._server.close()

    def _running(self) -> Host:
        if self._host is None or self._operators is None:
            raise NotRunning(
                "this Runtime is not running: use it inside `async with runtime:`. One that was installed in an app begins when "
                "the server starts the app's lifespan, after the app's own start-up; under a TestClient that is inside "
                "`with TestClient(app):`."
            )
        return self._host

    # --- how a service embeds it ----------------------------------------------------------------------------------------

    async def drain(self) -> Drained:
        """Close now: what leaving `async with` does. From here on every verb raises `StoreStopped`.

        On return the store is given back, so that another process can take it. A second call returns the same.
        """
        host = self._running()
        self._close_door()
        with anyio.CancelScope(shield=True):
            self.drained = self.drained or await drain(host, self._at_once)
            self._held.cancel()
            await self._given_back.wait()
        assert self.drained is not None
        return self.drained

    async def serve(self) -> Drained:
        """Run until SIGTERM or SIGINT comes, then `drain`. For a service that has nothing else to do in its main task.

        The second signal cuts the steps that still run, the third one has its usual effect. Under a web server the server
        takes the signals, and the same happens when it ends the app's lifespan.

        Raises:
            StoreError: The store takes no more writes, as when another process took it.
            BadDefinition: It was not called in the main thread, where signals arrive.
        """
        from actorflow.embedding import signals  # noqa: PLC0415  (for those who ask for it, here and below)

        host = self._running()
        if await signals.until_told(host.lost, self._at_once, self.drain):
            assert self.drained is not None
            return self.drained
        assert host.committer.stopped is not None
        raise host.committer.stopped

    def install(self, app: Any) -> None:
        """Run as long as that app does; to be called before it starts. It is found as `app.state.actorflow`.

        Starlette, FastAPI and what derives from them, and Litestar. It begins after the app's own start-up, so that resumed
        steps find what that made, and closes before the app's own shutdown. For another app use `asgi(app)`.

        Raises:
            BadDefinition: The kind of the app is not known, it has started, or it or this runtime is taken already.
        """
        from actorflow.embedding import apps  # noqa: PLC0415

        apps.install(self, app, taken=self._taken())
        self._app = app

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncGenerator[None]:
        """For an app without a lifespan: `FastAPI(lifespan=runtime.lifespan)`, `Litestar(lifespan=[runtime.lifespan])`."""
        from actorflow.embedding import apps  # noqa: PLC0415

        apps.show(self, app)
        async with self:
            yield

    def asgi(self, app: AsgiApp) -> WithRuntime:
        """That ASGI app (Django's, or any), with this runtime running from the server's start-up to its shutdown.

        It is found as `scope["actorflow"]`. An app that knows of no lifespan, as Django's, needs none; the server must.

        Raises:
            BadDefinition: This runtime is taken already.
        """
        from actorflow.embedding.asgi import WithRuntime  # noqa: PLC0415

        if taken := self._taken():
            raise BadDefinition(taken)
        self._app = app
        return WithRuntime(app, self)

    def _taken(self) -> str | None:
        if self._app is not None:
            return f"this Runtime is installed in {self._app!r:.80} already. Make another one, or remove one of the calls."
        return None if self._group is None else "this Runtime was entered already: install it instead of entering it."

    # --- what a service does --------------------------------------------------------------------------------------------

    def tree(self) -> TreeNode:
        """The live tree: every supervisor and static child, what it is doing, and what it has left.

        A value of this moment. Of a child that is not in memory it knows neither mail nor size.
        """
        return self._running().cast.tree.shown()

    def stop_child(self, name: str) -> None:
        """Ask that a static child ("kind/key") or a supervisor stops; `tree()` shows when it has.

        It stays down until `start_child`, a restart of its group, or the next runtime: nothing of this is durable. What is
        down already stays so.

        Raises:
            LookupError: The tree has no such child.
        """
        self._running().cast.tree.stop_child(name)

    def start_child(self, name: str) -> None:
        """Ask that a static child or supervisor that is down starts; `tree()` shows what came of it.

        If it fails to start it stays down, and no restart is counted. A supervisor begins with a new budget. What is up
        already stays so.

        Raises:
            LookupError: The tree has no such child.
            InvalidState: Its supervisor is down, so start that; or it is temporary and has ended.
        """
        self._running().cast.tree.start_child(name)

    @property
    def operations(self) -> Operations:
        if self._operators is None:
            self._running()
        assert self._operators is not None
        return self._operators

    def _nearby(self, actor: type[Actor]) -> Nearby | None:
        return None if actor.__kind_info__().durable else self._running().cast.memory

    def stalls(self) -> tuple[Stall, ...]:
        """When the event loop stood still for longer than `watchdog`, and who held it: the newest 100, oldest first."""
        return () if self._watchdog is None else self._watchdog.stalls()


def _stall_s(watchdog: Duration) -> float:
    threshold_s = seconds(watchdog)
    if threshold_s < STALL_S_MIN:
        raise BadDuration(watchdog, "a watchdog takes 10 ms at least: a loop at work is often that late")
    return threshold_s


def _checked(tree: Sequence[Supervisor]) -> tuple[tuple[Supervisor, ...], list[type[Actor]]]:
    """The tree, and the classes of its children."""
    from actorflow.supervisor import actors_of, checked_tree  # noqa: PLC0415  (for those who have one)

    checked = checked_tree(tree)
    return checked, actors_of(checked)


def _registered(actors: Sequence[type[Actor]]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for cls in actors:
        if not (isinstance(cls, type) and issubclass(cls, Actor)):  # type: ignore[redundant-expr]
            raise BadDefinition(f"Runtime(actors=[...]) takes classes derived from Actor or Workflow, not {cls!r}.")
        kind = cls.__kind_info__()
        if kind.name in kinds:
            raise BadDefinition(f"two classes are called {kind.name!r}: give one of them another `kind=`.")
        kinds[kind.name] = kind
    if any(kind.handlers is not None for kind in kinds.values()):
        kinds[Topic.__kind__] = Topic.__kind_info__()
    return kinds
