"""`runs wait`: until a run has ended or is paused; whoever watches sees how far it is."""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any

import anyio
from cyclopts import Parameter
from rich.progress import Progress, TaskID

from actorflow.cli.connect import perform
from actorflow.cli.exits import Exit, of_status
from actorflow.cli.looking import address_of, loop_name
from actorflow.cli.options import DEFAULTS, Options, RunName, address, length_s
from actorflow.cli.printer import Printer, cell
from actorflow.cli.text import length, plain, safe, short
from actorflow.errors import RunPaused
from actorflow.operations import LoopInfo, Operations, RunInfo
from actorflow.records import ENDED, Address

LOOK_EVERY_S = 0.5  #: how often somebody who watches is shown how far it is


def wait(
    run: RunName,
    /,
    *,
    timeout: Annotated[str | None, Parameter(help="At most so long: 30s, 5m, 2h. Without it, for ever.")] = None,
    options: Options = DEFAULTS,
) -> int:
    """Wait until a run has ended or is paused. The exit code tells which."""
    to, printer = address(run), Printer(options)
    timeout_s = math.inf if timeout is None else length_s(timeout)

    async def waited(operations: Operations) -> int:
        payload = await _end_within(operations, to, timeout_s, printer)
        info = await operations.status(to)
        over = info.status in (*ENDED, "paused")
        if printer.options.output == "json":
            printer.json({**plain(info), "result": None if payload is None else _value(payload)})
        elif printer.options.output == "ids":
            printer.ids([to])
        elif over and not printer.options.quiet:
            printer.show(cell(_completed(info, payload) if payload is not None else await operations.why(to)))
        if not over:
            printer.note(f"{to} is not done after {length(timeout_s)}. {await operations.why(to)}")
        return of_status(info.status) if over else Exit.TIMED_OUT

    return perform(options.db, waited)


async def _end_within(operations: Operations, to: Address, timeout_s: float, printer: Printer) -> bytes | None:
    """The result if it completed in time, else None; draws meanwhile, if somebody watches."""
    payload: bytes | None = None
    async with anyio.create_task_group() as group:
        if printer.lively:
            group.start_soon(_watch, operations, to, printer)
        with anyio.move_on_after(timeout_s):
            payload = await _end(operations, to)
        group.cancel_scope.cancel()
    return payload


async def _end(operations: Operations, to: Address) -> bytes | None:
    """The result once it completed; None once it ended otherwise or is paused."""
    while True:
        try:
            return await operations.result(to, wait_paused=False)
        except Exception as error:
            # What a run failed with may be any exception, ours too: only where it stands tells one from trouble of ours.
            status = (await operations.status(to)).status
            if status in (*ENDED, "paused"):
                return None
            if not isinstance(error, RunPaused):
                raise


def _completed(info: RunInfo, payload: bytes) -> str:
    took = length((info.ended_at or time.time()) - info.created_at)
    return f"{address_of(info)} completed after {took}: {short(payload.decode('utf-8', 'replace'))}"


def _value(payload: bytes) -> Any:
    """A payload as JSON, or, if it is none, as text."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace")


# --- what is drawn -------------------------------------------------------------------------------------------------------


async def _watch(operations: Operations, to: Address, printer: Printer) -> None:
    """Draw how far it is, until cancelled."""
    with printer.waiting() as drawn:
        bars: dict[tuple[str, int], TaskID] = {}
        spinner = drawn.add_task(safe(str(to)), total=None, left="")
        while True:
            info = await operations.status(to)
            draw(drawn, bars, info.loops)
            drawn.update(spinner, description=safe(await operations.why(to)), visible=not info.loops)
            drawn.refresh()
            await anyio.sleep(LOOK_EVERY_S)


def draw(drawn: Progress, bars: dict[tuple[str, int], TaskID], loops: tuple[LoopInfo, ...]) -> None:
    """A bar for each loop; those of loops that are over go."""
    seen = {(loop.branch, loop.n): loop for loop in loops}
    for gone in [key for key in bars if key not in seen]:
        drawn.remove_task(bars.pop(gone))
    for key, loop in seen.items():
        name = short(loop_name(loop), 40)
        if key not in bars:
            bars[key] = drawn.add_task(name, total=loop.total, left="", loop=True)
        count, left = loop.done + loop.set_aside, "" if loop.eta_s is None else f"{length(loop.eta_s)} left"
        drawn.update(bars[key], description=f"{name} {count:,}", completed=count, total=loop.total, left=left)
