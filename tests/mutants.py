"""Planted bugs: each breaks one law of the kernel, and a named test must notice.

`python -m tests.mutants` (or `make mutants`) plants one bug at a time into a copy of the package and runs the test that the
table (`mutants.toml`) names for it. The test must fail by an assertion: one that fails because the bug cannot be imported, or
because nothing came to an end, would prove nothing. The exit code is 1 if a bug survives, 2 if the table does not fit the code.

A bug is text that is replaced by other text. It must be found exactly once, so the table cannot rot without a word.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, Literal

import pytest
from attrs import asdict, frozen

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_name("mutants.toml")
COPIED = ("actorflow", "tests", "examples", "pyproject.toml", "README.md")
TIMEOUT_S = 120.0
"""For one test: nearly all take a second or two."""


@frozen
class Edit:
    """What is replaced where."""

    file: str  #: below the package
    old: str
    new: str


@frozen
class Mutant:
    """One planted bug."""

    name: str
    law: str  #: what it breaks, in one sentence
    test: str  #: who must notice, as pytest names it
    edits: tuple[Edit, ...]


@frozen
class Verdict:
    """What became of one mutant."""

    name: str
    law: str
    test: str
    came_to: Literal["caught", "survived", "broken"]
    how: str  #: the assertion that failed; or what happened instead of one
    took_s: float


class Misfit(Exception):
    """The table does not fit the code, or the tests do not pass without a bug."""


def table() -> list[Mutant]:
    """All planted bugs there are."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(row["name"], row["law"], row["test"], tuple(Edit(**edit) for edit in row["edit"])) for row in rows]


def mutated(mutant: Mutant, package: Path) -> dict[Path, str]:
    """The files that it changes, as they are with it.

    Raises:
        Misfit: A text is not there exactly once, or what comes out is no Python.
    """
    texts: dict[Path, str] = {}
    for edit in mutant.edits:
        path = package / edit.file
        text = texts.get(path) or path.read_text(encoding="utf-8")
        if (times := text.count(edit.old)) != 1:
            raise Misfit(f"{mutant.name}: in {edit.file} this is found {times} times, not once:\n{edit.old}")
        texts[path] = text.replace(edit.old, edit.new)
    for path, text in texts.items():
        if path.suffix == ".py":
            try:
                compile(text, str(path), "exec")
            except SyntaxError as error:
                raise Misfit(f"{mutant.name}: {path.name} is no Python with it: {error}") from error
    return texts


class Copy:
    """A copy of the package and its tests, to be broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.db*", ".hypothesis"))
            else:
                shutil.copy2(ROOT / name, folder / name)
        compileall.compile_dir(folder / "actorflow", quiet=2)

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        """With that bug in it while the block lasts."""
        texts = mutated(mutant, self.folder / "actorflow")
        sound = {path: path.read_text(encoding="utf-8") for path in texts}
        try:
            for path, text in texts.items():
                self._write(path, text)
            yield
        finally:
            for path, text in sound.items():
                self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        # A cache is told from a newer one by the second and the size: two texts of the same length within one look the same.
        for cache in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            cache.unlink()

    def run(self, tests: Sequence[str], *, timeout_s: float) -> tuple[int, list[dict[str, Any]]]:
        """pytest's exit code, and what failed and how.

        Raises:
            subprocess.TimeoutExpired: It came to no end.
        """
        seen = self.folder / "seen"
        seen.write_text("")
        known = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "COVERAGE_"))}
        child = [sys.executable, "-m", "pytest", "-x", "-p", "tests.mutants", "-p", "no:xdist", "-p", "no:cov", *tests]
        done = subprocess.run(
            child,
            cwd=self.folder,
            env=known | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "ACTORFLOW_SEEN": str(seen)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, [json.loads(line) for line in seen.read_text(encoding="utf-8").splitlines()]


def pytest_exception_interact(call: Any, report: Any) -> None:
    """Said by the pytest that `Copy.run` starts, which takes this module as a plugin: what failed, and how."""
    if (seen := os.environ.get("ACTORFLOW_SEEN")) is None:
        return
    error = call.excinfo.value
    line = {"when": getattr(report, "when", "collect"), "fair": by_assertion(error), "how": _short(error)}
    with Path(seen).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


UNFAIR = (SyntaxError, ImportError, NameError, AttributeError)
"""What a bug raises that is none: code which cannot run."""


def by_assertion(error: BaseException) -> bool:
    """True if a test's assertion failed, and not the code that was changed."""
    errors = list(_chain(error))
    unfair = any(isinstance(each, UNFAIR) for each in errors)
    return not unfair and any(isinstance(each, AssertionError | pytest.fail.Exception) for each in errors)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It, those that it consists of, and those that it was raised from."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _chain(each)
    if error.__cause__ is not None:
        yield from _chain(error.__cause__)


