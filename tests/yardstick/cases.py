"""Cases as they are published: where they come from, how they are read, and what their placeholders stand for."""

from __future__ import annotations

import json
import os
import random
import re
import string
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from attrs import define, field, frozen

PACKAGE = "aws-durable-execution-conformance-tests"
VERSION = "1.0.0"
CASES_IN_WHEEL = "aws_durable_execution_conformance_tests/test_requirements/"
NEEDS_PYTHON = "3.14"  #: of the wheel; only its data is used here, so any Python will do

KNOWN_KEYS = frozenset(
    "description handler invocations async AsyncInvoke optional Variables Input ExpectedResult ExpectedExecutionHistory "  # noqa: SIM905
    "ExpectedLogs CallbackActions DefaultRetryParameters".split()
)

Json = dict[str, Any]


class BadCase(Exception):
    """A file that is no case, or asks for something that nobody here has heard of."""


@frozen(kw_only=True)
class Action:
    """What the outside world does to a callback."""

    name: str  #: of the callback; "*" is any
    operation: str  #: success, failure or heartbeat
    payload: Any = None
    delay_s: float = 0.0


@frozen(kw_only=True)
class Case:
    """What must come of a handler."""

    id: str
    suite: str
    description: str
    input: Any
    status: str | None  #: None: nothing is said about how it ends
    has_result: bool
    result: Any
    history: Sequence[Json]
    logs: Sequence[Json]
    actions: Sequence[Action]
    bindings: Mapping[str, Any]  #: what its variables stand for


def read_case(path: Path) -> Case:
    """One case; its random variables are drawn by its name, so that it is the same case each time.

    Raises:
        BadCase: The file is no case, or has a key that nobody here reads.
    """
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict) or "ExpectedExecutionHistory" not in raw:
        raise BadCase(f"{path} is no case: it has no ExpectedExecutionHistory.")
    if unknown := raw.keys() - KNOWN_KEYS:
        raise BadCase(f"{path} has {', '.join(sorted(unknown))}, which the yardstick does not read: teach it, in {__name__}.")
    bound = Placeholders.drawn(raw.get("Variables") or {}, path.stem)
    expected: Json = raw.get("ExpectedResult") or {}
    actions = [
        Action(
            name=str(bound.filled(each["CallbackName"])),
            operation=each["Operation"],
            payload=bound.filled(each.get("Payload")),
            delay_s=float(each.get("Delay", 0)),
        )
        for each in raw.get("CallbackActions") or ()
    ]
    return Case(
        id=path.stem,
        suite=path.parent.name,
        description=" ".join(str(raw.get("description", "")).split()),
        input=bound.filled(raw.get("Input")),
        status=expected.get("ExecutionStatus"),
        has_result="Result" in expected,
        result=bound.filled(expected.get("Result")),
        history=raw["ExpectedExecutionHistory"],
        logs=raw.get("ExpectedLogs") or (),
        actions=actions,
        bindings=bound.values,
    )


def read_cases(folder: Path) -> list[Case]:
    """All cases below *folder*, in the order of their numbers."""
    found = [read_case(path) for path in folder.rglob("*.yaml")]
    if not found:
        raise BadCase(f"there is no case below {folder}.")
    return sorted(found, key=lambda case: number(case.id))


def number(id: str) -> tuple[tuple[int, str], ...]:
    """The order of cases: "1-2" comes before "1-10".

    >>> sorted(["1-10", "1-2", "10-1"], key=number)
    ['1-2', '1-10', '10-1']
    """
    return tuple((int(part) if part.isdigit() else 0, part) for part in id.split("-"))


# --- placeholders ------------------------------------------------------------------------------------------------------

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DRAWN = re.compile(r"\$\{GEN_STR:(\d+)\}")
_PATTERN = re.compile(r"\$\{/(.+)/\}")


@define
class Placeholders:
    """What `${NAME}` stands for: drawn before the case, or bound to what is seen first."""

    values: dict[str, Any] = field(factory=dict[str, Any])

    @classmethod
    def drawn(cls, variables: Mapping[str, Any], seed: str) -> Placeholders:
        chance = random.Random(seed)
        values: dict[str, Any] = {}
        for name, value in variables.items():
            drawn = _DRAWN.fullmatch(str(value))
            letters = string.ascii_lowercase + string.digits
            values[name] = "".join(chance.choices(letters, k=int(drawn[1]))) if drawn else value
        return cls(values)

    def filled(self, value: Any) -> Any:
        """*value* with all names that are known replaced, however deep they are."""
        match value:
            case str():
                return REFERENCE.sub(lambda found: str(self.values.get(found[1], found[0])), value)
            case dict():
                return {key: self.filled(part) for key, part in value.items()}
            case list():
                return [self.filled(part) for part in value]
            case _:
                return value

    def differences(self, expected: Any, got: Any, where: str) -> list[str]:
        """How *got* is not as *expected*. A name that is not known yet is bound to what stands there.

        "*" and {} ask for nothing. Texts under `Payload` are compared as the JSON they are.
        """
        if expected in ("*", {}):
            return []
        if isinstance(expected, str):
            if alone := REFERENCE.fullmatch(expected):
                if got is None and alone[1] not in self.values:
                    return [f"{where}: is missing"]
                expected = self.values.setdefault(alone[1], got)
            elif pattern := _PATTERN.fullmatch(expected):
                return [] if re.search(pattern[1], str(got)) else [f"{where}: {got!r} does not match /{pattern[1]}/"]
            else:
                expected = self.filled(expected)
        if isinstance(expected, dict) and isinstance(got, dict):
            return [line for key in expected for line in self.differences(expected[key], got.get(key), f"{where}.{key}")]
        if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
            pairs = enumerate(zip(expected, got, strict=True))
            return [line for index, (want, have) in pairs for line in self.differences(want, have, f"{where}[{index}]")]
        if where.endswith(".Payload"):
            expected, got = _parsed(expected), _parsed(got)
        return [] if expected == got and type(expected) is type(got) else [f"{where}: expected {expected!r}, got {got!r}"]


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


# --- where they come from ----------------------------------------------------------------------------------------------


def cache() -> Path:
    """Where the cases are kept between runs."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "actorflow" / f"{PACKAGE}-{VERSION}"


def fetch() -> Path:
    """The folder of the cases, from the cache or else from the package index, with pip.

    Raises:
        BadCase: They could not be had.
    """
    folder = cache()
    if folder.is_dir():
        return folder
    print(f"fetching {PACKAGE} {VERSION} ...", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", NEEDS_PYTHON, "--dest", scratch, f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BadCase(f"pip could not fetch {PACKAGE} {VERSION}:\n{done.stderr.strip()}\nName a folder with --cases DIR.")
        [wheel] = Path(scratch).glob("*.whl")
        fresh = Path(scratch) / "cases"
        with zipfile.ZipFile(wheel) as opened:
            for name in opened.namelist():
                if name.startswith(CASES_IN_WHEEL) and name.endswith(".yaml"):
                    suite, _, file = name.removeprefix(CASES_IN_WHEEL).partition("/")
                    (fresh / suite).mkdir(parents=True, exist_ok=True)
                    (fresh / suite / file).write_bytes(opened.read(name))
        fresh.rename(folder)
    return folder
