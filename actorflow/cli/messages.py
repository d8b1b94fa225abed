"""`tell` and `ask`: a message to an actor or a run, from the command line."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

from attrs import frozen
from cyclopts import Parameter

from actorflow.cli.connect import perform
from actorflow.cli.exits import Exit
from actorflow.cli.options import DEFAULTS, Options, address, encoded, length_s
from actorflow.cli.printer import Printer
from actorflow.cli.text import safe
from actorflow.errors import (
    AskExpired,
    AskTimeout,
    CallCycle,
    HandlerFailed,
    Refused,
    RunError,
    StepFailed,
    StoreError,
    Undecodable,
)
from actorflow.operations import Operations
from actorflow.policies.limits import checked_key


@frozen(kw_only=True)
class Accepted:
    """A message that is durable, and will be handled."""

    kind: str
    key: str
    type: str
    accepted: bool


@frozen(kw_only=True)
class Answer:
    """What an actor or run replied."""

    kind: str
    key: str
    reply: Any


To = Annotated[str, Parameter(name="KIND/KEY", help="The actor or run.")]
Type = Annotated[str, Parameter(name="TYPE", help="The class of the message: module:Class, or its `kind=`.")]
Body = Annotated[str, Parameter(name="JSON", help="Its fields, as one JSON object.")]
Key = Annotated[str | None, Parameter(help="Makes it repeatable: the same key and message again has no second effect.")]


def tell(to: To, type: Type, body: Body = "{}", /, *, key: Key = None, options: Options = DEFAULTS) -> int:
    """Put a message into a mailbox. Whether its fields are right is looked at there, if the service is running."""
    whom, payload, printer = address(to), encoded(body, "JSON"), Printer(options)

    async def told(operations: Operations) -> int:
        given = None if key is None else checked_key(key)
        await operations.tell(whom, type=type, body=payload, key=given, after_s=None)
        printer.acted(Accepted(kind=whom.kind, key=whom.key, type=type, accepted=True), about=whom, said=f"{whom}: accepted")
        return Exit.OK

    return perform(options.db, told)


def ask(
    to: To,
    type: Type,
    body: Body = "{}",
    /,
    *,
    timeout: Annotated[str, Parameter(help="How long to wait for the reply: 30s, 5m.")] = "10s",
    key: Key = None,
    options: Options = DEFAULTS,
) -> int:
    """Put a message into a mailbox, wait for its reply, and print that as JSON. A handler that failed is exit code 1."""
    whom, payload, printer = address(to), encoded(body, "JSON"), Printer(options)

    async def asked(operations: Operations) -> int:
        given = f"ask-{uuid.uuid4().hex}" if key is None else checked_key(key)
        try:
            reply = await operations.ask(whom, type=type, body=payload, key=given, within_s=length_s(timeout))
        except Exception as error:
            if not _answered(error):
                raise
            printer.complain(error, plainly=True)
            return Exit.FAILED
        match options.output:
            case "json":
                printer.json(Answer(kind=whom.kind, key=whom.key, reply=json.loads(reply)))
            case "ids":
                printer.ids([whom])
            case "table":
                printer.lines([safe(reply.decode("utf-8", "replace"))])
        return Exit.OK

    return perform(options.db, asked)


def _answered(error: Exception) -> bool:
    """True if it is the answer: what a handler failed with may be any exception; what the door or the store says are ours."""
    if isinstance(error, HandlerFailed | StepFailed | AskExpired | CallCycle):
        return True
    return not isinstance(error, Refused | RunError | StoreError | AskTimeout | Undecodable)
