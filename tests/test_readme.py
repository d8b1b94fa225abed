"""The README keeps its word: its quick start runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
QUICK_START = TEXT.partition("## Quick start")[2].partition("```python\n")[2].partition("```")[0]
ACTORS = TEXT.partition("## Actors")[2].partition("```python\n")[2].partition("```")[0]
LINES_MAX = 40


programs = pytest.mark.parametrize("program", [QUICK_START, ACTORS], ids=["quick start", "actors"])


@programs
def test_a_program_is_short_enough_to_be_pasted(program: str) -> None:
    assert 0 < len([line for line in program.splitlines() if line]) <= LINES_MAX


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_every_piece_of_python_can_be_parsed(code: str) -> None:
    ast.parse(f"async def shown(self):\n{''.join(f'    {line}' for line in code.splitlines(keepends=True))}")


@pytest.mark.kill
@programs
def test_a_program_runs_and_a_second_time_prints_the_same(tmp_path: Path, program: str) -> None:
    (tmp_path / "shop.py").write_text(program, encoding="utf-8")

    command = [sys.executable, "-W", "error", "shop.py"]
    runs = [subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False) for _ in range(2)]

    expected = re.search(r"It prints `([^`]*)`", TEXT.partition(program)[2])
    assert expected is not None
    for done in runs:
        assert (done.returncode, done.stdout.strip()) == (0, expected[1]), done.stderr


@pytest.mark.kill
def test_the_example_of_supervision_shows_what_is_said_of_it(tmp_path: Path) -> None:
    section = TEXT.partition("## Supervision")[2]
    (tmp_path / "stock.py").write_text(section.partition("```python\n")[2].partition("```")[0], encoding="utf-8")

    command = [sys.executable, "-W", "error", "stock.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    expected = re.search(r"That shows `([^`]*)`", section)
    assert expected is not None
    assert (done.returncode, done.stdout.splitlines()) == (0, expected[1].split(" | ")), done.stderr


@pytest.mark.kill
def test_the_example_of_a_test_passes_and_fails_as_is_shown(tmp_path: Path) -> None:
    section = TEXT.partition("## Test it")[2]
    program, shown = section.partition("```python\n")[2].partition("```")[0], section.split("```\n")[2].partition("```")[0]
    spoilt = program.replace("dict[str, int] = {}", "list[int] = []")
    spoilt = spoilt.replace("self.charged[key] = cents", "self.charged.append(cents)")
    (tmp_path / "test_good.py").write_text(program, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(spoilt, encoding="utf-8")

    plugin = ["-p", "no:actorflow", "-p", "actorflow.testing.plugin", "-p", "no:cacheprovider", "-W", "error"]
    env = os.environ | {"PYTHONPATH": str(README.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *plugin]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    assert "1 failed, 1 passed" in done.stdout
    assert shown.strip("\n") in done.stdout


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?://|#)([^)]+)\)", TEXT))
def test_every_link_to_a_file_leads_to_one(target: str) -> None:
    assert (README.parent / target).exists()


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (README.parent / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)\b", TEXT)) <= targets


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^\| `([A-Z]\w+)`(?:, `([A-Z]\w+)`)? \|", TEXT, flags=re.MULTILINE))))
def test_every_error_in_the_table_exists(name: tuple[str, str]) -> None:
    from actorflow import errors

    assert all(hasattr(errors, part) for part in name if part)
