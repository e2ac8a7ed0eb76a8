"""How often somebody may do something."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass


class LimiterUnavailable(Exception):
    """Nobody can say now how often it was done."""


@dataclass(frozen=True)
class Quota:
    """*amount* times in each window of *seconds*; windows begin at whole multiples of them."""

    name: str
    amount: int
    seconds: int = 60


@dataclass(frozen=True)
class Standing:
    """How somebody stands with a quota."""

    quota: Quota
    used: int
    reset: int
    """Seconds until the next window, at least 1."""

    @property
    def exceeded(self) -> bool:
        """Whether this time was one too many."""
        return self.used > self.quota.amount

    @property
    def remaining(self) -> int:
        """How many times are left in this window."""
        return max(self.quota.amount - self.used, 0)


class Limiter(t.Protocol):
    """Counts."""

    def hit(self, quota: Quota, whose: str) -> Standing:
        """Count one more time of *whose*. Raises ``LimiterUnavailable``."""
