"""A recorded run is replayed by today's code, or the difference is shown; its values are made unrecognizable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

import anyio
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from actorflow import Abort, BadDefinition, Message, Runtime, UnknownRun, Workflow, checkpoint, gather, resource, step
from actorflow.cli import main
from actorflow.cli.exits import Exit
from actorflow.codec import coder
from actorflow.records import Address
from actorflow.stores.memory import MemoryStore
from actorflow.testing import Journal, assert_replays
from actorflow.testing.journals import recorded
from actorflow.testing.redaction import Redaction, constants
from tests.harness import runtime, virtual

SECRET = Redaction(b"secret")


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@frozen
class Person:
    name: str
    born: date
    id: UUID
    size: Size
    worth: Decimal


ANN = Person("Ann Smith", date(1980, 5, 17), UUID(int=77), Size.LARGE, Decimal("12.50"))


class Answer(Message[str]):
    text: str
    by: Person


class OutOfStock(Exception):
    pass


@step
async def greet(person: Person) -> str:
    return f"Hello {person.name}"


@step
async def classify(text: str) -> str:
    return "polite" if text else "rude"


@step(fails=(OutOfStock,))
async def reserve(name: str) -> int:
    raise OutOfStock(name)


class Survey(Workflow[str]):
    person: Person
    last: str = ""

    @checkpoint
    async def begin(self) -> str:
        self.last = await greet(self.person)
        return self.last

    async def run(self) -> str:
        first = await self.begin()
        one, two = await gather(classify(first), classify(""))
        assert (one, two) == ("polite", "rude")
        answer = await self.receive(Answer)
        self.reply(answer, answer.text)
        await self.sleep(f"{5 if answer.by.size is Size.LARGE else 7}s")
        with suppress(OutOfStock):
            await reserve(answer.text)
        return f"{self.now()} {first}: {answer.text}"


class Renamed(Survey, kind="Survey"):
    async def run(self) -> str:
        await greet(self.person)
        return "other"


class Shorter(Survey, kind="Survey"):
    async def run(self) -> str:
        return await self.begin()


class Wrong(Survey, kind="Survey"):
    async def run(self) -> str:
        await super().run()
        return "other"


class Broke(Workflow[None]):
    async def run(self) -> None:
        raise Abort("no money for Ann")


async def finished(store: MemoryStore, *, answered: bool = True) -> None:
    async with runtime(Survey, Broke, store=store) as opened:
        run = await opened.start(Survey(ANN), key="ann@example.org")
        with pytest.raises(Abort):
            await (await opened.start(Broke(), key="b")).result()
        if answered:
            await run.tell(Answer("I like it", ANN))
            await run.result()
        else:
            await anyio.sleep(1)


def journal_of(address: str = "Survey/ann@example.org", **options: Any) -> Journal:
    store = MemoryStore()
    virtual("asyncio", partial(finished, store, **options))
    store._opened = True
    return anyio.run(recorded, store, Address(*address.split("/")))


@pytest.fixture(scope="module")
def journal() -> Journal:
    return journal_of()


def failure(replay: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as caught:
        replay()
    return str(caught.value)


@pytest.mark.parametrize("redacted", [False, True])
def test_a_journal_replays_from_what_it_says_and_from_its_file(journal: Journal, tmp_path: Path, redacted: bool) -> None:
    kept = journal.redact(Redaction(b"s", constants("'polite', 'rude', 'large'"))) if redacted else journal
    (tmp_path / "a.json").write_text(kept.dumps(), encoding="utf-8")

    assert_replays(kept, Survey)
    assert_replays(tmp_path / "a.json", Survey)
    assert_replays(json.loads(kept.dumps()), Survey)

    assert Journal.loads(kept.dumps()).events == tuple(kept.events) or redacted


def test_a_run_that_waits_and_one_that_failed_replay_up_to_there() -> None:
    waiting, failed = journal_of(answered=False), journal_of("Broke/b")

    assert (waiting.status, failed.status) == ("waiting", "failed")
    assert_replays(waiting, Survey)
    assert_replays(failed)
    assert_replays(failed.redact(SECRET), Broke)


def test_code_that_changed_is_shown_with_both_sides(journal: Journal) -> None:
    said = failure(lambda: assert_replays(journal, Renamed))

    assert "Survey/ann@example.org does not replay with today's code: the code asks for" in said
    assert "step :greet#0" in said
    assert "recorded were" in said
    assert "checkpoint :Survey.begin#0 ok" in said
    assert "the code asks for the end of the run" in failure(lambda: assert_replays(journal, Shorter))


def test_another_result_and_another_end_are_shown(journal: Journal) -> None:
    assert "it returned '" in failure(lambda: assert_replays(journal, Wrong))
    assert "and returns 'other' now" in failure(lambda: assert_replays(journal, Wrong))

    class Pays(Workflow[None], kind="Broke"):
        async def run(self) -> None:
            return None

    class Other(Workflow[None], kind="Broke"):
        async def run(self) -> None:
            raise Abort("something else")

    failed = journal_of("Broke/b")
    assert "completes now" in failure(lambda: assert_replays(failed, Pays))
    assert "fails with Abort: something else now" in failure(lambda: assert_replays(failed, Other))


def test_fields_that_today_s_class_cannot_read_are_shown(journal: Journal) -> None:
    class Bigger(Workflow[str], kind="Survey"):
        person: Person
        last: str = field(kw_only=True)
        more: int = field(kw_only=True)

        async def run(self) -> str:
            return ""

    assert "'more' is missing; give it a default" in failure(lambda: assert_replays(journal, Bigger))


def test_resources_are_what_the_test_gives() -> None:
    class Bank:
        pass

    class Pays(Workflow[str]):
        bank: Bank = resource()

        async def run(self) -> str:
            return type(self.bank).__name__

    journal = Journal(kind="Pays", key="p", status="completed", round=0, seed=1, fields=b"{}", outcome=b'"Bank"')

    assert_replays(journal, Pays, resources=[Bank()])


def test_which_class_is_meant_is_found_or_asked() -> None:
    with pytest.raises(BadDefinition, match="no class of kind 'NobodyHasThis' is loaded: import its module"):
        assert_replays(Journal(kind="NobodyHasThis", key="", status="waiting", round=0, seed=1, fields=b"{}", outcome=None))
    with pytest.raises(BadDefinition, match="several classes of kind 'Survey' are loaded"):
        assert_replays(Journal(kind="Survey", key="", status="waiting", round=0, seed=1, fields=b"{}", outcome=None))
    with pytest.raises(BadDefinition, match="no journal as `actorflow capture` writes it"):
        assert_replays({"version": 1})
    with pytest.raises(UnknownRun):
        journal_of("Survey/none")


# --- redaction ------------------------------------------------------------------------------------------------------------


def test_a_redacted_journal_holds_no_text_of_the_original(journal: Journal) -> None:
    text = journal.redact(SECRET).dumps()

    for secret in ("Ann", "Smith", "I like it", "polite", "12.50", "1980-05-17", "ann@example.org", "example"):
        assert secret in journal.dumps()
        assert secret not in text
    assert '"greet"' in text or "Survey.begin" in text


@given(
    st.builds(
        Person,
        name=st.text(st.characters(codec="utf-8")),
        born=st.dates(),
        id=st.uuids(),
        size=st.sampled_from(Size),
        worth=st.decimals(allow_nan=False, allow_infinity=False),
    )
)
def test_what_is_redacted_is_still_a_value_of_its_type(person: Person) -> None:
    written = json.loads(coder(Person).encode(person, "person"))

    redacted = Redaction(b"x", frozenset(("small", "large"))).value(written)

    again = coder(Person).decode(json.dumps(redacted).encode(), "person")
    assert (again.size, again.born.year, len(again.name)) == (person.size, person.born.year, len(person.name))


@pytest.mark.parametrize("moment", ["2026-05-17T12:30:01.000005+00:00", "2026-05-17T12:30:01"])
def test_moments_keep_their_year_and_their_zone(moment: str) -> None:
    again, before = datetime.fromisoformat(SECRET.text(moment)), datetime.fromisoformat(moment)

    assert (again.year, again.tzinfo, again.month, again.hour) == (2026, before.tzinfo, 1, 0)


def test_equal_texts_stay_equal_and_another_secret_gives_others() -> None:
    text = "Ann Smith <ann.smith@example.org>"

    assert SECRET.text(text) == Redaction(b"secret").text(text)
    assert SECRET.text(text) != Redaction(b"other").text(text)
    assert [c for c in SECRET.text(text) if not c.isalpha()] == [c for c in text if not c.isalpha()]


# --- the command --------------------------------------------------------------------------------------------------------

SHOP = """
from actorflow import Message, Workflow, step


