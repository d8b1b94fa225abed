"""Readonly handlers that do what they may not, and last words that do not go well: nothing of either stays."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import Abort, Actor, Message, Workflow, handler, step
from actorflow.errors import BadDefinition, HandlerFailed
from actorflow.testing.clock import Backend
from tests.harness import Log, Note, Read, both, runtime, virtual


class Work(Message[int]): ...


class Peek(Message[int]):
    how: str


@step
async def slow() -> int:
    await anyio.sleep(20.0)
    return 1


class Open(Actor):
    n: int = 7

    @handler
    async def work(self, m: Work) -> int:
        self.n += await slow()
        return self.n

    @handler(readonly=True)
    async def peek(self, m: Peek) -> int:
        match m.how:
            case "refuse":
                raise Abort("private")
            case "break":
                raise LookupError("no such thing")
            case "write":
                self.n = 0
            case "tell":
                await Log.at("log").tell(Note(1))
            case "step":
                await slow()
        return self.n


@both
@pytest.mark.parametrize(
    ("how", "why"),
    [("refuse", Abort), ("break", LookupError), ("write", BadDefinition), ("tell", BadDefinition), ("step", BadDefinition)],
)
def test_a_readonly_handler_beside_an_open_turn_is_answered_with_what_is_wrong_with_it(
    backend: Backend, how: str, why: type[Exception]
) -> None:
    async def main() -> tuple[int, int, list[int]]:
        async with runtime(Open, Log) as opened:
            at = opened.at(Open, "o")
            async with anyio.create_task_group() as group:
                results: list[int] = []

                async def work() -> None:
                    results.append(await at.ask(Work(), within="5m"))

                group.start_soon(work)
                await anyio.sleep(10.0)
                with pytest.raises((why, HandlerFailed)) as caught:
                    await at.ask(Peek(how))
                assert why.__name__ in f"{type(caught.value).__name__}: {caught.value}"
                seen = await at.ask(Peek("look"))
            return seen, results[0], await opened.at(Log, "log").ask(Read())

    assert virtual(backend, main) == (7, 8, [])


class Asker(Workflow[str]):
    how: str

    async def run(self) -> str:
        try:
            return str(await Open.at("o").ask(Peek(self.how)))
        except Exception as error:
            return f"{type(error).__name__}: {error}"


@both
@pytest.mark.parametrize(
    ("how", "why"), [("look", "7"), ("refuse", "Abort: private"), ("break", "LookupError"), ("step", "BadDefinition")]
)
def test_and_so_is_one_that_a_run_asks(backend: Backend, how: str, why: str) -> None:
    async def main() -> str:
        async with runtime(Open, Asker) as opened:
            await opened.at(Open, "o").tell(Work())
            await anyio.sleep(5.0)
            began = anyio.current_time()
            said = await (await opened.start(Asker(how), key="a")).result()
            assert anyio.current_time() - began < 1.0  # It did not wait for the turn.
            return said

    assert why in virtual(backend, main)


said: list[Any] = []


class Parting(Actor, passivate_after="1s"):
    how: str = ""

    @handler
    async def begin(self, m: Peek) -> int:
        self.how = m.how
        return 1

    async def on_stop(self) -> None:
        said.append(self.how)
        match self.how:
            case "tell":
                await Log.at("log").tell(Note(5))
            case "break":
                self.how = "changed"
                raise LookupError("no such thing")
            case "wait":
                await slow()
            case _:
                self.how = "stopped"


@both
@pytest.mark.parametrize(
    ("how", "left", "warned"),
    [("well", "stopped", ""), ("tell", "tell", ""), ("break", "break", "LookupError"), ("wait", "wait", "waits")],
)
def test_what_on_stop_changed_is_kept_if_it_ended_and_it_is_left_if_it_did_not(
    backend: Backend, how: str, left: str, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> tuple[str, list[int]]:
        async with runtime(Parting, Log) as opened:
            await opened.at(Log, "log").ask(Read())
            await opened.at(Parting, "p").ask(Peek(how))
            await anyio.sleep(30.0)
            host = opened._running()
            run = await host.store.find(opened.at(Parting, "p").address)
            assert run is not None
            assert run.id not in host.resident
            return (run.view or run.fields or run.input).decode(), await opened.at(Log, "log").ask(Read())

    said.clear()

    state, noted = virtual(backend, main)

    assert said == [how]
    assert f'"how":"{left}"' in state
    assert noted == ([5] if how == "tell" else [])
    assert [record for record in caplog.records if warned in record.getMessage()] if warned else True
