"""The score: which case passed, failed or does not apply, and why; as a table, as JSON and as a page."""

from __future__ import annotations

import textwrap
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import asdict, frozen

from tests.yardstick.cases import PACKAGE, VERSION, Case, number
from tests.yardstick.playing import crashed, measure
from tests.yardstick.programs.program import Program

Verdict = Literal["passed", "failed", "does not apply"]

REASONS = Path(__file__).parent / "reasons.toml"
PAGE = Path(__file__).parent / "page.md"


@frozen(kw_only=True)
class Reason:
    """Why some cases are not played."""

    title: str
    difference: Literal["none here", "by design"]
    cases: tuple[str, ...]
    why: str


@frozen(kw_only=True)
class Result:
    """What came of a case."""

    case: str
    suite: str
    description: str
    verdict: Verdict
    program: str | None = None
    reason: str | None = None  #: its title
    complaints: tuple[str, ...] = ()
    cuts: int = 0  #: how often it was crashed, beside what the case itself asks for


def read_reasons(path: Path = REASONS) -> list[Reason]:
    raw = tomllib.loads(path.read_text(encoding="utf-8"))["reason"]
    return [Reason(**{**each, "cases": tuple(each["cases"]), "why": " ".join(each["why"].split())}) for each in raw]


def misfits(programs: Iterable[str], reasons: Sequence[Reason], cases: Iterable[str] | None = None) -> list[str]:
    """What is wrong with the tables themselves; *cases* are all there are, if that is known."""
    played = set(programs)
    listed = Counter(case for reason in reasons for case in reason.cases)
    lines = [f"case {case} is played, and has a reason not to be" for case in played & listed.keys()]
    lines += [f"case {case} has {count} reasons" for case, count in listed.items() if count > 1]
    if cases is not None:
        lines += [f"there is no case {case} (any more)" for case in (played | listed.keys()) - set(cases)]
    return sorted(lines)


def judged(case: Case, programs: Mapping[str, type[Program]], reasons: Sequence[Reason], *, cuts: bool = False) -> Result:
    """Play a case, or say why it is not played. One that is in neither table has failed."""
    program = programs.get(case.id)
    reason = next((reason for reason in reasons if case.id in reason.cases), None)

    def result(verdict: Verdict, **more: Any) -> Result:
        return Result(case=case.id, suite=case.suite, description=case.description, verdict=verdict, **more)

    if program is not None:
        complaints = measure(case, program)
        count = 0
        if cuts and not complaints:
            count, complaints = crashed(case, program)
        verdict: Verdict = "failed" if complaints else "passed"
        return result(verdict, program=program.__qualname__, complaints=tuple(complaints), cuts=count)
    if reason is not None:
        return result("does not apply", reason=reason.title)
    return result("failed", complaints=("it has no program in `programs`, and no reason in reasons.toml",))


def scored(results: Iterable[Result]) -> Counter[Verdict]:
    return Counter(result.verdict for result in results)


# --- as JSON and as text -----------------------------------------------------------------------------------------------


def as_json(results: Sequence[Result], complaints: Sequence[str]) -> dict[str, Any]:
    counts = scored(results)
    return {
        "package": PACKAGE,
        "version": VERSION,
        "passed": counts["passed"],
        "failed": counts["failed"],
        "does_not_apply": counts["does not apply"],
        "cuts": sum(result.cuts for result in results),
        "tables": list(complaints),
        "cases": [asdict(result) for result in results],
    }


def as_text(results: Sequence[Result], complaints: Sequence[str]) -> str:
    """A line for each case; under a failed one, what was expected and what came."""
    wide = max((len(result.case) for result in results), default=0)
    lines: list[str] = []
    for result in results:
        what = result.program or result.reason or ""
        lines.append(f"{result.case:<{wide}}  {result.verdict:<14}  {what:<36}  {result.description:.70}".rstrip())
        lines += [f"{'':<{wide}}    {line}" for line in result.complaints]
    lines += [f"in the tables: {line}" for line in complaints]
    return "\n".join([*lines, "", summary(results)])


def summary(results: Sequence[Result]) -> str:
    counts = scored(results)
    cuts = sum(result.cuts for result in results)
    told = f"{counts['passed']} passed, {counts['failed']} failed, {counts['does not apply']} do not apply"
    return f"{told}, of {len(results)} cases" + (f"; {cuts:,} crashes" if cuts else "")


# --- as a page ---------------------------------------------------------------------------------------------------------

_CUTS = """\
- With `--crashes` each case that does not let the process die by itself is also crashed as by `actorflow.testing.scenario`:
  before, after and within its commits, at its awaits, and in the recovery from that; about {cuts:,} crashes. None changed how a
  run ends or which effects it has, and no step whose outcome was recorded ran again.
"""


def as_page(results: Sequence[Result], reasons: Sequence[Reason]) -> str:
    """The score as it is kept in the repository."""
    counts = scored(results)
    cuts = sum(result.cuts for result in results)
    suites = {result.suite: [each for each in results if each.suite == result.suite] for result in results}
    rows = [_row(suite, of) for suite, of in suites.items()]
    failed = [f"- {result.case}: {result.complaints[0]}" for result in results if result.verdict == "failed"]
    return PAGE.read_text(encoding="utf-8").format(
        package=PACKAGE,
        version=VERSION,
        passed=counts["passed"],
        failed=counts["failed"],
        other=counts["does not apply"],
        count=len(results),
        suites="\n".join([*rows, _row("all", results)]),
        cuts=_CUTS.format(cuts=round(cuts, -2)) if cuts else "",
        reasons="\n\n".join(_reason(reason) for reason in reasons),
        failures="\n## What fails\n\n" + "\n".join(failed) + "\n" if failed else "",
    )


def _row(suite: str, of: Sequence[Result]) -> str:
    counts = scored(of)
    return f"| {suite} | {len(of)} | {counts['passed']} | {counts['failed']} | {counts['does not apply']} |"


def _reason(reason: Reason) -> str:
    cases = ", ".join(sorted(reason.cases, key=number))
    text = f"**{reason.title[0].upper()}{reason.title[1:]}** ({reason.difference}: {cases}). {reason.why}"
    return textwrap.fill(text, 130, break_long_words=False, break_on_hyphens=False)


def judge_all(
    cases: Sequence[Case],
    programs: Mapping[str, type[Program]],
    reasons: Sequence[Reason],
    *,
    cuts: bool = False,
    told: Callable[[Result], object] = lambda _: None,
) -> list[Result]:
    """All results, in order; *told* hears of each as it comes."""
    results: list[Result] = []
    for case in cases:
        results.append(judged(case, programs, reasons, cuts=cuts))
        told(results[-1])
    return results
