"""What a client in another process is promised: the verbs of a run as if it were here, whoever holds the store, whoever dies."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import ByteStream

from actorflow import (
    AskTimeout,
    Client,
    FateUnknown,
    InvalidState,
    KeyTaken,
    Limits,
    MailboxFull,
    RunAgain,
    RunEnded,
    RunPaused,
    Runtime,
    StoreBusy,
    StoreUnavailable,
    TooLarge,
    TooManyCalls,
    UnknownKind,
    UnknownMessage,
    UnknownRun,
)
from actorflow.address import Run
from actorflow.errors import ActorPaused, OutsideTurn, Refused, Undecodable
from actorflow.operations import Operations
from actorflow.records import Address, RunQuery
from actorflow.runtime import place as places
from actorflow.runtime import socket as sockets
from actorflow.runtime.pipe import accept, connect, listen_unix
from actorflow.runtime.place import Place
from actorflow.runtime.wire import FORGET, HELLO, Act, Calls, Frame, Garbled, Inbox, Outbox, acts, decode_error
from actorflow.stores.sqlite import SqliteStore
from tests.client_shop import ACTORS, Add, Broken, Fail, Finish, Order, OutOfStock, child

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="af-") as made:
        yield Path(made)


@pytest.fixture
def url(folder: Path) -> str:
    return f"sqlite:///{folder}/shop.db"


@asynccontextmanager
async def shop(url: str, **options: Any) -> AsyncIterator[tuple[Runtime, Client]]:
    """A service and a client of it, in one process: they meet at the socket only."""
    with anyio.fail_after(30):
        async with Runtime(url, actors=ACTORS, **options) as runtime, Client(url) as client:
            yield runtime, client


async def until(true: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not true():
            await anyio.lowlevel.checkpoint()


async def until_paused(run: Run[Any]) -> RunPaused:
    with pytest.raises(RunPaused) as raised:
        await run.result()
    return raised.value


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def said_in(lock: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(lock.read_text())
    return facts


def server_of(runtime: Runtime) -> sockets.Server:
    assert runtime._server is not None
    return runtime._server


async def empty(url: str) -> None:
    """A store that was used once, and that nobody holds."""
    async with Runtime(url, actors=ACTORS):
        pass


# --- the same verbs ---------------------------------------------------------------------------------------------------------


async def every_verb(operations: Operations) -> tuple[list[str], set[str]]:
    """A script that uses every operation, the wrong way too; what came of each, in words without moments."""
    log: list[str] = []
    used: set[str] = set()

    async def call(act: Act, values: dict[str, Any]) -> Any:
        used.add(act.name)
        try:
            value = await getattr(operations, act.name)(**values)
        except Exception as error:
            log.append(f"{act.name}: {type(error).__qualname__} {error} {getattr(error, 'report', '')!r}")
            raise
        log.append(f"{act.name}: {value!r}")
        return value

    async def refused(call: Awaitable[object]) -> None:
        with pytest.raises(Exception):  # noqa: B017, PT011  (which one is in the log)
            await call

    noted = Calls.on(call)
    a, b, none = Run(Order, "a", noted), Run(Broken, "b", noted), Run(Order, "none", noted)
    for run in (a, b):
        await noted.start(run._at, input=b"{}" if run is b else b'{"total":1}', on_conflict="join", deadline_s=None, request="r1")
    await noted.start(a._at, input=b'{"total":1}', on_conflict="join", deadline_s=None, request="r2")
    await refused(noted.start(a._at, input=b'{"total":2}', on_conflict="join", deadline_s=None, request="r3"))
    await refused(noted.start(a._at, input=b'{"total":1}', on_conflict="reject", deadline_s=9.5, request="r4"))
    await refused(noted.start(Address("Nobody", "a"), input=b"{}", on_conflict="join", deadline_s=None, request=""))
    assert await a.ask(Add(3), key="ask-1") == 7
    assert await a.ask(Add(3), key="ask-1") == 7
    await refused(a.ask(Add(4), key="ask-1"))
    await refused(none.tell(Finish()))
    assert await a.query(Order.so_far) == 7
    await a.status()
    await a.why()
    await a.history(after=1, limit=3)
    await a.pause()
    await refused(a.result())
    await refused(a.ask(Add(1), key="ask-2"))
    await a.tell(Finish(), key="finish")
    await a.resume()
    assert await a.result() == 7
    await refused(a.tell(Finish(), key="late"))
    await refused(a.pause())
    assert await a.cancel() is False
    await refused(b.result())
    await b.status()
    await refused(b.decide("somewhere", RunAgain()))
    await b.retry()
    await refused(b.result())
    await b.fork("c", keep=True)
    await b.skip(12)
    assert await b.result() == 12
    await a.prune()
    await refused(a.prune())
    page = await noted.runs(RunQuery(limit=1))
    await noted.runs(RunQuery(before_id=page.next, status="completed"))
    await refused(Run(Broken, "c", noted).result())
    assert await Run(Broken, "c", noted).cancel("enough") is True
    await refused(Run(Broken, "c", noted).result())
    await noted.counts(actor=None)
    box = Address("Box", "b")
    await noted.tell(box, type="tests.client_shop:Put", body=b'{"amount":1}', key="put-1", after_s=None)
    assert await noted.ask(box, type="tests.client_shop:Put", body=b'{"amount":2}', key="put-2", within_s=9.0) == b"3"
    await refused(noted.ask(box, type="tests.client_shop:Put", body=b'{"amount":-1}', key="put-3", within_s=9.0))
    for verb in (noted.retry, noted.prune, noted.status, noted.why, noted.reset):
        with suppress(InvalidState):
            await verb(box)
    await refused(noted.reset(a._at))
    await noted.latest(box, limit=2)
    letters = await noted.dead_letters(box, after=0, limit=5)
    assert [letter.key for letter in letters.letters] == ["put-3"]
    await noted.runs(RunQuery(status="idle"))
    await noted.dead_letters(None, after=letters.letters[0].id, limit=5)
    await noted.resend(letters.letters[0].id)
    await refused(noted.resend(letters.letters[0].id + 1))
    await noted.tree()
    return [re.sub(r"\d{9,}\.\d+|\d\d:\d\d:\d\d", "<moment>", line) for line in log], used


async def test_every_operation_through_the_socket_equals_the_operation_in_process(folder: Path) -> None:
    async with shop(f"sqlite:///{folder}/here.db") as (runtime, _):
        here, _ = await every_verb(runtime.operations)

    async with shop(f"sqlite:///{folder}/there.db") as (runtime, client):
        there, used = await every_verb(client.operations)
        frames = server_of(runtime).frames

    assert there == here
    assert used == set(acts()), "the script must use every operation"
    assert FORGET not in acts()
    assert frames == len(there)


async def test_a_client_has_the_verbs_of_a_runtime(url: str) -> None:
    async with shop(url) as (_, client):
        run = await client.start(Order(total=1), key="o1", deadline="1h")
        await client.run(Order, "o1").tell(Finish(), after="1ms")

        assert await run.result() == 1
        assert [info.key for info in (await client.runs(kind="Order")).runs] == ["o1"]
        assert await client.counts() == {"completed": 1}


async def test_errors_come_through_as_what_they_are_with_what_they_carry(url: str) -> None:
    async with shop(url, limits=Limits(payload_bytes_max=1_000)) as (_, client):
        failing, broken = await client.start(Order(), key="o1"), await client.start(Broken(), key="b1")
        await failing.tell(Fail("tea"))

        with pytest.raises(OutOfStock, match="tea is out of stock") as out:
            await failing.result()
        paused = await until_paused(broken)
        with pytest.raises(KeyTaken) as taken:
            await client.start(Order(total=5), key="o1")
        with pytest.raises(UnknownRun):
            await client.run(Order, "nobody").why()
        with pytest.raises(ActorPaused, match="no such customer"):
            await broken.ask(Finish())
        with pytest.raises(TooLarge) as large:
            await failing.tell(Fail("x" * 2_000))
        with pytest.raises(TooLarge):
            await failing.tell(Fail("x" * 200_000))

    assert out.value.sku == "tea"
    assert (paused.address, paused.reason) == ("Broken/b1", "failure")
    assert (paused.report.failure, paused.report.what) == ("bug", "ValueError: no such customer")
    assert '"total":5' in taken.value.given
    assert large.value.size_max == 1_000


async def test_what_no_class_can_read_is_refused_at_the_door(url: str) -> None:
    """F12."""

    async with shop(url) as (_, client):
        await client.start(Order(), key="o1")
        operations, at = client.operations, Address("Order", "o1")

        with pytest.raises(Undecodable):
            await operations.start(
                Address("Order", "o2"), input=b'{"total":"x"}', on_conflict="join", deadline_s=None, request=""
            )
        with pytest.raises(Undecodable):
            await operations.tell(at, type="tests.client_shop:Add", body=b"[]", key=None, after_s=None)
        with pytest.raises(UnknownMessage):
            await operations.tell(at, type="no.such:Thing", body=b"{}", key=None, after_s=None)
        with pytest.raises(Refused, match="cannot be a key"):
            await operations.why(Address("Order", "a\nb"))
        with pytest.raises(UnknownKind):
            await operations.start(Address("Nobody", "x"), input=b"{}", on_conflict="join", deadline_s=None, request="")
        with pytest.raises(Refused, match="payloads are JSON"):
            await operations.start(Address("Order", "x"), input=b"\xff", on_conflict="join", deadline_s=None, request="")

        assert sum((await client.counts()).values()) == 1


async def test_many_calls_run_at_the_same_time_over_one_connection(url: str) -> None:
    async with shop(url) as (runtime, client):
        results: dict[int, int] = {}

        async def one(n: int) -> None:
            run = await client.start(Order(), key=f"o{n}")
            async with anyio.create_task_group() as group:
                group.start_soon(wait, n, run)
                await run.tell(Add(n))
                await run.tell(Finish())

        async def wait(n: int, run: Run[Order]) -> None:
            results[n] = await run.result()

        async with anyio.create_task_group() as group:
            for n in range(300):
                group.start_soon(one, n)

        assert results == {n: 2 * n for n in range(300)}
        assert server_of(runtime).connections == 1


async def test_waiting_for_a_result_sends_one_frame_and_gets_one(url: str) -> None:
    async with shop(url) as (runtime, client):
        run = await client.start(Order(), key="o1")
        server, results = server_of(runtime), list[int]()
        before = server.frames

        async def wait() -> None:
            results.append(await run.result())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await until(lambda: server.operators.host.results)
            await anyio.to_thread.run_sync(os.sync)  # Time in which a client that polls would ask again.
            await anyio.wait_all_tasks_blocked()
            during = server.frames
            await runtime.run(Order, "o1").tell(Finish())

        assert results == [0]
        assert (during - before, server.frames - before) == (1, 1)


async def test_who_stops_waiting_is_forgotten_by_the_holder(url: str) -> None:
    async with shop(url) as (runtime, client):
        run = await client.start(Order(), key="o1")
        host = server_of(runtime).operators.host

        async with anyio.create_task_group() as group:
            group.start_soon(run.result)
            await until(lambda: host.results)
            group.cancel_scope.cancel()

        await until(lambda: not host.results)
        assert await run.query(Order.so_far) == 0


async def test_a_client_that_leaves_stops_waiting_and_stops_nothing_else(url: str) -> None:
    async with shop(url) as (runtime, _):
        server = server_of(runtime)
        async with Client(url) as other, anyio.create_task_group() as group:
            run = await other.start(Order(), key="o1")
            group.start_soon(run.result)
            await until(lambda: server.operators.host.results)
            group.cancel_scope.cancel()

        await until(lambda: not server.operators.host.results and not server.connections)
        await runtime.run(Order, "o1").tell(Finish())
        assert await runtime.run(Order, "o1").result() == 0


# --- other processes --------------------------------------------------------------------------------------------------------


async def test_a_client_in_another_process_starts_a_run_tells_it_and_waits_for_its_result(url: str) -> None:
    async with shop(url) as (runtime, _):
        with child("order", url, "o1") as process:
            said, _ = await anyio.to_thread.run_sync(process.communicate)

        assert (process.returncode, said) == (0, "8\n")
        assert await runtime.run(Order, "o1").result() == 8


async def test_a_client_that_waits_for_a_result_gets_it_although_the_holder_was_killed_meanwhile(url: str) -> None:
    """C18."""

    results = list[int]()
    with anyio.fail_after(60):
        with child("serve", url) as first:
            assert await anyio.to_thread.run_sync(first.stdout.readline) == "up\n"  # type: ignore[union-attr]
            async with Client(url) as client, anyio.create_task_group() as group:
                run = await client.start(Order(), key="o1")

                async def wait() -> None:
                    results.append(await run.result())

                group.start_soon(wait)
                assert await run.ask(Add(3)) == 6
                first.kill()
                await anyio.to_thread.run_sync(first.wait)
                assert await run.query(Order.so_far) == 6
                with child("serve", url) as second:
                    assert await anyio.to_thread.run_sync(second.stdout.readline) == "up\n"  # type: ignore[union-attr]
                    await run.tell(Finish())
                    await until(lambda: results)
                    second.kill()

    assert results == [6]


async def test_a_client_waits_over_the_orderly_end_of_a_runtime_and_is_served_by_the_next(url: str) -> None:
    """C10."""

    await empty(url)
    results = list[int]()

    async def wait(run: Run[Order]) -> None:
        results.append(await run.result())

    with anyio.fail_after(30):
        async with Client(url) as client, anyio.create_task_group() as group:
            async with Runtime(url, actors=ACTORS) as runtime:
                run = await client.start(Order(), key="o1")
                group.start_soon(wait, run)
                await until(lambda: server_of(runtime).operators.host.results)
            async with Runtime(url, actors=ACTORS) as runtime:
                await runtime.run(Order, "o1").tell(Finish())
                await until(lambda: results)

    assert results == [0]


# --- nobody holds the store -------------------------------------------------------------------------------------------------


async def test_without_a_holder_a_start_is_accepted_and_the_next_runtime_runs_it(url: str) -> None:
    await empty(url)
    async with Client(url) as client:
        run = await client.start(Order(total=1), key="o1")
        assert await client.start(Order(total=1), key="o1") == run
        with pytest.raises(KeyTaken):
            await client.start(Order(total=2), key="o1")
        await run.tell(Finish())
        status = await run.status()

    async with shop(url) as (runtime, _):
        assert await runtime.run(Order, "o1").result() == 1
    assert (status.status, status.crashes) == ("waiting", 0)


async def test_without_a_holder_all_that_needs_no_running_code_is_done(url: str) -> None:
    async with shop(url) as (runtime, _):
        for key in ("cancelled", "paused", "ended", "told"):
            await runtime.start(Order(total=3), key=key)
        await runtime.run(Order, "ended").tell(Finish())
        await runtime.run(Order, "ended").result()
        await until_paused(await runtime.start(Broken(), key="b"))

    async with Client(url, actors=ACTORS) as client:
        ended, paused, told = (client.run(Order, key) for key in ("ended", "paused", "told"))
        assert await ended.result() == 3
        assert await ended.cancel() is False
        with pytest.raises(RunEnded):
            await ended.tell(Finish())
        assert await client.run(Order, "cancelled").cancel("enough") is True
        await paused.pause()
        assert (await until_paused(paused)).reason == "operator"
        await told.tell(Add(1), key="k")
        await told.tell(Add(1), key="k")
        with pytest.raises(KeyTaken):
            await told.tell(Add(2), key="k")
        assert await told.query(Order.so_far) == 3
        with pytest.raises(InvalidState):
            await told.retry()
        await client.run(Broken, "b").skip(9)
        assert "waits" in await told.why()
        assert (await told.history())[0].kind == "started"
        assert await client.counts() == {"waiting": 3, "paused": 1, "completed": 1}

    async with shop(url) as (runtime, _):
        assert await runtime.run(Broken, "b").result() == 9
        with pytest.raises(Exception, match="enough"):
            await runtime.run(Order, "cancelled").result()
        await runtime.run(Order, "paused").resume()
        for key in ("paused", "told"):
            await runtime.run(Order, key).tell(Finish())
        assert await runtime.run(Order, "paused").result() == 3
        assert await runtime.run(Order, "told").result() == 5


async def test_without_a_holder_a_mailbox_has_its_bound(url: str) -> None:
    await empty(url)
    async with Client(url, limits=Limits(mailbox_depth_max=2)) as client:
        run = await client.start(Order(), key="o1")
        await run.tell(Add(1))
        await run.tell(Add(2))

        with pytest.raises(MailboxFull):
            await run.tell(Add(3))


async def test_without_a_holder_an_ask_times_out_and_a_result_waits_for_one(url: str) -> None:
    await empty(url)
    results = list[int]()

    async def wait(run: Run[Order]) -> None:
        results.append(await run.result())

    with anyio.fail_after(30):
        async with Client(url) as client, anyio.create_task_group() as group:
            run = await client.start(Order(), key="o1")
            with pytest.raises(AskTimeout):
                await run.ask(Add(1), within="10ms")
            await run.tell(Finish())
            group.start_soon(wait, run)
            await anyio.wait_all_tasks_blocked()
            assert not results
            async with Runtime(url, actors=ACTORS):
                await until(lambda: results)

    assert results == [0]


async def test_a_client_makes_and_upgrades_no_store(url: str, folder: Path) -> None:
    (folder / "shop.db").touch()
    async with Client(url) as client:
        with pytest.raises(StoreUnavailable, match="Start the service once"):
            await client.start(Order(), key="o1")
        with pytest.raises(StoreUnavailable, match="Start the service once"):
            await client.counts()

    assert (folder / "shop.db").lstat().st_size == 0


async def test_without_a_holder_what_is_unknown_is_said_at_once(url: str) -> None:
    await empty(url)
    async with Client(url) as client:
        with pytest.raises(UnknownRun):
            await client.run(Order, "nobody").result()
        with pytest.raises(UnknownRun):
            await client.run(Order, "nobody").tell(Finish())
        with pytest.raises(UnknownKind):
            await client.operations.start(Address("Nobody", "x"), input=b"{}", on_conflict="join", deadline_s=None, request="")


async def test_many_clients_may_write_at_the_same_time_without_a_holder(url: str) -> None:
    await empty(url)
    async with Client(url) as one, Client(url) as two, anyio.create_task_group() as group:
        for n in range(4):
            group.start_soon(lambda n=n: one.start(Order(), key=f"one-{n}"))  # type: ignore[misc]
            group.start_soon(lambda n=n: two.start(Order(), key=f"two-{n}"))  # type: ignore[misc]

    async with Client(url) as client:
        assert await client.counts() == {"waiting": 8}


async def test_a_runtime_waits_for_a_client_that_holds_the_store_for_a_moment(url: str) -> None:
    await empty(url)
    store, entered = SqliteStore(url[10:]), anyio.Event()
    await store.open(now=1.0)

    async def serve() -> None:
        async with Runtime(url, actors=ACTORS):
            entered.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            await anyio.wait_all_tasks_blocked()
            assert not entered.is_set()
            await store.close()

    assert entered.is_set()


async def test_a_second_runtime_is_told_that_the_store_is_held(url: str) -> None:
    """C6."""

    async with shop(url):
        with pytest.raises(StoreBusy):
            await empty(url)


async def test_a_runtime_that_does_not_listen_can_be_looked_into_but_not_written_to(url: str) -> None:
    async with Runtime(url, actors=ACTORS, socket=False) as runtime, Client(url) as client:
        await runtime.start(Order(total=2), key="o1")

        assert (await client.run(Order, "o1").status()).key == "o1"
        assert await client.run(Order, "o1").query(Order.so_far) == 2
        with pytest.raises(StoreBusy):
            await client.run(Order, "o1").tell(Finish())
        with pytest.raises(StoreBusy):
            await client.run(Order, "o1").result()


# --- a holder that dies over a call -----------------------------------------------------------------------------------------


class Dying:
    """A holder that says hello, reads calls, and dies before it answers."""

    def __init__(self, url: str) -> None:
        self.asked: list[Frame] = []
        self.place = Place.of(url)

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        path = f"{self.place.path}.dying"
        with closing(listen_unix(path)) as listener:
            self._announce(path)
            task_status.started()
            async with await accept(listener) as stream:
                inbox, outbox = Inbox(stream, 1_000_000), Outbox(stream)
                await inbox.next()
                outbox.put(0, "hello", HELLO.encode({"version": 1, "token": "", "frame_bytes_max": 100_000}, "hello"))
                async with anyio.create_task_group() as group:
                    group.start_soon(outbox.run)
                    frame = await inbox.next()
                    assert frame is not None
                    self.asked.append(frame)
                    group.cancel_scope.cancel()

    def _announce(self, path: str) -> None:
        Path(self.place.lock_path).write_text(json.dumps({"pid": os.getpid(), "socket": path, "token": ""}))


async def test_a_message_whose_fate_is_unknown_is_told_again_under_the_same_key(url: str) -> None:
    """C18."""

    async with shop(url) as (runtime, _):
        await runtime.start(Order(), key="o1")
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            dying = Dying(url)
            await group.start(dying.serve)
            async with Client(url) as client:
                await client.run(Order, "o1").tell(Add(1))

    key = acts()["tell"].asked(dying.asked[0].body)["key"]
    async with shop(url) as (runtime, _):
        run = runtime.run(Order, "o1")
        with pytest.raises(KeyTaken):
            await run.tell(Add(2), key=key)
        await run.tell(Finish())
        assert await run.result() == 2


async def test_a_skip_whose_fate_is_unknown_is_not_repeated_but_told(url: str) -> None:
    async with shop(url) as (runtime, _):
        await until_paused(await runtime.start(Broken(), key="b"))
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            dying = Dying(url)
            await group.start(dying.serve)
            async with Client(url) as client:
                with pytest.raises(FateUnknown, match="Broken/b ended before it answered `skip`"):
                    await client.run(Broken, "b").skip(1)

                assert (await client.run(Broken, "b").status()).status == "paused"


async def test_a_start_that_must_be_new_may_be_repeated_by_who_made_it_and_by_nobody_else(url: str) -> None:
    """X7."""

    async with shop(url) as (runtime, client):
        for operations in (runtime.operations, client.operations):
            await operations.start(
                Address("Order", "o1"), input=b'{"total":0}', on_conflict="reject", deadline_s=None, request="r1"
            )

        with pytest.raises(KeyTaken):
            await client.start(Order(), key="o1", on_conflict="reject")


async def test_a_start_whose_caller_is_gone_is_run_all_the_same(url: str) -> None:
    async with shop(url) as (runtime, _):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: runtime.start(Order(), key="o1"))
            await until(lambda: server_of(runtime).operators._starting)
            group.cancel_scope.cancel()
        run = runtime.run(Order, "o1")
        await until_started(run)

        await run.tell(Finish())
        assert await run.result() == 0


async def until_started(run: Run[Order]) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                await run.status()
            except UnknownRun:
                await anyio.lowlevel.checkpoint()
            else:
                return


# --- clients that are wrong, slow or hostile --------------------------------------------------------------------------------


@asynccontextmanager
async def raw(url: str, *, hello: bool = True) -> AsyncIterator[ByteStream]:
    """A connection whose client is this test."""
    async with await connect(f"{url[10:]}.sock") as stream:
        if hello:
            await stream.send(b'0 hello {"version":1}\n')
            assert (await stream.receive()).startswith(b"0 hello ")
        yield stream


async def last_words(stream: ByteStream) -> Exception:
    inbox = Inbox(stream, 1_000_000)
    frame = await inbox.next()
    assert frame is not None
    assert frame.number == 0
    assert await inbox.next() is None
    return decode_error(frame.word, frame.body)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "this is no frame"),
        (b"\x00\xff\n", "this is no frame"),
        (b"\n", "this is no frame"),
        (b"1 status\n", "this is no frame"),
        (b"0 status {}\n", "call 0 is under way"),
        (b"9" * 30 + b" status {}\n", "this is no frame"),
        (b"1 status " + b"x" * 200_000 + b"\n", "a frame is over"),
    ],
)
async def test_garbage_ends_its_connection_and_no_other(url: str, sent: bytes, why: str) -> None:
    """S14."""

    async with shop(url, limits=Limits(payload_bytes_max=1_000)) as (_, client):
        await client.start(Order(), key="o1")
        async with raw(url) as stream:
            await stream.send(sent)

            assert why in str(await last_words(stream))
        assert (await client.run(Order, "o1").status()).key == "o1"


async def test_a_frame_that_never_ends_is_read_up_to_the_bound_only(url: str) -> None:
    """S14."""

    async with shop(url, limits=Limits(payload_bytes_max=1_000)), raw(url) as stream:
        with pytest.raises(anyio.BrokenResourceError):  # noqa: PT012  (the holder hangs up at some send)
            while True:
                await stream.send(b"x" * 65_536)


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (b'0 hello {"version":99}\n', "speaks version 99"),
        (b'0 hello {"version":"x"}\n', "version"),
        (b"1 counts {}\n", "did not say hello"),
    ],
)
async def test_who_does_not_say_hello_as_it_should_is_not_let_in(url: str, hello: bytes, why: str) -> None:
    async with shop(url), raw(url, hello=False) as stream:
        await stream.send(hello)

        assert why in str(await last_words(stream))


async def test_a_connection_that_says_nothing_is_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S14."""

    monkeypatch.setattr(sockets, "HELLO_S", 0.01)
    async with shop(url), raw(url, hello=False) as stream:
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_wrong_arguments_and_unknown_operations_are_answered_and_the_connection_goes_on(url: str) -> None:
    async with shop(url), raw(url) as stream:
        inbox = Inbox(stream, 100_000)
        answers = {}
        for number, call in enumerate(
            (b"status {}", b"drop_table {}", b"status nonsense", b"__init__ {}", b'counts {"actor":null}'), 1
        ):
            await stream.send(b"%d %b\n" % (number, call))
            frame = await inbox.next()
            assert frame is not None
            answers[frame.number] = decode_error(frame.word, frame.body) if frame.word == "failed" else frame.body

    assert isinstance(answers[1], Undecodable)
    assert "knows no operation 'drop_table'" in str(answers[2])
    assert isinstance(answers[3], Undecodable)
    assert "knows no operation '__init__'" in str(answers[4])
    assert answers[5] == b"{}"


