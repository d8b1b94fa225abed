"""Mutation testing of the pure rooms: small changes in their code, one at a time, and whether the tests of that room notice.

`python -m tests.mutate` (or `make mutate`) changes an operator, a constant, a branch, a statement; runs the fast tests of the
module; and prints what share was noticed, and every change that was not: a test that is missing, or code that means nothing.
Some are neither (a bound that is larger by one, text for people), so nothing fails here and no floor is set. It is no part of
the gate: it takes as long as it is given.

How it is fast: one pytest for each module imports and collects all, and then forks for each change; the child gives the changed
function its new code and runs the tests until the first fails. So only bodies of functions are changed. POSIX only.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Literal

import pytest
from attrs import asdict, evolve, frozen
from hypothesis import Phase, settings

ROOT = Path(__file__).parent.parent

TESTS: dict[str, tuple[str, ...]] = {
    "policies.cursor": ("test_cursor",),
    "policies.failure": ("test_failure",),
    "policies.handling": ("test_handling",),
    "policies.limits": ("test_limits",),
    "policies.restarts": ("test_supervision",),
    "policies.retry": ("test_retry",),
    "policies.saga": ("test_saga",),
    "policies.supervision": ("test_supervision",),
    "policies.tree": ("test_supervision",),
    "kernel.branches": ("test_branches", "test_turn"),
    "kernel.foreign": ("test_foreign",),
    "kernel.journal": ("test_journal", "test_turn"),
    "kernel.mailbox": ("test_mailbox",),
    "kernel.outbox": ("test_outbox",),
    "kernel.requests": ("test_turn",),
    "kernel.turn": ("test_turn",),
}
"""Module and the tests that are to notice; its own docstrings, too."""

TIMES = 4.0
"""How much longer than without a change the tests may take: beyond that a change made a loop endless, and that is noticed."""
SPARE_S = 20.0

OPTIONS = ("-p", "no:xdist", "-p", "no:cov", "--hypothesis-seed=0", "-W", "ignore::pytest.PytestAssertRewriteWarning")
"""The warning says that Hypothesis was imported before pytest could rewrite its assertions; nobody wants that."""

CameTo = Literal["untried", "noticed", "survived", "endless"]


@frozen
class Change:
    """One small change of one module."""

    module: str
    line: int
    what: str  #: "a < b: Lt becomes LtE"
    number: int  #: among the changes of the module
    function: str = ""  #: whose body it is in, and at which line that begins: "Journal.claim:86"
    came_to: CameTo = "untried"


# --- what is changed ----------------------------------------------------------------------------------------------------

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
Edit = Callable[[], object]
"""Makes one change in the tree that it belongs to."""


def edits(tree: ast.Module) -> Iterator[tuple[int, str, Edit]]:
    """Every change there is to be made: its line, what it is, and what makes it."""
    for node in _code(tree):
        line = getattr(node, "lineno", 0)
        for what, edit in _of_node(node):
            yield line, what, edit
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from _of_block(block)


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Its nodes, without annotations, asserts, docstrings and what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.arg) or _for_checkers(child):
            continue
        yield child
        parts: list[ast.AST] = [child]
        if isinstance(child, ast.AnnAssign):
            parts = [] if child.value is None else [ast.Expr(child.value)]
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            parts = [ast.Module([*child.body], []), child.args]
        for part in parts:
            yield from _code(part)


def _for_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _of_node(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                new = COMPARISONS[type(op)]()
                yield f"{_shown(node)}: {type(op).__name__} becomes {type(new).__name__}", _setting_item(ops, at, new)
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield f"{_shown(node)}: {type(op).__name__} becomes {type(other).__name__}", _setting(node, "op", other)
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            into = ARITHMETIC[type(op)]()
            yield f"{_shown(node)}: {type(op).__name__} becomes {type(into).__name__}", _setting(node, "op", into)
        case ast.UnaryOp(op=ast.Not()):
            yield f"{_shown(node)}: without the not", _unnegated(node)
        case ast.Constant(value=bool() as value):
            yield f"{value} becomes {not value}", _setting(node, "value", not value)
        case ast.Constant(value=int() | float() as value):
            yield f"{value} becomes {value + 1}", _setting(node, "value", value + 1)
        case ast.IfExp():
            yield f"{_shown(node)}: the other way round", _swapping(node)
        case ast.If() | ast.While():
            yield f"if {_shown(node.test)}: never", _setting(node, "test", ast.copy_location(ast.Constant(False), node.test))
            if isinstance(node, ast.If):
                yield f"if {_shown(node.test)}: always", _setting(node, "test", ast.copy_location(ast.Constant(True), node.test))
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield f"{_shown(node)}: returns None", _setting(node, "value", ast.copy_location(ast.Constant(None), value))
        case _:
            return


def _of_block(block: list[ast.stmt]) -> Iterator[tuple[int, str, Edit]]:
    for at, statement in enumerate(block):
        match statement:
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Return() | ast.If() | ast.While() | ast.Assert():
                continue
            case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
                gone = ast.copy_location(ast.Pass(), statement)
                yield statement.lineno, f"without {_shown(statement)}", _setting_item(block, at, gone)
            case _:
                continue


def _setting(node: ast.AST, name: str, value: object) -> Edit:
    return lambda: setattr(node, name, value)


def _setting_item(items: list[Any], at: int, value: Any) -> Edit:
    return lambda: items.__setitem__(at, value)


def _swapping(node: ast.IfExp) -> Edit:
    def swap() -> None:
        node.body, node.orelse = node.orelse, node.body

    return swap


def _unnegated(node: ast.UnaryOp) -> Edit:
    def twice() -> None:  # `not not x`: what stands above it need not be known.
        node.operand = ast.copy_location(ast.UnaryOp(ast.Not(), node.operand), node)

    return twice


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 100 else text[:97] + "..."


def path_of(module: str) -> Path:
    """Where a module's source is."""
    return ROOT / "actorflow" / Path(*module.split(".")).with_suffix(".py")


