"""`actorflow capture`: a recorded run becomes a test that today's code must pass."""

from __future__ import annotations

import re
import secrets
import sys
from hashlib import blake2b
from importlib import import_module
from inspect import getsource
from pathlib import Path
from typing import Annotated, Any, cast

from attrs import frozen
from cyclopts import Parameter

from actorflow.cli.connect import look
from actorflow.cli.exits import Exit, UsageError
from actorflow.cli.options import DEFAULTS, Options, RunName, address, flag
from actorflow.cli.printer import Printer
from actorflow.stores import Store
from actorflow.testing.journals import Journal, assert_replays, recorded
from actorflow.testing.redaction import Redaction, constants
from actorflow.workflow import Workflow

TEST = '''"""{what}, as it was recorded: today's code must take the same way. Written by `actorflow capture`."""

from __future__ import annotations

from pathlib import Path
{imports}
from actorflow.testing import assert_replays


def test_{name}_replays() -> None:
    assert_replays(Path(__file__).with_name("{name}.json"){argument})
'''


@frozen(kw_only=True)
class Captured:
    """What was written."""

    kind: str
    key: str
    journal: str
    test: str
    entries: int
    redacted: bool
    replays: bool | None  #: whether today's code replays it; None if its class was not named


def capture(
    run: RunName,
    /,
    *,
    workflow: Annotated[str | None, Parameter(help="Its class, module:Class: the test imports it, and it is tried.")] = None,
    out: Annotated[Path, Parameter(help="The folder to write to.")] = Path("tests/journals"),
    name: Annotated[str | None, Parameter(help="Of the files; by default the kind, and a number for the key.")] = None,
    keep_values: Annotated[bool, flag("Write texts as they are, instead of others of the same shape.", "--keep-values")] = False,
    force: Annotated[bool, flag("Replace files of that name.", "--force")] = False,
    options: Options = DEFAULTS,
) -> int:
    """Write the journal of a run, and a test that replays it.

    Texts are replaced by others of the same shape; numbers, and texts that the module of --workflow names itself, are kept.
    """
    to, printer = address(run), Printer(options)
    cls = None if workflow is None else _imported(workflow)
    called = name or f"{re.sub('[^a-z0-9]+', '_', to.kind.lower())}_{blake2b(to.key.encode(), digest_size=4).hexdigest()}"
    if not called.isidentifier():
        raise UsageError(f"--name {called!r} is no name for a test. Write letters, digits and _.")
    files = out / f"{called}.json", out / f"test_{called}.py"
    if not force and (there := [str(file) for file in files if file.exists()]):
        raise UsageError(f"{' and '.join(there)} exist. Write --force to replace them, or give another --name.")

    async def captured(store: Store) -> int:
        journal = await recorded(store, to)
        if not keep_values:
            journal = journal.redact(Redaction(secrets.token_bytes(32), _known(cls)))
        replays, wrong = _tried(journal, cls)
        out.mkdir(parents=True, exist_ok=True)
        files[0].write_text(journal.dumps(), encoding="utf-8")
        files[1].write_text(_test(journal, called, workflow), encoding="utf-8")
        record = Captured(
            kind=to.kind,
            key=to.key,
            journal=str(files[0]),
            test=str(files[1]),
            entries=len(journal.events),
            redacted=journal.redacted,
            replays=replays,
        )
        printer.acted(record, about=to, said=f"{to}: {len(journal.events)} entries in {files[0]}, its test is {files[1]}")
        if replays is False:
            hint = "" if keep_values else " If its way depends on texts that were replaced, --keep-values keeps them."
            printer.note(f"Today's code does not replay it: {wrong.splitlines()[0]}{hint}")
        return Exit.OK

    return look(options.db, captured)


def _imported(name: str) -> type[Workflow[Any]]:
    module, colon, path = name.partition(":")
    if not module or not colon or not path:
        raise UsageError(f"--workflow {name!r} names no class. Write module:Class, as in shop:Checkout.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--workflow {name!r} cannot be imported ({error}). Call this where its module is found.") from None
    if not (isinstance(found, type) and issubclass(found, Workflow)):
        raise UsageError(f"--workflow {name!r} is no workflow.")
    workflow: type[Workflow[Any]] = cast("Any", found)
    return workflow


def _known(cls: type[Workflow[Any]] | None) -> frozenset[str]:
    """The texts that the class's module names itself."""
    return frozenset() if cls is None else constants(getsource(import_module(cls.__module__)))


def _tried(journal: Journal, cls: type[Workflow[Any]] | None) -> tuple[bool | None, str]:
    if cls is None or cls.__kind_info__().resources:
        return None, ""
    try:
        assert_replays(journal, cls)
    except AssertionError as error:
        return False, str(error)
    return True, ""


def _test(journal: Journal, name: str, workflow: str | None) -> str:
    module, _, cls = (workflow or "").partition(":")
    line = f"from {module} import {cls.partition('.')[0]}" if workflow else f"# Import the module of {journal.kind} here."
    what = f"A run of {journal.kind} ({journal.status})"
    return TEST.format(what=what, imports=f"\n{line}\n", name=name, argument=f", {cls}" if cls else "")
