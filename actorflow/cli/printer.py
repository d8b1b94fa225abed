"""Where a command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TextIO

from attrs import field, frozen
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actorflow.cli import exits
from actorflow.cli.exits import Exit
from actorflow.cli.options import Options
from actorflow.cli.text import dumped, safe, short
from actorflow.records import Address

UNBOUND = 10_000  #: columns of what is no terminal: nothing is folded or cut there
COLORS = {"completed": "green", "failed": "red", "paused": "yellow", "cancelled": "dim", "undoing": "magenta"}


def cell(text: str, style: str = "") -> Text:
    """Stored text for a table: escaped, and never read as markup."""
    return Text(safe(text), style=style, overflow="fold")


def line(text: str, style: str = "") -> Text:
    """Stored text that is cut where its column ends."""
    return Text(short(text), style=style, overflow="ellipsis", no_wrap=True)


def grid(*titles: str, giving_way: Sequence[str] = ()) -> Table:
    """A table without lines, so that a row stays a row for `grep`.

    Args:
        titles: Of the columns.
        giving_way: Those that become narrower in a narrow terminal: a `cell` is folded then, a `line` is cut.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=title not in giving_way)
    return table


@frozen
class Printer:
    """The two streams of a command, as its options want them."""

    options: Options
    errors: Console = field(factory=lambda: Console(stderr=True, highlight=False))

    @property
    def lively(self) -> bool:
        """True if somebody watches: progress is drawn only then."""
        return self.errors.is_terminal and not self.errors.is_dumb_terminal and not self.options.quiet

    @property
    def columns(self) -> int:
        """How wide a table may be."""
        return _results().width

    # --- results --------------------------------------------------------------------------------------------------------

    def json(self, value: object) -> None:
        """One JSON object."""
        _write(sys.stdout, f"{dumped(value, indent=2)}\n")

    def json_array(self, values: Iterable[object]) -> None:
        """One JSON array, an element a line."""
        between = "[\n"
        for value in values:
            _write(sys.stdout, f"{between}{dumped(value)}")
            between = ",\n"
        _write(sys.stdout, "[]\n" if between == "[\n" else "\n]\n")

    def ids(self, runs: Iterable[Address]) -> None:
        """One KIND/KEY a line: as it is for the next command, escaped for a terminal."""
        for run in runs:
            _write(sys.stdout, f"{safe(str(run)) if sys.stdout.isatty() else run}\n")

    def acted(self, record: object, about: Address, said: str) -> None:
        """What an act came to: a record, the run or actor that it is about now, or (unless quiet) a sentence."""
        match self.options.output:
            case "json":
                self.json(record)
            case "ids":
                self.ids([about])
            case "table" if not self.options.quiet:
                self.show(cell(said))
            case _:
                pass

    def lines(self, texts: Iterable[str]) -> None:
        """One text a line, as it is."""
        for text in texts:
            _write(sys.stdout, f"{text}\n")

    def show(self, *parts: RenderableType) -> None:
        """Tables and lines for a person."""
        console = _results()
        with console.capture() as captured:
            for part in parts:
                console.print(part, soft_wrap=isinstance(part, Text))
        lines = captured.get().splitlines(keepends=True)
        _write(sys.stdout, "".join(f"{line.rstrip()}\n" for line in lines))

    # --- remarks --------------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A remark that `--quiet` leaves out."""
        if not self.options.quiet:
            self._say(text)

    def _say(self, text: str, style: str = "") -> None:
        with self.errors.capture() as captured:
            self.errors.print(Text(safe(text), style=style), soft_wrap=True)
        _write(sys.stderr, captured.get())

    def complain(self, error: BaseException, *, plainly: bool = False) -> Exit:
        """Tell what went wrong; returns the exit code for it.

        Args:
            error: What was raised.
            plainly: It is an exception of somebody else's code, however strange: no bug of ours.
        """
        error = exits.innermost(error)
        if self.options.debug:
            _write(sys.stderr, "".join(traceback.format_exception(error)))
        said = f"{type(error).__name__}: {error}" if plainly else exits.sentence(error)
        self._say(f"actorflow: {said}", "red")
        return exits.of_error(error)

    @contextmanager
    def progress(self, what: str, total: int) -> Generator[Progress | None]:
        """A bar for *total* things to do, if somebody watches and there are several."""
        if not self.lively or total < 2:
            yield None
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.errors, transient=True) as bar:
            bar.add_task(what, total=total)
            yield bar

    def waiting(self) -> Progress:
        """What `wait` draws: a spinner, and a bar for each loop."""
        words = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), words, _LoopBar(), TaskProgressColumn(), TextColumn("{task.fields[left]}", markup=False))
        return Progress(*columns, console=self.errors, transient=True)


class _LoopBar(BarColumn):
    """A bar where there is something to count; what only waits has its spinner."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        if not task.fields.get("loop"):
            bar.width = 0
        return bar


def _results() -> Console:
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNBOUND
    return console


def _write(stream: TextIO, text: str) -> None:
    """All of *text*; what the stream's encoding does not know is written as its escape."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
