"""The lines of conformance.toml and the tests that show them fit together, and the table is what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import conformance
from tests.conformance import Line, complaints, numbers, table

PARTS = (("X", 2, "Some"), ("R", 1, "Others"))
GOOD = (
    Line(id="X1", says="One.", tests=("tests/test_a.py::test_one", "tests/test_a.py::Class::test_two[3]")),
    Line(id="X2", says="Two.", waits="something"),
    Line(id="R1", says="Three.", tests=("tests/test_a.py::test_one",)),
)
TESTS = {"tests/test_a.py::test_one": ("X1", "R1"), "tests/test_a.py::Class::test_two": ("X1",), "tests/test_a.py::test_x": ()}


def test_every_line_is_there_once_and_its_tests_say_so() -> None:
    assert complaints(conformance.lines(), conformance.shown_by_tests()) == []


def test_the_table_is_up_to_date() -> None:
    written = conformance.TABLE.read_text(encoding="utf-8")

    assert written == table(conformance.lines()), "run `python -m tests.conformance`"


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (GOOD, ""),
        ((GOOD[0], GOOD[2]), "X2 is missing"),
        ((*GOOD, GOOD[1]), "X2 is there 2 times"),
        ((GOOD[1], GOOD[0], GOOD[2]), "X2 is not in its place"),
        ((*GOOD, Line(id="X3", says="Four.", waits="something")), "X3 is there, and there is no such line"),
        ((GOOD[0], Line(id="X2", says="Two."), GOOD[2]), "X2 has tests or waits for something, one of the two"),
        ((GOOD[0], Line(id="X2", says="", waits="something"), GOOD[2]), "X2 says nothing"),
        (
            (GOOD[0], Line(id="X2", says="Two.", tests=("tests/test_a.py::test_no",)), GOOD[2]),
            "X2 names tests/test_a.py::test_no, which does not exist",
        ),
        (
            (GOOD[0], Line(id="X2", says="Two.", tests=("tests/test_a.py::test_x",)), GOOD[2]),
            "X2 names tests/test_a.py::test_x, whose docstring does not begin with that number",
        ),
        (
            (GOOD[0], GOOD[1], Line(id="R1", says="Three.", waits="something")),
            "tests/test_a.py::test_one says that it shows R1, and conformance.toml does not name it there",
        ),
    ],
)
def test_what_is_wrong_with_the_lines_is_found(lines: Sequence[Line], complaint: str) -> None:
    assert complaints(lines, TESTS, PARTS) == ([complaint] if complaint else [])


def test_numbers_are_those_that_a_docstring_begins_with() -> None:
    assert numbers("X1, A22, rule 7 and E5: then it goes on. X9.") == ("X1", "A22", "E5")
    assert numbers("P3, X4.") == ("X4",)
    assert numbers("It was lost: X1.") == numbers(None) == ()


def test_tests_are_found_in_the_text_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        'def test_one():\n    """X1: so."""\nclass A:\n    async def test_two(self): ...\ndef other(): ...\n'
    )

    assert conformance.shown_by_tests(tmp_path) == {"tests/test_a.py::test_one": ("X1",), "tests/test_a.py::A::test_two": ()}


def test_the_table_shows_tests_or_what_is_waited_for() -> None:
    shown = table(GOOD, PARTS)

    assert "3 lines: 2 are shown by 2 tests, 1 wait" in shown
    assert "| X2 | Two. | *waits for something* |" in shown
    assert "| R1 | Three. | [test_a.py](test_a.py) `test_one` |" in shown
