"""Code that fails in unusual ways: what is raised, swallowed, left hanging, gone or unreadable harms its own run, and says so."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from actorflow import (
    Abort,
    Actor,
    ActorPaused,
    HandlerFailed,
    Message,
    Retry,
    RunCancelled,
    RunPaused,
    Runtime,
    UnknownKind,
    Workflow,
    gather,
    handler,
    step,
)
from actorflow.errors import Undecodable
from actorflow.stores.memory import MemoryStore
from actorflow.testing.clock import Backend
from tests.harness import Log, Note, Read, because, both, did, runtime, virtual, world


@step
async def note(word: str) -> str:
    did.append(word)
    await anyio.sleep(world.get("nap_s", 1.0))
    return word


class Go(Message[None]): ...


class Other(Workflow[str]):
    async def run(self) -> str:
        await self.receive(Go)
        return await note("other")


# --- what cannot be told ---------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")

    __repr__ = __str__


class Holding(Exception):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__(threading.Lock())


class Picky(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__("picky")

    def __reduce__(self) -> Any:
        raise TypeError("not to be copied")


def local() -> Exception:
    class Local(Exception):
        """Nobody finds it again."""

    return Local("local")


def circular() -> Exception:
    error = ValueError("round")
    error.__cause__ = KeyError("and round")
    error.__cause__.__cause__ = error
    error.args = ("round", error)
    return error


ODD: dict[str, Any] = {
    "mute": Mute,
    "holding": Holding,
    "picky": lambda: Picky(1, two=2),
    "local": local,
    "circular": circular,
    "huge": lambda: ValueError("x" * 3_000_000),
}


def make(which: str) -> Exception:
    made: Exception = ODD[which]()
    return made


@step
async def raises(which: str) -> None:
    did.append("step")
    raise make(which)


class Odd(Workflow[None]):
    which: str
    in_step: bool

    async def run(self) -> None:
        await note("before")
        if self.in_step:
            await raises(self.which)
        did.append("run")
        raise make(self.which)


@both
@pytest.mark.parametrize("in_step", [True, False])
@pytest.mark.parametrize("which", ODD)
def test_an_exception_that_cannot_be_stored_or_printed_pauses_its_run_once(backend: Backend, which: str, in_step: bool) -> None:
    """X9: no restart tries it again."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Odd, Other, store=store) as opened:
            other = await opened.start(Other(), key="o")
            with pytest.raises(RunPaused) as caught:
                await (await opened.start(Odd(which, in_step), key="k")).result()
            because(caught.value, "failure" if in_step else "bug")
        for _ in range(3):
            async with runtime(Odd, Other, store=store) as opened:
                await anyio.sleep(100)
                with pytest.raises(RunPaused):
                    await opened.run(Odd, "k").result()
        async with runtime(Odd, Other, store=store) as opened:
            other = opened.run(Other, "o")
            await other.tell(Go())
            assert await other.result() == "other"
            info = await opened.run(Odd, "k").status()
            assert info.report is not None
            assert 0 < len(info.report.what) < 10_000

    virtual(backend, scenario)

    assert Counter(did) == {"before": 1, "other": 1, **({"step": 1} if in_step else {"run": 2})}


async def numbers() -> AsyncIterator[int]:
    yield 1
    raise make("mute")


async def bad_item(_: int) -> None:
    raise make("mute")


async def good_item(_: int) -> None: ...


def bad_key(_: Any) -> bool:
    raise make("mute")


@step
async def cannot_undo(word: str) -> None:
    raise make("mute")


@step(undo=cannot_undo)
async def undoable(word: str) -> str:
    return word


class Places(Workflow[str]):
    """Raises what cannot be printed, in places where its text is wanted."""

    where: str

    async def run(self) -> str:
        match self.where:
            case "source":
                await self.each(numbers, good_item, key=str)
            case "item":
                await self.each([1], bad_item, key=str)
            case "key":
                await self.each([1], good_item, key=bad_key)
            case "undo":
                await undoable("a")
                raise Abort("undo it")
            case _:
                await self.receive(Go, where=bad_key)
        return "not reached"


@both
@pytest.mark.parametrize("where", ["source", "item", "key", "undo", "predicate"])
def test_what_cannot_be_printed_pauses_its_run_wherever_it_is_raised(backend: Backend, where: str) -> None:
    """X9."""

    async def scenario() -> None:
        async with runtime(Places, Other) as opened:
            run = await opened.start(Places(where), key="k")
            if where == "predicate":
                await run.tell(Go())
            with anyio.fail_after(1_000), pytest.raises(RunPaused, match="no text"):
                await run.result()
            other = await opened.start(Other(), key="o")
            await other.tell(Go())
            assert await other.result() == "other"

    virtual(backend, scenario)


