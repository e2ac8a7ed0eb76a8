"""Leases: several workers process due items, each item in one worker at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from datetime import timedelta

T = TypeVar("T")
Going = Callable[[], bool]
"""Called before each item; false when the worker must stop."""

LEASE = timedelta(seconds=60)
"""The lease of an item: longer than all calls to the provider that one item needs."""
POLL_AFTER = timedelta(minutes=2)
"""Time for a notice to arrive before the provider is queried without one."""
LONGEST_WAIT = timedelta(minutes=10)
MOST_AT_ONCE = 200
"""Items that one round of a job processes."""


def always() -> bool:
    return True


def wait(attempts: int) -> timedelta:
    """The delay after `attempts` attempts: 2, 4, 8 seconds and so on, up to `LONGEST_WAIT`."""
    return min(timedelta(seconds=2 ** min(attempts, 20)), LONGEST_WAIT)


def drain(claim: Callable[[], T | None], do: Callable[[T], Any], going: Going) -> int:
    """Claim and process items while `going`; returns their number.

    Each item is claimed just before it is processed, so that a lease covers one item only, and a
    worker that must stop has at most one item to finish.
    """
    done = 0
    while done < MOST_AT_ONCE and going() and (found := claim()) is not None:
        do(found)
        done += 1
    return done
