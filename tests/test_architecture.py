"""The house as a test: who may import whom, what stays pure, and how long things may grow.

Every rule is a function from the parsed house to a list of complaints, so that one run shows all of them. The rules are
tried on small houses built wrong on purpose (at the end), and then on `actorflow` itself.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

PACKAGE = Path(__file__).parent.parent / "actorflow"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "clock", "crashpoints", "lazily", "value"),  # ground
    ("records",),  # the nouns
    ("codec", "failures", "evolution"),  # value <-> bytes
    ("policies",),  # pure decisions
    ("kernel",),  # drives the code
    ("stores",),
    (  # what a user writes
        "message",
        "attempt",
        "resources",
        "steps",
        "address",
        "actor",
        "verbs",
        "workflow",
        "checkpoints",
        "acting",
        "nearby",
        "sharing",
        "pool",
        "kind",
        "handlers",
        "topic",
        "supervisor",
        "operations",
    ),
    ("runtime", "embedding"),  # the async shell, and the ways into it: `Runtime` has the verbs that embed it
    ("telemetry",),
    ("",),  # the front door, actorflow/__init__.py: the public names
    ("testing",),
    ("cli", "__main__"),  # roof
)
"""From the ground up. A room imports from its own floor and from those below."""

PURE = ("records", "codec", "failures", "evolution", "policies", "kernel")
"""Rooms that decide and never do: no I/O, no clock, no chance, no threads."""

IMPURE = frozenset(  # one name a line would fill the page
    "aiosqlite anyio asyncio concurrent fcntl http io logging mmap multiprocessing os queue random sched secrets select "  # noqa: SIM905
    "selectors shutil signal sniffio socket sqlite3 ssl subprocess tempfile threading time trio urllib uvloop".split()
)
IMPURE_NAMES = {"actorflow.clock": frozenset({"SystemClock", "Chance"})}
"""The ground holds the clock and the dice; a pure room may take its values (`seconds`, `Duration`), not these."""

IMPURE_ALLOWED: dict[tuple[str, str], tuple[frozenset[str], str]] = {
    ("codec", "threading"): (
        frozenset({"Lock", "RLock", "Thread"}),
        "a lock while a type's shape is half made; a stack of its own for a value too deep to be read from where the caller is",
    ),
    ("kernel", "threading"): (frozenset({"local"}), "which durable code this thread is in right now is a fact of the thread"),
}
"""(room, impure module): the only names that may be used of it, and why. An exception that nobody uses fails the test."""

OWNERS: dict[str, tuple[str, ...]] = {
    "attrs": ("*",),  # values are attrs classes everywhere
    "aiosqlite": ("stores.bridge", "stores.sqlite"),
    "anyio": ("stores", "runtime", "embedding", "telemetry", "testing", "cli"),
    "cattrs": ("codec",),
    "cyclopts": ("cli",),
    "hypothesis": ("testing",),
    "orjson": ("codec",),
    "pydantic": ("codec",),
    "pytest": ("testing",),
    "rich": ("cli",),
    "sniffio": (),  # it comes with trio only, and is no dependency of ours
    "trio": ("runtime.loops", "stores.bridge", "testing"),
    "uvloop": (),  # the user's choice of loop; we never name it
}
"""Which modules may import a third-party package: replacing it is then the work of one room."""

LINES_MAX = 400
BODY_LINES_MAX = 60
LONG_MODULES: dict[str, str] = {
    "actorflow.errors": "a catalogue: each error is a few lines, and who looks for one finds all of them here",
}
LONG_BODIES: dict[str, str] = {}
"""module, or "module:function": why it is longer than the limit. An entry that is no longer needed fails the test."""

NO_MEANING = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers"})


@frozen
class Import:
    """One import of a module: what, which names, where, and whether it happens when the module is loaded."""

    target: str
    names: tuple[str, ...]
    line: int
    on_load: bool


@frozen
class Module:
    """A parsed source file."""

    name: str  #: "actorflow.kernel.turn"
    path: Path
    tree: ast.Module
    lines: int
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        """The name below the package: "kernel.turn", or "" for the package itself."""
        return self.name.partition(".")[2]

    def at(self, line: int) -> str:
        return f"{self.path.name}:{line}" if not self.room else f"{self.room}:{line}"


House = dict[str, Module]


def parse(root: Path) -> House:
    """Every module under the package directory *root*, by name."""
    files = {_module_name(root, path): path for path in sorted(root.rglob("*.py")) if "__pycache__" not in path.parts}
    house = {}
    for name, path in files.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imports = tuple(_imports(tree, package, set(files), on_load=True))
        house[name] = Module(name, path, tree, text.count("\n"), imports)
    return house


def _module_name(root: Path, path: Path) -> str:
    parts = (root.name, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(node: ast.AST, package: str, known: set[str], *, on_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                for alias in child.names:
                    yield Import(alias.name, (), child.lineno, on_load)
            case ast.ImportFrom():
                source = _absolute(child, package)
                for alias in child.names:
                    submodule = f"{source}.{alias.name}"
                    target, names = (submodule, ()) if submodule in known else (source, (alias.name,))
                    yield Import(target, names, child.lineno, on_load)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _imports(child, package, known, on_load=False)
            case _:
                yield from _imports(child, package, known, on_load=on_load)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def inside(room: str, owner: str) -> bool:
    return owner in ("*", room) or room.startswith(f"{owner}.")


# --- the rules -------------------------------------------------------------------------------------------------------


def upward_imports(house: House) -> list[str]:
    complaints = []
    for module in house.values():
        floor = _floor(module.room)
        if floor is None:
            complaints.append(f"{module.name} is on no floor: give its room a place in FLOORS")
            continue
        for imported in module.imports:
            if imported.target.partition(".")[0] != "actorflow":
                continue
            below = _floor(imported.target.partition(".")[2])
            if below is None or below > floor:
                complaints.append(f"{module.at(imported.line)} imports {imported.target}, which is not on a floor below")
    return complaints


def _floor(room: str) -> int | None:
    return next((n for n, rooms in enumerate(FLOORS) if room.partition(".")[0] in rooms), None)


def impure_imports(house: House) -> list[str]:
    complaints, used = [], set()
    for module in house.values():
        pure_room = next((room for room in PURE if inside(module.room, room)), None)
        if pure_room is None:
            continue
        for imported in module.imports:
            top = imported.target.partition(".")[0]
            if top in IMPURE:
                names = _names_used(module, imported)
                allowed, _ = IMPURE_ALLOWED.get((pure_room, top), (frozenset(), ""))
                used |= {(pure_room, top)} if names & allowed else set()
                complaints += [f"{module.at(imported.line)} is pure and uses {name}" for name in _dotted(top, names - allowed)]
            banned = IMPURE_NAMES.get(imported.target, frozenset()) & _names_used(module, imported)
            complaints += [f"{module.at(imported.line)} is pure and uses {name}" for name in _dotted(imported.target, banned)]
    return complaints + _unused_exceptions(house, used)


def _names_used(module: Module, imported: Import) -> frozenset[str]:
    """The names taken from an imported module, by `from` or by attribute; "*" if none is to be seen."""
    if imported.names:
        return frozenset(imported.names)
    bound = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if imported.target in (alias.name, f"{getattr(node, 'module', '')}.{alias.name}")
    }
    attributes = {
        node.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
    }
    return frozenset(attributes or {"*"})


def _dotted(module: str, names: frozenset[str]) -> list[str]:
    return sorted(module if name == "*" else f"{module}.{name}" for name in names)


def _unused_exceptions(house: House, used: set[tuple[str, str]]) -> list[str]:
    rooms = {module.room.partition(".")[0] for module in house.values()}
    spare = [pair for pair in IMPURE_ALLOWED if pair not in used and pair[0] in rooms]
    return [f"{room} no longer imports {name}: take it out of IMPURE_ALLOWED" for room, name in spare]


def import_cycles(house: House) -> list[str]:
    """Cycles of imports that happen on load.

    An import inside a function is not one: ruff's PLC0415 lets none pass without a written reason. Nor is one under
    TYPE_CHECKING: an address names its actor's class, and an actor has an address. The floors count both.
    """
    graph = {
        name: sorted({i.target for i in module.imports if i.on_load and i.target in house and i.target != name})
        for name, module in house.items()
    }
    complaints, done = [], set[str]()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            complaints.append("import cycle: " + " -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    return complaints


def strangers(house: House) -> list[str]:
    complaints = []
    for module in house.values():
        for imported in module.imports:
            top = imported.target.partition(".")[0]
            if top in sys.stdlib_module_names or top == "actorflow":
                continue
            if top not in OWNERS:
                complaints.append(f"{module.at(imported.line)} imports {top}: give it an owner in OWNERS")
            elif not any(inside(module.room, owner) for owner in OWNERS[top]):
                owners = ", ".join(OWNERS[top]) or "nobody"
                complaints.append(f"{module.at(imported.line)} imports {top}, which belongs to {owners}")
    return complaints


def long_modules(house: House) -> list[str]:
    long = {module.name: module.lines for module in house.values() if module.lines > LINES_MAX}
    return _against_exceptions(long, {name: why for name, why in LONG_MODULES.items() if name in house}, LINES_MAX)


def long_bodies(house: House) -> list[str]:
    bodies = {f"{module.name}:{name}": lines for module in house.values() for name, lines in _bodies(module.tree, "")}
    return _against_exceptions({k: n for k, n in bodies.items() if n > BODY_LINES_MAX}, LONG_BODIES, BODY_LINES_MAX)


def _bodies(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    """Qualified name and number of lines of every function's body, its docstring not counted."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                first = child.body[1:2] if ast.get_docstring(child, clean=False) is not None else child.body[:1]
                yield prefix + name, (child.end_lineno or 0) - first[0].lineno + 1 if first else 0
                yield from _bodies(child, f"{prefix}{name}.")
            case ast.ClassDef(name=name):
                yield from _bodies(child, f"{prefix}{name}.")
            case _:
                yield from _bodies(child, prefix)