class Raising(Actor):
    @handler
    async def note(self, m: Note) -> None:
        raise make("mute")

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [1]


class RaisingInMemory(Actor, durable=False):
    @handler
    async def note(self, m: Note) -> None:
        raise make("mute")

    @handler(Read, readonly=True)
    async def read(self, m: Read) -> list[int]:
        return [1]


class NotStarting(Actor):
    async def on_start(self) -> None:
        raise make("mute")

    @handler
    async def note(self, m: Note) -> None: ...


@both
@pytest.mark.parametrize("of", [Raising, RaisingInMemory, NotStarting])
def test_what_cannot_be_printed_is_the_failure_of_its_message_and_of_nobody_else(backend: Backend, of: type[Actor]) -> None:
    """X9."""

    async def scenario() -> None:
        async with runtime(of, Log) as opened:
            if of is NotStarting:
                await opened.at(of, "r").tell(Note(1))  # It waits for a fix.
                await anyio.sleep(60)
            with pytest.raises((HandlerFailed, ActorPaused), match="Mute"):
                await opened.at(of, "r").ask(Note(1), within="1h")
            await opened.at(Log, "l").tell(Note(1))
            await anyio.sleep(1)
            assert await opened.at(Log, "l").ask(Read()) == [1]
            if of is not NotStarting:
                assert await opened.at(of, "r").ask(Read()) == [1]

    virtual(backend, scenario)


class Chained(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        self.code, self.hint = code, hint
        super().__init__(f"{code}: {hint}")


@step
async def groups() -> None:
    did.append("groups")
    error = Chained(7, hint="look")
    error.__cause__ = OSError("disk")
    error.__cause__.__cause__ = error
    raise ExceptionGroup("several", [error, ExceptionGroup("nested", [ValueError("deep"), KeyError("k")])])


class Grouped(Workflow[list[str]]):
    async def run(self) -> list[str]:
        seen = []
        try:
            await groups()
        except Exception as error:
            seen = [type(error).__name__, *(word for word in ("several", "look", "deep") if word in repr(error))]
        await self.receive(Go)
        return seen


@both
def test_a_group_of_exceptions_is_stored_as_data_and_raised_the_same_on_replay(backend: Backend) -> None:
    """E7: with a cause that leads back to itself, and an `__init__` of its own."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Grouped, store=store) as opened:
            run = await opened.start(Grouped(), key="k")
            await anyio.sleep(1)
            [failed] = [entry.outcome for entry in await run.history() if entry.kind == "step"]
            assert all(word in failed for word in ("several", "7: look", "deep"))
        async with runtime(Grouped, store=store) as opened:
            run = opened.run(Grouped, "k")
            await run.tell(Go())
            assert await run.result() == ["StepFailed", "several", "look", "deep"]
        assert did == ["groups"]

    virtual(backend, scenario)


# --- what swallows -----------------------------------------------------------------------------------------------------------


class Swallows(Workflow[str]):
    how: str

    async def run(self) -> str:
        while True:
            try:
                match self.how:
                    case "sleep":
                        await self.sleep("1h")
                    case "receive":
                        await self.receive(Go)
                    case "step":
                        await note("slept")
                        await self.sleep("1h")
                    case "gather":
                        await gather(self.sleep("1h"), self.receive(Go))
                    case "ask":
                        await Log.at("nobody").ask(Read(), within="1h")
                        await self.sleep("1h")
                    case _:
                        await (await self.start(Other(), key="child")).result()
            except Exception as error:
                did.append(error)


@both
@pytest.mark.parametrize("how", ["sleep", "receive", "step", "gather", "ask", "child"])
def test_an_except_around_everything_swallows_no_wait_and_no_cancel(backend: Backend, how: str) -> None:
    """R9: nor that it left memory, a restart, a pause."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Swallows, Other, Log, store=store) as opened:
            await opened.start(Swallows(how), key="k")
            await anyio.sleep(600)
        async with runtime(Swallows, Other, Log, store=store) as opened:
            run = opened.run(Swallows, "k")
            await anyio.sleep(600)
            await run.pause()
            await run.resume()
            await anyio.sleep(1)
            assert (await run.status()).status == "waiting"
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()

    virtual(backend, scenario)

    assert [error for error in did if isinstance(error, BaseException)] == []


# --- what never ends ---------------------------------------------------------------------------------------------------------


@step(timeout="5s", retry=Retry(attempts=2, first="1s", jitter=0.0))
async def hangs() -> str:
    did.append("hangs")
    attempt = len(did)
    if attempt == 1:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1_000)
    did.append(f"ends {attempt}")
    return f"attempt {attempt}"


