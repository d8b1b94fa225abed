"""Every bound of the runtime: its name, its default, and why it has that size."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt

from actorflow.errors import BadKey
from actorflow.records import KEY_BYTES_MAX
from actorflow.value import Value


@frozen(kw_only=True)
class Limits(Value):
    """Bounds of one runtime. Lengths in seconds, sizes in bytes."""

    payload_bytes_max: int = field(default=1 << 20, validator=gt(0))
    """A value at rest. One huge row makes a whole group commit wait."""
    mailbox_depth_max: int = field(default=1_000, validator=gt(0))
    """Messages waiting for one run. A sender who outruns its receiver is told, not believed."""
    accepted_at_once_max: int = field(default=8, validator=gt(0))
    """Messages of clients that are written to one receiver at a time while others are sent to, too: a flood waits for itself."""
    batch_max: int = field(default=2_000, validator=gt(0))
    """Commits in one transaction. Larger ones gain nothing and make everybody wait."""
    ask_s: float = field(default=5.0, validator=gt(0))
    """How long an ask waits for its answer unless it says otherwise."""
    cancel_grace_s: float = field(default=5.0, validator=ge(0))
    """How long a cancelled step may take to end before it is abandoned."""
    drain_s: float = field(default=30.0, validator=ge(0))
    """How long a runtime that closes waits for running steps."""
    passivate_after_s: float = field(default=60.0, validator=ge(0))
    """How long a run that only waits stays in memory."""
    resident_max: int = field(default=10_000, validator=gt(0))
    """Waiting runs kept in memory; beyond it the longest-waiting ones leave at once."""
    recoveries_max: int = field(default=50, validator=gt(0))
    """Runs loaded at a time after a start: a flood of them must not starve those that are new."""
    timers_ahead_max: int = field(default=1_000, validator=gt(0))
    """Wake-ups of runs that are not in memory which are held ready; the rest stay rows."""
    crashes_max: int = field(default=3, validator=gt(0))
    """Unclean ends in a turn before a run is set aside: one that kills its process must not kill the fleet."""
    threads_max: int = field(default=40, validator=gt(0))
    """Sync steps that run at a time."""
    processes_max: int = field(default=2, validator=gt(0))
    """Steps with `run_in="process"` that run at a time."""
    abandoned_threads_max: int = field(default=8, validator=gt(0))
    """Threads of steps that timed out and still run. Beyond it sync steps wait: threads cannot be killed."""
    children_cancelled_max: int = field(default=10_000, validator=gt(0))
    """Children that one ending run may have open."""


def checked_key(key: object) -> str:
    """*key* if it can address a run.

    >>> checked_key("order-7")
    'order-7'

    Raises:
        BadKey: It is no text, empty, over 512 bytes of UTF-8, or has control characters or lone surrogates.
    """
    if type(key) is str and key.isascii() and key.isprintable() and 0 < len(key) <= KEY_BYTES_MAX:
        return key  # As nearly all are.
    if not isinstance(key, str):
        raise BadKey(key, f"it is a {type(key).__qualname__}, not a str")
    if not key:
        raise BadKey(key, "it is empty")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadKey(key, "it has a lone surrogate") from None
    if size > KEY_BYTES_MAX:
        raise BadKey(key, f"it has {size} bytes")
    if not key.isprintable() and any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" for char in key):
        raise BadKey(key, "it has a control character")
    return key
