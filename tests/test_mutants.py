"""The table of planted bugs fits the code, and its runner tells a bug that was noticed from one that was not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests import mutants
from tests.mutants import Copy, Edit, Misfit, Mutant

PACKAGE = mutants.ROOT / "actorflow"
DRAWN = 3

ORDER = "tests/test_mailbox.py::test_the_message_that_is_first_in_line_is_taken_first"
LOOP = "    for envelope in waiting.values():"


def planted(new: str, *, test: str = ORDER, old: str = LOOP) -> Mutant:
    return Mutant("tried", "A law.", test, (Edit("kernel/mailbox.py", old, new),))


@pytest.mark.parametrize("mutant", mutants.table(), ids=lambda mutant: mutant.name)
def test_a_planted_bug_still_fits_the_code(mutant: Mutant) -> None:
    changed = mutants.mutated(mutant, PACKAGE)

    assert changed
    assert all(path.read_text(encoding="utf-8") != text for path, text in changed.items())


def test_each_planted_bug_has_a_name_of_its_own_a_law_and_a_test_that_is_there() -> None:
    table = mutants.table()

    assert len({mutant.name for mutant in table}) == len(table) >= 12
    assert all(mutant.law.endswith(".") for mutant in table)
    for mutant in table:
        file, _, name = mutant.test.partition("::")
        source = mutants.ROOT / file if "::Test" not in f"::{name}" else PACKAGE / "testing"
        texts = [source.read_text()] if source.is_file() else [path.read_text() for path in source.glob("*_contract.py")]
        assert any(f"def {name.rpartition('::')[2].partition('[')[0]}(" in text for text in texts), mutant.test


@pytest.mark.kill
def test_bugs_that_the_day_draws_are_noticed() -> None:
    seed = time.strftime("%Y-%m-%d")
    print(f"python -m tests.mutants --draw {DRAWN} --seed {seed}")

    found = list(mutants.verdicts(mutants.drawn(DRAWN, seed)))

    assert [(verdict.name, verdict.how) for verdict in found if verdict.came_to != "caught"] == []
    assert len(found) == DRAWN


@pytest.mark.kill
def test_what_no_test_notices_survives_and_what_cannot_run_is_no_catch(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    mailbox = tmp_path / "actorflow/kernel/mailbox.py"
    sound = mailbox.read_text()
    tried: dict[str, Any] = {
        "nothing": planted(f"{LOOP}  # Oldest first."),
        "a bug": planted("    for envelope in reversed(waiting.values()):"),
        "no import": planted("import nowhere\n", old="from actorflow.records import EVERY, TIMER, Envelope\n"),
    }

    came_to = {name: mutants.judged(copy, mutant).came_to for name, mutant in tried.items()}

    assert came_to == {"nothing": "survived", "a bug": "caught", "no import": "broken"}
    assert mailbox.read_text() == sound
    with pytest.raises(Misfit, match="without a bug the tests must pass"):
        mutants.check(copy, [planted("    for envelope in []:", test="tests/test_mailbox.py::test_that_is_not_there")])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("what is nowhere", "x", "found 0 times, not once"),
        ("def ", "x", r"found \d\d times, not once"),
        (LOOP, "    for envelope in in waiting:", "is no Python with it"),
    ],
)
def test_a_table_that_does_not_fit_says_where(old: str, new: str, why: str) -> None:
    with pytest.raises(Misfit, match=why):
        mutants.mutated(planted(new, old=old), PACKAGE)


def test_the_command_lists_and_refuses_names_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["--list"]) == 0
    assert capsys.readouterr().out.count("tests/test_") == len(mutants.table())

    with pytest.raises(SystemExit) as refused:
        mutants.main(["--only", "no-such-bug"])
    assert refused.value.code == 2


def test_an_error_is_fair_if_an_assertion_failed_and_the_code_could_run() -> None:
    assert mutants.by_assertion(AssertionError())
    assert mutants.by_assertion(ExceptionGroup("", [ValueError(), AssertionError()]))
    assert not mutants.by_assertion(TimeoutError())
    wrapped = AssertionError()
    wrapped.__cause__ = NameError()
    assert not mutants.by_assertion(wrapped)
