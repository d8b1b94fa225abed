"""The lines of conformance.toml: what any crash, fault and hostile input must do, each with the tests that show it.

`python -m tests.conformance` writes the table tests/CONFORMANCE.md from them and prints how many are tested and how many wait;
with `--check` it writes nothing, and fails if anything is wrong or the table is not up to date.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

TESTS = Path(__file__).parent
LINES = TESTS / "conformance.toml"
TABLE = TESTS / "CONFORMANCE.md"

PARTS: tuple[tuple[str, int, str], ...] = (
    ("X", 40, "Running durable code"),
    ("R", 22, "Mistakes that are not made"),
    ("O", 11, "Supervision"),
    ("A", 22, "Crashes, at every point"),
    ("B", 26, "The store fails"),
    ("C", 20, "The process fails"),
    ("D", 12, "Time fails"),
    ("E", 25, "Code fails"),
    ("F", 16, "Messages fail"),
    ("G", 12, "Actors and their supervisors fail"),
    ("S", 27, "Hostile input"),
    ("I", 15, "Invariants of the rows, after any of it"),
)
"""Letter, how many lines, and what they are about."""

NUMBER = re.compile(rf"\b[{''.join(letter for letter, _, _ in PARTS)}][1-9][0-9]?\b")


@frozen(kw_only=True)
class Line:
    """One line: what must be so."""

    id: str
    says: str
    tests: tuple[str, ...] = ()  #: "tests/test_x.py::test_name", with classes and a parameter's id if need be
    waits: str = ""  #: the feature without which it means nothing
    reads: str = ""  #: how it is to be read here, where that is not obvious


def lines(path: Path = LINES) -> list[Line]:
    """All lines, in the order of the file."""
    with path.open("rb") as file:
        found = tomllib.load(file)["line"]
    return [Line(**{**line, "tests": tuple(line.get("tests", ()))}) for line in found]


def numbers(docstring: str | None) -> tuple[str, ...]:
    """The numbers that a docstring begins with.

    >>> numbers("X1, A2, rule 7: whatever follows, X3 too.")
    ('X1', 'A2')
    """
    return tuple(NUMBER.findall(re.split("[:;.]", docstring or "", maxsplit=1)[0]))


Shown = Mapping[str, tuple[str, ...]]
"""What each test says that it shows: numbers by the test's name, "tests/test_x.py::Class::test_name"."""


def shown_by_tests(folder: Path = TESTS) -> Shown:
    """All tests of a folder, from their text: nothing is imported."""
    return {
        f"tests/{path.name}::{name}": numbers(ast.get_docstring(test))
        for path in sorted(folder.glob("test_*.py"))
        for name, test in _functions(ast.parse(path.read_text(encoding="utf-8")), "")
    }


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef(name=name):
                yield from _functions(child, f"{prefix}{name}::")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                yield prefix + name, child
            case _:
                pass


def complaints(of: Sequence[Line], known: Shown, parts: Iterable[tuple[str, int, str]] = PARTS) -> list[str]:
    """What is wrong with the lines, or between them and the tests."""
    expected = [f"{letter}{n}" for letter, count, _ in parts for n in range(1, count + 1)]
    found = [line.id for line in of]
    wrong = [f"{id} is missing" for id in expected if id not in found]
    wrong += [f"{id} is there, and there is no such line" for id in dict.fromkeys(found) if id not in expected]
    wrong += [f"{id} is there {found.count(id)} times" for id in expected if found.count(id) > 1]
    if not wrong and found != expected:
        first = next(have for have, want in zip(found, expected, strict=True) if have != want)
        wrong.append(f"{first} is not in its place")
    for line in of:
        wrong += _of_line(line, known)
    named = {(_plain(test), line.id) for line in of for test in line.tests}
    wrong += [
        f"{test} says that it shows {id}, and conformance.toml does not name it there"
        for test, ids in known.items()
        for id in ids
        if (test, id) not in named
    ]
    return wrong


def _of_line(line: Line, known: Shown) -> Iterator[str]:
    if not line.says:
        yield f"{line.id} says nothing"
    if bool(line.tests) == bool(line.waits):
        yield f"{line.id} has tests or waits for something, one of the two"
    for test in line.tests:
        if _plain(test) not in known:
            yield f"{line.id} names {test}, which does not exist"
        elif line.id not in known[_plain(test)]:
            yield f"{line.id} names {test}, whose docstring does not begin with that number"


def _plain(test: str) -> str:
    """Without the id of a parameter."""
    return test.partition("[")[0]


def summary(of: Sequence[Line]) -> str:
    tested = [line for line in of if line.tests]
    shown = len({_plain(test) for line in tested for test in line.tests})
    return f"{len(of)} lines: {len(tested)} are shown by {shown} tests, {len(of) - len(tested)} wait for what is not there yet"


def table(of: Sequence[Line], parts: Iterable[tuple[str, int, str]] = PARTS) -> str:
    """The lines as Markdown, with their tests or what they wait for."""
    text = [
        "# Conformance",
        "",
        "What any crash, fault and hostile input must do. Each line is a test, or several; a line that waits names the feature",
        "without which it means nothing. Written by `python -m tests.conformance` from conformance.toml.",
        "",
        f"{summary(of)}.",
    ]
    for letter, _, title in parts:
        text += ["", f"## {title}", "", "| | what must be so | shown by |", "|---|---|---|"]
        text += [_row(line) for line in of if line.id.rstrip("0123456789") == letter]
    return "\n".join(text) + "\n"


def _row(line: Line) -> str:
    says = line.says + (f" *({line.reads})*" if line.reads else "")
    shown = "<br>".join(_shown(test) for test in line.tests) or f"*waits for {line.waits}*"
    return f"| {line.id} | {says.replace('|', chr(92) + '|')} | {shown} |"


def _shown(test: str) -> str:
    file, _, name = test.removeprefix("tests/").partition("::")
    return f"[{file}]({file}) `{name}`"


def main(arguments: Sequence[str]) -> int:
    """Write the table, or check it; 1 if something is wrong."""
    of = lines()
    wrong = complaints(of, shown_by_tests())
    if "--check" not in arguments:
        TABLE.write_text(table(of), encoding="utf-8")
    elif not TABLE.exists() or TABLE.read_text(encoding="utf-8") != table(of):
        wrong.append("tests/CONFORMANCE.md is not up to date: run `python -m tests.conformance`")
    print(*wrong, summary(of), sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