class Hanging(Workflow[str]):
    async def run(self) -> str:
        got = await hangs()
        await self.sleep("2000s")
        return got


@both
def test_a_step_that_never_returns_is_tried_again_and_its_first_attempt_records_nothing(backend: Backend) -> None:
    """E16: it returns at last, long after it was given up."""

    async def scenario() -> None:
        async with runtime(Hanging) as opened:
            run = await opened.start(Hanging(), key="k")
            assert await run.result() == "attempt 2"
            steps = [(entry.status, entry.outcome) for entry in await run.history() if entry.kind == "step"]
            assert steps == [("ok", '"attempt 2"')]

    virtual(backend, scenario)

    assert did == ["hangs", "hangs", "ends 2", "ends 1"]


class Myself(Workflow[str]):
    async def run(self) -> str:
        await note("once")
        again = await self.start(Myself(), key="k")
        more = await self.start(Myself(), key="k")
        return f"{again} {more}"


@both
def test_a_run_that_starts_itself_joins_itself(backend: Backend) -> None:
    """E21: there is one, and it ends."""

    async def scenario() -> None:
        async with runtime(Myself) as opened:
            assert await (await opened.start(Myself(), key="k")).result() == "Myself/k Myself/k"
            assert len((await opened.runs()).runs) == 1

    virtual(backend, scenario)

    assert did == ["once"]


@step(retry=Retry(attempts=1))
async def breaks(name: str) -> None:
    did.append(name)
    await anyio.sleep(1.0)
    raise ValueError(name)


class Together(Workflow[list[str]]):
    settle: bool

    async def run(self) -> list[str]:
        branches = [breaks("a"), breaks("b"), breaks("c"), note("d")]
        if self.settle:
            return [str(end) for end in await gather(branches, settle=True)]
        first = ""
        try:
            await gather([*branches, self.sleep("1h")])
        except ValueError as error:
            first = str(error)
        await self.receive(Go)
        return [first]


@both
def test_branches_that_fail_together_are_each_recorded_once_and_the_first_is_raised(backend: Backend) -> None:
    """G8: what still runs is cancelled once; who settles gets them all."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Together, store=store) as opened:
            assert await (await opened.start(Together(settle=True), key="all")).result() == ["a", "b", "c", "d"]
            did.clear()
            run = await opened.start(Together(settle=False), key="first")
            await anyio.sleep(10)
            history = await run.history()
            closing = next(n for n, entry in enumerate(history) if entry.kind == "gather")
            calls = [entry for entry in history[:closing] if entry.kind in ("step", "sleep")]
            assert len({entry.call for entry in calls}) == len(calls)
            assert [entry for entry in history[closing + 1 :] if entry.kind == "step"] == []
            first = next(entry for entry in calls if entry.status == "failed")
            assert {entry.status for entry in calls if entry is not first} <= {"failed", "cancelled", "ok"}
        async with runtime(Together, store=store) as opened:
            run = opened.run(Together, "first")
            await run.tell(Go())
            [raised] = await run.result()
            assert f'"{raised}"' in first.input
        assert sorted(did) == ["a", "b", "c", "d"]

    virtual(backend, scenario)


# --- what is gone, and what cannot be read -------------------------------------------------------------------------------------


class Before(Workflow[str], kind="Shop"):
    async def run(self) -> str:
        first = await note("first")
        await self.receive(Go)
        return first


class Renamed(Workflow[str], kind="Shop"):
    async def run(self) -> str:
        first = await note("first")
        await self.receive(Go)
        return f"renamed: {first}"


@both
def test_a_run_whose_class_is_gone_is_set_aside_and_resumed_when_it_is_back(backend: Backend) -> None:
    """E3: under its old name, whatever it is called in the code."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Before, Other, store=store) as opened:
            await opened.start(Before(), key="k")
            await opened.start(Other(), key="o")
            await anyio.sleep(10)
        async with runtime(Other, store=store) as opened:
            other = opened.run(Other, "o")
            await other.tell(Go())
            assert await other.result() == "other"
            await opened.run(Before, "k").tell(Go())  # It wakes the run, and is kept for it.
            await anyio.sleep(10)
            info = await opened.run(Before, "k").status()
            assert (info.status, info.reason) == ("paused", "unregistered")
            assert info.report is not None
            assert "'Shop'" in info.report.what
            with pytest.raises(UnknownKind, match="Shop"):
                await opened.start(Before(), key="new")
        async with runtime(Renamed, Other, store=store) as opened:
            run = opened.run(Renamed, "k")
            await run.resume()
            assert await run.result() == "renamed: first"
        assert Counter(did) == {"first": 1, "other": 1}

    virtual(backend, scenario)


