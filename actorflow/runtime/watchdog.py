"""The watchdog: a thread that notices when the event loop stands still, and says who holds it.

Theory of operation. Twice per threshold it looks at the innermost frame of the loop's thread. A loop that rests is left alone,
so an idle service is not woken. One that is at work is sent a ping; while pings are answered all is well. While one is not
answered it looks more often, and at who runs: the same piece of work, look after look, for as long as the threshold, is a
stall. Many small pieces in one long turn are not: that is load, and none of them is to blame. A stall is logged at once, again
each time it has lasted twice as long, and at its end. It is measured by the machine's own clock, with no timer of the loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from attrs import frozen

from actorflow.runtime.blame import Blamed, blamed
from actorflow.runtime.loops import Loop, innermost
from actorflow.value import Value

log: logging.Logger = logging.getLogger("actorflow")

LOOKS = 4  #: per threshold, while the loop does not answer
KEPT = 3  #: thresholds that this thread must have been kept from looking before who is there then is blamed: machines are busy
SEEN_MIN = 3  #: looks at which the same work must be seen to be blamed
STALLS_MAX = 100  #: kept for who asks: the newest
REPORTS_MAX = 10  #: of one stall: with 100 ms, the last one comes after 51 s


@frozen(kw_only=True)
class Stall(Value):
    """Once when one piece of work held the event loop, and nothing else went on."""

    who: str  #: "Checkout/o1 in step charge"
    seconds: float  #: how long, less what passed before the first look (half the threshold at most)
    stack: str  #: frames of the user's code when it was noticed, as in a traceback
    at: float  #: when it began, in seconds since the epoch


class _Ping:
    """Something for the loop to do when it can."""

    __slots__ = ("answered", "forgiven_s", "sent")

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.forgiven_s: float = 0.0  #: of the time since then: nobody had the machine
        self.answered: float | None = None

    def answer(self) -> None:
        self.answered = time.monotonic()


class _Holder:
    """Who is seen on a loop that does not answer."""

    __slots__ = ("forgiven_s", "looks", "reports", "seen", "since", "stack")

    def __init__(self, seen: Blamed, since: float, forgiven_s: float, looks: int) -> None:
        self.seen = seen
        self.since = since
        self.forgiven_s = forgiven_s
        self.looks = looks
        self.stack: str | None = None  #: when it was reported first, if it was
        self.reports: int = 0


class Watchdog:
    """Watches the loop on which it was started."""

    def __init__(self, loop: Loop, threshold_s: float) -> None:
        self.loop = loop
        self.threshold_s = threshold_s
        self._stalls: deque[Stall] = deque(maxlen=STALLS_MAX)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched = 0  #: the loop's thread
        self._ping: _Ping | None = None
        self._holder: _Holder | None = None

    def start(self) -> None:
        """Watch the loop of this thread. The watching thread keeps no process alive."""
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="actorflow-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and with it a stall of which it has not seen the end."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._ping is not None:
            self._released(self._ping.answered or time.monotonic())

    def stalls(self) -> tuple[Stall, ...]:
        """The newest stalls that are over, oldest first."""
        return tuple(self._stalls)

    # --- in its thread --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        looked, worked = time.monotonic(), time.process_time()
        alive = True
        while alive:
            wait_s = self.threshold_s / (2 if self._ping is None else LOOKS)
            if self._over.wait(wait_s):
                return
            now, work = time.monotonic(), time.process_time()
            late_s = max(0.0, now - looked - wait_s)
            # This thread was kept waiting, too. By code that holds the interpreter itself, as far as the process has worked
            # meanwhile; for the rest the machine was busy or the process was stopped, and that is nobody's stall.
            kept_s = min(late_s, work - worked)
            self._forgive(late_s - kept_s)
            looked, worked = now, work
            alive = self._look(now, kept_s if kept_s >= KEPT * self.threshold_s else 0.0)

    def _forgive(self, length_s: float) -> None:
        if self._ping is not None:
            self._ping.forgiven_s += length_s
        if self._holder is not None:
            self._holder.forgiven_s += length_s

    def _look(self, now: float, kept_s: float) -> bool:
        """False when there is nothing left to watch.

        Args:
            now: On the monotonic clock.
            kept_s: How long this thread could not look because somebody held the interpreter itself, if that is a stall.
        """
        # Who held the interpreter is seen before anything here gives it away again, as a post to the loop does.
        seen = blamed(self._watched) if kept_s else None
        ping = self._ping
        if ping is None or ping.answered is not None:
            if ping is not None:
                self._released(ping.answered or now)
            if not self._ask(now - kept_s):
                return False
            ping = self._ping
        if ping is not None and now - ping.sent - ping.forgiven_s >= self.threshold_s / 2:
            seen = seen or blamed(self._watched)
            if seen is None:
                return False
            self._seen(seen, now, ping, kept_s)
        return True

    def _ask(self, since: float) -> bool:
        """Send a ping to a loop that is at work, and has been since then; False if it is gone."""
        self._ping = None
        frame = innermost(self._watched)
        if frame is None:
            return False
        resting = self.loop.resting(frame)
        del frame
        if resting:
            return True
        self._ping = ping = _Ping(since)
        return self.loop.post(ping.answer)

    def _seen(self, seen: Blamed, now: float, ping: _Ping, kept_s: float) -> None:
        holder = self._holder
        if holder is None or not seen.same(holder.seen):
            # Who held the interpreter for so long that nobody could look is still there when he lets go.
            since, forgiven_s = (ping.sent, ping.forgiven_s) if holder is None else (now - kept_s, 0.0)
            self._released(now)
            holder = self._holder = _Holder(seen, since, forgiven_s, SEEN_MIN if kept_s else 1)
        else:
            holder.looks += 1
        lasts_s = now - holder.since
        due_s = self.threshold_s * 2**holder.reports
        if holder.looks >= SEEN_MIN and not seen.nobody and lasts_s - holder.forgiven_s >= due_s and holder.reports < REPORTS_MAX:
            stack = seen.shown()
            holder.stack = holder.stack or stack
            holder.reports += 1
            log.warning(
                "the event loop has stood still for %.3g s, and nothing else goes on: %s holds it. %s\n%s",
                lasts_s, seen.who, seen.remedy, stack,
            )  # fmt: skip

    def _released(self, at: float) -> None:
        """Whoever held the loop, if one did, no longer does."""
        holder, self._holder = self._holder, None
        if holder is not None and holder.reports:
            lasted_s = at - holder.since
            began = time.time() - (time.monotonic() - holder.since)
            self._stalls.append(Stall(who=holder.seen.who, seconds=lasted_s, stack=holder.stack or "", at=began))
            log.warning("the event loop goes on; %s had held it for %.3g s", holder.seen.who, lasted_s)
