"""What is promised of resources: found by class when the runtime is made, there where code runs, stored nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, runtime_checkable

import anyio.to_thread
import pytest
from attrs import field, frozen

from actorflow import Abort, NoResource, RunPaused, Runtime, Workflow, gather, plain, query, resource, resource_of, step
from actorflow.errors import BadDefinition
from actorflow.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Http:
    """A client of something; notes what it was asked."""

    def __init__(self, name: str = "http") -> None:
        self.name = name
        self.asked: list[str] = []

    def get(self, what: str) -> str:
        self.asked.append(what)
        return f"{self.name}:{what}"


class Cache(Http):
    pass


@runtime_checkable
class Gets(Protocol):
    def get(self, what: str) -> str: ...


@frozen
class Item:
    name: str
    sizes: tuple[int, ...] = field(default=())


@step
async def fetch(what: str, *, http: Http = resource()) -> str:
    return http.get(what)


@step
def fetch_in_thread(what: str, http: Http = resource()) -> str:
    return http.get(what)


@step
async def look(what: str) -> str:
    return resource_of(Http).get(what) + await anyio.to_thread.run_sync(resource_of(Gets).get, "!")  # type: ignore[type-abstract]


@step(run_in="process")
def far(what: str) -> str:
    return resource_of(Http).get(what)


def forget(what: str, *, outcome: str | None, http: Http = resource()) -> None:
    http.get(f"forget {what} ({outcome})")


@step(undo=forget)
async def remember(what: str) -> str:
    return what.upper()


def load(item: Item, http: Http = resource()) -> None:
    http.get(item.name)


class Shop(Workflow[list[str]]):
    what: str
    http: Http = resource()
    seen: int = 0

    async def run(self) -> list[str]:
        self.seen += 1
        said = [self.http.name, await fetch(self.what), await fetch_in_thread(self.what), await look(self.what)]
        both: tuple[str, str] = await gather(fetch("a"), fetch_in_thread("b"))
        await self.each([Item("i"), Item("j")], load, key=lambda item: item.name)
        return [*said, *both]

    @query
    def name(self) -> str:
        return self.http.name


class Undone(Workflow[None]):
    async def run(self) -> None:
        await remember("x")
        raise Abort("no")


class Far(Workflow[str]):
    async def run(self) -> str:
        return await far("x")


class Alone(Workflow[str]):
    async def run(self) -> str:
        return await look("x")


@asynccontextmanager
async def shop(*actors: type[Workflow[Any]], **options: Any) -> AsyncIterator[Runtime]:
    with anyio.fail_after(60):
        async with Runtime(actors=actors, **options) as runtime:
            yield runtime


async def test_fields_and_parameters_hold_the_resource_of_their_class() -> None:
    http = Http()

    async with shop(Shop, resources=[http, 7]) as runtime:
        result = await (await runtime.start(Shop("w"), key="1")).result()

    assert result == ["http", "http:w", "http:w", "http:whttp:!", "http:a", "http:b"]
    assert sorted(http.asked) == ["!", "a", "b", "i", "j", "w", "w", "w"]


async def test_an_undo_has_resources_too() -> None:
    http = Http()

    async with shop(Undone, resources=[http]) as runtime:
        with pytest.raises(Abort):
            await (await runtime.start(Undone(), key="1")).result()

    assert http.asked == ["forget x (X)"]


async def test_a_resource_is_stored_nowhere_and_each_life_has_its_own() -> None:
    memory = MemoryStore()

    class Waits(Workflow[str]):
        http: Http = resource()

        async def run(self) -> str:
            first = await fetch("first")
            await self.sleep("1h")
            return first

    async with shop(Waits, store=memory, resources=[Http("one")]) as runtime:
        run = await runtime.start(Waits(), key="1")
        while (await run.status()).status != "waiting":
            await anyio.lowlevel.checkpoint()
        stored = b"".join(str(entry).encode() for entry in await run.history())
    kind = Waits.__kind_info__()

    assert kind.fields == ()
    assert b"Http" not in stored
    assert "http" not in kind.coder.decode(kind.encode(Waits()), "fields")


async def test_ten_runtimes_at_once_have_each_their_own() -> None:
    async with shop(Alone, resources=[Http("one")]) as one, shop(Alone, resources=[Http("two")]) as two:
        runs = [await runtime.start(Alone(), key="1") for runtime in (one, two)]

        assert [await run.result() for run in runs] == ["one:xone:!", "two:xtwo:!"]


async def test_outside_of_a_runtime_a_step_takes_it_as_an_argument() -> None:
    assert await fetch("x", http=Http("fake")) == "fake:x"
    assert await fetch_in_thread("x", Http("fake")) == "fake:x"
    assert await plain(fetch)("x", http=Http("fake")) == "fake:x"
    with pytest.raises(NoResource, match=r"resource_of\(Http\) was called where no runtime performs a step"):
        await fetch("x")


async def test_a_query_and_a_template_have_none_and_say_so() -> None:
    template = Shop("w")
    async with shop(Shop, resources=[Http()]) as runtime:
        run = await runtime.start(template, key="1")
        await run.result()
        with pytest.raises(NoResource, match=r"Shop\.http is a resource, and this instance has none"):
            await run.query(Shop.name)

    with pytest.raises(AttributeError, match="a runtime sets it on the instance that it runs"):
        print(template.http)
    assert not hasattr(template, "http")
    assert repr(template).endswith("Shop(what='w', seen=0)")
    with pytest.raises(TypeError):
        Shop("w", http=Http())  # type: ignore[call-arg]


async def test_a_template_may_carry_one_for_its_own_tests() -> None:
    template = Shop("w")
    template.http = Http("fake")

    async with shop(Shop, resources=[Http()]) as runtime:
        assert (await (await runtime.start(template, key="1")).result())[0] == "http"


async def test_a_step_in_a_process_has_none_and_the_run_pauses_with_the_remedy() -> None:
    async with shop(Far, resources=[Http()]) as runtime:
        with pytest.raises(RunPaused, match=r'in a step with `run_in="process"`\. Pass the object as an argument there'):
            await (await runtime.start(Far(), key="1")).result()


async def test_a_step_whose_resource_is_missing_pauses_its_run_and_can_be_retried() -> None:
    memory = MemoryStore()

    async with shop(Alone, store=memory) as runtime:
        with pytest.raises(RunPaused, match=r"no resource is a Http \(given: none\). Pass one"):
            await (await runtime.start(Alone(), key="1")).result()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], r"Shop\.http: no resource is a Http \(given: none\)\. Pass one: `Runtime\(resources=\[Http\(\.\.\.\)\]\)`"),
        ([7], r"no resource is a Http \(given: int\)"),
        ([Http], r"the class Http itself was given, not an instance"),
        ([Http(), Cache()], r"2 resources are a Http \(Http, Cache\), and it cannot be known which is meant\. Annotate a class"),
        ("http", r"takes a list of objects, not 'http'"),
    ],
)
def test_a_missing_or_ambiguous_resource_is_refused_when_the_runtime_is_made(given: Any, why: str) -> None:
    with pytest.raises(BadDefinition, match=why):
        Runtime(actors=[Shop], resources=given)


class Blind(Protocol):
    x: int


@pytest.mark.parametrize("of", [Any, Blind, Http | None, "nothing"])
def test_a_resource_is_annotated_with_a_class(of: Any) -> None:
    class Odd(Workflow[None]):
        http: of = resource()

        async def run(self) -> None: ...

    with pytest.raises(BadDefinition, match=r"Odd\.http: a resource is found by its class|Odd: its annotations cannot be read"):
        Runtime(actors=[Odd], resources=[Http()])


def test_a_subclass_has_the_resources_of_its_base() -> None:
    class More(Shop):
        cache: Cache = resource()

    Runtime(actors=[More], resources=[Cache()])
    with pytest.raises(NoResource, match=r"Shop\.http"):
        print(More("w").http)
    with pytest.raises(BadDefinition, match=r"More\.cache: no resource is a Cache"):
        Runtime(actors=[More], resources=[Http()])


def test_parameters_that_cannot_be_filled_in_are_refused_where_they_are_written() -> None:
    with pytest.raises(BadDefinition, match="put the resource 'http' behind all other parameters"):

        @step
        async def early(http: Http = resource(), what: str = "") -> None: ...

    with pytest.raises(BadDefinition, match="a resource is found by its class: write `http: ItsClass = resource"):

        @step
        async def bare(*, http=resource()) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(BadDefinition, match="resources stay in the process of the runtime"):

        @step(run_in="process")
        def far_away(http: Http = resource()) -> None: ...
