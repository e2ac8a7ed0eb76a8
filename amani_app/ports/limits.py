"""Rate limits: a sliding window for each subject."""

from __future__ import annotations

from typing import Protocol
from dataclasses import dataclass


class LimiterUnavailable(Exception):
    """The shared counter is unreachable or answered with an error."""


@dataclass(frozen=True)
class Quota:
    """At most `amount` requests in any period of `seconds`."""

    name: str
    amount: int
    seconds: int = 60


@dataclass(frozen=True)
class QuotaUsage:
    """The use of a quota by one subject."""

    quota: Quota
    used: int
    """Requests in the last `quota.seconds`, including this one unless it was refused."""
    reset: int
    """Seconds until the oldest of these leaves the window, at least 1."""
    exceeded: bool = False
    """Whether this request was refused; then it does not count."""

    @property
    def remaining(self) -> int:
        """Requests that are left in the window."""
        return max(self.quota.amount - self.used, 0)


class Limiter(Protocol):
    def hit(self, quota: Quota, whose: str) -> QuotaUsage:
        """Count one request of `whose` if the quota allows it. Raises `LimiterUnavailable`."""
