"""What cannot be an actor, a step or a message is refused when it is written; what cannot be stored, at the door."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import anyio
import pytest
from attrs import field, frozen

from actorflow import (
    Limits,
    Message,
    Retry,
    RunPaused,
    Runtime,
    Workflow,
    checkpoint,
    gather,
    heartbeat,
    query,
    step,
    with_options,
)
from actorflow.actor import volatile
from actorflow.attempt import current_step
from actorflow.errors import (
    BadDefinition,
    BadDuration,
    BadKey,
    NotEncodable,
    OutsideTurn,
    StepInsideStep,
    TooLarge,
    UnknownKind,
    UnknownMessage,
    UnknownRun,
)
from actorflow.records import Address
from actorflow.steps import declaration
from actorflow.stores.memory import MemoryStore

T = TypeVar("T")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- steps -------------------------------------------------------------------------------------------------------------


def test_a_step_is_the_plain_function_that_it_was_outside_of_a_run() -> None:
    @step
    async def double(number: int) -> int:
        return 2 * number

    assert anyio.run(double, 4) == 8
    assert double.__name__ == "double"


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(BadDefinition, match="no name to be recorded under: give it `name=`"):
        step(lambda: 1)

    assert declaration(step(name="one")(lambda: 1)) is not None


def test_a_partial_needs_a_name() -> None:
    with pytest.raises(BadDefinition, match="give it `name=`"):
        step(functools.partial(int, "7"))


def test_a_generator_is_no_step() -> None:
    with pytest.raises(BadDefinition, match="is a generator, and a step has one outcome"):

        @step
        def numbers() -> Iterator[int]:
            yield 1

    with pytest.raises(BadDefinition, match="is a generator, and a step has one outcome"):

        @step
        async def more() -> AsyncIterator[int]:
            yield 1


def test_a_step_on_a_method_is_refused_with_the_class_and_the_remedy() -> None:
    with pytest.raises(BadDefinition, match=r"Shop\.charge: a method cannot be a @step .* Use @checkpoint"):

        class Shop(Workflow[None]):
            @step
            async def charge(self) -> None: ...


def test_a_static_step_is_written_with_staticmethod_above() -> None:
    with pytest.raises(BadDefinition, match="write @staticmethod above @step"):

        class Wrong(Workflow[None]):
            @step
            @staticmethod
            async def charge() -> None: ...

    class Right(Workflow[None]):
        @staticmethod
        @step
        async def charge() -> None: ...

    assert declaration(Right.charge) is not None


@pytest.mark.parametrize("name", ["a/b", "a#1", "self.sleep", "~undo", "gather", "task"])
def test_a_name_that_identities_need_is_refused(name: str) -> None:
    with pytest.raises(BadDefinition, match="cannot be named"):

        @step(name=name)
        async def any_step() -> None: ...


@pytest.mark.parametrize("on_interrupt", ["fail", "ask"])
@pytest.mark.parametrize("retry", [Retry(), Retry(attempts=5)])
def test_a_step_that_may_not_run_twice_is_retried_only_on_what_proves_that_it_did_not(on_interrupt: Any, retry: Retry) -> None:
    with pytest.raises(BadDefinition, match="must name the exceptions that prove that nothing"):

        @step(on_interrupt=on_interrupt, retry=retry)
        async def charge() -> None: ...

    @step(on_interrupt=on_interrupt, retry=Retry(on=(ConnectionRefusedError,)))
    async def pay() -> None: ...

    assert (found := declaration(pay)) is not None
    assert found.retry.attempts == 3


def test_a_step_that_would_retry_what_it_calls_a_business_failure_is_refused() -> None:
    async def charge() -> None: ...

    with pytest.raises(BadDefinition, match=r"after ConnectionResetError, but fails= calls OSError a business failure"):
        step(retry=Retry(on=(ValueError, ConnectionResetError)), fails=(OSError,))(charge)
    # All but these is no contradiction.
    step(retry=Retry(on=(Exception,)), fails=(OSError,))(charge)
    declared = step(retry=Retry(on=(OSError,)))(charge)
    with pytest.raises(BadDefinition, match="fails= calls Exception a business failure"):
        with_options(declared, fails=(Exception,))


@pytest.mark.parametrize("on", [OSError, [OSError], (OSError("full"),)])
def test_what_a_retry_is_for_is_a_tuple_of_classes(on: Any) -> None:
    with pytest.raises(BadDefinition, match="no tuple of exception classes"):
        Retry(on=on)


def test_without_a_retry_such_a_step_runs_once() -> None:
    @step(on_interrupt="fail")
    async def charge() -> None: ...

    @step
    async def pay() -> None: ...

    for each in (charge, with_options(pay, on_interrupt="ask")):
        assert (found := declaration(each)) is not None
        assert found.retry.attempts == 1


@pytest.mark.parametrize(
    "options", [{"on_interrupt": "never"}, {"run_in": "fiber"}, {"was": "old"}, {"fails": ValueError}, {"fails": (7,)}], ids=repr
)
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    name = next(iter(options))

    with pytest.raises(BadDefinition, match=name):

        @step(**options)
        async def charge() -> None: ...


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, 1e20, "5 parsecs", True, timedelta(-1)])
def test_a_timeout_that_is_no_duration_is_refused(timeout: Any) -> None:
    with pytest.raises(BadDuration):

        @step(timeout=timeout)
        async def charge() -> None: ...


def test_other_options_are_for_steps_and_named() -> None:
    @step
    async def charge() -> None: ...

    async def plain() -> None: ...

    with pytest.raises(BadDefinition, match="decorate it with @step"):
        with_options(plain, timeout=1)
    with pytest.raises(BadDefinition, match="not patience"):
        with_options(charge, patience=1)


# --- workflows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["sleep", "each", "me", "receive", "start", "now", "patched", "at", "task", "again", "reply"])
def test_a_field_or_method_called_like_a_verb_is_refused(verb: str) -> None:
    for body in ({"__annotations__": {verb: int}}, {verb: lambda self: None}, {verb: 7}):
        with pytest.raises(BadDefinition, match=f"{verb} is the name of a verb"):
            type("Shop", (Workflow,), body)


@pytest.mark.parametrize("default", [[], {}, set(), bytearray()], ids=repr)
def test_a_default_that_all_instances_would_share_is_refused(default: Any) -> None:
    name = type(default).__name__

    with pytest.raises(BadDefinition, match=rf"items: the default .* would be shared .* Write field\(factory={name}\)"):
        type("Shop", (Workflow,), {"__annotations__": {"items": name}, "items": default})


def test_an_own_init_is_refused() -> None:
    with pytest.raises(BadDefinition, match=r"Shop has its own __init__\. Start and resume both go through fields"):

        class Shop(Workflow[None]):
            def __init__(self) -> None: ...


def test_a_field_without_annotation_is_refused_by_name() -> None:
    with pytest.raises(BadDefinition, match="total"):

        class Shop(Workflow[None]):
            name: str
            total = field(default=0)


def test_a_mandatory_field_behind_a_default_is_refused_with_the_remedy() -> None:
    with pytest.raises(BadDefinition, match="kw_only=True"):

        class Shop(Workflow[None]):
            total: int = 0
            name: str  # type: ignore[misc]


def test_a_type_that_is_left_open_is_refused_when_the_class_is_registered() -> None:
    class Batch(Workflow[list[T]], Generic[T]):
        items: list[T]

        async def run(self) -> list[T]:
            return self.items

    with pytest.raises(BadDefinition, match=r"items: .*T.* is not known"):
        Runtime(actors=[Batch])


def test_a_subclass_that_says_the_type_is_taken() -> None:
    class Batch(Workflow[list[T]], Generic[T]):
        items: list[T]

        async def run(self) -> list[T]:
            return self.items

    class Numbers(Batch[int]): ...

    kind = Numbers.__kind_info__()

    Runtime(actors=[Numbers])
    assert kind.returns == list[int]
    with pytest.raises(NotEncodable, match="items"):
        kind.encode(Numbers(["x"]))  # type: ignore[list-item]


def test_an_annotation_that_cannot_be_read_is_refused_by_name() -> None:
    class Shop(Workflow[None]):
        total: Nowhere  # type: ignore[name-defined]  # noqa: F821

        async def run(self) -> None: ...

    with pytest.raises(BadDefinition, match=r"Shop: its annotations cannot be read .*Nowhere"):
        Runtime(actors=[Shop])


def test_a_run_whose_result_cannot_be_read_is_refused_by_name() -> None:
    class Shop(Workflow[None]):
        async def run(self) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
            ...

    with pytest.raises(BadDefinition, match="Nowhere"):
        Runtime(actors=[Shop])


def test_a_run_that_cannot_wait_is_refused() -> None:
    class Shop(Workflow[None]):
        def run(self) -> None:  # type: ignore[override]
            ...

    with pytest.raises(BadDefinition, match="async def"):
        Runtime(actors=[Shop])


def test_a_workflow_without_a_run_is_refused() -> None:
    class Shop(Workflow[None]): ...

    with pytest.raises(BadDefinition, match=r"Shop.* run"):
        Runtime(actors=[Shop])


def test_a_checkpoint_that_cannot_wait_is_refused() -> None:
    with pytest.raises(BadDefinition, match=r"paid must be an `async def`"):

        class Shop(Workflow[None]):
            @checkpoint  # type: ignore[arg-type]
            def paid(self) -> None: ...


def test_a_query_that_waits_is_refused() -> None:
    with pytest.raises(BadDefinition, match=r"total must be a plain `def`"):

        class Shop(Workflow[None]):
            @query
            async def total(self) -> None: ...


def test_two_classes_of_one_kind_are_refused() -> None:
    class Shop(Workflow[None]):
        async def run(self) -> None: ...

    class Other(Workflow[None], kind="Shop"):
        async def run(self) -> None: ...

    with pytest.raises(BadDefinition, match="two classes are called 'Shop'"):
        Runtime(actors=[Shop, Other])


@pytest.mark.parametrize("kind", ["a/b", "a\nb", "x" * 257, ""])
def test_a_kind_that_cannot_be_addressed_is_refused(kind: str) -> None:
    with pytest.raises(BadDefinition, match="a kind is"):
        type("Shop", (Workflow,), {}, kind=kind)


@pytest.mark.parametrize("wrong", [int, "Shop", None, object()], ids=["a type", "a str", "None", "an object"])
def test_only_classes_of_actors_are_registered(wrong: Any) -> None:
    with pytest.raises(BadDefinition, match="takes classes derived from Actor or Workflow"):
        Runtime(actors=[wrong])


def test_a_field_may_be_private_have_a_validator_a_factory_or_not_be_stored() -> None:
    class Shop(Workflow[None]):
        _secret: str
        items: list[int] = field(factory=list)
        cache: dict[str, int] = volatile(factory=dict)

        async def run(self) -> None: ...

    shop = Shop("x", [1])
    assert Shop(_secret="x")._secret == "x"
    assert Shop.__kind_info__().encode(shop) == b'{"_secret":"x","items":[1]}'


# --- at the doors of a runtime -----------------------------------------------------------------------------------------


@frozen
class Order:
    id: str
    tags: list[Any]


class Note(Message[None]):
    text: Any = ""


class Question(Message[int]):
    pass


@step
async def inner() -> int:
    return 1


@step
async def outer() -> int:
    return await inner()


@step
async def odd() -> Any:
    return {"locks": [1, object()]}


@step
async def big(size: int) -> str:
    return "x" * size


@step
async def taking(given: Any) -> None:
    heartbeat("alive")


class Shop(Workflow[Any]):
    """Does what `DOES` says under its word."""

    what: str = "wait"
    order: Order | None = None
    state: Any = None

    async def run(self) -> Any:
        return await DOES[self.what](self)


async def waiting(shop: Shop) -> str:
    note = await shop.receive(Note)
    return f"got {note.text}"


async def extra_attribute(shop: Shop) -> None:
    shop.typo = 1
    await inner()
    await shop.sleep(1)


async def odd_field(shop: Shop) -> None:
    shop.state = {"lock": object()}
    await shop.sleep(1)


async def odd_field_after_a_step(shop: Shop) -> None:
    await inner()
    shop.state = {"lock": object()}
    await shop.sleep(1)


async def odd_result(shop: Shop) -> Any:
    await inner()
    return [object()]


DOES: dict[str, Callable[[Shop], Awaitable[Any]]] = {
    "wait": waiting,
    "outer": lambda shop: outer(),
    "odd": lambda shop: odd(),
    "big": lambda shop: big(2_000),
    "extra attribute": extra_attribute,
    "odd field": odd_field,
    "odd field after a step": odd_field_after_a_step,
    "odd result": odd_result,
    "odd argument": lambda shop: taking(object()),
    "big argument": lambda shop: taking("x" * 2_000),
}


@asynccontextmanager
async def shop(**more: Any) -> AsyncIterator[tuple[Runtime, MemoryStore]]:
    store = MemoryStore()
    with anyio.fail_after(10):
        async with Runtime(actors=[Shop], store=store, limits=Limits(payload_bytes_max=1_000), **more) as runtime:
            yield runtime, store


def content(store: MemoryStore) -> Any:
    return copy.deepcopy(store._memory)


Door = Callable[[Runtime], Awaitable[Any]]

DOORS: dict[str, tuple[Door, type[Exception], str]] = {
    "a field that is no value": (
        lambda r: r.start(Shop(order=Order("o1", [1, {"lock": object()}])), key="k"),
        NotEncodable,
        r"Shop\.order\.tags\[1\]",
    ),
    "a number that JSON has not": (
        lambda r: r.start(Shop(order=Order("o1", [math.nan])), key="k"),
        NotEncodable,
        r"order\.tags\[0\]",
    ),
    "a lone surrogate": (lambda r: r.start(Shop(order=Order("\ud800", [])), key="k"), NotEncodable, r"order\.id"),
    "too large a number": (lambda r: r.start(Shop(order=Order("o", [2**64])), key="k"), NotEncodable, r"order\.tags\[0\]"),
    "too large an input": (lambda r: r.start(Shop(order=Order("x" * 1_000, [])), key="k"), TooLarge, "payload_bytes_max"),
    "an extra attribute": (lambda r: r.start(with_extra(), key="k"), BadDefinition, "typo"),
    "an unknown kind": (lambda r: r.start(Unregistered(), key="k"), UnknownKind, r"'Unregistered'.*known: Shop"),
    "an unknown kind by name": (
        lambda r: r.operations.start(Address("Nope", "k"), input=b"{}", on_conflict="join", deadline_s=None, request="r"),
        UnknownKind,
        "Nope",
    ),
    "an empty key": (lambda r: r.start(Shop(), key=""), BadKey, "empty"),
    "a long key": (lambda r: r.start(Shop(), key="x" * 513), BadKey, "513"),
    "a key with a line break": (lambda r: r.start(Shop(), key="a\r\nb"), BadKey, "control"),
    "a key with a surrogate": (lambda r: r.start(Shop(), key="\ud800"), BadKey, "surrogate"),
    "a key that is a number": (lambda r: r.start(Shop(), key=7), BadKey, "int"),  # type: ignore[arg-type]
    "a deadline of NaN": (lambda r: r.start(Shop(), key="k", deadline=math.nan), BadDuration, "not a number"),
    "a deadline of parsecs": (lambda r: r.start(Shop(), key="k", deadline="5 parsecs"), BadDuration, "parsecs"),
    "a deadline before now": (lambda r: r.start(Shop(), key="k", deadline=-1), BadDuration, "negative"),
    "a message to nobody": (lambda r: r.run(Shop, "nobody").tell(Note("x")), UnknownRun, "Shop/nobody"),
    "a message that is no value": (lambda r: r.run(Shop, "open").tell(Note([object()])), NotEncodable, r"text\[0\]"),
    "a message too large": (lambda r: r.run(Shop, "open").tell(Note("x" * 1_000)), TooLarge, "message to Shop/open"),
    "a message with an empty key": (lambda r: r.run(Shop, "open").tell(Note(), key=""), BadKey, "empty"),
    "a message after infinity": (lambda r: r.run(Shop, "open").tell(Note(), after=math.inf), BadDuration, "100 years"),
    "a message after True": (lambda r: r.run(Shop, "open").tell(Note(), after=True), BadDuration, "bool"),
    "an ask within 1e20": (lambda r: r.run(Shop, "open").ask(Question(), within=1e20), BadDuration, "100 years"),
    "an ask to nobody": (lambda r: r.run(Shop, "nobody").ask(Question()), UnknownRun, "Shop/nobody"),
    "a message class that cannot be imported": (
        lambda r: r.operations.tell(Address("Shop", "open"), type="no_such_module:Note", body=b"{}", key=None, after_s=None),
        UnknownMessage,
        "no_such_module",
    ),
    "a message class that is none": (
        lambda r: r.operations.tell(Address("Shop", "open"), type="os:system", body=b'"true"', key=None, after_s=None),
        UnknownMessage,
        "no message class",
    ),
    "a message of the system": (
        lambda r: r.operations.tell(Address("Shop", "open"), type="~cancel", body=b'"x"', key=None, after_s=None),
        UnknownMessage,
        "system",
    ),
    "the class instead of an instance": (lambda r: r.start(Shop, key="k"), BadDefinition, r"Shop\(\.\.\.\)"),
    "a value instead of a workflow": (lambda r: r.start("Shop", key="k"), BadDefinition, "an instance of a workflow"),
    "a value instead of a message": (lambda r: r.run(Shop, "open").tell("hello"), UnknownMessage, "str"),  # type: ignore[arg-type]
}


def with_extra() -> Shop:
    made = Shop()
    made.typo = 1
    return made


class Unregistered(Workflow[None]):
    async def run(self) -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize("name", DOORS)
async def test_at_the_door_bad_input_is_refused_by_name_and_stores_nothing(name: str) -> None:
    """B19, D6, E8, E9, S7."""
    call, error, text = DOORS[name]

    async with shop() as (runtime, store):
        await runtime.start(Shop(), key="open")
        await anyio.wait_all_tasks_blocked()
        before = content(store)

        with pytest.raises(error, match=text):
            await call(runtime)

        await anyio.wait_all_tasks_blocked()
        assert content(store) == before


PAUSES: dict[str, tuple[str, str]] = {
    "outer": ("failure", "StepInsideStep"),
    "odd": ("failure", r"outcome of step odd\['locks'\]\[1\]"),
    "big": ("failure", "outcome of step big is 2,002 bytes"),
    "extra attribute": ("bug", "typo"),
    "odd field": ("failure", r"Shop\.state\['lock'\]"),
    "odd field after a step": ("failure", r"Shop\.state\['lock'\]"),
    "odd result": ("failure", r"result of Shop/k\[0\]"),
    "odd argument": ("failure", "argument of step taking"),
    "big argument": ("failure", "taking.* over the limit"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", PAUSES)
async def test_what_durable_code_cannot_store_pauses_its_run_and_no_other(what: str) -> None:
    """X10, E6, E8."""
    reason, text = PAUSES[what]

    async with shop() as (runtime, _):
        other = await runtime.start(Shop(), key="other")
        run = await runtime.start(Shop(what), key="k")
        with pytest.raises(RunPaused, match=text) as caught:
            await run.result()
        assert caught.value.reason == reason

        await other.tell(Note("bye"))
        assert await other.result() == "got bye"


@pytest.mark.anyio
async def test_a_step_inside_a_step_is_refused_with_the_remedy() -> None:
    """E21."""

    async with shop() as (runtime, _):
        run = await runtime.start(Shop("outer"), key="k")

        with pytest.raises(RunPaused, match=r"`inner` was called inside step `outer`. Make the outer one a `@checkpoint`"):
            await run.result()

    assert issubclass(StepInsideStep, RuntimeError)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "for_",
    [
        *(-1, math.nan, math.inf, 1e20, "5 parsecs", True, timedelta(-1)),
        datetime(2020, 1, 1),  # noqa: DTZ001  (a moment of no zone is the point)
        datetime(9999, 1, 1, tzinfo=UTC),
    ],
    ids=repr,
)
async def test_a_sleep_of_no_duration_is_raised_in_the_code_and_records_nothing(for_: Any) -> None:
    """D5, D6."""

    async def sleeping(shop: Shop) -> str:
        with pytest.raises(BadDuration):
            await (shop.sleep_until(for_) if isinstance(for_, datetime) else shop.sleep(for_))
        with pytest.raises(BadDuration):
            await shop.receive(Note, within=math.nan)
        return "refused"

    DOES["sleep"] = sleeping
    async with shop() as (runtime, store):
        run = await runtime.start(Shop("sleep"), key="k")
        assert await run.result() == "refused"

        assert {entry.kind for entry in content(store).entries.values()} == {"started", "completed"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("self.sleep", lambda s: s.sleep(1)),
        ("self.sleep_until", lambda s: s.sleep_until(datetime.now(UTC))),
        ("self.receive", lambda s: s.receive(Note)),
        ("self.now", lambda s: s.now()),
        ("self.random", lambda s: s.random()),
        ("self.uuid", lambda s: s.uuid()),
        ("self.patched", lambda s: s.patched("x")),
        ("self.again", lambda s: s.again()),
        ("self.start", lambda s: s.start(Shop(), key="k")),
        ("self.reply", lambda s: s.reply(Note(), None)),
        ("self.each", lambda s: s.each([], print, key=str)),
        ("self.task", lambda s: s.task(None)),
        ("self.me", lambda s: s.me),
        ("gather", lambda s: gather([])),
        ("tell", lambda s: Shop.at("k").tell(Note())),
        ("ask", lambda s: Shop.at("k").ask(Question())),
        (r"current_step\(\)", lambda s: current_step()),
        (r"current_step\(\)", lambda s: heartbeat(1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_verb_outside_of_durable_code_is_refused_by_name(verb: str, call: Callable[[Shop], Any]) -> None:
    async def calling() -> None:
        result = call(Shop())
        if hasattr(result, "__await__"):
            await result

    with pytest.raises(OutsideTurn, match=rf"`.*{verb}.*` belongs to durable code"):
        await calling()
