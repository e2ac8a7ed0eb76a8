"""Rate limits in memory, for each process by itself."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from collections import deque

from amani_app.ports.limits import Quota, QuotaUsage


class MemoryLimiter:
    """With n processes the effective limit is n times the quota.

    Memory: one number for each request in the last window.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[tuple[str, str], deque[float]] = {}
        self._swept = 0.0

    def hit(self, quota: Quota, whose: str) -> QuotaUsage:
        """Counts the times in the last window, under a lock."""
        now = self._clock()
        with self._lock:
            self._sweep(now, quota.seconds)
            times = self._times.setdefault((quota.name, whose), deque())
            while times and times[0] <= now - quota.seconds:
                times.popleft()
            exceeded = len(times) >= quota.amount
            if not exceeded:
                times.append(now)
            left = times[0] + quota.seconds - now if times else quota.seconds
            return QuotaUsage(quota, len(times), max(1, math.ceil(left)), exceeded)

    def _sweep(self, now: float, seconds: int) -> None:
        """Delete, once in a window, the subjects without a request in it."""
        if now - self._swept < seconds:
            return
        self._swept = now
        gone = [key for key, times in self._times.items() if times[-1] <= now - seconds]
        for key in gone:
            del self._times[key]
