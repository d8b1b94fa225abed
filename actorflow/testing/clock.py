"""Virtual time: a year of a run in a millisecond, and the same year every time.

`run_virtual` runs an async function on a loop whose clock jumps to the next moment as soon as nothing is left to do, and
`LoopClock` gives the runtime that clock for both of its own. A run is thus decided by the code, and by a seed that shuffles
what is ready at the same moment. On asyncio a loop that can never go on again raises instead of hanging.

Threads do not fit: nobody can tell how long one takes in virtual time. Use async steps and the memory store here.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar, cast

import anyio
from attrs import define, field

T = TypeVar("T")
Backend = Literal["asyncio", "trio"]

EPOCH_S = 1_700_000_000.0
"""Wall-clock moment at which every virtual loop begins."""

TURNS_MAX = 2_000_000
"""Turns of a loop without an end: more is a livelock."""


class LoopClock:
    """Both clocks of a runtime, taken from the event loop that runs now; it cannot jump, so nobody needs to look twice."""

    recheck_s: float = math.inf

    def __init__(self) -> None:
        # Not `anyio.current_time`: that asks which loop runs, and while durable code is driven no loop seems to.
        try:
            self._now: Callable[[], float] = asyncio.get_running_loop().time
        except RuntimeError:
            import trio  # noqa: PLC0415  (who tests on asyncio need not have it)

            self._now = trio.current_time

    def wall(self) -> float:
        return EPOCH_S + self._now()

    def monotonic(self) -> float:
        return self._now()


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: the loop would wait for ever."""


class Livelock(RuntimeError):
    """The loop turned and turned and came to no end."""


@define(eq=False)
class Ticks:
    """Counts how often the loop let something go on: a task after an await, a callback. That is every place to die in."""

    count: int = field(default=0, init=False)
    _armed: dict[int, Callable[[], object]] = field(factory=dict[int, Callable[[], object]], init=False)

    def arm(self, after: int, action: Callable[[], object]) -> None:
        """Call *action* just before the *after*-th from now."""
        self._armed[self.count + after] = action

    def tick(self) -> None:
        """The loop is about to let something go on."""
        self.count += 1
        if self._armed and (action := self._armed.pop(self.count, None)) is not None:
            action()


def run_virtual(fn: Callable[[], Awaitable[T]], *, backend: Backend, seed: int | None = None, ticks: Ticks | None = None) -> T:
    """Run *fn* in virtual time.

    Args:
        fn: An async function.
        backend: Which loop.
        seed: Shuffles what is ready at the same moment; the same seed gives the same order. None is first come, first
            served on asyncio, and the order of seed 0 on trio.
        ticks: Counts what goes on, and may do something in between.

    >>> async def sleeper() -> float:
    ...     await anyio.sleep(365 * 86_400)
    ...     return LoopClock().monotonic()
    >>> [round(run_virtual(sleeper, backend=b)) for b in ("asyncio", "trio")]
    [31536000, 31536000]
    """
    if backend == "asyncio":
        return anyio.run(fn, backend=backend, backend_options={"loop_factory": lambda: VirtualLoop(seed, ticks)})
    import trio.testing  # noqa: PLC0415

    options: dict[str, Any] = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    if ticks is not None:
        options["instruments"] = [_steps_of_trio(ticks)]
    with _seeded(seed or 0):
        return anyio.run(fn, backend=backend, backend_options=options)


def _steps_of_trio(ticks: Ticks) -> Any:
    import trio  # noqa: PLC0415

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: Any) -> None:
            ticks.tick()

    return Steps()


class _seeded:  # noqa: N801  (reads as a verb: with _seeded(seed))
    """trio's order of tasks, decided by a seed while the block lasts."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        import trio._core._run as scheduler  # noqa: PLC0415  (Hypothesis and pytest-trio reach in here, too)

        self._scheduler = cast("Any", scheduler)
        self._before = self._scheduler._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001
        self._scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001
        self._scheduler._r.seed(self._seed)  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        self._scheduler._ALLOW_DETERMINISTIC_SCHEDULING = self._before  # noqa: SLF001


# --- the asyncio loop --------------------------------------------------------------------------------------------------


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop without files or threads, whose time passes only when nothing is ready."""

    def __init__(self, seed: int | None = None, ticks: Ticks | None = None) -> None:
        self.virtual: float = 0.0
        self._chance = None if seed is None else random.Random(seed)  # noqa: S311  (an order, no secret)
        self._turns = 0
        super().__init__(_NoFiles(self))
        # The default of 1 ns vanishes in a float beyond 2**24 s, and a timer would be due for ever and never be called.
        self._clock_resolution = 1e-6
        if ticks is not None:
            self._ready = _Counted(ticks)  # asyncio takes what is ready from here, one by one

    def time(self) -> float:
        return self.virtual

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns > TURNS_MAX:
            raise Livelock(f"the loop has turned {TURNS_MAX} times")
        ready = cast("deque[Any]", self._ready)
        if self._chance is not None and len(ready) > 1:
            shuffled = list(ready)
            self._chance.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]


class _Counted(deque[Any]):
    """What is ready, counted as it is taken."""

    def __init__(self, ticks: Ticks) -> None:
        super().__init__()
        self._ticks = ticks

    def popleft(self) -> Any:
        self._ticks.tick()
        return super().popleft()


class _NoFiles(selectors.BaseSelector):
    """A selector that never waits: it moves its loop's time to the next timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return cast("Mapping[Any, selectors.SelectorKey]", self._keys)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set")
        if timeout > 0:
            # asyncio asks for a day at most; the next timer may be later, and then it asks again.
            due = cast("float", self._loop._scheduled[0].when())  # type: ignore[attr-defined]  # noqa: SLF001
            self._loop.virtual = max(self._loop.virtual, min(due, self._loop.virtual + timeout + 1e-6))
        return []