class Approve(Message[None]):
    by: str


@step
async def charge(name: str) -> str:
    return f"paid by {name}"


class Checkout(Workflow[str]):
    name: str

    async def run(self) -> str:
        paid = await charge(self.name)
        answer = await self.receive(Approve)
        return f"{paid}, {answer.by}"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with a workflow, in an empty working directory."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    yield importlib.import_module("shop")
    sys.modules.pop("shop")


def replayed(folder: Path, *, shop: str = SHOP) -> subprocess.CompletedProcess[str]:
    """Run the captured tests, with that shop, as a user does."""
    (folder / "shop.py").write_text(shop, encoding="utf-8")
    package = str(Path(__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([package, str(folder)]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_a_live_run_is_captured_into_a_test_that_finds_what_changed(
    shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def live() -> int:
        async with Runtime(f"sqlite:///{tmp_path}/shop.db", actors=[shop.Checkout]) as runtime:
            run = await runtime.start(shop.Checkout("Ann Smith"), key="ann@example.org")
            await run.tell(shop.Approve(by="Bob"), key="a")
            await run.result()
            command = ["capture", "Checkout/ann@example.org", "--db", "shop.db", "--workflow", "shop:Checkout", "-o", "json"]
            return await anyio.to_thread.run_sync(main, command)

    assert anyio.run(live) == Exit.OK
    record = json.loads(capsys.readouterr().out)
    assert (record["entries"], record["redacted"], record["replays"]) == (2, True, True)
    text = Path(record["journal"]).read_text(encoding="utf-8")
    assert not any(secret in text for secret in ("Ann", "ann@", "Bob"))

    same = replayed(tmp_path)
    assert same.returncode == 0, same.stdout
    other = replayed(tmp_path, shop=SHOP.replace("async def charge", "async def pay").replace("await charge", "await pay"))
    assert other.returncode == 1
    assert "does not replay with today's code: the code asks for step :pay#0" in other.stdout


def test_capture_keeps_values_if_told_and_replaces_nothing_unasked(
    shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def begun() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/shop.db", actors=[shop.Checkout]) as runtime:
            await runtime.start(shop.Checkout("Ann"), key="o-1")

    anyio.run(begun)
    command = ["capture", "Checkout/o-1", "--db", "shop.db", "--out", "here", "--name", "checkout"]

    assert main([*command, "--keep-values"]) == Exit.OK
    assert "Ann" in (tmp_path / "here/checkout.json").read_text(encoding="utf-8")
    assert "# Import the module of Checkout here." in (tmp_path / "here/test_checkout.py").read_text(encoding="utf-8")
    assert main(command) == Exit.USAGE
    assert "Write --force to replace them" in capsys.readouterr().err
    assert main([*command, "--force"]) == Exit.OK
    assert "Ann" not in (tmp_path / "here/checkout.json").read_text(encoding="utf-8")


def test_what_cannot_be_captured_is_said(shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def begun() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/shop.db", actors=[shop.Checkout]) as runtime:
            await runtime.start(shop.Checkout("Ann"), key="o-1")

    anyio.run(begun)

    for options, code, said in (
        (["Checkout/none"], Exit.NOT_FOUND, "Checkout/none"),
        (["Checkout/o-1", "--workflow", "shop"], Exit.USAGE, "Write module:Class"),
        (["Checkout/o-1", "--workflow", "shop:Nothing"], Exit.USAGE, "cannot be imported"),
        (["Checkout/o-1", "--workflow", "shop:Approve"], Exit.USAGE, "is no workflow"),
        (["Checkout/o-1", "--name", "a b"], Exit.USAGE, "is no name for a test"),
    ):
        assert main(["capture", *options, "--db", "shop.db"]) == code
        assert said in capsys.readouterr().err


def test_a_way_that_hangs_on_a_replaced_text_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = dedent(
        """
        import sys
        from actorflow import Workflow, step
        YES = chr(121)

        @step
        async def ask() -> str:
            return YES

        @step
        async def act() -> None: ...

        class Asks(Workflow[None]):
            async def run(self) -> None:
                if await ask() == YES:
                    await act()
        """
    )
    (tmp_path / "asking.py").write_text(module, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    asking = importlib.import_module("asking")

    async def done() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/a.db", actors=[asking.Asks]) as runtime:
            await (await runtime.start(asking.Asks(), key="a")).result()

    anyio.run(done)
    command = ["capture", "Asks/a", "--db", "a.db", "--workflow", "asking:Asks"]

    outcomes = {main([*command, "--force"]) for _ in range(3)}

    assert outcomes == {Exit.OK}
    assert "--keep-values keeps them" in capsys.readouterr().err
    sys.modules.pop("asking")
