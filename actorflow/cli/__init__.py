"""The command line: look at the runs of a store, mend them, wait for them. Speaks to the store through `Operations` only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from actorflow import __version__
from actorflow.cli import acting, letters, looking
from actorflow.cli.capture import capture
from actorflow.cli.demo import demo
from actorflow.cli.exits import MEANINGS, Exit, UsageError
from actorflow.cli.messages import ask, tell
from actorflow.cli.options import Options
from actorflow.cli.printer import Printer
from actorflow.cli.tree import show_tree
from actorflow.cli.waiting import wait

HELP = """Look at the runs and actors of an actorflow store, mend them, wait for them.

Name the store with --db shop.db, or once for all with ACTORFLOW_DB. A service that is running need not be stopped.

  actorflow runs list --status paused
  actorflow runs show Checkout/o-1
  actorflow runs list --reason failure -o ids | actorflow runs retry --stdin
  actorflow runs wait Checkout/o-1 --timeout 5m && echo shipped
  actorflow dead list --to Account/ann

Exit codes:
"""


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `exits.Exit`).

    Args:
        tokens: The command line without the program's name; None takes it from `sys.argv`.
    """
    given = list(sys.argv[1:] if tokens is None else tokens)
    printer = Printer(Options(debug="--debug" in given))
    try:
        result = _app()(given)
        sys.stdout.flush()
    except CycloptsError as error:
        return printer.complain(UsageError(f"{error} See --help."))
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.CLOSED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (the last one who can say what happened)
        return printer.complain(error)
    return result if isinstance(result, int) else Exit.OK


def _app() -> App:
    codes = "\n".join(f"  {int(code):>3}  {meaning}" for code, meaning in MEANINGS.items())
    app = App(
        name="actorflow",
        help=HELP + codes,
        version=__version__,
        help_format="plaintext",
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    runs = App(name="runs", help="Look at runs and act on them.")
    app.command(demo)
    told = "Live through simulated histories: a service with its disk, network and clients, full of faults."
    app.command("actorflow.cli.simulate:simulate", name="simulate", help=told)  # Its module brings a whole world along.
    app.command(looking.why, name="why")
    app.command(capture)
    app.command(tell)
    app.command(ask)
    app.command(show_tree, name="tree")
    app.command(runs)
    app.command(_actors())
    app.command(_dead())
    for name, command in (
        ("list", looking.list_runs),
        ("count", looking.count_runs),
        ("show", looking.show_run),
        ("history", looking.show_history),
        ("wait", wait),
        ("cancel", acting.cancel),
        ("pause", acting.pause),
        ("resume", acting.resume),
        ("retry", acting.retry),
        ("skip", acting.skip),
        ("decide", acting.decide),
        ("fork", acting.fork),
        ("prune", acting.prune),
    ):
        runs.command(command, name=name)
    return app


def _actors() -> App:
    actors = App(name="actors", help="Look at actors and act on them.")
    for name, command in (
        ("list", looking.list_actors),
        ("count", looking.count_actors),
        ("show", looking.show_run),
        ("history", looking.show_history),
        ("pause", acting.pause),
        ("resume", acting.resume_named),
        ("reset", acting.reset),
    ):
        actors.command(command, name=name)
    return actors


def _dead() -> App:
    dead = App(name="dead", help="Look at messages that nobody handled, and send them again.")
    dead.command(letters.list_letters, name="list")
    dead.command(letters.show_letter, name="show")
    dead.command(letters.resend, name="resend")
    return dead
