"""Where a holder listens: in a directory that is its user's alone; and whether it still lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actorflow.runtime.place import _lives, _own_directory


def test_a_directory_is_made_for_its_user_alone_and_found_again(tmp_path: Path) -> None:
    place = tmp_path / "sockets"

    _own_directory(place)
    _own_directory(place)

    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["a file", "open to all", "a link"])
def test_what_somebody_else_may_have_put_there_is_refused(tmp_path: Path, what: str) -> None:
    place = tmp_path / "sockets"
    match what:
        case "a file":
            place.touch(mode=0o700)
        case "open to all":
            place.mkdir()
            place.chmod(0o777)
        case _:
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            place.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PermissionError, match="is not a directory of this user alone"):
        _own_directory(place)


def test_a_process_lives_until_it_was_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert _lives(os.getpid()) is True
    assert _lives(child.pid) is False


def test_one_that_belongs_to_somebody_else_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)

    assert _lives(1) is True
