"""What follows when a handler fails: the answer, another try, or a dead letter. Pure.

A message gets three tries: what passes by itself passes in that time, and what does not must not hold up those behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from actorflow.errors import Control, HandlerTimeout
from actorflow.policies.failure import FailureClass, classify
from actorflow.policies.retry import Retry, delay_s
from actorflow.records import Event
from actorflow.value import Value

TRIES = Retry(attempts=3, first="100ms", factor=4.0, cap="5s", jitter=0.2)


@frozen
class Answer(Value):
    """The failure is the answer: the message is handled, nothing of its turn stands."""


@frozen
class TryAgain(Value):
    """The same message again, in so many seconds; those behind it wait."""

    delay_s: float


@frozen
class GiveUp(Value):
    """It becomes a dead letter. *restart*: the actor is at fault, too, and that costs a restart."""

    restart: bool


def after_failure(
    error: BaseException, tries: int, *, die: float, fails: tuple[type[Exception], ...] = ()
) -> Answer | TryAgain | GiveUp:
    """What follows the failure of a handler.

    Args:
        error: What left it.
        tries: How often this message was tried, this time included.
        die: In [0, 1), for the jitter.
        fails: The exceptions that the class calls business failures.

    >>> from actorflow.errors import Abort
    >>> after_failure(Abort("no"), 1, die=0.0), after_failure(ValueError(), 3, die=0.0)
    (Answer(), GiveUp(restart=True))
    """
    kind: FailureClass = classify(error, fails)
    if kind == "business":
        return Answer()
    if isinstance(error, Control) or kind == "data":  # Code that breaks a rule, or cannot read the message, does so again.
        return GiveUp(restart=False)
    if tries < TRIES.attempts:
        return TryAgain(delay_s(TRIES, tries, die=die))
    return GiveUp(restart=kind == "bug" or isinstance(error, HandlerTimeout))


def failed_at(events: Sequence[Event]) -> frozenset[int]:
    """Numbers of the entries that a handler which failed is tried again without: calls that failed, and that nothing it
    recorded came after. A failure that the code went on from decided what came next, so it stands.

    A step that may run only once (`on_interrupt="fail"` or "ask": it was announced) is not performed again.
    """
    last: set[int] = set()
    for seq, entry in reversed(events):
        if entry.kind in ("turn", "try", "intent", "timer", "heartbeat"):
            continue
        if entry.status == "ok":
            break
        last.add(seq)
    failed = {entry.identity: entry.kind for seq, entry in events if seq in last}
    announced = {e.identity for _, e in events if e.kind == "intent" and failed.get(e.identity) == "step"}
    if announced:
        return frozenset()
    belongs = {seq for seq, e in events if e.kind in ("try", "intent", "heartbeat") and e.identity in failed}
    return frozenset(last | belongs)
