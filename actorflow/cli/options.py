"""What commands are told: the options that all of them share, and how their arguments are read."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Literal, NoReturn

from attrs import frozen
from cyclopts import Parameter

from actorflow.cli.exits import UsageError
from actorflow.clock import seconds
from actorflow.errors import BadDuration
from actorflow.policies.limits import checked_key
from actorflow.records import Address

Output = Literal["table", "json", "ids"]


def flag(help: str, *names: str) -> Parameter:
    """An option without a value."""
    return Parameter(name=list(names), negative="", show_default=False, help=help)


@Parameter(name="*")
@frozen(kw_only=True)
class Options:
    """Shared by all commands that look into a store."""

    db: Annotated[str | None, Parameter(env_var="ACTORFLOW_DB", help="The store: a file, or sqlite:///file.db.")] = None
    output: Annotated[
        Output, Parameter(name=["--output", "-o"], help="For people, for programs, or one KIND/KEY a line for the next command.")
    ] = "table"
    quiet: Annotated[bool, flag("No progress and no remarks.", "--quiet", "-q")] = False
    debug: Annotated[bool, flag("Show the traceback of an error.", "--debug")] = False


DEFAULTS = Options()

RunName = Annotated[str, Parameter(name="KIND/KEY", help="The run.")]
RunNames = Annotated[tuple[str, ...], Parameter(name="KIND/KEY", help="The runs.", show_default=False)]
Stdin = Annotated[bool, flag("Read the runs from standard input, one KIND/KEY a line.", "--stdin")]


def address(text: str) -> Address:
    """A run, as `runs list -o ids` writes it. A key may have "/" in it, a kind has none.

    >>> address("Checkout/2026/o-1")
    Address(kind='Checkout', key='2026/o-1')
    """
    kind, slash, key = text.partition("/")
    if not kind or not slash:
        raise UsageError(f"{text!r} names no run. Write KIND/KEY, as `actorflow runs list -o ids` prints it.")
    return Address(kind, checked_key(key))


def addresses(names: tuple[str, ...], *, stdin: bool) -> list[Address]:
    """Each run that was named, once, in order."""
    lines = [line.rstrip("\r\n") for line in sys.stdin] if stdin else []
    return list(dict.fromkeys(address(name) for name in (*names, *lines) if name))


def length_s(text: str) -> float:
    """A length of time; a bare number is seconds.

    >>> length_s("1.5h"), length_s("2")
    (5400.0, 2.0)
    """
    try:
        return seconds(float(text))
    except ValueError as error:
        if isinstance(error, BadDuration):
            raise
        return seconds(text)


def since_at(text: str) -> float:
    """The moment that `--since` means: that long ago, or a date with or without time (UTC unless it says otherwise).

    >>> since_at("1970-01-02")
    86400.0
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return time.time() - length_s(text)
        except BadDuration:
            hint = "Write how long ago (2h, 3d), or a date: 2027-01-31, 2027-01-31T12:00."
            raise UsageError(f"{text!r} is no moment. {hint}") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def encoded(text: str, option: str) -> bytes:
    """JSON from the command line, as the codec would write it.

    >>> encoded('{"paid": 1}', "--value")
    b'{"paid":1}'
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not of JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        hint = f"A text needs its quotes, as in {option} '\"paid\"'."
        raise UsageError(f"{option} {text!r:.200} is no JSON ({error}). {hint}") from None
