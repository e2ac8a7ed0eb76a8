"""Limits counted by each process for itself."""

from __future__ import annotations

import threading
import time
import typing as t
from collections import Counter

from amani_app.ports.limits import Quota, Standing


class MemoryLimiter:
    """See ``ports.limits.Limiter``; n processes together allow n times as much."""

    def __init__(self, clock: t.Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[int, Counter[str]]] = {}

    def hit(self, quota: Quota, whose: str) -> Standing:
        """In the counts of this window; those of the one before are dropped whole."""
        window, into = divmod(int(self._clock()), quota.seconds)
        with self._lock:
            number, counts = self._windows.get(quota.name, (window, Counter()))
            if number != window:
                counts = Counter()
            self._windows[quota.name] = (window, counts)
            counts[whose] += 1
            return Standing(quota, counts[whose], quota.seconds - into)
