"""Recorded journals: what a run asked for and was answered, kept in a file, so that tomorrow's code can be driven over it.

`actorflow capture` writes them from a store, and `assert_replays` reads them. A journal is JSON, for a person to read; its
payloads are as the codec wrote them, with other texts in it if it was redacted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

from attrs import evolve, frozen

from actorflow.actor import Actor
from actorflow.errors import BadDefinition, InvalidState, RunPruned, UnknownRun
from actorflow.failures import decode_failure, describe_failure, encode_failure
from actorflow.kernel.journal import NOT_COMPARED
from actorflow.kernel.requests import Broken, Finished, Stretch
from actorflow.kind import Kind
from actorflow.records import Address, Entry, Event, Run
from actorflow.resources import Resources
from actorflow.stores import Store
from actorflow.testing.invariants import driven
from actorflow.testing.redaction import Redaction
from actorflow.value import Value
from actorflow.workflow import Workflow

VERSION = 1
ENTRIES_SHOWN_MAX = 20

_PLAIN = ("seq", "kind", "branch", "name", "n", "status", "attempt", "at", "due_at", "ref")
_COMPARED = frozenset(("step", "tell", "ask", "start", "result", "checkpoint"))
"""Kinds whose input follows from values: with other texts in the journal it would be another one."""


@frozen(kw_only=True)
class Journal(Value):
    """A run as it was recorded: what it started from in its present round, what is recorded since, and how it stands."""

    kind: str
    key: str
    status: str
    round: int
    seed: int
    fields: bytes  #: what the round started from
    outcome: bytes | None  #: once it has ended
    events: tuple[Event, ...] = ()  #: what replay sees, in order
    redacted: bool = False

    def redact(self, by: Redaction) -> Journal:
        """The same with other texts in it."""

        def entry(event: Event) -> Event:
            recorded = event.entry
            ref = recorded.ref if recorded.kind in ("step", "receive", "start", "intent") else None
            input_, outcome = _other(recorded.input, by), _other(recorded.outcome, by)
            return Event(event.seq, recorded._replace(input=input_, outcome=outcome, ref=ref))

        return evolve(
            self,
            key=by.text(self.key),
            fields=_other(self.fields, by) or b"",
            outcome=_other(self.outcome, by),
            events=tuple(map(entry, self.events)),
            redacted=True,
        )

    def dumps(self) -> str:
        """As a file holds it."""
        head = {"version": VERSION, "kind": self.kind, "key": self.key, "status": self.status, "round": self.round}
        head |= {"seed": self.seed, "redacted": self.redacted, "fields": _shown(self.fields), "outcome": _shown(self.outcome)}
        entries = (
            {name: value for name, value in zip(_PLAIN, _columns(event), strict=True) if value not in (None, "", 0)}
            | {"input": _shown(event.entry.input), "outcome": _shown(event.entry.outcome)}
            for event in self.events
        )
        lines = ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in entries)
        text = json.dumps({**head, "entries": []}, indent=2, ensure_ascii=False)
        return text.replace('"entries": []', f'"entries": [\n{lines}\n  ]' if lines else '"entries": []') + "\n"

    @classmethod
    def loads(cls, text: str) -> Journal:
        """What `dumps` wrote.

        Raises:
            BadDefinition: It is none.
        """
        try:
            read: Any = json.loads(text)
            if read["version"] != VERSION:
                raise BadDefinition(f"this journal has version {read['version']}, and {VERSION} is known: capture it again.")
            return cls(
                kind=read["kind"],
                key=read["key"],
                status=read["status"],
                round=read["round"],
                seed=read["seed"],
                fields=_read(read["fields"]) or b"",
                outcome=_read(read["outcome"]),
                events=tuple(_event(each, read["round"]) for each in read["entries"]),
                redacted=read["redacted"],
            )
        except (ValueError, KeyError, TypeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise BadDefinition(f"this is no journal as `actorflow capture` writes it ({said}).") from error


async def recorded(store: Store, address: Address) -> Journal:
    """The journal of a run in an open store.

    Raises:
        UnknownRun, RunPruned: There is none.
        InvalidState: It is an actor: it has a state, and no way through its code.
    """
    found = await store.find(address)
    if found is None:
        raise UnknownRun(address)
    if not found.input:
        raise RunPruned(address)
    if found.actor:
        raise InvalidState("capture", address, "an actor", "Only runs of workflows are replayed from a journal.")
    loaded = await store.load(found.id)
    assert loaded is not None
    run = loaded.run
    return Journal(
        kind=run.kind,
        key=run.key,
        status=run.status,
        round=run.round,
        seed=run.seed,
        fields=run.fields if run.fields is not None else run.input,
        outcome=run.outcome,
        events=tuple(loaded.entries),
    )


# --- replay ---------------------------------------------------------------------------------------------------------------


def assert_replays(
    journal: Journal | str | PathLike[str] | Mapping[str, Any],
    workflow: type[Workflow[Any]] | None = None,
    *,
    resources: Sequence[object] = (),
) -> None:
    """Drive today's code over a recorded journal: it must ask for the same, in the same order, and come to the same end.

    No step runs. Of a redacted journal it is not compared what follows from texts: the inputs of calls, and the result.

    Args:
        journal: A file that `actorflow capture` wrote, what is in one, or a `Journal`.
        workflow: The class; by default the one that is loaded and has that kind.
        resources: What its fields are filled with, as for `Runtime`.

    Raises:
        AssertionError: It does not; says where, with both sides.
        BadDefinition: The journal cannot be read, or there is no such class, or there are several.
    """
    read = _loaded(journal)
    cls = workflow if workflow is not None else _class_of(read.kind)
    kind = cls.__kind_info__()
    given = Resources.of(resources)
    given.bind(kind.name, cls.__qualname__, kind.resources)
    try:
        stretch = driven(_run(read), _compared(read), kind, given.fields(kind.name))
        wrong = _wrong(read, kind, stretch)
        cause = stretch.end.reason if isinstance(stretch.end, Broken) else None
    except Exception as error:  # noqa: BLE001  (what a validator of today's class says to the fields)
        wrong, cause = f"{type(error).__name__}: {error}", error
    if wrong:
        raise AssertionError(_report(read, wrong)) from cause


def _loaded(journal: Journal | str | PathLike[str] | Mapping[str, Any]) -> Journal:
    match journal:
        case Journal():
            return journal
        case Mapping():
            return Journal.loads(json.dumps(journal))
        case _:
            return Journal.loads(Path(journal).read_text(encoding="utf-8"))


def _class_of(kind: str) -> type[Workflow[Any]]:
    found = [cls for cls in _below(Workflow) if cls.__kind__ == kind]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadDefinition(f"no class of kind {kind!r} is loaded: import its module, or pass it: assert_replays(..., {kind}).")
    several = ", ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
    raise BadDefinition(f"several classes of kind {kind!r} are loaded ({several}): pass the one that is meant.")


def _below(cls: type[Actor]) -> Iterator[type[Workflow[Any]]]:
    for each in cls.__subclasses__():
        yield cast("type[Workflow[Any]]", each)
        yield from _below(each)


def _run(journal: Journal) -> Run:
    return Run(
        id=1,
        kind=journal.kind,
        key=journal.key,
        status=cast("Any", journal.status),
        round=journal.round,
        seed=journal.seed,
        input=journal.fields,
        outcome=journal.outcome,
    )


def _compared(journal: Journal) -> Sequence[Event]:
    if not journal.redacted:
        return journal.events
    return [Event(seq, entry._replace(input=NOT_COMPARED) if entry.kind in _COMPARED else entry) for seq, entry in journal.events]


def _wrong(journal: Journal, kind: Kind, stretch: Stretch) -> str:
    """What is otherwise than it was recorded; nothing, if all is the same."""
    match stretch.end:
        case Broken(reason):
            return str(reason)
        case Finished(_, BaseException() as error):
            return _failed_otherwise(journal, error)
        case Finished(value, None) if journal.status == "completed" and not journal.redacted:
            again = json.loads(kind.outcome.encode(value, "result"))
            before = json.loads(journal.outcome or b"null")
            return "" if again == before else f"it returned {before!r:.300}, and returns {again!r:.300} now"
        case Finished() if journal.status == "failed":
            return f"it failed ({describe_failure(journal.outcome or b'null')}), and completes now"
        case None if journal.status in ("completed", "failed"):
            return f"it {journal.status}, and asks for {', '.join(str(asked) for asked in stretch.asks)} now"
        case _:
            return ""


def _failed_otherwise(journal: Journal, error: BaseException) -> str:
    now = describe_failure(encode_failure(error))
    if journal.status != "failed":
        return f"it stood as {journal.status}, and fails now: {now}"
    before = describe_failure(journal.outcome or b"null")
    same = type(decode_failure(journal.outcome or b"null")) is type(error) if journal.redacted else now == before
    return "" if same else f"it failed with {before}, and fails with {now} now"


def _report(journal: Journal, wrong: str) -> str:
    lines = [f"{journal.kind}/{journal.key} does not replay with today's code: {wrong}", "", "recorded were"]
    shown = journal.events[-ENTRIES_SHOWN_MAX:]
    lines += [f"    ... {len(journal.events) - len(shown)} entries before"] if len(shown) < len(journal.events) else []
    lines += [f"    {entry.kind} {entry.identity} {entry.status}" for _, entry in shown] or ["    nothing"]
    return "\n".join(lines)


# --- payloads in a file -----------------------------------------------------------------------------------------------------


def _columns(event: Event) -> tuple[Any, ...]:
    e = event.entry
    return (event.seq, e.kind, e.branch, e.name, e.n, e.status, e.attempt, e.at, e.due_at, e.ref)


def _event(read: dict[str, Any], round: int) -> Event:
    entry = Entry(
        run=1,
        round=round,
        kind=read["kind"],
        branch=read.get("branch", ""),
        name=read.get("name", ""),
        n=read.get("n", 0),
        status=read.get("status", ""),
        attempt=read.get("attempt", 0),
        at=read.get("at", 0.0),
        due_at=read.get("due_at"),
        input=_read(read["input"]),
        outcome=_read(read["outcome"]),
        ref=read.get("ref"),
    )
    return Event(read["seq"], entry)


def _shown(payload: bytes | None) -> Any:
    """A payload as JSON; what is none (and what looks like this) in a list of one text."""
    if payload is None:
        return None
    try:
        value = json.loads(payload)
    except ValueError:
        return {"~text": payload.decode()}
    return {"~value": None} if value is None else value


def _read(shown: Any) -> bytes | None:
    match shown:
        case None:
            return None
        case {"~text": str(text)}:
            return text.encode()
        case {"~value": None}:
            return b"null"
        case _:
            return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()


def _other(payload: bytes | None, by: Redaction) -> bytes | None:
    if payload is None:
        return None
    try:
        value = json.loads(payload)
    except ValueError:
        return payload  # The number of a message, the moment of a wait.
    return json.dumps(by.value(value), ensure_ascii=False, separators=(",", ":")).encode()
