"""How often somebody may do something."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass


class LimiterUnavailable(Exception):
    """Nobody can say now how often it was done."""


@dataclass(frozen=True)
class Quota:
    """*amount* times within any *seconds*, whenever they begin."""

    name: str
    amount: int
    seconds: int = 60


@dataclass(frozen=True)
class QuotaUsage:
    """How somebody stands with a quota."""

    quota: Quota
    used: int
    """Times within the last ``quota.seconds``, this one among them unless it was one too many."""
    reset: int
    """Seconds until the oldest of these counts no more, at least 1."""
    exceeded: bool = False
    """Whether this time was one too many; then it does not count."""

    @property
    def remaining(self) -> int:
        """How many times are left now."""
        return max(self.quota.amount - self.used, 0)


class Limiter(t.Protocol):
    """Counts."""

    def hit(self, quota: Quota, whose: str) -> QuotaUsage:
        """Count one more time of *whose*, if there is one left. Raises ``LimiterUnavailable``."""