async def test_calls_that_wait_are_bounded_and_do_not_keep_others_from_being_read(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "WAITING_MAX", 2)
    async with shop(url) as (runtime, client), anyio.create_task_group() as group:
        run = await client.start(Order(), key="o1")
        for _ in range(2):
            group.start_soon(run.result)
        await until(lambda: len(next(iter(server_of(runtime).operators.host.results.values()), [])) == 2)

        with pytest.raises(TooManyCalls):
            await run.result()
        await run.tell(Finish())


async def test_a_client_that_floods_waits_itself_and_all_its_calls_are_done(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CALLS_MAX", 3)
    async with shop(url) as (_, client), raw(url) as stream:
        inbox = Inbox(stream, 100_000)
        start = acts()["start"]
        values = {"input": b'{"total":0}', "on_conflict": "join", "deadline_s": None, "request": ""}
        frames = [b"%d start %b\n" % (n, start.ask({"to": Address("Order", f"o{n}"), **values})) for n in range(1, 201)]
        await stream.send(b"".join(frames))
        answered = set[int]()
        while len(answered) < 200:
            frame = await inbox.next()
            assert frame is not None
            assert frame.word == "ok"
            answered.add(frame.number)

        assert sum((await client.counts()).values()) == 200


async def test_a_client_that_does_not_read_its_answers_is_dropped(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "UNSENT_BYTES_MAX", 100_000)
    async with shop(url) as (runtime, client), raw(url) as stream:
        await client.counts()
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):  # noqa: PT012
            for number in range(1, 1_000_000):
                await stream.send(b"%d why {}\n" % number)

        await until(lambda: server_of(runtime).connections == 1)
        assert await client.counts() == {}


