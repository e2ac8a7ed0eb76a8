"""A circuit breaker: after some failures in a row, calls fail at once for a while."""

from __future__ import annotations

import threading
import time
import typing as t


class CircuitBreaker:
    """Counts failures of one dependency; thread-safe.

    *failures* in a row open it for *seconds*; then one call is let through, whose outcome closes
    it or opens it again. Callers ask ``allows`` before a call and tell ``note`` how it went.
    """

    def __init__(
        self, failures: int, seconds: float, monotonic: t.Callable[[], float] = time.monotonic
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
            # The one probe; the others wait for another period, or for its success.
            self._closed_at = self._monotonic() + self._seconds
            return True

    def note(self, good: bool) -> None:
        with self._lock:
            self._failed = 0 if good else self._failed + 1
            if self._failed >= self._most:
                self._closed_at = self._monotonic() + self._seconds
