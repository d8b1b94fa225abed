"""What a process imports before it needs it: nothing. A service that restarts is down for as long as that takes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import actorflow
import actorflow.testing

PACKAGES = ("actorflow", "actorflow.testing")

NOT_NEEDED = (
    "actorflow.cli", "actorflow.embedding", "actorflow.testing", "actorflow.supervisor", "actorflow.policies.tree",
    "actorflow.runtime.client", "actorflow.stores.memory", "anyio.from_thread", "anyio.streams.buffered", "anyio.to_process",
    "cattrs", "cyclopts", "decimal", "email", "hashlib", "http", "hypothesis", "importlib.metadata", "importlib.resources",
    "multiprocessing", "pickle", "pkgutil", "pydantic", "pytest",
    "rich", "tempfile", "trio", "unittest", "uvloop", "zipfile", "zoneinfo",
)  # fmt: skip
"""What the first step of a service with plain payloads and without supervisors does not use."""

FIRST_STEP = """
import asyncio, sys
from actorflow import Runtime, Workflow, step

@step
async def add(value: int) -> int:
    return value + 1

class Line(Workflow[int]):
    length: int

    async def run(self) -> int:
        return await add(self.length)

async def main():
    async with Runtime("sqlite:///" + sys.argv[1], actors=[Line]) as runtime:
        assert await (await runtime.start(Line(1), key="a")).result() == 2

asyncio.run(main())
"""


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that *code* imports in a process of its own, beside those that are there when Python has started."""
    around = f"import sys; before = set(sys.modules)\n{code}\nimport json; print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", around, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "actorflow"}


def imported_for_checkers(package: str) -> dict[str, str]:
    """name -> module, of what stands under `if TYPE_CHECKING`."""
    [block] = [node for node in ast.parse(Path(str(sys.modules[package].__file__)).read_text()).body if isinstance(node, ast.If)]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        [alias] = node.names
        assert alias.asname == alias.name, f"{alias.name}: write `as {alias.name}`, or it is not exported"
        found[alias.name] = str(node.module)
    return found


def test_import_actorflow_imports_nothing_but_the_table_of_its_names() -> None:
    modules = loaded("import actorflow")

    assert ours(modules) == {"actorflow", "actorflow.lazily"}
    assert not {"anyio", "asyncio", "attrs", "cattrs", "orjson", "rich", "sqlite3"} & modules


def test_the_first_step_of_a_service_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    modules = loaded(FIRST_STEP, str(tmp_path / "a.db"))

    assert "actorflow.stores.sqlite" in modules
    assert sorted(modules & set(NOT_NEEDED)) == []


def test_attrs_compiles_only_the_making_of_what_the_first_step_needs(tmp_path: Path) -> None:
    """How values are compared and printed is in `Value`, once; machines are neither. What users see prints itself."""
    compiled = """
import attrs
from actorflow import Actor, StepInfo
modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("actorflow.")]
classes = {each for module in modules for each in vars(module).values() if isinstance(each, type) and attrs.has(each)}
classes = {each for each in classes if each.__module__.startswith("actorflow.") and not issubclass(each, (Actor, StepInfo))}
assert len(classes) > 50
for each in classes:
    for name in {"__eq__", "__ne__", "__hash__", "__repr__"} & set(vars(each)):
        code = getattr(vars(each)[name], "__code__", None)
        if code is not None and code.co_filename.startswith("<attrs generated"):
            print(each.__module__, each.__qualname__, name)
"""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP + compiled, str(tmp_path / "a.db")], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == []


def test_what_of_ours_is_not_imported_is_called_so() -> None:
    """A name that is misspelt would never be found."""
    assert all(import_module(name) for name in NOT_NEEDED if name.startswith("actorflow"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_checkers_see_is_there_from_where_they_see_it(package: str) -> None:
    public, seen = sys.modules[package], imported_for_checkers(package)

    assert sorted(seen) == sorted(public.__all__)
    assert set(seen) <= set(dir(public))
    for name, module in seen.items():
        assert getattr(public, name) is getattr(import_module(module), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_is_also_a_module(package: str) -> None:
    """To import that module would put it into the name's place."""
    public = sys.modules[package]

    assert not {found.name for found in iter_modules(public.__path__)} & set(public.__all__)


def test_a_star_imports_all_names() -> None:
    space: dict[str, object] = {}

    exec("from actorflow import *", space)

    assert set(actorflow.__all__) == set(space) - {"__builtins__"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_none_is_refused_as_ever(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Banana'"):
        _ = sys.modules[package].Banana
    with pytest.raises(ImportError, match="cannot import name 'Banana'"):
        exec(f"from {package} import Banana", {})


def test_a_module_is_an_attribute_of_the_package_before_anybody_imports_it() -> None:
    loaded("import actorflow; assert actorflow.errors.Abort is actorflow.Abort")
