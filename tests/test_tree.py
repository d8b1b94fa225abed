"""The live tree: actors that are always there. On both loops, in virtual time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import anyio
import pytest
from attrs import field

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    Child,
    HandlerFailed,
    Limits,
    MailboxFull,
    Message,
    Runtime,
    Supervisor,
    Terminated,
    Workflow,
    handler,
    step,
)
from actorflow.errors import InvalidState, StoreError
from actorflow.operations import TreeNode
from actorflow.policies.restarts import Backoff
from actorflow.records import Address, SetRound
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from actorflow.testing.faults import Fault, FaultStore, PowerCut
from tests import harness
from tests.harness import both, virtual

seen: list[Any] = []
world: dict[Any, Any] = {}

SOON = Backoff("1s", "1s", jitter=0.0)
"""A restart takes a second: long enough to be looked at."""


@pytest.fixture(autouse=True)
def _anew() -> None:
    seen.clear()
    world.clear()


class Bug(Exception):
    pass


class Outage(ConnectionError):
    pass


class Add(Message[int]):
    amount: int


class Total(Message[int]): ...


class Break(Message[None]):
    """Fails as often as *times* says, by key of who handles it."""


class Go(Message[None]):
    """Ends normally."""


class Slow(Message[None]): ...


@step
async def comes_up(key: str) -> int:
    lives = world[key, "lives"] = world.get((key, "lives"), 0) + 1
    seen.append(f"+{key}")
    await anyio.sleep(world.get((key, "takes"), 0.0))
    return cast("int", lives)


@step
async def work(key: str) -> None:
    seen.append(f"{key} works")
    try:
        await anyio.sleep(world.get((key, "slow"), 0.0))
    except BaseException:
        seen.append(f"{key} is cut")
        raise


class Member(Actor):
    total: int = 0

    async def on_start(self) -> None:
        lives = await comes_up(self.me.key)
        for error in world.get((self.me.key, "start"), {}).get(lives, ()):
            raise error
        seen.append(f"{self.me.key} up")

    async def on_stop(self) -> None:
        seen.append(f"-{self.me.key}")

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.amount
        return self.total

    @handler
    async def fail(self, m: Break) -> None:
        self.total += 1_000
        raise world.get((self.me.key, "error"), Bug("broken"))

    @handler
    async def go(self, m: Go) -> None:
        self.leave()

    @handler(timeout="1d")
    async def slow(self, m: Slow) -> None:
        await work(self.me.key)

    @handler(Total, readonly=True)
    async def read(self, m: Total) -> int:
        return self.total


class Other(Actor):
    """A dynamic one, and what else there is."""

    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.amount
        return self.total

    @handler
    async def fail(self, m: Break) -> None:
        seen.append(f"{self.me.key} fails")
        raise Bug("broken")


class Nap(Workflow[int]):
    async def run(self) -> int:
        await self.sleep("1000s")
        return 7


def one(key: str, **options: Any) -> Child[Member]:
    return Child(Member, key, **options)


def shop(*children: Any, **rules: Any) -> Supervisor:
    options: dict[str, Any] = {"backoff": SOON, **rules}
    return Supervisor(options.pop("name", "shop"), children=children, **options)


def runtime(*tree: Supervisor, store: Any = None, **options: Any) -> AbstractAsyncContextManager[Runtime]:
    return harness.runtime(Member, Other, Nap, store=store, tree=tree, **options)


def host_of(opened: Runtime) -> Any:
    return opened._host  # pyright: ignore[reportPrivateUsage]


def at(opened: Runtime, name: str) -> TreeNode:
    """What the tree says of that one."""
    todo = [opened.tree()]
    while todo:
        node = todo.pop()
        if node.name == name:
            return node
        todo.extend(node.children)
    raise LookupError(name)


def states(opened: Runtime, *keys: str) -> list[str]:
    return [at(opened, f"Member/{key}").state for key in keys]


async def until(claim: Callable[[], bool]) -> None:
    """Wait for a state."""
    with anyio.fail_after(1_000):
        while not claim():  # noqa: ASYNC110  (virtual time: a look at a state costs none)
            await anyio.sleep(0.01)


async def breaks(opened: Runtime, key: str) -> None:
    """Let it fail until that costs a restart."""
    with pytest.raises(HandlerFailed):
        await opened.at(Member, key).ask(Break(), within="30s")


# --- boot and shutdown -------------------------------------------------------------------------------------------------


@both
def test_children_start_in_order_each_when_the_one_before_is_up_and_stop_in_reverse(backend: Backend) -> None:
    async def scenario() -> None:
        world["a", "takes"] = 5.0
        async with runtime(shop(one("a"), shop(one("b"), name="inner"), one("c")), shop(one("d"), name="second")) as opened:
            assert anyio.current_time() >= 5.0
            assert seen == ["+a", "a up", "+b", "b up", "+c", "c up", "+d", "d up"]
            assert states(opened, "a", "b", "c", "d") == ["running"] * 4
            seen.clear()
        assert seen == ["-d", "-c", "-b", "-a"]

    virtual(backend, scenario)


@both
def test_a_boot_that_fails_stops_what_is_up_raises_the_childs_error_and_gives_the_store_back(backend: Backend) -> None:
    """O5."""

    store = MemoryStore()

    async def scenario() -> None:
        world["c", "start"] = {1: [Bug("no feed")]}
        with pytest.raises(Bug, match="no feed"):
            async with runtime(shop(one("a")), shop(one("b"), shop(one("c"), name="inner"), name="second"), store=store):
                seen.append("never")
        assert seen == ["+a", "a up", "+b", "b up", "+c", "-b", "-a"]
        seen.clear()
        async with runtime(shop(one("a")), shop(one("b"), shop(one("c"), name="inner"), name="second"), store=store) as opened:
            assert states(opened, "a", "b", "c") == ["running"] * 3

    virtual(backend, scenario)


@both
def test_a_boot_that_hangs_can_be_cancelled(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        world["b", "takes"] = 10_000.0
        with anyio.move_on_after(10) as scope:
            async with runtime(shop(one("a"), one("b")), store=store, limits=Limits(cancel_grace_s=1.0)):
                seen.append("never")
        assert scope.cancelled_caught
        assert anyio.current_time() <= 20
        assert seen == ["+a", "a up", "+b", "-a"]
        world["b", "takes"] = 0.0
        async with runtime(shop(one("a"), one("b")), store=store) as opened:
            assert states(opened, "a", "b") == ["running"] * 2

    virtual(backend, scenario)


@both
def test_a_turn_that_hangs_is_cut_when_the_childs_time_is_over_and_goes_on_in_the_next_life(backend: Backend) -> None:
    """O6, O10."""

    store = MemoryStore()

    async def scenario() -> None:
        tree = shop(one("a"), one("b", shutdown="3s"), one("c", shutdown="2s"))
        world["b", "slow"] = world["c", "slow"] = 10_000.0
        async with runtime(tree, store=store) as opened:
            for key in ("b", "c"):
                await opened.at(Member, key).tell(Slow())
            await anyio.sleep(1)
            seen.clear()
            began = anyio.current_time()
        assert 4.9 < anyio.current_time() - began < 6.0  # Each its own time, one after the other.
        assert seen == ["c is cut", "b is cut", "-a"]
        after = MemoryStore(share=store)
        await after.open(now=0.0)  # That counts a crash of who was at work.
        found = await after.find(Address("Member", "c"))
        assert found is not None
        assert (found.status, found.crashes) == ("waiting", 0)
        await after.close()
        world["b", "slow"] = world["c", "slow"] = 0.0
        seen.clear()
        async with runtime(tree, store=store) as opened:
            assert states(opened, "a", "b", "c") == ["running"] * 3
        assert seen[:7] == ["+a", "a up", "b works", "+b", "b up", "c works", "+c"]  # What was begun is finished first.

    virtual(backend, scenario)


@both
def test_a_step_that_does_not_even_end_when_it_is_cut_is_left_behind(backend: Backend) -> None:
    """O6, E11."""

    @step
    async def deaf() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100.0)

    class Deaf(Actor):
        @handler(timeout="1d")
        async def slow(self, m: Slow) -> None:
            await deaf()

    async def scenario() -> None:
        tree = shop(Child(Deaf, "d", shutdown="3s"), one("a"))
        async with runtime(tree, limits=Limits(cancel_grace_s=1.0)) as opened:
            await opened.at(Deaf, "d").tell(Slow())
            await anyio.sleep(1)
            began = anyio.current_time()
            opened.stop_child("Deaf/d")
            await until(lambda: at(opened, "Deaf/d").state == "down")
            assert 3.9 < anyio.current_time() - began < 4.1
            assert at(opened, "Deaf/d").last_failure == "killed"

    virtual(backend, scenario)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_native_cancels_of_the_service_do_not_hang_a_tree_that_stops(times: int) -> None:
    """O11."""

    import asyncio

    store = MemoryStore()

    async def scenario() -> None:
        world["a", "slow"] = 10_000.0

        async def service() -> None:
            async with runtime(shop(one("a", shutdown="10s"), one("b")), store=store) as opened:
                await opened.at(Member, "a").tell(Slow())
                await anyio.sleep_forever()

        task = asyncio.ensure_future(service())
        await anyio.sleep(1)
        for _ in range(times):
            task.cancel()
            await anyio.sleep(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert anyio.current_time() < 60
        world["a", "slow"] = 0.0
        async with runtime(shop(one("a"), one("b")), store=store) as opened:
            assert states(opened, "a", "b") == ["running"] * 2

    virtual("asyncio", scenario)


# --- restarts ----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("strategy", "again"),
    [("one_for_one", ["+b"]), ("rest_for_one", ["-c", "+b", "+c"]), ("one_for_all", ["-c", "-a", "+a", "+b", "+c"])],
)
def test_who_fails_is_restarted_with_its_group_from_its_last_durable_state(
    backend: Backend, strategy: Any, again: list[str]
) -> None:
    """O4."""

    async def scenario() -> None:
        async with runtime(shop(one("a"), one("b"), one("c"), strategy=strategy)) as opened:
            for key in "abc":
                assert await opened.at(Member, key).ask(Add(5)) == 5
            seen.clear()
            await breaks(opened, "b")
            await until(lambda: at(opened, "Member/b").state == "restarting")
            await until(lambda: states(opened, "a", "b", "c") == ["running"] * 3)
            assert [line for line in seen if not line.endswith("up")] == again
            for key in "abc":
                assert await opened.at(Member, key).ask(Add(1)) == 6
            shown = at(opened, "Member/b")
            assert (shown.restarts, shown.last_failure) == (1, "Bug: broken")
            assert at(opened, "shop").restarts_left == 2
            assert at(opened, "Member/a").restarts == (1 if strategy == "one_for_all" else 0)

    virtual(backend, scenario)


@both
def test_what_waits_for_a_child_that_is_down_is_handled_when_it_is_up_and_does_not_wake_it(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a")), limits=Limits(mailbox_depth_max=5)) as opened:
            a = opened.at(Member, "a")
            await a.ask(Add(1))
            opened.stop_child("Member/a")
            await until(lambda: states(opened, "a") == ["down"])
            for _ in range(4):
                await a.tell(Add(10))
            assert await a.ask(Total()) == 1
            await a.tell(Add(10))
            with pytest.raises(MailboxFull):
                await a.tell(Add(10))
            await anyio.sleep(100)
            assert states(opened, "a") == ["down"]
            assert Address("Member", "a") not in host_of(opened).by_address
            opened.start_child("Member/a")
            await until(lambda: states(opened, "a") == ["running"])
            assert await a.ask(Add(1)) == 52

    virtual(backend, scenario)


@both
def test_a_message_sent_while_it_restarts_waits_for_it(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"))) as opened:
            await breaks(opened, "a")
            assert await opened.at(Member, "a").ask(Add(3), within="10s") == 3

    virtual(backend, scenario)


@both
@pytest.mark.parametrize(
    ("restart", "after_leave", "after_failure"),
    [("permanent", "running", "running"), ("transient", "down", "running"), ("temporary", None, None)],
)
def test_who_comes_back_after_which_end(
    backend: Backend, restart: Any, after_leave: str | None, after_failure: str | None
) -> None:
    """O3."""

    def state(opened: Runtime, key: str) -> str | None:
        try:
            return at(opened, f"Member/{key}").state
        except LookupError:
            return None

    async def scenario() -> None:
        async with runtime(shop(one("a", restart=restart), one("b", restart=restart))) as opened:
            await opened.at(Member, "a").tell(Go())
            await breaks(opened, "b")
            await anyio.sleep(10)
            assert (state(opened, "a"), state(opened, "b")) == (after_leave, after_failure)
            if after_leave == "down":
                opened.start_child("Member/a")
                await until(lambda: states(opened, "a") == ["running"])
            elif after_leave is None:
                with pytest.raises(InvalidState, match="temporary, and has ended"):
                    opened.start_child("Member/a")

    virtual(backend, scenario)


@both
def test_a_failed_start_after_a_restart_is_tried_again_with_fresh_steps(backend: Backend) -> None:
    """G1."""

    async def scenario() -> None:
        async with runtime(shop(one("a"))) as opened:
            world["a", "start"] = {2: [Bug("once")], 3: [Bug("twice")]}
            await opened.at(Member, "a").ask(Add(1))
            await breaks(opened, "a")
            await until(lambda: at(opened, "Member/a").restarts == 3 and states(opened, "a") == ["running"])
            assert seen.count("+a") == 4
            assert at(opened, "shop").restarts_left == 0
            assert await opened.at(Member, "a").ask(Add(1)) == 2

    virtual(backend, scenario)


@both
def test_restarts_wait_longer_each_time_and_a_stop_during_the_wait_counts(backend: Backend) -> None:
    async def scenario() -> None:
        backoff = Backoff("10s", "60s", jitter=0.0)
        async with runtime(shop(one("a"), one("b"), backoff=backoff)) as opened:
            for waits in (10, 20):
                await breaks(opened, "a")
                began = anyio.current_time()
                await until(lambda: states(opened, "a") == ["running"])
                assert waits - 0.1 < anyio.current_time() - began < waits + 0.1
            await breaks(opened, "a")
            assert states(opened, "a") == ["restarting"]
            opened.stop_child("Member/a")
            await anyio.sleep(100)
            assert states(opened, "a", "b") == ["down", "running"]
            opened.start_child("Member/a")
            await anyio.sleep(1)
            await breaks(opened, "b")  # The runtime closes while this one waits.
            seen.clear()
            began = anyio.current_time()
        assert anyio.current_time() - began < 1
        assert seen == ["-a"]

    virtual(backend, scenario)


# --- too many restarts -------------------------------------------------------------------------------------------------


@both
def test_one_restart_too_many_ends_the_supervisor_and_nothing_else(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"), one("b"), restarts=1), shop(one("c"), name="second")) as opened:
            run = await opened.start(Nap(), key="n")
            await opened.at(Other, "x").ask(Add(1))
            for _ in range(2):
                await breaks(opened, "a")
                await anyio.sleep(5)
            shown = at(opened, "shop")
            assert (shown.state, shown.restarts_left) == ("ended", 0)
            assert shown.last_failure == "Member/a: too many restarts (Bug: broken)"
            assert states(opened, "a", "b", "c") == ["down", "down", "running"]
            assert [record.levelname for record in caplog.records if "shop has ended" in record.message] == ["CRITICAL"]
            # P9: everything else goes on.
            assert await opened.at(Member, "c").ask(Add(1)) == 1
            assert await opened.at(Other, "x").ask(Add(1)) == 2
            assert await opened.at(Other, "new").ask(Add(1)) == 1
            assert await run.result() == 7
            # Its mail waits, until an operator starts it again, with a new budget.
            await opened.at(Member, "b").tell(Add(7))
            with pytest.raises(InvalidState, match=r"below supervisor shop, which is down. Start shop first"):
                opened.start_child("Member/b")
            opened.stop_child("Member/b")  # It is down.
            opened.start_child("shop")
            await until(lambda: at(opened, "shop").state == "running")
            assert at(opened, "shop").restarts_left == 1
            assert await opened.at(Member, "b").ask(Add(1)) == 8

    with caplog.at_level(logging.INFO):
        virtual(backend, scenario)


@both
def test_a_supervisor_started_by_an_operator_that_fails_to_boot_stays_down(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"), one("b"))) as opened:
            opened.stop_child("shop")
            await until(lambda: at(opened, "shop").state == "ended")
            assert at(opened, "shop").last_failure is None
            world["b", "start"] = {2: [Bug("not now")]}
            opened.start_child("shop")
            await until(lambda: at(opened, "shop").last_failure == "Bug: not now")
            assert states(opened, "a", "b") == ["down", "down"]
            opened.start_child("shop")
            await until(lambda: at(opened, "shop").state == "running")

    virtual(backend, scenario)


@both
def test_restarts_long_ago_do_not_count(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"), restarts=1, within="30s")) as opened:
            for _ in range(4):
                await breaks(opened, "a")
                await anyio.sleep(31)
                assert at(opened, "shop").restarts_left == 1
            assert at(opened, "Member/a").restarts == 4

    virtual(backend, scenario)


@both
def test_depth_multiplies_restarts_and_the_top_ends_at_last(backend: Backend) -> None:
    """O2."""

    async def scenario() -> None:
        tree = shop(one("b"), shop(one("a"), name="inner", restarts=1, within="1000s"), name="top", restarts=1, within="1000s")
        async with runtime(tree) as opened:
            failures = 0
            while at(opened, "top").state == "running":
                await breaks(opened, "a")
                failures += 1
                await anyio.sleep(10)
            assert failures == 4
            assert states(opened, "a", "b") == ["down", "down"]

    virtual(backend, scenario)


@both
@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_a_nested_supervisor_that_gave_up_ended_normally(backend: Backend, restart: Any) -> None:
    """O2."""

    async def scenario() -> None:
        tree = shop(one("b"), shop(one("a"), name="inner", restarts=0, restart=restart), name="top")
        async with runtime(tree) as opened:
            await breaks(opened, "a")
            await anyio.sleep(10)
            assert at(opened, "inner").state == ("running" if restart == "permanent" else "down")
            assert states(opened, "b") == ["running"]

    virtual(backend, scenario)


@both
@pytest.mark.parametrize(("auto", "left"), [("any_significant", 1), ("all_significant", 2)])
def test_significant_children_end_their_supervisor(backend: Backend, auto: Any, left: int) -> None:
    """O7."""

    async def scenario() -> None:
        significant = [one(key, restart="transient", significant=True) for key in "ab"]
        async with runtime(shop(*significant, one("c"), auto_shutdown=auto)) as opened:
            for key in "ab"[:left]:
                assert at(opened, "shop").state == "running"
                await opened.at(Member, key).tell(Go())
                await anyio.sleep(1)
            assert (at(opened, "shop").state, at(opened, "shop").last_failure) == ("ended", None)
            assert states(opened, "a", "b", "c") == ["down"] * 3

    virtual(backend, scenario)


@both
@pytest.mark.parametrize("decision", ["restart", "keep", "stop", "escalate"])
def test_the_class_of_the_exception_decides(backend: Backend, decision: Any) -> None:
    async def scenario() -> None:
        tree = shop(shop(one("a"), one("b"), name="inner", on={Bug: decision, Exception: "stop"}), one("c"), name="top")
        async with runtime(tree) as opened:
            await opened.at(Member, "a").ask(Add(1))
            await breaks(opened, "a")
            await anyio.sleep(10)
            inner = at(opened, "inner")
            match decision:
                case "restart":
                    assert (inner.restarts, inner.restarts_left, states(opened, "a")) == (0, 2, ["running"])
                case "keep":
                    assert (inner.restarts_left, at(opened, "Member/a").restarts) == (3, 0)
                    assert await opened.at(Member, "a").ask(Add(1)) == 2
                case "stop":
                    assert (inner.restarts_left, states(opened, "a", "b")) == (3, ["down", "running"])
                case _:
                    assert (inner.restarts, at(opened, "top").restarts_left) == (1, 2)
                    assert inner.last_failure == "Bug: broken"
                    assert states(opened, "a", "b", "c") == ["running"] * 3

    virtual(backend, scenario)


# --- static children ---------------------------------------------------------------------------------------------------


class PriceFeed(Actor):
    currency: str
    prices: list[int] = field(factory=list[int])

    @handler
    async def add(self, m: Add) -> int:
        self.prices.append(m.amount)
        seen.append(self.currency)
        return len(self.prices)


class Early(Actor):
    async def on_start(self) -> None:
        await PriceFeed.at("main").tell(Add(1))


@both
def test_a_child_starts_with_its_fields_the_first_time_and_then_with_what_is_durable(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        # Who writes to it before it was ever started makes it as its supervisor would.
        async with runtime(shop(Child(Early, "e"), Child(PriceFeed("eur"), "main")), store=store) as opened:
            assert await opened.at(PriceFeed, "main").ask(Add(2)) == 2
            assert seen == ["eur", "eur"]
        async with runtime(shop(Child(PriceFeed("usd"), "main")), store=store) as opened:
            assert await opened.at(PriceFeed, "main").ask(Add(2)) == 3
            assert seen[2:] == ["eur"]

    virtual(backend, scenario)


@both
def test_a_static_child_stays_in_memory(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a")), limits=Limits(passivate_after_s=1.0, resident_max=1)) as opened:
            for n in range(3):
                await opened.at(Other, str(n)).ask(Add(1))
            await anyio.sleep(1_000)
            assert [str(address) for address in opened._host.by_address] == ["Member/a"]  # type: ignore[union-attr]

    virtual(backend, scenario)


@both
def test_a_static_child_is_not_paused_but_stopped(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"))) as opened:
            with pytest.raises(InvalidState, match=r"it is a static child.*runtime.stop_child\('Member/a'\)"):
                await opened.at(Member, "a").pause()
            opened.stop_child("Member/a")
            await until(lambda: states(opened, "a") == ["down"])
            with pytest.raises(InvalidState):
                await opened.at(Member, "a").pause()
            for verb in (opened.stop_child, opened.start_child):
                with pytest.raises(LookupError, match="no child 'Member/z'"):
                    verb("Member/z")

    virtual(backend, scenario)


@both
def test_a_row_that_today_s_class_cannot_read_keeps_the_tree_from_booting_and_says_why(backend: Backend) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(shop(one("a")), store=store):
            pass
        await _spoil(store)
        for _ in range(2):
            with pytest.raises(ActorPaused, match="undecodable"):
                async with runtime(shop(one("b"), one("a")), store=store):
                    seen.append("never")
        await _spoil(store, b'{"total":3}')
        async with runtime(shop(one("b"), one("a")), store=store) as opened:  # It was mended: nobody has to resume it.
            assert await opened.at(Member, "a").ask(Add(1)) == 4
        assert "never" not in seen

    virtual(backend, scenario)


async def _spoil(store: MemoryStore, fields: bytes = b'{"total":"many"}') -> None:
    from actorflow.records import Commit

    other = MemoryStore(share=store)
    lease = await other.open(now=0.0)
    found = await other.find(Address("Member", "a"))
    assert found is not None
    assert await other.commit([Commit((SetRound(found.id, found.round, fields),))], fence=lease.fence) == [None]
    await other.close()


@both
@pytest.mark.parametrize("keep", [False, True])
def test_a_child_that_cannot_be_read_while_all_runs_costs_restarts_and_then_its_supervisor(backend: Backend, keep: bool) -> None:
    store = MemoryStore()

    async def scenario() -> None:
        rules: Any = {"on": {Exception: "keep"}} if keep else {}
        async with runtime(shop(one("a", restart="transient"), one("b"), **rules), store=store) as opened:
            opened.stop_child("Member/a")
            await until(lambda: states(opened, "a") == ["down"])
            host = host_of(opened)
            run = await host.find(Address("Member", "a"))
            assert run is not None
            from actorflow.records import Commit

            host.committer.submit(Commit((SetRound(run.id, run.round, b'{"total":"many"}'),)), lambda _: None)
            opened.start_child("Member/a")
            await anyio.sleep(100)
            assert states(opened, "a", "b") == ["down", "running"]  # An operator's start is not tried again.
            assert "undecodable" in (at(opened, "Member/a").last_failure or "")

    virtual(backend, scenario)


@both
def test_what_the_tree_shows(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"), shop(one("b"), name="inner")), shop(name="empty")) as opened:
            world["a", "slow"] = 50.0
            a = opened.at(Member, "a")
            await a.ask(Add(5))
            await a.tell(Slow())
            await anyio.sleep(1)
            await a.tell(Add(1))
            await anyio.sleep(10)
            tree = opened.tree()
            assert [(node.name, node.what, node.state) for node in tree.children] == [
                ("shop", "supervisor", "running"),
                ("empty", "supervisor", "running"),
            ]
            shown = at(opened, "Member/a")
            assert (shown.what, shown.state, shown.restarts, shown.last_failure) == ("actor", "running", 0, None)
            assert (shown.mailbox, round(shown.oldest_s or 0.0)) == (2, 11)
            assert shown.waits_for == (":work#0",)
            assert shown.snapshot_bytes == len(b'{"total":5}')
            assert at(opened, "inner").restarts_left == 3
            assert [node.name for node in at(opened, "inner").children] == ["Member/b"]

    virtual(backend, scenario)


@both
def test_a_stop_while_a_child_is_still_being_loaded_does_not_wait_for_that(backend: Backend) -> None:
    class Waits(FaultStore):
        async def load(self, run: int) -> Any:
            if "slow" in world:
                await anyio.sleep(50.0)
            return await self.store.load(run)

    async def scenario() -> None:
        async with runtime(shop(one("a")), store=Waits(MemoryStore())) as opened:
            opened.stop_child("Member/a")
            await until(lambda: states(opened, "a") == ["down"])
            world["slow"] = True
            opened.start_child("Member/a")
            await anyio.sleep(1)
            assert states(opened, "a") == ["starting"]
            opened.stop_child("Member/a")
            opened.start_child("Member/a")  # The later wish counts.
            await until(lambda: states(opened, "a") == ["running"])
            opened.stop_child("Member/a")
            await until(lambda: states(opened, "a") == ["down"])
            began = anyio.current_time()
            opened.start_child("Member/a")
            await anyio.sleep(1)
        assert anyio.current_time() - began < 2
        assert seen.count("-a") == 2

    virtual(backend, scenario)


@both
def test_an_escalation_at_the_top_ends_the_supervisor_and_nothing_else(backend: Backend) -> None:
    """G3."""

    async def scenario() -> None:
        async with runtime(shop(one("a"), one("b"), on={Bug: "escalate"}), shop(one("c"), name="second")) as opened:
            await breaks(opened, "a")
            await until(lambda: at(opened, "shop").state == "ended")
            assert at(opened, "shop").last_failure == "Bug: broken"
            assert await opened.at(Member, "c").ask(Add(1)) == 1
            assert await opened.at(Other, "x").ask(Add(1)) == 1
            assert await (await opened.start(Nap(), key="n")).result() == 7

    virtual(backend, scenario)


class Watching(Actor):
    told: list[str] = field(factory=list[str])

    @handler
    async def watch_it(self, m: Go) -> None:
        self.watch(Member.at("a"))

    @handler
    async def ended(self, m: Terminated) -> None:
        seen.append(f"{m.who} {m.status}")


@both
def test_who_watches_a_static_child_is_told_when_it_is_gone_for_good(backend: Backend) -> None:
    async def scenario() -> None:
        tree = shop(one("a", restart="transient"), one("b"), strategy="one_for_all")
        async with runtime(tree, shop(Child(Watching, "w"), name="second")) as opened:
            await opened.at(Watching, "w").tell(Go())
            await anyio.sleep(1)
            for key in "ab":
                await breaks(opened, key)  # It comes back: that is no end.
                await until(lambda: states(opened, "a", "b") == ["running"] * 2)
            assert "Member/a stopped" not in seen
            await opened.at(Member, "a").tell(Go())
            await anyio.sleep(1)
            assert seen.count("Member/a stopped") == 1

    virtual(backend, scenario)


@both
def test_a_child_that_ended_its_process_again_and_again_stays_down_and_the_rest_boots(backend: Backend) -> None:
    memory = MemoryStore()

    async def scenario() -> None:
        tree = shop(one("a"), one("b"), one("c"), strategy="rest_for_one")

        async def life() -> None:
            async with anyio.create_task_group() as group:

                async def power() -> None:
                    await anyio.sleep(1)
                    store.dead = True

                store = FaultStore(MemoryStore(share=memory))
                group.start_soon(power)
                async with runtime(tree, store=store) as opened:  # From the second life on the turn goes on before that.
                    await opened.at(Member, "b").tell(Slow())
                    await anyio.sleep(10)

        world["b", "slow"] = 5.0
        for _ in range(3):
            with pytest.raises((PowerCut, BaseExceptionGroup)):
                await life()
        world["b", "slow"] = 0.0
        for _ in range(2):
            async with runtime(tree, store=MemoryStore(share=memory)) as opened:
                assert states(opened, "a", "c") == ["running", "running"]
                await until(lambda: states(opened, "b") == ["down"])
                assert "interrupted" in (at(opened, "Member/b").last_failure or "")
                await opened.at(Member, "b").tell(Add(1))
                assert await opened.at(Member, "c").ask(Add(1)) > 0
                await anyio.sleep(100)
                assert states(opened, "b") == ["down"]
        async with runtime(tree, store=MemoryStore(share=memory)) as opened:
            await until(lambda: states(opened, "b") == ["down"])
            await opened.at(Member, "b").resume()
            assert await opened.at(Member, "b").ask(Add(1)) == 3
            assert states(opened, "b") == ["running"]

    virtual(backend, scenario)


# --- crashes -----------------------------------------------------------------------------------------------------------


@both
def test_the_power_may_go_at_any_commit_of_boot_work_and_restart(backend: Backend) -> None:
    tree = shop(one("a"), Child(PriceFeed("eur"), "main"), one("b"), strategy="one_for_all")

    async def life(store: Any) -> None:
        async with runtime(tree, store=store) as opened:
            for key in "ab":
                await opened.at(Member, key).ask(Add(5), key="five", within="100s")
            await opened.at(PriceFeed, "main").ask(Add(1), key="one", within="100s")
            with pytest.raises(HandlerFailed):
                await opened.at(Member, "a").ask(Break(), key="break", within="100s")
            for key in "ab":
                assert await opened.at(Member, key).ask(Add(0), within="100s") == 5
            assert states(opened, "a", "b") == ["running"] * 2

    async def crashed(at_commit: int, mode: Any) -> bool:
        memory = MemoryStore()
        store = FaultStore(MemoryStore(share=memory), [Fault(at_commit, mode)])
        try:
            await life(store)
        except (PowerCut, Exception, BaseExceptionGroup):
            if not store.dead:
                raise
        await life(MemoryStore(share=memory))
        return store.dead

    async def scenario() -> None:
        for mode in ("before", "after"):
            n = 1
            while await crashed(n, mode):
                n += 1
            assert n > 15

    virtual(backend, scenario)


@both
def test_another_holder_takes_the_store_and_the_tree_ends_quietly(backend: Backend) -> None:
    async def scenario() -> None:
        store = FaultStore(MemoryStore(), [Fault(12, "zombie")])

        async def life() -> None:
            async with runtime(shop(one("a"), one("b")), store=store) as opened:
                for _ in range(20):
                    await opened.at(Member, "a").ask(Add(1))

        with pytest.raises(StoreError):
            await life()
        assert anyio.current_time() < 100

    virtual(backend, scenario)


# --- dynamic ones ------------------------------------------------------------------------------------------------------


@both
def test_each_dynamic_actor_has_a_budget_of_its_own_and_none_slows_another(backend: Backend) -> None:
    """O9."""

    async def scenario() -> None:
        async with runtime(shop(one("a"))) as opened:
            bad, good = opened.at(Other, "bad"), opened.at(Other, "good")
            for n in range(4):
                with pytest.raises(HandlerFailed):
                    await bad.ask(Break(), key=str(n), within="60s")
                began = anyio.current_time()
                assert await good.ask(Add(1)) == n + 1
                assert await opened.at(Member, "a").ask(Add(1)) == n + 1
                assert anyio.current_time() == began
            with pytest.raises(HandlerFailed):
                await good.ask(Break(), within="60s")  # The first failure of this one.
            await anyio.sleep(1)
            with pytest.raises(ActorPaused, match=r"failed 4 times within 60 s.*Bug: broken") as caught:
                await bad.ask(Add(1))
            assert caught.value.report is not None
            assert caught.value.report.remedy
            assert await good.ask(Add(1)) == 5
            await bad.resume()
            for n in range(3):  # A new budget.
                with pytest.raises(HandlerFailed):
                    await bad.ask(Break(), key=f"again {n}", within="60s")
            assert await bad.ask(Add(1), within="60s") == 1

    virtual(backend, scenario)


@both
def test_a_business_failure_costs_nothing(backend: Backend) -> None:
    async def scenario() -> None:
        async with runtime(shop(one("a"), restarts=0)) as opened:
            world["a", "error"] = Abort("no")
            for _ in range(5):
                with pytest.raises(Abort):
                    await opened.at(Member, "a").ask(Break())
            world["a", "error"] = Outage("gone")  # What passes by itself is no fault of the actor.
            await breaks(opened, "a")
            assert states(opened, "a") == ["running"]
            assert at(opened, "shop").restarts_left == 0

    virtual(backend, scenario)
