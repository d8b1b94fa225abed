"""What W10 asks of an actor in memory: bursts of tells, each ended by an ask, and bursts of asks. The best burst counts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from benchmarks.suite import Measured, Sizes, rss_mb


class Best:
    """The best burst of several, and whether all additions arrived."""

    def __init__(self, sizes: Sizes) -> None:
        self.tells, self.asks, self.bursts = (int(sizes[name]) for name in ("tells", "asks", "bursts"))
        self.told = self.asked = 0.0

    def measured(self, total: int) -> Measured:
        """What is told of them; the total is the actor's, after the last burst."""
        assert total == self.bursts * (self.tells + 1 + self.asks), f"the actor counted {total}"
        return {"tells_per_s": self.told, "asks_per_s": self.asked, "rss_mb": rss_mb()}

    def blocking(self, tell: Callable[[], object], ask: Callable[[], int]) -> Measured:
        """Measure calls that block; an ask returns the total."""
        total = 0
        for _ in range(self.bursts):
            begun = time.perf_counter()
            for _ in range(self.tells):
                tell()
            ask()
            self.told = max(self.told, self.tells / (time.perf_counter() - begun))
            begun = time.perf_counter()
            for _ in range(self.asks):
                total = ask()
            self.asked = max(self.asked, self.asks / (time.perf_counter() - begun))
        return self.measured(total)

    async def awaited(self, tell: Callable[[], Awaitable[object]], ask: Callable[[], Awaitable[int]]) -> Measured:
        """Measure calls that are awaited; an ask returns the total."""
        total = 0
        for _ in range(self.bursts):
            begun = time.perf_counter()
            for _ in range(self.tells):
                await tell()
            await ask()
            self.told = max(self.told, self.tells / (time.perf_counter() - begun))
            begun = time.perf_counter()
            for _ in range(self.asks):
                total = await ask()
            self.asked = max(self.asked, self.asks / (time.perf_counter() - begun))
        return self.measured(total)
