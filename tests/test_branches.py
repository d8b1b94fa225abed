"""Which line of durable code a branch belongs to, and what may follow from an entry of another one."""

from __future__ import annotations

import pytest

from actorflow.kernel.branches import follows, lines


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ("",)),
        ("/Job.paid#0", ("",)),
        ("/gather#0.1", ("", "/gather#0.1")),
        ("/task#3", ("", "/task#3")),
        ("/task:a~0/Job.ship#2/gather#1.10", ("", "/task:a~0", "/task:a~0/Job.ship#2/gather#1.10")),
        ("/Job.gather#0", ("",)),
    ],
)
def test_gathers_and_tasks_are_lines_and_a_checkpoint_is_of_the_line_that_calls_it(path: str, found: tuple[str, ...]) -> None:
    assert lines(path) == found


@pytest.mark.parametrize(
    ("branch", "cut", "may"),
    [
        ("", "", True),
        ("/Job.paid#0", "", True),
        ("", "/Job.paid#0", True),
        ("/gather#0.0", "/gather#0.0", True),
        ("", "/gather#0.0", True),
        ("/task#0", "/task#0/gather#0.1", True),
        ("/gather#0.1", "/gather#0.0", False),
        ("/gather#1.0", "/gather#0.0", False),
        ("/gather#0.0/gather#0.0", "/gather#0.1", False),
        ("/gather#1.0", "", True),
        ("/gather#0.0/gather#0.1", "/gather#0.0", True),
    ],
)
def test_what_is_of_the_same_line_of_one_above_or_of_a_gather_that_it_opened_may_follow(branch: str, cut: str, may: bool) -> None:
    assert follows(branch, cut) is may
    assert follows(branch, cut, begun=()) is may


def test_a_task_follows_from_the_line_that_opened_it_unless_it_had_begun_before() -> None:
    assert follows("/task#0", "") is False  # Nobody knows: so it is taken for one that had.
    assert follows("/task#0", "", begun={"/task#1"}) is True
    assert follows("/task#0", "", begun={"/task#0"}) is False
    assert follows("/task#0/gather#0.1", "", begun={"/task#0"}) is False
    assert follows("/task#0/gather#0.1", "", begun=()) is True
