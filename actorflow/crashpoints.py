"""Named places where a test may end the process, or do something else, between two things that must both survive it.

`crashpoint` costs one comparison when nothing is armed. `ACTORFLOW_CRASH="name:N"` in the environment, read once at import,
makes the process kill itself (SIGKILL) at the N-th time it comes to that place: that is how tests crash a child.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

POINTS: dict[str, str] = {
    "open.locked": "The lock is held; nothing was read or written.",
    "open.migrated": "The schema is there; the fence is not raised yet.",
    "open.fenced": "The fence is raised and durable; the sidecar does not know yet.",
    "commit.begin": "A batch is about to begin.",
    "commit.rows": "Its rows are inserted, its other writes are not.",
    "commit.before": "All is written, nothing is committed. What is raised here counts as raised by COMMIT.",
    "commit.after": "The batch is durable, nobody was told. What is raised here counts as raised by COMMIT.",
    "checkpoint.before": "The WAL is about to be copied into the database file.",
    "checkpoint.after": "It was; the generation is not raised yet.",
    "checkpoint.raised": "The generation is raised in the database, not yet in the sidecar.",
    "close.before": "The last checkpoint is done; the sidecar and the connections are as they were.",
}
"""Every name, and what is true there. A test can prove that each was reached."""

_armed: tuple[str, Callable[[], object]] | None = None


def crashpoint(name: str) -> None:
    """Do what was armed for *name*; nothing otherwise."""
    if _armed is not None and _armed[0] == name:
        _armed[1]()


def arm(name: str, action: Callable[[], object]) -> None:
    """Call *action* whenever the place *name* is reached (in whatever thread that is), until `disarm`.

    Raises:
        ValueError: There is no such place.
    """
    global _armed  # noqa: PLW0603  (one process, one crash)
    if name not in POINTS:
        raise ValueError(f"there is no crashpoint {name!r}; there are {', '.join(POINTS)}")
    _armed = (name, action)


def disarm() -> None:
    """Let every place pass again."""
    global _armed  # noqa: PLW0603
    _armed = None


def _kill_at(count: int) -> Callable[[], None]:
    left = count

    def action() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return action


def _arm_from(setting: str) -> None:
    name, _, count = setting.partition(":")
    arm(name, _kill_at(int(count or 1)))


if _setting := os.environ.get("ACTORFLOW_CRASH"):
    _arm_from(_setting)
