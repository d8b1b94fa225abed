"""`python -m tests.yardstick`: an outside yardstick, the conformance cases of another durable-execution system.

A case is a YAML file: a handler in prose, its input, what the outside world does meanwhile (callbacks), the result, and the
history that must come of it. As for every system that is measured with them, the handlers are written by hand (`programs`);
everything else is read from the file. This fetches the cases, plays them and prints the score.

Exit codes: 0 if no case failed, 1 if one did (or is in no table), 2 if the cases cannot be had or the call is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from tests.yardstick.cases import PACKAGE, VERSION, BadCase, Case, fetch, read_cases
from tests.yardstick.programs.table import programs
from tests.yardstick.score import Result, as_json, as_page, as_text, judge_all, misfits, read_reasons


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.disable()  # A process that dies on purpose logs what it leaves behind.
    try:
        cases = _chosen(read_cases(options.cases or fetch()), options.only)
    except BadCase as error:
        print(error, file=sys.stderr)
        return 2
    reasons = read_reasons()
    whole = None if options.only or options.cases else [case.id for case in cases]
    complaints = misfits(programs(), reasons, whole)
    told = _Progress(len(cases))
    results = judge_all(cases, programs(), reasons, cuts=options.crashes, told=told)
    told.clear()
    if options.report is not None:
        options.report.write_text(as_page(results, reasons), encoding="utf-8")
    print(json.dumps(as_json(results, complaints), indent=2) if options.json else as_text(results, complaints))
    return 1 if complaints or any(result.verdict == "failed" for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.yardstick", description=f"Plays the cases of {PACKAGE} {VERSION} in actorflow and prints the score."
    )
    parser.add_argument("--cases", type=Path, metavar="DIR", help="a folder of cases, instead of those of the package")
    parser.add_argument("--only", action="append", metavar="ID", help="this case only; may be given several times")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--crashes", action="store_true", help="also crash each case at its commits and awaits (some minutes)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the score as a page")
    return parser


def _chosen(cases: list[Case], only: list[str] | None) -> list[Case]:
    if not only:
        return cases
    if unknown := set(only) - {case.id for case in cases}:
        raise BadCase(f"there is no case {', '.join(sorted(unknown))}; they are called like {cases[0].id}.")
    return [case for case in cases if case.id in only]


class _Progress:
    """A line that says how far it is, for a person who watches."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def __call__(self, result: Result) -> None:
        self._done += 1
        if sys.stderr.isatty():
            print(f"\r{self._done} of {self._total}: {result.case} {result.verdict}\033[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