def parsed(module: str) -> ast.Module:
    """A module's tree, anew."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"), str(path_of(module)))


def changes(module: str) -> list[Change]:
    """Every change of a module's functions."""
    tree = parsed(module)
    spans = list(_functions(tree))
    found: list[Change] = []
    for number, (line, what, _) in enumerate(edits(tree)):
        holder = next((name for name, first, last in spans if first <= line <= last), "")
        if holder:
            found.append(Change(module, line, what, number, holder))
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """The functions and methods of a module, with the lines of their bodies; those inside others belong to them."""
    todo: list[tuple[str, ast.AST]] = [("", tree)]
    while todo:
        prefix, node = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                begins = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                yield f"{prefix}{child.name}:{begins}", child.body[0].lineno, child.end_lineno or child.lineno
            elif isinstance(child, ast.ClassDef):
                todo.append((f"{prefix}{child.name}.", child))


def code_of(change: Change) -> CodeType:
    """The code of the function with the change in it."""
    tree = parsed(change.module)
    _, _, edit = list(edits(tree))[change.number]
    edit()
    todo = [compile(tree, str(path_of(change.module)), "exec")]
    while todo:
        code = todo.pop()
        if f"{code.co_qualname}:{code.co_firstlineno}" == change.function:
            return code
        todo.extend(const for const in code.co_consts if isinstance(const, CodeType))
    raise AssertionError(f"{change.function} is not in {change.module}")


def give(change: Change) -> int:
    """Exchange the code wherever that function is; returns how many there are."""
    new, path, given = code_of(change), str(path_of(change.module)), 0
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            code = each.__code__
            if code.co_filename == path and f"{code.co_qualname}:{code.co_firstlineno}" == change.function:
                each.__code__ = new
                given += 1
    return given


# --- one pytest for a module, one child for a change ----------------------------------------------------------------------


