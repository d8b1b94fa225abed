"""Failure reports: what stopped a run, in words for a person."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from actorflow.codec import coder
from actorflow.errors import ForeignAwait, Undecodable
from actorflow.failures import in_words
from actorflow.policies.failure import REMEDIES, FailureReport, classify, pause_reason
from actorflow.records import Entry, Envelope, Identity, PauseReason

if TYPE_CHECKING:
    from actorflow.runtime.activation import Activation

_coder = coder(FailureReport)
INPUT_SHOWN_MAX = 500


def encode(report: FailureReport) -> bytes:
    """A report as it is stored."""
    return _coder.encode(report, "failure report")


def decode(payload: bytes | None) -> FailureReport | None:
    """A stored report, or None."""
    return _coder.decode(payload, "failure report") if payload else None


def broken(activation: Activation, error: BaseException) -> FailureReport:
    """The code and its journal do not fit, or it broke a rule."""
    reason = pause_reason(error)
    match error:
        case ForeignAwait():
            where = error.where
        case Undecodable(call=call) if call:
            where = call
        case _:
            where = line(error)
    return FailureReport(
        failure="data" if reason in ("failure", "undecodable") else "bug",
        reason=reason,
        what=_text(error),
        where=where,
        causes=_causes(error),
        last_good=_last_good(activation),
        remedy=REMEDIES[reason],
    )


def failed(activation: Activation, error: BaseException, where: Entry | str) -> FailureReport:
    """A recorded failure that nobody caught, or an unexpected exception of `run` itself."""
    recorded = where if isinstance(where, Entry) else None
    reason: PauseReason = "failure" if recorded is not None else pause_reason(error)
    return FailureReport(
        failure=classify(error, activation.kind.fails),
        reason=reason,
        what=_text(error),
        where=str(recorded.identity) if recorded is not None else line(error),
        attempt=recorded.attempt if recorded is not None else 0,
        input=shown(recorded.input) if recorded is not None else "",
        causes=_causes(error),
        attempts=_tries(activation, recorded),
        last_good=_last_good(activation),
        remedy=REMEDIES[reason],
    )


def aborted(activation: Activation, error: BaseException, recorded: Entry | None) -> FailureReport:
    """A business failure: the run ends."""
    return FailureReport(
        failure="business",
        reason=None,
        what=_text(error),
        where=str(recorded.identity) if recorded is not None else line(error),
        causes=_causes(error),
        last_good=_last_good(activation),
        remedy="It ended by its own decision, its steps are undone. Start another run, or `fork` it from an earlier entry.",
    )


def handler(activation: Activation, envelope: Envelope, error: BaseException) -> FailureReport:
    """A message that was given up."""
    return FailureReport(
        failure=classify(error, activation.kind.fails),
        reason=None,
        what=_text(error),
        where=line(error),
        input=shown(envelope.body),
        causes=_causes(error),
        last_good=f"round {activation.round}",
        remedy="Mend the handler or the message's data, then send the dead letter again.",
    )


def plain(reason: PauseReason, what: str, where: str = "", **more: object) -> FailureReport:
    """A report for what the runtime itself decided."""
    failure = "bug"
    if reason in ("interrupted", "ask"):
        failure = "interrupted"
    elif reason in ("budget", "undecodable", "unregistered"):
        failure = "data"
    return FailureReport(failure=failure, reason=reason, what=what, where=where, remedy=REMEDIES[reason], **more)  # type: ignore[arg-type]


def unreadable(error: BaseException, where: str) -> FailureReport:
    """Today's class does not take what is stored."""
    return plain("undecodable", in_words(error), where)


def shown(payload: bytes | None) -> str:
    """A payload for people, shortened."""
    text = "" if payload is None else payload.decode("utf-8", "replace")
    return text if len(text) <= INPUT_SHOWN_MAX else f"{text[:INPUT_SHOWN_MAX]}... ({len(text)} characters)"


def _text(error: BaseException) -> str:
    return in_words(error)[:2_000]


def _causes(error: BaseException) -> tuple[str, ...]:
    chain: list[str] = []
    seen = {id(error)}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and id(cause) not in seen and len(chain) < 10:
        seen.add(id(cause))
        chain.append(_text(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return tuple(chain)


def line(error: BaseException) -> str:
    """The innermost line of the user's code that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/actorflow/" not in f.filename.replace("\\", "/")] or frames
    return f"{own[-1].filename}:{own[-1].lineno} ({own[-1].name})" if own else "run()"


def _tries(activation: Activation, entry: Entry | None) -> tuple[str, ...]:
    from actorflow.failures import describe_failure  # noqa: PLC0415

    if entry is None:
        return ()
    tries = activation.turn.journal.tries(Identity(entry.branch, entry.name, entry.n))
    return tuple(f"attempt {t.attempt}: {describe_failure(t.outcome or b'null')}" for t in tries)


def _last_good(activation: Activation) -> str:
    order = activation.turn.journal.order
    good = next((e for e in reversed(order) if e.kind == "checkpoint"), None)
    good = good or next((e for e in reversed(order) if e.status == "ok"), None)
    return f"{good.kind} {good.identity}" if good is not None else "the start"
