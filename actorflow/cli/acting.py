"""Commands that change runs. What was done is durable when it is printed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal

from attrs import frozen
from cyclopts import Parameter

from actorflow.cli.connect import perform
from actorflow.cli.exits import Exit, UsageError, of_error
from actorflow.cli.looking import KeyPrefix, Kind, Reason, Status, address_of, found
from actorflow.cli.options import DEFAULTS, Options, RunName, RunNames, Stdin, address, addresses, encoded, flag
from actorflow.cli.printer import Printer, cell
from actorflow.errors import ActorflowError, StoreError
from actorflow.operations import Decision, Operations
from actorflow.policies.limits import checked_key
from actorflow.records import ENDED, Address, RunQuery


@frozen(kw_only=True)
class Done:
    """What became of an act on one run."""

    kind: str
    key: str
    act: str
    done: bool
    error: str | None = None  #: why not


@frozen(kw_only=True)
class Verb:
    """An act on one run at a time."""

    name: str  #: "cancel"
    past: str  #: "cancelled"
    act: Callable[[Operations, Address], Awaitable[bool | None]]  #: False: there was nothing to do
    idle: str = ""  #: what to say then


@Parameter(name="*")
@frozen(kw_only=True)
class Filter:
    """Runs by what they are, instead of by name."""

    kind: Kind = None
    status: Status = None
    reason: Reason = None
    key_prefix: KeyPrefix = None
    yes: Annotated[bool, flag("Do not ask whether to do it to all that match.", "--yes", "-y")] = False

    def __bool__(self) -> bool:
        return any((self.kind, self.status, self.reason, self.key_prefix))


BY_NAME = Filter()


# --- many runs -----------------------------------------------------------------------------------------------------------


def _named(verb: Verb, names: tuple[str, ...], *, stdin: bool) -> list[Address]:
    runs = addresses(names, stdin=stdin)
    if not runs and not stdin:
        raise UsageError(f"which runs? Write KIND/KEY, or --stdin to read what to {verb.name} from standard input.")
    return runs


def _chosen(verb: Verb, names: tuple[str, ...], stdin: bool, filter: Filter, options: Options) -> list[Address]:  # noqa: FBT001
    """The runs that are meant: named, or matching and confirmed."""
    if not filter:
        return _named(verb, names, stdin=stdin)
    if names or stdin:
        raise UsageError(f"name the runs to {verb.name}, or filter them (--kind, --status, --reason, --key-prefix): not both.")
    matching = _matching(verb, filter, options)
    question = f"{verb.name} {len(matching):,} runs, from {matching[-1]} to {matching[0]}?" if matching else ""
    if question and not filter.yes and not _confirmed(question, Printer(options)):
        raise UsageError("nothing was done.")
    return matching


def _matching(verb: Verb, filter: Filter, options: Options) -> list[Address]:
    """Runs that match and that the verb may apply to: `cancel` leaves out what has ended, the others want a paused run."""
    status = filter.status or (None if verb.name == "cancel" else "paused")
    query = RunQuery(kind=filter.kind, status=status, reason=filter.reason, key_prefix=filter.key_prefix, actor=False)
    matching: list[Address] = []

    async def look(operations: Operations) -> int:
        async for page in found(operations, query, limit=None):
            matching.extend(address_of(info) for info in page.runs if filter.status or info.status not in ENDED)
        return Exit.OK

    perform(options.db, look)
    return matching


def _confirmed(question: str, printer: Printer) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: give --yes.")
    printer.errors.print(cell(question), "[y/N] ", end="", markup=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _each(verb: Verb, runs: Sequence[Address], options: Options) -> int:
    """Do it to each of them, one after the other. One that is refused does not stop the others; trouble with the store does."""
    printer = Printer(options)
    results: list[Done] = []
    trouble: list[ActorflowError] = []

    async def done(operations: Operations) -> int:
        with printer.progress(f"{verb.name} runs", len(runs)) as bar:
            for to in runs:
                try:
                    result = await verb.act(operations, to)
                    results.append(Done(kind=to.kind, key=to.key, act=verb.name, done=result is not False))
                except ActorflowError as error:
                    results.append(Done(kind=to.kind, key=to.key, act=verb.name, done=False, error=str(error)))
                    trouble.append(error)
                    if isinstance(error, StoreError):
                        break
                if bar is not None:
                    bar.advance(bar.task_ids[0])
        return Exit.OK

    perform(options.db, done)
    _tell(verb, results, printer)
    for error in trouble:
        printer.complain(error)
    if len(results) < len(runs):
        printer.note(f"{len(runs) - len(results):,} more runs were left as they are.")
    return of_error(trouble[-1] if isinstance(trouble[-1], StoreError) else trouble[0]) if trouble else Exit.OK


def _tell(verb: Verb, results: Sequence[Done], printer: Printer) -> None:
    match printer.options.output:
        case "json":
            printer.json_array(results)
        case "ids":
            printer.ids(Address(result.kind, result.key) for result in results if result.done)
        case "table" if not printer.options.quiet:
            told = [result for result in results if result.error is None]
            lines = [f"{result.kind}/{result.key}: {verb.past if result.done else verb.idle}" for result in told]
            printer.show(*(cell(line) for line in lines))
            if not results:
                printer.note("No runs match.")
        case _:
            pass


def cancel(
    runs: RunNames = (),
    /,
    *,
    why: Annotated[str, Parameter(help="Is recorded.")] = "cancelled by an operator",
    stdin: Stdin = False,
    filter: Filter = BY_NAME,
    options: Options = DEFAULTS,
) -> int:
    """Cancel runs: no new step starts, and what was done is undone. One that has ended is left alone."""
    verb = Verb(name="cancel", past="cancelled", act=lambda at, to: at.cancel(to, why=why), idle="had ended")
    return _each(verb, _chosen(verb, runs, stdin, filter, options), options)


def resume(
    runs: RunNames = (),
    /,
    *,
    stdin: Stdin = False,
    filter: Filter = BY_NAME,
    options: Options = DEFAULTS,
) -> int:
    """Let paused runs go on from their journal, with a new budget."""
    verb = Verb(name="resume", past="resumed", act=lambda at, to: at.resume(to))
    return _each(verb, _chosen(verb, runs, stdin, filter, options), options)


def retry(
    runs: RunNames = (),
    /,
    *,
    stdin: Stdin = False,
    filter: Filter = BY_NAME,
    options: Options = DEFAULTS,
) -> int:
    """Perform the failed call of paused runs once more, and go on from there."""
    verb = Verb(name="retry", past="retried", act=lambda at, to: at.retry(to))
    return _each(verb, _chosen(verb, runs, stdin, filter, options), options)


def pause(runs: RunNames = (), /, *, stdin: Stdin = False, options: Options = DEFAULTS) -> int:
    """Start nothing new in these runs. Running steps finish and are recorded; messages are still accepted."""
    verb = Verb(name="pause", past="paused", act=lambda at, to: at.pause(to))
    return _each(verb, _named(verb, runs, stdin=stdin), options)


def prune(runs: RunNames = (), /, *, stdin: Stdin = False, options: Options = DEFAULTS) -> int:
    """Delete runs that have ended. Their keys stay used."""
    verb = Verb(name="prune", past="pruned", act=lambda at, to: at.prune(to))
    return _each(verb, _named(verb, runs, stdin=stdin), options)


def resume_named(actors: RunNames = (), /, *, stdin: Stdin = False, options: Options = DEFAULTS) -> int:
    """Let paused actors go on, with a new budget of restarts."""
    verb = Verb(name="resume", past="resumed", act=lambda at, to: at.resume(to))
    return _each(verb, _named(verb, actors, stdin=stdin), options)


def reset(actors: RunNames = (), /, *, stdin: Stdin = False, options: Options = DEFAULTS) -> int:
    """Give actors that are idle or paused the state of new ones. Their mailboxes and timers stay; the history keeps the state."""
    verb = Verb(name="reset", past="reset", act=lambda at, to: at.reset(to))
    return _each(verb, _named(verb, actors, stdin=stdin), options)


# --- one run -------------------------------------------------------------------------------------------------------------


def _one(to: Address, verb: Verb, options: Options, *, result: Address | None = None) -> int:
    """Do it, and print the run that it is about now."""
    now_at = result or to

    async def done(operations: Operations) -> int:
        await verb.act(operations, to)
        return Exit.OK

    perform(options.db, done)
    Printer(options).acted(
        Done(kind=now_at.kind, key=now_at.key, act=verb.name, done=True), about=now_at, said=f"{to}: {verb.past}"
    )
    return Exit.OK


def skip(
    run: RunName,
    /,
    *,
    value: Annotated[str, Parameter(help="What the failed call is taken to have returned, as JSON.")],
    options: Options = DEFAULTS,
) -> int:
    """Record a value for the failed call of a paused run, and go on after it."""
    outcome = encoded(value, "--value")
    return _one(address(run), Verb(name="skip", past="skipped", act=lambda at, to: at.skip(to, value=outcome)), options)


def decide(
    run: RunName,
    call: Annotated[str, Parameter(help="The interrupted step, as the report names it.")],
    /,
    *,
    landed: Annotated[str | None, Parameter(help="It had its effect; this is its value, as JSON.")] = None,
    run_again: Annotated[bool, flag("It had none, or may have it twice: run it again.", "--run-again")] = False,
    give_up: Annotated[bool, flag("Treat it as failed.", "--give-up")] = False,
    options: Options = DEFAULTS,
) -> int:
    """Say what became of an interrupted step that waits for an answer."""
    if (landed is not None) + run_again + give_up != 1:
        raise UsageError("what became of it? Give one of --landed JSON, --run-again and --give-up.")
    act: Literal["run_again", "give_up"] = "run_again" if run_again else "give_up"
    decision = Decision(act=act) if landed is None else Decision(act="landed", value=encoded(landed, "--landed"))
    verb = Verb(name="decide", past=f"decided ({decision.act})", act=lambda at, to: at.decide(to, call=call, decision=decision))
    return _one(address(run), verb, options)


def fork(
    run: RunName,
    newkey: Annotated[str, Parameter(name="NEWKEY", help="The key of the new run.")],
    /,
    *,
    at: Annotated[int | None, Parameter(help="The SEQ of its history before which the new run differs.")] = None,
    keep: Annotated[bool, flag("Leave a paused original paused, instead of cancelling it.", "--keep")] = False,
    options: Options = DEFAULTS,
) -> int:
    """Start a new run from the past of one that has ended or is paused."""
    source, seq = address(run), at
    result = Address(source.kind, checked_key(newkey))

    async def act(operations: Operations, to: Address) -> None:
        await operations.fork(to, key=newkey, at=seq, input=None, keep=keep)

    return _one(source, Verb(name="fork", past=f"forked as {result}", act=act), options, result=result)