def _against_exceptions(long: dict[str, int], exceptions: dict[str, str], limit: int) -> list[str]:
    too_long = [f"{name} has {lines} lines, over {limit}: split it by meaning" for name, lines in long.items()]
    return [line for line in too_long if line.partition(" ")[0] not in exceptions] + [
        f"{name} is within {limit} lines again: take it out of the exceptions" for name in exceptions if name not in long
    ]


def names_without_meaning(house: House) -> list[str]:
    return [f"{name}: what is it about? Name it so" for name in house if NO_MEANING & set(name.split("."))]


def no_docstring(house: House) -> list[str]:
    return [f"{m.name} has no docstring: open with what it is" for m in house.values() if not ast.get_docstring(m.tree)]


RULES: tuple[Callable[[House], list[str]], ...] = (
    upward_imports,
    impure_imports,
    import_cycles,
    strangers,
    long_modules,
    long_bodies,
    names_without_meaning,
    no_docstring,
)


# --- the house, and houses built wrong on purpose --------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_keeps_its_rules(rule: Callable[[House], list[str]]) -> None:
    house = parse(PACKAGE)

    complaints = rule(house)

    assert not complaints, f"{len(complaints)} complaints:\n  " + "\n  ".join(complaints)


def test_every_exception_gives_its_reason() -> None:
    reasons = [*LONG_MODULES.values(), *LONG_BODIES.values(), *(reason for _, reason in IMPURE_ALLOWED.values())]

    assert all(len(reason.split()) > 3 for reason in reasons)


