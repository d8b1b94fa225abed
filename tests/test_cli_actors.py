"""The command line about actors: lists, dead letters, messages, the tree."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actorflow import Abort, Actor, Child, Fatal, Message, Runtime, Supervisor, Workflow, handler, query
from actorflow.cli import main
from actorflow.cli.exits import Exit
from tests.test_cli import Command, Result, command, in_child  # noqa: F401  (a fixture)


class Deposit(Message[int], kind="Deposit"):
    amount: int


class Withdraw(Message[int], kind="Withdraw"):
    amount: int


class Account(Actor, kind="CliAccount"):
    balance: int = 0

    @handler
    async def deposit(self, m: Deposit) -> int:
        if m.amount < 0:
            raise Fatal("\x1b[31mless than nothing")
        self.balance += m.amount
        return self.balance

    @handler
    async def withdraw(self, m: Withdraw) -> int:
        raise Abort("not enough")

    @query
    def shown(self) -> int:
        return self.balance


class Waits(Workflow[None], kind="CliWaits"):
    async def run(self) -> None:
        await self.receive(Deposit)


TREE = [Supervisor("bank", children=[Child(Account, "main")])]


async def _fill(url: str) -> None:
    async with Runtime(url, actors=[Account, Waits]) as opened:
        await opened.start(Waits(), key="w")
        for key in ("ann", "bob"):
            await opened.at(Account, key).ask(Deposit(5))
        for amount in (-1, -2):
            with pytest.raises(Fatal):
                await opened.at(Account, "ann").ask(Deposit(amount), key=f"bad{amount}")
        await opened.at(Account, "bob").pause()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    anyio.run(_fill, f"sqlite:///{folder / 'bank.db'}")
    return folder


@pytest.fixture
def bank(template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that store, at a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="af-") as made:
        shutil.copytree(template, Path(made) / "b")
        path = Path(made) / "b" / "bank.db"
        monkeypatch.setenv("ACTORFLOW_DB", str(path))
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        yield path


def ids(result: Result) -> list[str]:
    return result.out.split()


# --- without a service --------------------------------------------------------------------------------------------------


def test_runs_and_actors_are_listed_apart(bank: Path, command: Command) -> None:  # noqa: F811
    assert ids(command("runs", "list", "-o", "ids")) == ["CliWaits/w"]
    assert ids(command("actors", "list", "-o", "ids")) == ["CliAccount/bob", "CliAccount/ann"]
    assert ids(command("actors", "list", "--status", "idle", "-o", "ids")) == ["CliAccount/ann"]
    assert ids(command("actors", "list", "--status", "paused", "-o", "ids")) == ["CliAccount/bob"]
    assert command("actors", "count", "-o", "json").json == {"idle": 1, "paused": 1}
    assert command("runs", "count", "-o", "json").json == {"waiting": 1}
    assert "CliAccount/ann  idle" in " ".join(command("actors", "list").out.split("\n")).replace("   ", "  ")


def test_show_and_why_say_what_an_actor_is_at(bank: Path, command: Command) -> None:  # noqa: F811
    shown = command("actors", "show", "CliAccount/ann")

    assert shown.code == Exit.OK
    for words in ("idle", "Mailbox", "messages", "Last events", "dead", "handled"):
        assert words in shown.out
    facts = command("actors", "show", "CliAccount/ann", "-o", "json").json
    assert (facts["what"], facts["actor"]["mailbox"], facts["actor"]["last"]) == ("actor", 0, "Deposit")
    assert "is idle; it handled Deposit last" in command("why", "CliAccount/ann").out
    kinds = [event["kind"] for event in command("actors", "history", "CliAccount/ann", "-o", "json").json]
    assert kinds == ["started", "handled", "dead", "dead"]


def test_dead_letters_are_listed_shown_and_sent_again(bank: Path, command: Command) -> None:  # noqa: F811
    listed = command("dead", "list", "-o", "json").json
    assert [(letter["to"], letter["key"]) for letter in listed] == [("CliAccount/ann", "bad-1"), ("CliAccount/ann", "bad-2")]
    assert command("dead", "list", "--to", "CliAccount/bob", "-o", "ids").out == ""
    first, second = ids(command("dead", "list", "-o", "ids"))
    assert "There are more" in command("dead", "list", "--limit", "1").err
    page = command("dead", "show", first)
    assert "less than nothing" in page.out
    assert "Mend the handler" in page.out
    assert "\x1b" not in page.out
    assert command("dead", "show", first, "-o", "json").json["report"]["failure"] == "data"

    sent = command("dead", "resend", first)

    assert (sent.code, sent.out) == (Exit.OK, f"{first}: sent again to CliAccount/ann\n")
    assert ids(command("dead", "list", "-o", "ids")) == [second]
    again = command("dead", "resend", first)
    assert again.code == Exit.NOT_FOUND
    assert f"no dead letter {first}" in again.err
    assert command("dead", "show", first).code == Exit.NOT_FOUND
    every = command("dead", "resend", "--all-of", "CliAccount/ann", "-o", "json").json
    assert [(result["id"], result["done"]) for result in every] == [(int(second), True)]
    assert "There are no dead letters to CliAccount/ann" in command("dead", "resend", "--all-of", "CliAccount/ann").err
    assert command("actors", "show", "CliAccount/ann", "-o", "json").json["actor"]["mailbox"] == 2


@pytest.mark.parametrize("tokens", [("dead", "resend"), ("dead", "resend", "1", "--all-of", "CliAccount/ann")])
def test_which_letters_must_be_said(bank: Path, command: Command, tokens: tuple[str, ...]) -> None:  # noqa: F811
    refused = command(*tokens)

    assert refused.code == Exit.USAGE
    assert "which dead letters?" in refused.err


def test_verbs_of_actors_without_a_service(bank: Path, command: Command) -> None:  # noqa: F811
    assert command("actors", "pause", "CliAccount/ann").out == "CliAccount/ann: paused\n"
    assert command("tell", "CliAccount/ann", "Deposit", '{"amount": 1}').out == "CliAccount/ann: accepted\n"
    assert command("actors", "resume", "CliAccount/ann").out == "CliAccount/ann: resumed\n"
    unknown = command("tell", "CliAccount/nobody", "Deposit", '{"amount": 1}')
    assert unknown.code == Exit.NOT_FOUND
    refused = command("runs", "cancel", "CliAccount/ann")
    assert refused.code == Exit.USAGE
    assert "An actor has no end" in refused.err
    assert command("actors", "reset", "CliAccount/ann").code == Exit.USAGE
    assert command("tell", "CliAccount/ann", "Deposit", "{").code == Exit.USAGE


def test_no_service_no_tree_and_no_reply(bank: Path, command: Command) -> None:  # noqa: F811
    tree = command("tree")
    assert tree.code == Exit.USAGE
    assert "nobody runs this store" in tree.err
    asked = command("ask", "CliAccount/ann", "Deposit", '{"amount": 1}', "--timeout", "0.2")
    assert asked.code == Exit.TIMED_OUT


# --- with one -----------------------------------------------------------------------------------------------------------


def test_a_service_is_asked_told_and_shown(bank: Path) -> None:
    async def serve() -> None:
        with anyio.fail_after(60):
            async with Runtime(f"sqlite:///{bank}", actors=[Account, Waits], tree=TREE) as opened:
                asked = await in_child("ask", "CliAccount/ann", "Deposit", '{"amount": 10}')
                assert (asked.code, asked.out) == (Exit.OK, "15\n")
                reply = await in_child("ask", "CliAccount/new", "Deposit", '{"amount": 1}', "-o", "json")
                assert reply.json == {"kind": "CliAccount", "key": "new", "reply": 1}
                for message, said in (("Withdraw", "Abort: not enough"), ("Deposit", "less than nothing")):
                    failed = await in_child("ask", "CliAccount/ann", message, '{"amount": -1}')
                    assert failed.code == Exit.FAILED
                    assert said in failed.err
                    assert "bug" not in failed.err
                wrong = await in_child("ask", "CliAccount/ann", "Deposit", '{"amount": "much"}')
                assert wrong.code == Exit.USAGE
                assert (await in_child("ask", "CliAccount/bob", "Deposit", '{"amount": 1}')).code == Exit.PAUSED
                assert (await in_child("actors", "reset", "CliAccount/ann")).out == "CliAccount/ann: reset\n"
                assert await opened.at(Account, "ann").query(Account.shown) == 0
                tree = json.loads((await in_child("tree", "-o", "json")).out)
                (child,) = tree["children"][0]["children"]
                assert (child["name"], child["state"]) == ("CliAccount/main", "running")
                drawn = (await in_child("tree")).out
                assert "bank" in drawn
                assert "CliAccount/main  running" in drawn
                assert (await in_child("tree", "-o", "ids")).out == "CliAccount/main\n"

    anyio.run(serve)


def test_a_run_is_told_from_the_command_line(bank: Path) -> None:
    async def serve() -> Any:
        with anyio.fail_after(60):
            async with Runtime(f"sqlite:///{bank}", actors=[Account, Waits]) as opened:
                told = await in_child("tell", "CliWaits/w", "Deposit", '{"amount": 1}', "--key", "k", "-o", "json")
                assert told.json["accepted"] is True
                await opened.run(Waits, "w").result()

    anyio.run(serve)


def test_help_names_the_new_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == Exit.OK
    said = capsys.readouterr().out
    assert all(word in said for word in ("actors", "dead", "tell", "ask", "tree"))
