"""The verdict of a soak: what was accepted and is not there, or is there twice, is seen. And a soak of a few seconds.

`python -m tests.soak --for 10m` is the long form.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import soak, soak_job
from tests.soak import Soak

SORTS, WINDOW = soak_job.SORTS, soak_job.WINDOW


def sound() -> list[str]:
    """The ledger of one window in which all went well."""
    lines: list[str] = []
    for n in range(WINDOW):
        lines += [f"accepted {n}", f"effect s/SoakJob/{n}/0//add/0", f"seen {n} {soak_job.expected(n)}"]
        if n % SORTS == 0:
            lines += [f"step {n} {at}" for at in (0, 1, 1, 2)]
        if n % SORTS == 6:
            lines += [f"undo {n} second", f"undo {n} second", f"undo {n} first"]
    return [*lines, "done 0", "memory 7 1000000"]


def judged(folder: Path, lines: list[str]) -> Soak:
    (folder / "ledger").write_text("\n".join(lines) + "\n")
    at = Soak(folder, random.Random(0))
    assert soak.judge_ledger(at)["jobs"] == WINDOW
    return at


def test_a_ledger_without_fault_is_called_so(tmp_path: Path) -> None:
    assert judged(tmp_path, sound()).wrong == []


def without(*words: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [line for line in lines if line not in words]


def more(*words: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines, *words]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (without("seen 9 15"), r"job 9 was seen to end as \[\], not as 15"),
        (more("seen 9 14"), r"job 9 was seen to end as \['14', '15'\], not as 15"),
        (more("step 9 1"), "step 1 of job 9 began again after step 2"),
        (without("undo 6 first"), r"job 6 was undone in this order: \['second', 'second'\]"),
        (lambda lines: ["undo 6 first", *lines], "job 6 was undone in this order"),
        (more("accepted 61"), r"accepted and never finished: \[61\]"),
    ],
)
def test_what_was_promised_and_not_kept_is_seen(tmp_path: Path, broken: Callable[[list[str]], list[str]], why: str) -> None:
    [complaint] = judged(tmp_path, broken(sound())).wrong

    assert re.search(why, complaint), complaint


@pytest.mark.kill
def test_a_service_is_soaked_for_a_few_seconds_and_keeps_its_word(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")

    _, figures = soak.soaked(tmp_path, for_s=3.0, seed=seed)

    assert figures["wrong"] == [], figures
    assert figures["jobs"] >= WINDOW
    assert sum(figures["faults"].values()) >= 1