async def test_an_answer_that_is_too_large_is_refused_with_what_to_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "ANSWER_BYTES_MAX", 500)
    async with shop(url) as (_, client):
        run = await client.start(Order(), key="o1")
        await run.ask(Add(1))

        with pytest.raises(Refused, match="Ask for less at a time"):
            await run.history()
        assert len(await run.history(limit=1)) == 1


async def test_clients_beyond_the_bound_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S14, S22."""

    monkeypatch.setattr(sockets, "CONNECTIONS_MAX", 1)
    async with shop(url) as (_, client), Client(url) as second:
        await client.counts()

        with pytest.raises(TooManyCalls):
            await second.counts()


# --- the socket and the files -----------------------------------------------------------------------------------------------


async def test_the_socket_is_beside_the_database_for_its_owner_only_and_goes_with_the_runtime(url: str, folder: Path) -> None:
    """S15, S23."""

    path = folder / "shop.db.sock"
    async with shop(url):
        assert mode_of(path) == 0o600

    assert path not in files_in(folder)


async def test_a_stale_socket_is_replaced(url: str, folder: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(folder / "shop.db.sock"))

    async with shop(url) as (_, client):
        assert await client.counts() == {}


async def test_under_a_long_path_the_socket_is_in_a_directory_of_this_user_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    deep = folder / ("d" * 100)
    deep.mkdir()

    async with shop(f"sqlite:///{deep}/shop.db") as (_, client):
        assert await client.counts() == {}
        (made,) = (path for path in files_in(folder) if path != deep)
        assert mode_of(made) == 0o700
        assert [mode_of(path) for path in files_in(made)] == [0o600]
    assert files_in(made) == []


async def test_a_directory_for_sockets_that_others_may_write_to_is_not_used_and_the_store_is_given_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    deep, theirs = folder / ("d" * 100), folder / f"actorflow-{os.getuid()}"
    deep.mkdir()
    theirs.mkdir()
    theirs.chmod(0o777)

    with pytest.raises(StoreUnavailable, match="not a directory of this user alone"):
        await empty(f"sqlite:///{deep}/shop.db")

    async with Runtime(f"sqlite:///{deep}/shop.db", actors=ACTORS, socket=False) as runtime:
        assert await runtime.counts() == {}


async def test_where_there_are_no_unix_sockets_a_token_from_the_lock_file_lets_a_client_in(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "LOOPBACK", True)
    async with shop(url) as (_, client):
        assert await client.counts() == {}
        said = said_in(Path(f"{url[10:]}.lock"))
        assert said["socket"].startswith("127.0.0.1:")

        async with await connect(("127.0.0.1", int(said["socket"].rpartition(":")[2]))) as stream:
            await stream.send(b'0 hello {"version":1,"token":"guessed"}\n')
            assert "does not know the token" in str(await last_words(stream))


async def test_a_socket_that_may_not_be_reached_is_said_to_be_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    async with shop(url) as (_, client):
        monkeypatch.setattr(places, "connect", forbidden)

        with pytest.raises(StoreUnavailable, match=r"may not connect to .*shop\.db\.sock"):
            await client.counts()


async def test_a_missing_database_is_named(folder: Path, url: str) -> None:
    with pytest.raises(StoreUnavailable, match=rf"there is no database {folder}/shop\.db"):
        async with Client(url):
            pass

    assert files_in(folder) == []


async def test_a_database_that_goes_missing_is_not_made_anew(folder: Path, url: str) -> None:
    await empty(url)
    async with Client(url) as client:
        (folder / "shop.db").unlink()

        with pytest.raises(StoreUnavailable, match="there is no database"):
            await client.start(Order(), key="o1")


@pytest.mark.parametrize("url", ["memory://", "postgres://x", "sqlite:///"])
def test_a_store_that_two_processes_cannot_share_has_no_clients(url: str) -> None:
    with pytest.raises(ValueError, match="names no file that two processes could share"):
        Client(url)


async def test_a_client_is_used_inside_its_block(url: str) -> None:
    await empty(url)
    client = Client(url)

    with pytest.raises(OutsideTurn):
        await client.counts()
    async with client:
        assert await client.counts() == {}


async def test_an_error_in_the_block_of_a_client_passes_as_it_is(url: str) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with shop(url) as (_, client):
            await client.counts()
            raise ZeroDivisionError


async def test_a_runtime_in_memory_has_no_socket() -> None:
    async with Runtime(actors=ACTORS) as runtime:
        assert runtime._server is None


# --- frames -----------------------------------------------------------------------------------------------------------------


async def test_payloads_travel_as_text_that_a_person_can_read() -> None:
    act = acts()["tell"]
    values = {"to": Address("Order", "ö 1"), "type": "add", "body": b'{"amount":"\\n"}', "key": None, "after_s": None}

    body = act.ask(values)

    assert body.decode() == (
        r'{"to":{"kind":"Order","key":"ö 1"},"type":"add","body":"{\"amount\":\"\\n\"}","key":null,"after_s":null}'
    )
    assert act.asked(body) == values


async def test_frames_are_cut_right_wherever_the_stream_was_cut(anyio_backend: str) -> None:
    class Bytewise:
        def __init__(self, data: bytes) -> None:
            self.data = list(data)

        async def receive(self, max_bytes: int = 1) -> bytes:
            if not self.data:
                raise anyio.EndOfStream
            return bytes([self.data.pop(0)])

    inbox = Inbox(Bytewise(b"1 ok null\n22 failed {}\n3 o"), 100)  # type: ignore[arg-type]

    assert await inbox.next() == Frame(1, "ok", b"null")
    assert await inbox.next() == Frame(22, "failed", b"{}")
    assert await inbox.next() is None


async def test_a_frame_over_the_bound_is_garbled_even_if_its_end_has_come() -> None:
    class Once:
        async def receive(self, max_bytes: int = 1) -> bytes:
            return b"1 ok " + b"x" * 100 + b"\n"

    with pytest.raises(Garbled):
        await Inbox(Once(), 50).next()  # type: ignore[arg-type]