class Numbered(Workflow[str], kind="Typed"):
    number: int = 1

    async def run(self) -> str:
        first = await note("first")
        await self.receive(Go)
        return f"{first} {self.number}"


class Named(Workflow[str], kind="Typed"):
    number: list[str]

    async def run(self) -> str:
        first = await note(f"first of {self.number}")
        await self.receive(Go)
        return first


@both
def test_fields_that_do_not_fit_todays_class_set_their_run_aside_unread(backend: Backend) -> None:
    """E4, G5: the others go on, and the old class goes on with it."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(Numbered, Other, store=store) as opened:
            await opened.start(Numbered(5), key="k")
            await opened.start(Other(), key="o")
            await anyio.sleep(10)
        async with runtime(Named, Other, store=store) as opened:
            await opened.run(Named, "k").tell(Go())
            await opened.run(Other, "o").tell(Go())
            assert await opened.run(Other, "o").result() == "other"
            with pytest.raises(RunPaused, match="number") as caught:
                await opened.run(Named, "k").result()
            because(caught.value, "undecodable")
        async with runtime(Numbered, Other, store=store) as opened:
            run = opened.run(Numbered, "k")
            await run.resume()
            assert await run.result() == "first 5"
        assert Counter(did) == {"first": 1, "other": 1}

    virtual(backend, scenario)


@step
async def wrapped(word: str) -> str:
    return f"<{word}>"


class Kept(Workflow[str]):
    word: str

    async def run(self) -> str:
        await wrapped(self.word)
        await self.receive(Go)
        return self.word


@both
@pytest.mark.parametrize(("good", "bad"), [(b"<needle>", b"<needlf>"), (b"needle", b"needlf")], ids=["an entry", "all its rows"])
def test_a_row_that_cannot_be_read_is_listed_and_does_not_spoil_its_page(
    backend: Backend, tmp_path: Path, good: bytes, bad: bytes
) -> None:
    """E5: lists and histories are shown, and the others go on."""
    path, words = tmp_path / "store.db", ("first", "needle", "last")

    async def scenario() -> None:
        async with Runtime(f"sqlite:///{path}", actors=[Kept], watchdog=None) as opened:
            for word in words:
                run = await opened.start(Kept(word), key=word[:1])
                while (await run.status()).status != "waiting":
                    await anyio.lowlevel.checkpoint()
        content = path.read_bytes()
        assert good in content
        path.write_bytes(content.replace(good, bad))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("update run set wake_at = 0 where key = 'n'")  # It is due, so it is loaded though nobody asks for it.
        db.close()
        async with Runtime(f"sqlite:///{path}", actors=[Kept], watchdog=None) as opened:
            for word in words:
                with suppress(Undecodable):
                    await opened.run(Kept, word[:1]).tell(Go())
            assert [await opened.run(Kept, word[:1]).result() for word in ("first", "last")] == ["first", "last"]
            with pytest.raises((RunPaused, Undecodable), match="checksum"):
                await opened.run(Kept, "n").result()
            while not (await opened.runs(status="paused")).runs:
                await anyio.lowlevel.checkpoint()
            listed = {info.key: info.status for info in (await opened.runs()).runs}
            assert listed == {"f": "completed", "l": "completed", "n": "paused"}
            if good == b"<needle>":
                run = opened.run(Kept, "n")
                assert [entry.kind for entry in await run.history()][:2] == ["started", "step"]
                assert "checksum" in str((await run.status()).report)
                assert await run.cancel("not to be mended")
                with pytest.raises(RunCancelled, match="not to be mended"):
                    await run.result()

    async def bounded() -> None:
        with anyio.fail_after(30):
            await scenario()

    anyio.run(bounded, backend=backend)
