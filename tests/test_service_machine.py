"""A Hypothesis state machine over a whole service: clients act, time passes, processes die between any two rules.

What the rules did is told to a model in plain Python; in the end, with all faults over, everything must be as it says.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorflow.testing.clock import Ticks, VirtualLoop
from actorflow.testing.drawing import random_program
from actorflow.testing.faults import Fault, Mode
from actorflow.testing.invariants import replays, violations
from actorflow.testing.network import Network
from actorflow.testing.plans import Plan
from actorflow.testing.players import Account, Play
from actorflow.testing.programs import ACCOUNTS, Act, Client, Deposit, Expected, Explode, Launch
from actorflow.testing.simulation import left_over
from actorflow.testing.world import Disk, Node, SqliteDisk, World

T = TypeVar("T")

accounts = st.sampled_from(ACCOUNTS)
disk_modes: st.SearchStrategy[Mode] = st.sampled_from(["before", "after", "torn", "unavailable", "busy", "lost_ack", "delay"])


class Service(RuleBasedStateMachine):
    """Over a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = Ticks()
        self.loop = VirtualLoop(seed=1, ticks=self.ticks)
        self.acts: list[Act] = []
        self.answers: dict[str, str] = {}
        self.failed: list[BaseException] = []
        self.run(self.begin())

    def disk(self) -> Disk:
        return Disk()

    def run(self, coroutine: Awaitable[T]) -> T:
        async def whole() -> T:
            return await coroutine

        return self.loop.run_until_complete(whole())

    async def begin(self) -> None:
        self.world = World(Plan(0, ()), self.ticks, self.disk())
        self.network = Network(self.world)
        self.over = asyncio.Event()
        begun = asyncio.Event()

        async def hold() -> None:
            async with anyio.create_task_group() as self.world.group:
                self.world.group.start_soon(self.world.live)
                begun.set()
                await self.over.wait()
                self.world.group.cancel_scope.cancel()

        self.held = asyncio.ensure_future(hold())
        await begun.wait()
        await self.pass_time(0.0)

    async def pass_time(self, s: float) -> None:
        """Unless something went wrong meanwhile: then at once."""
        await asyncio.wait([self.held], timeout=s)
        if self.held.done():
            self.held.result()
            raise AssertionError("the service has ended")

    @property
    def node(self) -> Node:
        return self.world.nodes[-1]

    # --- rules ----------------------------------------------------------------------------------------------------------

    def begin_act(self, make: Callable[[str], Act]) -> None:
        act = make(f"a{len(self.acts)}")
        self.acts.append(act)

        async def perform() -> None:
            self.answers[act.key] = await self.network.act(act.key, 1, act)

        async def started() -> None:
            self.world.group.start_soon(perform)
            await self.pass_time(0.0)

        self.run(started())

    @rule(dice=st.randoms(use_true_random=False), asks=st.booleans())
    def launch(self, dice: Random, asks: bool) -> None:
        self.begin_act(lambda key: Launch(key, random_program(dice), asks))

    @rule(account=accounts, n=st.integers(1, 9), ask=st.booleans(), keyed=st.booleans())
    def deposit(self, account: str, n: int, ask: bool, keyed: bool) -> None:
        self.begin_act(lambda key: Deposit(key, account, n, ask, keyed or not ask))

    @rule(account=accounts)
    def explode(self, account: str) -> None:
        self.begin_act(lambda key: Explode(key, account))

    @rule(s=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 30.0, 4_000.0]))
    def time_passes(self, s: float) -> None:
        self.run(self.pass_time(s))

    @rule(s=st.sampled_from([-3_600.0, -0.2, 0.2, 3_600.0]))
    def somebody_sets_the_clock(self, s: float) -> None:
        self.world.clock.offset_s += s

    @rule(after=st.integers(0, 60))
    def the_process_dies(self, after: int) -> None:
        node = self.node

        def die() -> None:
            node.here.store.cut()
            node.life.cancel()

        async def dies() -> None:
            if after:
                self.ticks.arm(after, die)
            else:
                die()
            await self.pass_time(0.0)

        self.run(dies())

    @rule()
    def the_process_is_told_to_end(self) -> None:
        async def ends() -> None:
            self.node.life.cancel()
            await self.pass_time(0.0)

        self.run(ends())

    @precondition(lambda self: not self.node.here.store.dead)
    @rule(mode=disk_modes, after=st.integers(1, 5))
    def a_commit_will_go_wrong(self, mode: Mode, after: int) -> None:
        store = self.node.here.store
        store.faults = [*store.faults, Fault(store.commits + after, mode)]

    # --- what must hold -------------------------------------------------------------------------------------------------

    @invariant()
    def the_rows_are_in_order(self) -> None:
        async def look() -> list[str]:
            readable = self.world.disk.readable  # A file is not, while a process takes it.
            return violations(await self.world.disk.rows(), [Account, Play]) if readable else []

        assert self.run(look()) == []
        assert self.world.ledger.wrong == []

    def teardown(self) -> None:
        try:
            self.run(self.finish())
        finally:
            self.loop.close()

    async def finish(self) -> None:
        expected = Expected.of([Client(tuple(self.acts))])
        for _ in range(400):
            if len(self.answers) == len(self.acts):
                break
            await self.pass_time(1_000.0)
        assert {act.key: self.answers.get(act.key) for act in self.acts} == {act.key: expected.answer(act) for act in self.acts}
        await self.network.settled(expected, [])
        self.world.over = True
        self.node.life.cancel()
        await self.node.gone.wait()
        self.over.set()
        await self.held
        rows = await self.world.disk.rows()
        assert [*violations(rows, [Account, Play]), *replays(rows, [Account, Play]), *left_over(self.world, expected)] == []


class ServiceOnSqlite(Service):
    """Over a file."""

    def __init__(self) -> None:
        self.folder: Any = tempfile.TemporaryDirectory()
        super().__init__()

    def disk(self) -> Disk:
        return SqliteDisk(str(Path(self.folder.name) / "service.db"))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.folder.cleanup()


QUICK = settings(
    max_examples=int(os.environ.get("ACTORFLOW_HISTORIES", "0")) // 10 or 8,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

TestService = Service.TestCase
TestService.settings = QUICK
TestServiceOnSqlite = ServiceOnSqlite.TestCase
TestServiceOnSqlite.settings = QUICK