def build(tmp_path: Path, files: dict[str, str]) -> House:
    root = tmp_path / "actorflow"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""A room."""\n{text}\n', encoding="utf-8")
    return parse(root)


def test_an_import_from_a_higher_floor_is_found(tmp_path: Path) -> None:
    house = build(tmp_path, {"codec.py": "from actorflow.message import Message", "message.py": "import actorflow.codec"})

    assert upward_imports(house) == ["codec:2 imports actorflow.message, which is not on a floor below"]


def test_a_relative_and_a_lazy_import_are_seen_as_well(tmp_path: Path) -> None:
    text = "def f():\n    from ..runtime import shell\n    from . import turn"
    house = build(tmp_path, {"kernel/journal.py": text, "kernel/turn.py": "", "runtime/shell.py": "", "runtime/__init__.py": ""})

    assert upward_imports(house) == ["kernel.journal:3 imports actorflow.runtime.shell, which is not on a floor below"]


def test_a_room_that_is_on_no_floor_is_found(tmp_path: Path) -> None:
    assert upward_imports(build(tmp_path, {"attic.py": ""})) == [
        "actorflow.attic is on no floor: give its room a place in FLOORS"
    ]


def test_a_clock_in_a_pure_room_is_found(tmp_path: Path) -> None:
    files = {"policies/retry.py": "import time\nfrom actorflow.clock import Chance, seconds\ntime.sleep(1)", "clock.py": ""}

    assert impure_imports(build(tmp_path, files)) == [
        "policies.retry:2 is pure and uses time.sleep",
        "policies.retry:3 is pure and uses actorflow.clock.Chance",
    ]


def test_an_exception_covers_its_names_only_and_must_be_needed(tmp_path: Path) -> None:
    needed = build(tmp_path / "needed", {"kernel/turn.py": "import threading as t\nt.local()\nt.Thread()"})
    spare = build(tmp_path / "spare", {"kernel/turn.py": ""})

    assert impure_imports(needed) == ["kernel.turn:2 is pure and uses threading.Thread"]
    assert impure_imports(spare) == ["kernel no longer imports threading: take it out of IMPURE_ALLOWED"]


def test_a_cycle_is_shown_as_a_path_and_an_import_that_does_not_happen_on_load_is_none(tmp_path: Path) -> None:
    cycle = build(tmp_path / "a", {"kernel/a.py": "import actorflow.kernel.b", "kernel/b.py": "from actorflow.kernel import a"})
    lazy = build(tmp_path / "b", {"kernel/a.py": "import actorflow.kernel.b", "kernel/b.py": "def f():\n    from . import a"})
    typed = build(
        tmp_path / "c", {"kernel/a.py": "import actorflow.kernel.b", "kernel/b.py": "if TYPE_CHECKING:\n    from . import a"}
    )

    assert import_cycles(cycle) == ["import cycle: actorflow.kernel.a -> actorflow.kernel.b -> actorflow.kernel.a"]
    assert import_cycles(lazy) == []
    assert import_cycles(typed) == []


def test_a_package_outside_its_room_is_found(tmp_path: Path) -> None:
    house = build(tmp_path, {"runtime/x.py": "import orjson\nimport requests\nimport uvloop", "codec.py": "import orjson"})

    assert strangers(house) == [
        "runtime.x:2 imports orjson, which belongs to codec",
        "runtime.x:3 imports requests: give it an owner in OWNERS",
        "runtime.x:4 imports uvloop, which belongs to nobody",
    ]


def test_length_counts_the_body_without_its_docstring(tmp_path: Path) -> None:
    body = "\n".join(["        x = 1"] * BODY_LINES_MAX)
    fits = f'class A:\n    def f():\n        """One.\n\n        Two.\n        """\n{body}'
    house = build(tmp_path, {"records.py": fits, "errors.py": f"{fits}\n        x = 2"})

    assert long_bodies(house) == [
        f"actorflow.errors:A.f has {BODY_LINES_MAX + 1} lines, over {BODY_LINES_MAX}: split it by meaning"
    ]


def test_a_long_module_a_drawer_and_a_missing_docstring_are_found(tmp_path: Path) -> None:
    house = build(tmp_path, {"kernel/utils.py": "\n" * LINES_MAX})
    (tmp_path / "actorflow" / "clock.py").write_text("import time\n", encoding="utf-8")

    assert long_modules(house) == [f"actorflow.kernel.utils has {LINES_MAX + 2} lines, over {LINES_MAX}: split it by meaning"]
    assert names_without_meaning(house) == ["actorflow.kernel.utils: what is it about? Name it so"]
    assert no_docstring(parse(tmp_path / "actorflow")) == ["actorflow.clock has no docstring: open with what it is"]


def test_an_exception_that_is_no_longer_needed_is_found() -> None:
    assert _against_exceptions({"a": 70}, {"a": "why", "b": "why"}, 60) == [
        "b is within 60 lines again: take it out of the exceptions"
    ]
