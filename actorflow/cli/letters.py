"""`dead`: messages that nobody handled, and sending them again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from actorflow.cli.connect import perform
from actorflow.cli.exits import Exit, UsageError, of_error
from actorflow.cli.looking import AtLeastOne, pairs_table, report_table
from actorflow.cli.options import DEFAULTS, Options, address, flag
from actorflow.cli.printer import Printer, cell, grid, line
from actorflow.cli.text import relative, when
from actorflow.errors import ActorflowError, StoreError, UnknownLetter
from actorflow.operations import DeadLetter, Operations
from actorflow.records import Address

PAGE_MAX = 500  #: letters asked for at a time

To = Annotated[str | None, Parameter(name="--to", help="Only those to that actor or run, KIND/KEY.")]
Ids = Annotated[tuple[int, ...], Parameter(name="ID", help="The dead letters, as `dead list` numbers them.", show_default=False)]


@frozen(kw_only=True)
class Sent:
    """What became of sending one again."""

    id: int
    to: str | None  #: in whose mailbox it is now
    done: bool
    error: str | None = None  #: why not


async def letters_of(operations: Operations, to: Address | None, *, limit: int | None) -> AsyncIterator[Sequence[DeadLetter]]:
    """Pages of dead letters, oldest first, up to *limit* of them."""
    after, left = 0, limit
    while True:
        page = await operations.dead_letters(to, after=after, limit=PAGE_MAX if left is None else min(left, PAGE_MAX))
        left = None if left is None else left - len(page.letters)
        yield page.letters
        if page.next is None or left == 0:
            return
        after = page.next


def list_letters(
    *,
    to: To = None,
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many.")] = 50,
    all: Annotated[bool, flag("All of them, page by page.", "--all")] = False,
    options: Options = DEFAULTS,
) -> int:
    """List dead letters, oldest first."""
    whose, printer = None if to is None else address(to), Printer(options)

    async def listed(operations: Operations) -> int:
        found: list[DeadLetter] = []
        async for letters in letters_of(operations, whose, limit=None if all else limit + 1):
            found.extend(letters)
        more = not all and len(found) > limit
        shown = found if all else found[:limit]
        match options.output:
            case "json":
                printer.json_array(shown)
            case "ids":
                printer.lines(str(letter.id) for letter in shown)
            case "table" if shown:
                printer.show(_table(shown, time.time()))
            case "table":
                printer.note("There are no dead letters.")
        if more:
            printer.note(f"There are more: --limit {limit * 10} or --all shows them.")
        return Exit.OK

    return perform(options.db, listed)


def _table(letters: Sequence[DeadLetter], now: float) -> Table:
    table = grid("ID", "TO", "TYPE", "SENT", "WHY", giving_way=("TO", "TYPE", "WHY"))
    for letter in letters:
        sent = relative(letter.sent_at, now)
        table.add_row(str(letter.id), cell(letter.to), cell(letter.type), sent, line(letter.why, "dim"))
    return table


def show_letter(
    id: Annotated[int, Parameter(name="ID", help="The dead letter, as `dead list` numbers it.")],
    /,
    *,
    options: Options = DEFAULTS,
) -> int:
    """Show a dead letter: what it says, why nobody handled it, and what to do now."""
    printer = Printer(options)

    async def shown(operations: Operations) -> int:
        letter = await _letter(operations, id)
        match options.output:
            case "json":
                printer.json(letter)
            case "ids":
                printer.lines([str(letter.id)])
            case "table":
                printer.show(*_page(letter, time.time()))
        return Exit.OK

    return perform(options.db, shown)


async def _letter(operations: Operations, id: int) -> DeadLetter:
    page = await operations.dead_letters(None, after=id - 1, limit=1)
    if not page.letters or page.letters[0].id != id:
        raise UnknownLetter(id)
    return page.letters[0]


def _page(letter: DeadLetter, now: float) -> list[Table | Text]:
    facts: dict[str, str | Text] = {
        "dead letter": cell(str(letter.id), "bold"),
        "to": letter.to,
        "type": letter.type,
        "key": letter.key or "",
        "from": letter.sender or "a client",
        "sent": when(letter.sent_at, now),
        "body": letter.body,
        "why": letter.why,
    }
    parts: list[Table | Text] = [pairs_table(facts)]
    if letter.report is not None:
        parts += [Text(), Text("Report", "bold"), report_table(letter.report)]
    return parts


def resend(
    ids: Ids = (),
    /,
    *,
    all_of: Annotated[str | None, Parameter(name="--all-of", help="All dead letters to that actor or run, KIND/KEY.")] = None,
    options: Options = DEFAULTS,
) -> int:
    """Put dead letters back into the mailboxes they were for, last in line, oldest first."""
    if bool(ids) == (all_of is not None):
        raise UsageError("which dead letters? Write their IDs, as `dead list` prints them, or --all-of KIND/KEY.")
    whose, printer = None if all_of is None else address(all_of), Printer(options)
    results: list[Sent] = []
    trouble: list[ActorflowError] = []

    async def sent(operations: Operations) -> int:
        chosen = list(dict.fromkeys(ids))
        if whose is not None:  # All are listed first: one that dies again at once is not sent again for ever.
            async for letters in letters_of(operations, whose, limit=None):
                chosen.extend(letter.id for letter in letters)
        for id in chosen:
            try:
                to = await operations.resend(id)
                results.append(Sent(id=id, to=str(to), done=True))
            except ActorflowError as error:
                results.append(Sent(id=id, to=None, done=False, error=str(error)))
                trouble.append(error)
                if isinstance(error, StoreError):
                    break
        return Exit.OK

    perform(options.db, sent)
    match options.output:
        case "json":
            printer.json_array(results)
        case "ids":
            printer.lines(str(result.id) for result in results if result.done)
        case "table" if not options.quiet:
            printer.show(*(cell(f"{result.id}: sent again to {result.to}") for result in results if result.done))
            if not results:
                printer.note(f"There are no dead letters to {whose}.")
        case _:
            pass
    for error in trouble:
        printer.complain(error)
    return of_error(trouble[-1] if isinstance(trouble[-1], StoreError) else trouble[0]) if trouble else Exit.OK