class Loop:
    """A plugin: instead of running the collected tests once, it runs them for each change, in a child each."""

    def __init__(self, todo: Sequence[Change], *, for_s: float, jobs: int, out: Path) -> None:
        self.todo, self.for_s, self.jobs, self.out = todo, for_s, jobs, out

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        began = time.monotonic()
        pid = self._forked(session, None)
        _, status = os.waitpid(pid, 0)
        took_s = time.monotonic() - began
        with self.out.open("w", encoding="utf-8") as out:
            out.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
            if status == 0:
                for change in self._tried(session, took_s * TIMES + SPARE_S):
                    out.write(json.dumps(asdict(change)) + "\n")
        return True

    def _tried(self, session: pytest.Session, limit_s: float) -> Iterator[Change]:
        waiting, running = list(reversed(self.todo)), dict[int, tuple[Change, float]]()
        until = time.monotonic() + self.for_s
        while running or (waiting and time.monotonic() < until):
            while waiting and len(running) < self.jobs and time.monotonic() < until:
                change = waiting.pop()
                running[self._forked(session, change)] = change, time.monotonic() + limit_s
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                yield evolve(running.pop(pid)[0], came_to="survived" if status == 0 else "noticed")
                continue
            for late in [pid for pid, (_, ends) in running.items() if ends < time.monotonic()]:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(late, signal.SIGKILL)
                os.waitpid(late, 0)
                yield evolve(running.pop(late)[0], came_to="endless")
            time.sleep(0.005)

    def _forked(self, session: pytest.Session, change: Change | None) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setpgid(0, 0)
            if change is not None:
                assert give(change)
            code = self._passed(session)
        finally:
            os._exit(code)

    def _passed(self, session: pytest.Session) -> int:
        for item, after in zip(session.items, [*session.items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return 1
        return 0


def tried(module: str, todo: Sequence[Change], *, for_s: float, jobs: int) -> list[Change]:
    """These changes with what each came to, as far as the time allows.

    Raises:
        RuntimeError: Without a change the tests do not pass.
    """
    with tempfile.TemporaryDirectory(prefix="actorflow-mutate-") as folder:
        out = Path(folder) / "seen"
        if (pid := os.fork()) == 0:
            code = 70
            try:
                with Path(os.devnull).open("r+b") as nowhere:
                    for number in (0, 1, 2):
                        os.dup2(nowhere.fileno(), number)
                # Who wants to know whether, and not why, need not look for the shortest.
                quick = settings(phases=[Phase.explicit, Phase.generate], max_examples=30, database=None, deadline=None)
                settings.register_profile("mutate", quick)
                settings.load_profile("mutate")
                tests = [str(ROOT / "tests" / f"{name}.py") for name in TESTS[module]]
                loop = Loop(todo, for_s=for_s, jobs=jobs, out=out)
                options = [*OPTIONS, "-m", "not kill"]
                code = int(pytest.main([*options, *tests, str(path_of(module))], plugins=[loop]))
            finally:
                os._exit(code)
        os.waitpid(pid, 0)
        lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else ["no test could be collected"]
    if lines[0] != "0":
        raise RuntimeError(f"without a change the tests of {module} must pass, and they do not: {lines[0]}")
    return [Change(**json.loads(line)) for line in lines[1:]]


# --- the command --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as policies.retry, or kernel for all of a room")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of them; what was tried by then is a fair sample")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which changes are tried")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="how many at a time")
    parser.add_argument("--list", action="store_true", help="show the changes and make none")
    parser.add_argument("--json", action="store_true", help="print one object for each module")
    given = parser.parse_args(arguments)
    wanted = [name for name in TESTS if not given.modules or any(f"{name}.".startswith(f"{each}.") for each in given.modules)]
    if not wanted:
        parser.error(f"no module is called so; there are {', '.join(TESTS)}")
    todo = {name: changes(name) for name in wanted}
    if given.list:
        print("\n".join(_shown_change(change) for name in wanted for change in todo[name]))
        return 0
    total = sum(map(len, todo.values()))
    print(f"{total} changes in {len(wanted)} modules, for about {given.minutes:g} minutes ...", file=sys.stderr, flush=True)
    for name in wanted:
        random.Random(given.seed).shuffle(todo[name])
        share_s = given.minutes * 60 * len(todo[name]) / total
        try:
            _print(name, len(todo[name]), tried(name, todo[name], for_s=share_s, jobs=given.jobs), as_json=given.json)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


def _print(name: str, total: int, found: Sequence[Change], *, as_json: bool) -> None:
    left = sorted((change for change in found if change.came_to == "survived"), key=lambda change: change.number)
    noticed = len(found) - len(left)
    if as_json:
        survivors = [asdict(change) for change in left]
        print(json.dumps({"module": name, "changes": total, "tried": len(found), "noticed": noticed, "survivors": survivors}))
        return
    share = f"{100.0 * noticed / len(found):.0f} %" if found else "none"
    more = "" if len(found) == total else f"; there are {total}"
    print(f"{name}: {noticed} of {len(found)} noticed ({share}){more}", flush=True)
    for change in left:
        print(f"    {_shown_change(change)}", flush=True)


def _shown_change(change: Change) -> str:
    return f"{path_of(change.module).relative_to(ROOT)}:{change.line}: {change.what}"


if __name__ == "__main__":
    sys.exit(main())
