"""`Trace`: who changed what in the world of a test, line by line. Slow, so it is for the one run that explains a failure."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import define, field, frozen

from actorflow.testing.bodies import Body, is_users
from actorflow.testing.harness import Harness
from actorflow.testing.verdict import Cause
from actorflow.testing.watch import Picture, Watch, changes
from actorflow.value import Value


@frozen
class _Touch(Value):
    """A stretch of code changed something."""

    who: str
    body: Body | None
    path: str
    life: int
    line: str


@define(eq=False)
class Trace:
    """Who changed what, in one run."""

    touches: list[_Touch] = field(factory=list[_Touch])
    _look: Callable[[], Picture] = dict
    _life: Callable[[], int] = int
    _inside: bool = False
    _picture: Picture = field(factory=dict[str, Counter[str]])
    _line: str = ""

    def follow(self, harness: Harness, watch: Watch) -> None:
        """Look at the world before and after each stretch of steps and of durable code."""
        self._look = lambda: watch.picture(harness.resources, (), harness.variables())
        self._life = lambda: len(harness.lives)
        harness.bodies.around = self._around

    def _around(self, who: str, body: Body | None, go_on: Callable[[], Any]) -> Any:
        if self._inside:
            return go_on()

        def at_line(frame: FrameType, event: str, _: object) -> Any:
            if not is_users(frame.f_code.co_filename):
                return None
            self._compare(who, body)
            if event == "line":
                self._line = (
                    f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: "
                    + getline(frame.f_code.co_filename, frame.f_lineno).strip()
                )
            return at_line

        self._inside, self._picture, self._line = True, self._look(), ""
        debugger = sys.gettrace()
        sys.settrace(at_line)
        try:
            return go_on()
        finally:
            sys.settrace(debugger)
            self._compare(who, body)
            self._inside = False

    def _compare(self, who: str, body: Body | None) -> None:
        """Whatever has changed was changed by the line before."""
        before, self._picture = self._picture, self._look()
        found = changes(before, self._picture)
        self.touches += [_Touch(who, body, change.path, self._life(), self._line) for change in found]

    def causes(self) -> list[Cause]:
        """Who did the same more than once: durable code in several lives, a step in several bodies with one key."""
        return [*self._outside(), *self._twice()]

    def _outside(self) -> Iterable[Cause]:
        lives: dict[tuple[str, str, str], set[int]] = {}
        for touch in self.touches:
            if touch.body is None:
                lives.setdefault((touch.who, touch.path, touch.line), set()).add(touch.life)
        return [
            Cause(who=who, is_step=False, path=path, times=len(found), line=line)
            for (who, path, line), found in lives.items()
            if len(found) > 1
        ]

    def _twice(self) -> Iterable[Cause]:
        bodies: dict[tuple[str, str, str, str], set[int]] = {}
        for touch in self.touches:
            if touch.body is not None:
                bodies.setdefault((touch.who, touch.body.key, touch.path, touch.line), set()).add(id(touch.body))
        return [
            Cause(who=who, is_step=True, path=path, times=len(found), line=line, key=key.partition("/")[2])
            for (who, key, path, line), found in bodies.items()
            if len(found) > 1
        ]
