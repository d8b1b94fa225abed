"""The watchdog: a thread that notices when the event loop stands still, and says who holds it.

Theory of operation. A few times per threshold it looks at the innermost frame of the loop's thread. A loop that rests is left
alone, so an idle service is not woken. One that is at work is sent a ping; while pings are answered all is well. A ping
that is not answered within the threshold is a stall: its stack is logged at once, again each time it has lasted twice as
long, and its length at the end. It uses the machine's own clock and no timer of the loop.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque

from attrs import define, field, frozen

from actorflow.runtime.blame import Blamed, blamed
from actorflow.runtime.loops import Loop

log: logging.Logger = logging.getLogger("actorflow")

LOOKS = 4  #: per threshold: a stall is noticed at most half a threshold late
STALLS_MAX = 100  #: kept for who asks: the newest
REPORTS_MAX = 10  #: of one stall: with 100 ms, the last one comes after 51 s


@frozen(kw_only=True)
class Stall:
    """Once when the event loop did nothing else."""

    who: str  #: "Checkout/o1 in step charge", as seen when it was noticed
    seconds: float  #: how long it lasted, less what passed before the first look (a quarter of the threshold at most)
    stack: str  #: frames of the user's code when it was noticed, as in a traceback
    at: float  #: when it began, in seconds since the epoch


@define(eq=False)
class _Ping:
    """Something for the loop to do when it can."""

    sent: float
    answered: float | None = None

    def answer(self) -> None:
        self.answered = time.monotonic()


@define(eq=False)
class Watchdog:
    """Watches the loop on which it was started."""

    loop: Loop
    threshold_s: float
    _stalls: deque[Stall] = field(factory=lambda: deque[Stall](maxlen=STALLS_MAX), init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _watched: int = field(default=0, init=False)  #: the loop's thread
    _ping: _Ping | None = field(default=None, init=False)
    _blamed: Blamed | None = field(default=None, init=False)  #: whose stall it is, if there is one now
    _reports: int = field(default=0, init=False)

    def start(self) -> None:
        """Watch the loop of this thread. The watching thread keeps no process alive."""
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="actorflow-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a stall that nobody saw the end of ends now."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._ping is not None:
            self._ended(self._ping, self._ping.answered or time.monotonic())

    def stalls(self) -> tuple[Stall, ...]:
        """The newest stalls that are over, oldest first."""
        return tuple(self._stalls)

    # --- in its thread --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        every_s = self.threshold_s / LOOKS
        looked, worked = time.monotonic(), time.process_time()
        while not self._over.wait(every_s):
            now, work = time.monotonic(), time.process_time()
            late_s = now - looked - every_s
            # This thread was kept waiting, too, and by nobody here, for nobody worked: the process was stopped, or the
            # machine is busy. (Code that holds the interpreter keeps it waiting as well, but that works.)
            if late_s > self.threshold_s / 2 and work - worked < late_s / 2 and self._ping is not None:
                self._ping.sent += late_s
            looked, worked = now, work
            if not self._look(now):
                return

    def _look(self, now: float) -> bool:
        """False when there is nothing left to watch."""
        ping = self._ping
        if ping is None or ping.answered is not None:
            if ping is not None:
                self._ended(ping, ping.answered or now)
            return self._ask(now)
        if self._reports < REPORTS_MAX and now - ping.sent >= self.threshold_s * 2**self._reports:
            self._report(now - ping.sent)
        return True

    def _ask(self, now: float) -> bool:
        """Send a ping to a loop that is at work."""
        self._ping = None
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001  (public in all but name: it is documented)
        if frame is None:
            return False
        resting = self.loop.resting(frame)
        del frame  # Whoever lets go of it last destroys its locals: not this thread.
        if resting:
            return True
        self._ping = ping = _Ping(now)
        return self.loop.post(ping.answer)

    def _report(self, lasts_s: float) -> None:
        seen = blamed(self._watched)
        if seen is None:
            return
        self._blamed = self._blamed or seen
        self._reports += 1
        log.warning(
            "the event loop has stood still for %.3g s, and nothing else goes on: %s holds it. %s\n%s",
            lasts_s, seen.who, seen.remedy, seen.stack,
        )  # fmt: skip

    def _ended(self, ping: _Ping, at: float) -> None:
        culprit, self._blamed, self._reports, self._ping = self._blamed, None, 0, None
        if culprit is not None:
            lasted_s = at - ping.sent
            began = time.time() - (time.monotonic() - ping.sent)
            self._stalls.append(Stall(who=culprit.who, seconds=lasted_s, stack=culprit.stack, at=began))
            log.warning("the event loop goes on; %s had held it for %.3g s", culprit.who, lasted_s)