def _short(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def judged(copy: Copy, mutant: Mutant) -> Verdict:
    """Plant it, and see whether its test notices."""
    began = time.monotonic()

    def verdict(came_to: Literal["caught", "survived", "broken"], how: str) -> Verdict:
        return Verdict(mutant.name, mutant.law, mutant.test, came_to, how, round(time.monotonic() - began, 2))

    with copy.planted(mutant):
        try:
            code, seen = copy.run([mutant.test], timeout_s=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return verdict("broken", f"its test came to no end in {TIMEOUT_S:g} s: name one that fails by an assertion")
    if code == 0:
        return verdict("survived", "its test passed")
    if code != 1 or not seen:
        return verdict("broken", f"pytest ended with {code}")
    first = seen[0]
    if first["when"] != "call" or not first["fair"]:
        return verdict("broken", f"no assertion failed, but ({first['when']}) {first['how']}")
    return verdict("caught", first["how"])


def verdicts(mutants: Sequence[Mutant], *, jobs: int = 1) -> Iterator[Verdict]:
    """What becomes of each of them, in the order in which that is known.

    Args:
        mutants: What to plant.
        jobs: How many at a time, each in a copy of its own.

    Raises:
        Misfit: The table does not fit the code, or a test fails without a bug.
    """
    for mutant in mutants:
        mutated(mutant, ROOT / "actorflow")
    with tempfile.TemporaryDirectory(prefix="actorflow-mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = [Copy(Path(folder) / str(number)) for number in range(jobs)]
        list(pool.map(check, copies, [list(mutants[number::jobs]) for number in range(jobs)]))
        free: Queue[Copy] = Queue()
        for copy in copies:
            free.put(copy)

        def one(mutant: Mutant) -> Verdict:
            copy = free.get()
            try:
                return judged(copy, mutant)
            finally:
                free.put(copy)

        for done in as_completed([pool.submit(one, mutant) for mutant in mutants]):
            yield done.result()


def check(copy: Copy, mutants: Sequence[Mutant]) -> None:
    """See that without a bug their tests pass.

    Raises:
        Misfit: One does not.
    """
    tests = list(dict.fromkeys(mutant.test for mutant in mutants))
    code, seen = copy.run(tests, timeout_s=TIMEOUT_S * 5) if tests else (0, [])
    if code != 0:
        how = seen[0]["how"] if seen else f"pytest ended with {code}; is each test there?"
        raise Misfit(f"without a bug the tests must pass, and one does not: {how}")


def drawn(count: int, seed: str) -> list[Mutant]:
    """So many of them, by chance."""
    return random.Random(seed).sample(table(), count)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="show all planted bugs, and the test that must notice each")
    parser.add_argument("--only", action="append", metavar="NAME", help="plant this one alone; may be repeated")
    parser.add_argument("--draw", type=int, metavar="N", help="plant N of them, drawn by --seed")
    parser.add_argument("--seed", default=time.strftime("%Y-%m-%d"), help="of --draw; by default the day")
    parser.add_argument("--json", action="store_true", help="print one array of verdicts, and progress on standard error")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="how many at a time")
    given = parser.parse_args(arguments)
    mutants = table() if given.draw is None else drawn(given.draw, given.seed)
    if given.only:
        unknown = sorted(set(given.only) - {mutant.name for mutant in mutants})
        if unknown:
            parser.error(f"there is no {', '.join(unknown)}; --list shows all")
        mutants = [mutant for mutant in mutants if mutant.name in given.only]
    if given.list:
        print(json.dumps([asdict(m) for m in mutants], indent=1) if given.json else "\n".join(_listed(mutants)))
        return 0
    try:
        return _report(mutants, as_json=given.json, jobs=given.jobs)
    except Misfit as misfit:
        print(misfit, file=sys.stderr)
        return 2


def _listed(mutants: Iterable[Mutant]) -> Iterator[str]:
    for mutant in mutants:
        yield f"{mutant.name}: {mutant.law}\n    {mutant.test}"


def _report(mutants: Sequence[Mutant], *, as_json: bool, jobs: int) -> int:
    began, found = time.monotonic(), list[Verdict]()
    out = sys.stderr if as_json else sys.stdout
    print(f"{len(mutants)} planted bugs; first the tests without them ...", file=out, flush=True)
    for verdict in verdicts(mutants, jobs=jobs):
        found.append(verdict)
        print(f"{len(found):3}/{len(mutants)} {verdict.came_to:8} {verdict.name} ({verdict.took_s:.1f} s)", file=out, flush=True)
        print(f"            {verdict.law if verdict.came_to == 'caught' else verdict.how + ': ' + verdict.test}", file=out)
    left = [verdict for verdict in found if verdict.came_to != "caught"]
    if as_json:
        print(json.dumps([asdict(verdict) for verdict in found], indent=1))
    caught = f"{len(found) - len(left)} of {len(found)} planted bugs were caught, in {time.monotonic() - began:.0f} s"
    print(f"{caught}; not caught: {', '.join(v.name for v in left)}" if left else caught, file=out)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
