"""The pytest plugin: the fixture `actorflow`, and `@pytest.mark.survives`.

Loaded with every pytest of an environment that has actorflow, so nothing but pytest is imported here before a test asks for it.
Tests that ask for the fixture are run by this plugin, in virtual time; all others it leaves alone.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from actorflow.testing.harness import Harness

FIXTURE = "actorflow"
BACKENDS = ("asyncio", "trio")
_PACKAGE = str(Path(__file__).parent.parent)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--actorflow-backend`, `--actorflow-points`, `--actorflow-seed`, `--actorflow-crash`; and the ini option of the first."""
    group = parser.getgroup("actorflow", "durable code under test")
    backends = (*BACKENDS, "both")
    group.addoption("--actorflow-backend", choices=backends, help="loop of tests with the fixture `actorflow`")
    group.addoption("--actorflow-points", metavar="N", help="at most N crash points for each `survives`, or 'all'")
    group.addoption("--actorflow-seed", type=int, default=0, metavar="N", help="which crash points, where not all are tried")
    group.addoption("--actorflow-crash", metavar="POINTS", help="only this crash: 'before commit 3', as a failure names it")
    parser.addini("actorflow_backend", "asyncio (default), trio or both", default="asyncio")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    said = "the loop of a test with the fixture `actorflow`: 'asyncio', 'trio' or 'both'"
    config.addinivalue_line("markers", f"actorflow(backend=): {said}")
    said = "the test runs once, and then once for every place in which its process may die; the same must come out"
    config.addinivalue_line("markers", f"survives(points=200, invariant=, watch=, ignore=(), faults=..., pairs=3): {said}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """On both loops, where that is wanted and anyio's own fixture does not say it already."""
    if FIXTURE in metafunc.fixturenames and "anyio_backend" not in metafunc.fixturenames:
        wanted = _wanted_backend(metafunc.config, metafunc.definition)
        if wanted == "both":
            metafunc.parametrize(FIXTURE, BACKENDS, indirect=True)


def _wanted_backend(config: pytest.Config, item: pytest.Item) -> str:
    marker = item.get_closest_marker("actorflow")
    said: str | None = None if marker is None else marker.kwargs.get("backend", *marker.args[:1])
    wanted = str(config.getoption("--actorflow-backend") or said or config.getini("actorflow_backend"))
    if wanted not in (*BACKENDS, "both"):
        pytest.fail(f"actorflow: there is no backend {wanted!r}; choose asyncio, trio or both.", pytrace=False)
    return wanted


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the tests that ask for the fixture: whichever plugin for async tests has taken them, they run in virtual time."""
    for n, item in enumerate(items):
        if isinstance(item, pytest.Function) and FIXTURE in item.fixturenames and iscoroutinefunction(_function(item)):
            items[n] = _taken(item)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say what is missing in a test that this plugin cannot run."""
    if item.get_closest_marker("survives") is not None and not isinstance(item, DurableTest):
        pytest.fail(f"`survives` needs the fixture: write `async def {item.name}(actorflow)`.", pytrace=False)


def _function(item: pytest.Function) -> Any:
    return cast("Any", item).function


def _taken(item: pytest.Function) -> DurableTest:
    make = cast("Any", DurableTest).from_parent  # Its keywords have no types.
    taken: DurableTest = make(
        item.parent,
        name=item.name,
        originalname=item.originalname,
        callspec=getattr(item, "callspec", None),
        callobj=item.obj,
        fixtureinfo=cast("Any", item)._fixtureinfo,  # noqa: SLF001  (as pytest-asyncio does it)
        keywords=dict(item.keywords),
    )
    taken.own_markers[:] = item.own_markers
    return taken


@pytest.fixture
def actorflow(request: pytest.FixtureRequest) -> Harness:
    """A service under test: its processes, its time, and what its steps did. See `actorflow.testing.Harness`."""
    from actorflow.testing.harness import Harness  # noqa: PLC0415  (see the top of this module)

    item = request.node
    if not isinstance(item, DurableTest):
        given = "With @given, each example needs a service of its own: write `Harness().play(test)` in the test."
        said = given if hasattr(_function(item), "hypothesis") else f"It awaits things: write `async def {item.name}(...)`."
        pytest.fail(f"the fixture `actorflow` cannot be had here. {said}", pytrace=False)
    item.harness = Harness()
    return item.harness


class DurableTest(pytest.Function):
    """A test that asks for the fixture `actorflow`."""

    harness: Harness

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the fixtures that it asks for itself."""
        return tuple(cast("Any", self)._fixtureinfo.argnames)  # noqa: SLF001

    @property
    def file(self) -> ModuleType:
        """Its module."""
        return cast("ModuleType", cast("Any", self).module)

    @property
    def named(self) -> str:
        """As it is named on a command line, here."""
        path = os.path.relpath(self.path, self.config.invocation_params.dir)
        return "::".join([path, *self.nodeid.split("::")[1:]])

    def renew(self) -> None:
        """End its fixtures and make them anew, for one more run of it."""
        item, state = cast("Any", self), cast("Any", self.session)._setupstate  # noqa: SLF001  (as plugins that run tests again do)
        kept = dict(item.stash._storage)  # noqa: SLF001  (what other plugins remember of its set-up, and `tmp_path` throws away)
        state.teardown_exact(self.parent)
        item.stash._storage.update(kept)  # noqa: SLF001
        if self.cls is not None:  # Each run has an instance of its own.
            vars(self).pop("_instance", None)
            vars(self).pop("_obj", None)
        item._initrequest()  # noqa: SLF001
        state.setup(self)

    def progress(self, done: int, total: int) -> None:
        """Tell somebody who watches how far it is."""
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and reporter.verbosity > 0 and reporter.isatty and (done % 20 == 0 or done == total):
            far = "" if done == total else f"{done}/{total} crash points "
            capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
            with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
                reporter.rewrite(f"{self.nodeid} {far}", erase=True)

    def backend(self) -> str:
        """On which loop it runs."""
        chosen = self.callspec.params.get(FIXTURE) if hasattr(self, "callspec") else None
        others: Any = self.funcargs.get("anyio_backend")
        if others is not None:
            chosen = others if isinstance(others, str) else others[0]
        return str(chosen or _wanted_backend(self.config, self))

    def runtest(self) -> None:
        """Run it; with the marker `survives`, as often as there are places to die in."""
        from actorflow.testing import survival  # noqa: PLC0415

        survival.run(self)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """What did not survive is told in words."""
        from actorflow.testing.verdict import DidNotSurvive  # noqa: PLC0415

        if isinstance(excinfo.value, DidNotSurvive):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def _traceback_filter(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        """The lines of the test and of what it calls, not those of actorflow."""
        filtered: Any = cast("Any", super())._traceback_filter(excinfo)  # noqa: SLF001
        if self.config.getoption("fulltrace", default=False):
            return filtered
        ours = [entry for entry in filtered if not str(entry.path).startswith(_PACKAGE)]
        return type(filtered)(ours) if ours else filtered


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> Any:
    """Say how many crash points a test survived."""
    if report.when == "call" and report.passed:
        points = next((value for name, value in getattr(report, "user_properties", ()) if name == "actorflow_points"), None)
        if points is not None:
            return "passed", ".", f"SURVIVED {points}"
    return None
