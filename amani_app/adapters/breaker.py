"""A circuit breaker: after consecutive failures, calls fail at once for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class CircuitBreaker:
    """Counts failures of one dependency; thread-safe.

    `failures` consecutive failures open it for `seconds`. Then one call is allowed; its result
    closes the circuit or opens it again. Call `allows` before, and `note` after each call.
    """

    def __init__(
        self, failures: int, seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failed = 0
        self._closed_at = float("-inf")

    def allows(self) -> bool:
        """Whether a call may be made now."""
        with self._lock:
            if self._failed < self._most:
                return True
            if self._monotonic() < self._closed_at:
                return False
            # This call is the probe; other calls fail until it succeeds, or for another period.
            self._closed_at = self._monotonic() + self._seconds
            return True

    def note(self, good: bool) -> None:
        with self._lock:
            self._failed = 0 if good else self._failed + 1
            if self._failed >= self._most:
                self._closed_at = self._monotonic() + self._seconds
