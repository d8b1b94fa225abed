"""`survives`: a test is run once, and then once for every place in which its process may die. The same must come out.

After each run it is looked at: the test's own assertions, its invariant, the promises of the store's rows, what the test was
told (results and answers), which steps had their effect, and the world as the test can see it. A failure is explained by a
second run of the same schedule, in which every change of the world is watched, and who made it.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, cast

import pytest
from attrs import define, field, frozen

from actorflow.errors import RunPaused
from actorflow.resources import Resources
from actorflow.stores.memory import MemoryStore
from actorflow.testing import points
from actorflow.testing.bodies import is_users
from actorflow.testing.clock import Backend, Ticks, run_virtual
from actorflow.testing.harness import Harness
from actorflow.testing.invariants import Rows, replays, rows_of, violations
from actorflow.testing.life import Life
from actorflow.testing.points import CALM, FAULTS, Schedule
from actorflow.testing.trace import Trace
from actorflow.testing.verdict import DidNotSurvive, Verdict, command, journal_of, said_of, strayed
from actorflow.testing.watch import Picture, Watch, changes, modules_of
from actorflow.value import Value

if TYPE_CHECKING:
    from actorflow.testing.plugin import DurableTest

POINTS_MAX = 200  #: crash points of one test, unless it says otherwise: a second or two
PAIRS = 3
ERROR_LINES_MAX = 20
EARLIER_MAX = 64  #: how many untried points before one that failed are tried, to find the first


@frozen(kw_only=True)
class Options(Value):
    """What `survives` was told."""

    points: int | None = POINTS_MAX
    pairs: int = PAIRS
    seed: int = 0
    faults: Sequence[str] = FAULTS
    invariant: Callable[..., Any] | None = None
    watch: Callable[..., Any] | None = None
    ignore: Sequence[str] = ()
    only: Schedule | None = None

    @classmethod
    def of(cls, item: DurableTest) -> Options:
        """What the marker says, and the command line after it.

        Raises:
            Failed: It says what is not known.
        """
        marker = item.get_closest_marker("survives")
        given: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
        known = ("points", "pairs", "faults", "invariant", "watch", "ignore")
        if (marker is not None and marker.args) or given.keys() - set(known):
            pytest.fail(f"survives takes {', '.join(f'{name}=' for name in known)}; not {marker}.", pytrace=False)
        if unknown := set(given.get("faults", ())) - set(FAULTS):
            pytest.fail(f"survives knows the faults {', '.join(FAULTS)}; not {', '.join(sorted(unknown))}.", pytrace=False)
        if isinstance(given.get("ignore"), str):
            given["ignore"] = (given["ignore"],)
        if (most := item.config.getoption("--actorflow-points")) is not None:
            given["points"] = most
        if "points" in given:
            given["points"] = _points(given["points"])
        crash = item.config.getoption("--actorflow-crash")
        try:
            only = None if crash is None else points.parse(crash)
        except ValueError as error:
            pytest.fail(f"--actorflow-crash: {error}", pytrace=False)
        return cls(**given, seed=int(item.config.getoption("--actorflow-seed") or 0), only=only)


def _points(given: object) -> int | None:
    if given in (None, "all"):
        return None
    if not str(given).isdigit():
        pytest.fail(f"survives tries a number of crash points, or 'all' of them, not {given!r}.", pytrace=False)
    return int(str(given))


@define(eq=False)
class Trial:
    """One run of the test."""

    schedule: Schedule
    harness: Harness
    error: BaseException | None = None
    broken: list[str] = field(factory=list[str])  #: promises that were not kept
    strayed: list[str] = field(factory=list[str])  #: what durable code does otherwise when it is driven again
    picture: Picture = field(factory=dict[str, Counter[str]])
    rows: list[Rows] = field(factory=list[Rows])  #: of the moment of the first death

    def keys(self) -> set[str]:
        """What names the steps that ran to their end."""
        # An undo is named by its entry's place in the store, and a turn by its message's number: both depend on what else was
        # recorded.
        ran = (body.key for body in self.harness.bodies.began if body.ended)
        return {re.sub(r"/m\d+/", "/m/", re.sub(r"~undo/\d+", "~undo", key)) for key in ran}

    def answers(self) -> Picture:
        """What the test was told."""
        told: Picture = {}
        for call, said in self.harness.answers:
            told.setdefault(call, Counter())[said] += 1
        return told


# --- one run ------------------------------------------------------------------------------------------------------------


@define(eq=False)
class Runs:
    """All runs of one test."""

    item: DurableTest
    options: Options
    watch: Watch = field(init=False)
    count: int = 0

    def __attrs_post_init__(self) -> None:
        self.watch = Watch(modules_of(self.item.file))
        self.watch.save()

    def run(self, schedule: Schedule, *, probe: bool = False, trace: Trace | None = None) -> Trial:
        """Run it once."""
        item, ticks = self.item, Ticks()
        if self.count:
            self.watch.put_back()
            item.renew()
        self.count += 1
        fixtures = {name: value for name, value in item.funcargs.items() if value is not item.harness}
        self.watch.fixtures = fixtures
        if self.options.watch is not None:
            self.watch.more = partial(_called, self.options.watch, item.funcargs)
        trial = Trial(schedule, item.harness)
        trial.harness.begin(schedule, ticks, probe=probe)
        trial.harness.on_end = partial(self._look, trial)
        if trace is not None:
            trace.follow(trial.harness, self.watch)
        try:
            _play(item, trial.harness, ticks)
        except BaseException as error:  # noqa: BLE001  (`pytest.skip` and `pytest.fail` are none of `Exception`)
            trial.error = error
        return trial

    async def _look(self, trial: Trial, life: Life) -> None:
        """What must be true when a life has ended."""
        harness = trial.harness
        trial.picture = self.watch.picture(harness.resources, {body.key for body in harness.bodies.began})
        rows = await _rows(harness)
        if life.died and not trial.rows:
            trial.rows = rows
        trial.broken += violations(rows, harness.classes)
        trial.broken += harness.world.recorded_first
        harness.world.recorded_first.clear()
        if not life.died and not harness.redeployed:
            trial.strayed += replays(rows, harness.classes, _bound(harness))
        if self.options.invariant is not None:
            trial.broken += await _kept(self.options.invariant, self.item.funcargs)


def _play(item: DurableTest, harness: Harness, ticks: Ticks) -> None:
    wanted = {name: item.funcargs[name] for name in item.parameters}
    test = partial(cast("Callable[..., Any]", item.obj), **wanted)
    run_virtual(partial(harness.around, test), backend=cast("Backend", item.backend()), ticks=ticks)


async def _rows(harness: Harness) -> list[Rows]:
    """As the next process would read them, without claiming anything."""
    store = MemoryStore(share=harness.world.memory)
    store._opened = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # `open` would count a crash.
    return await rows_of(store)


def _bound(harness: Harness) -> Resources:
    resources = Resources.of(harness.resources)
    for cls in harness.classes:
        kind = cls.__kind_info__()
        resources.bind(kind.name, cls.__qualname__, kind.resources)
    return resources


def _called(fn: Callable[..., Any], fixtures: dict[str, Any]) -> Any:
    """Call it with the fixtures that its parameters name."""
    return fn(**{name: fixtures[name] for name in inspect.signature(fn).parameters if name in fixtures})


async def _kept(invariant: Callable[..., Any], fixtures: dict[str, Any]) -> list[str]:
    name = getattr(invariant, "__name__", repr(invariant))
    try:
        held = _called(invariant, fixtures)
        if inspect.isawaitable(held):
            held = await held
    except AssertionError as error:
        return [f"the invariant `{name}` does not hold: {error}"]
    return [f"the invariant `{name}` does not hold"] if held is False else []


# --- all runs -----------------------------------------------------------------------------------------------------------


def run(item: DurableTest) -> None:
    """Run a test that asks for the fixture, as often as its marker says."""
    options = Options.of(item)
    if item.get_closest_marker("survives") is None:
        ticks = Ticks()
        item.harness.begin(options.only or CALM, ticks)
        _play(item, item.harness, ticks)
        return
    runs = Runs(item, options)
    try:
        survived = _Survival(runs).run()
    finally:
        runs.watch.put_back()
    item.user_properties.append(("actorflow_points", survived))


@define(eq=False)
class _Survival:
    runs: Runs
    calm: Trial = field(init=False)
    unstable: set[str] = field(factory=set[str], init=False)  #: what is otherwise without any fault, too
    unsure: set[str] = field(factory=set[str], init=False)  #: answers that are
    tried: int = field(default=0, init=False)
    total: int = field(default=1, init=False)
    sample: str = field(default="", init=False)

    def run(self) -> str:
        """Returns how many crash points were tried: "47", or "203 of 812".

        Raises:
            DidNotSurvive: At one of them something was otherwise.
            BaseException: What the test raised without any fault.
        """
        self._calmly()
        options = self.runs.options
        if options.only is not None:
            self._survived(options.only)
            return "1"
        lives = [life.lived for life in self.calm.harness.lives]
        every = points.singles(lives, options.faults)
        seed = f"{self.runs.item.nodeid}/{options.seed}"
        chosen = points.chosen(every, options.points, seed)
        skipped = [each for each in every if each not in chosen]
        schedules = [*chosen, *points.pairs(chosen, options.pairs, seed)]
        self.total = len(schedules)
        if skipped:
            self.sample = f", a sample of {len(every)} by --actorflow-seed {options.seed}"
        for schedule in schedules:
            self.runs.item.progress(self.tried, self.total)
            self._survived(schedule, skipped)
            self.tried += 1
        self.runs.item.progress(self.total, self.total)
        return f"{self.tried} of {len(every)}" if skipped else f"{self.tried}"

    def _calmly(self) -> None:
        """Without any fault: once, once more, and once more at another time with other dice."""
        self.calm = self.runs.run(CALM)
        if self.calm.error is not None:
            raise self.calm.error
        if not self.calm.harness.lives:
            raise DidNotSurvive("this test starts nothing with `actorflow`, so there is no process that could die")
        if self.calm.strayed:
            raise DidNotSurvive(strayed(self.runs.item.named, self.calm.strayed))
        if self.calm.broken:
            raise DidNotSurvive(f"with no fault at all: {'; '.join(self.calm.broken)}")
        again, other = self.runs.run(CALM), self.runs.run(CALM, probe=True)
        if again.error is not None:
            raise DidNotSurvive(_TWICE.format(_first_line(again.error))) from again.error
        for trial in (again, other):
            self.unstable |= {change.path for change in changes(self.calm.picture, trial.picture)}
            self.unsure |= {change.path for change in changes(self.calm.answers(), trial.answers())}

    def _survived(self, schedule: Schedule, skipped: Sequence[Schedule] = ()) -> None:
        trial = self.runs.run(schedule)
        then = self._otherwise(trial)
        if not then:
            return
        for earlier in _before(schedule, skipped):
            other = self.runs.run(earlier)
            if found := self._otherwise(other):
                schedule, trial, then = earlier, other, found
                break
        raise DidNotSurvive(str(self._verdict(schedule, trial, then))) from trial.error

    def _otherwise(self, trial: Trial) -> list[str]:
        """What is otherwise than without a fault, in words; the first line says most."""
        lines = list(dict.fromkeys([*trial.broken, *trial.strayed]))
        for change in self._changed(trial):
            lines += said_of(change)
        unsure = {*self.unsure, *self.calm.harness.at_once, *trial.harness.at_once}
        told = changes(self.calm.answers(), trial.answers(), without=unsure)
        if trial.error is None:
            lines += [f"{c.path} was {', '.join(c.more) or 'nothing'}; without the crash {', '.join(c.fewer)}" for c in told]
            other = sorted(trial.keys() ^ self.calm.keys())
            lines += [f"other steps ran: {', '.join(_short(key) for key in other)}"] if other else []
        else:
            lines += _said(trial.error)
        return lines

    def _changed(self, trial: Trial) -> Sequence[Any]:
        if trial.error is not None:  # It did not get to its end, so the world is not what it would be.
            return [change for change in self._changes(trial) if change.more and not change.fewer]
        return self._changes(trial)

    def _changes(self, trial: Trial) -> Sequence[Any]:
        return changes(self.calm.picture, trial.picture, without=[*self.unstable, *self.runs.options.ignore])

    def _verdict(self, schedule: Schedule, trial: Trial, then: list[str]) -> Verdict:
        item, trace = self.runs.item, Trace()
        self.runs.run(schedule, trace=trace)
        backend = item.config.getoption("--actorflow-backend")
        changed = {change.path for change in self._changes(trial)}
        return Verdict(
            test=item.named,
            when=[event for life in trial.harness.lives for event in life.events],
            then=then,
            causes=sorted(trace.causes(), key=lambda cause: cause.path not in changed),
            diverged=bool(trial.strayed) or (isinstance(trial.error, RunPaused) and trial.error.reason == "diverged"),
            journal=journal_of(trial.rows),
            again=command(item.named, points.written(schedule), *(["--actorflow-backend", backend] if backend else [])),
            point=f"crash point {self.tried + 1} of {self.total}{self.sample}",
            ignorable=bool(changed),
        )


_TWICE = (
    "this test passes, and fails when it is run a second time, with no fault at all: {}\n\n"
    "Something outlives it: a module-level object, or a fixture with a wider scope than the test. Make what the test changes in "
    "a fixture of its own, so that each run begins in the same world."
)


def _before(schedule: Schedule, skipped: Sequence[Schedule]) -> list[Schedule]:
    """Untried schedules of the same kind of fault that come before it, the first ones first."""
    [*before, faults] = schedule
    if any(before) or len(faults) != 1:
        return []
    same = [s for s in skipped if len(s) == len(schedule) and s[-1][0].mode == faults[0].mode and s[-1][0].at < faults[0].at]
    return same[:EARLIER_MAX]


def _said(error: BaseException) -> list[str]:
    """What the test raised, and in which of its lines."""
    line = next((f for f in reversed(extract_tb(error.__traceback__)) if is_users(f.filename)), None)
    where = "" if line is None else f" at {Path(line.filename).name}:{line.lineno}: {line.line}"
    lines = f"{type(error).__name__}: {error}".splitlines()
    return [f"the test failed{where}", *(f"    {text}" for text in lines[:ERROR_LINES_MAX])]


def _first_line(error: BaseException) -> str:
    return " ".join(text.strip() for text in _said(error))[:500]


def _short(key: str) -> str:
    return key.partition("/")[2]
