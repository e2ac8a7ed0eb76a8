"""Working through what is due, one thing at a time, in many workers at once."""

from __future__ import annotations

import typing as t
from datetime import timedelta

T = t.TypeVar("T")
Going = t.Callable[[], bool]
"""Asked before each thing: false when the worker is told to stop."""

LEASE = timedelta(seconds=60)
"""How long a worker has a thing to itself: longer than all calls to the provider that one takes."""
POLL_AFTER = timedelta(minutes=2)
"""A notice has this long to come before the provider is asked without one."""
LONGEST_WAIT = timedelta(minutes=10)
MOST_AT_ONCE = 200
"""Things that one round of a job works off."""


def always() -> bool:
    """Never told to stop."""
    return True


def wait(attempts: int) -> timedelta:
    """How long to leave a thing alone after so many attempts: 2, 4, 8 seconds and so on."""
    return min(timedelta(seconds=2 ** min(attempts, 20)), LONGEST_WAIT)


def drain(claim: t.Callable[[], T | None], do: t.Callable[[T], t.Any], going: Going) -> int:
    """Claim one and do it, again and again, while *going*; how many were done.

    Each is claimed just before it is done, so that a lease covers one thing only, and a worker
    that is told to stop has one thing to finish at most.
    """
    done = 0
    while done < MOST_AT_ONCE and going() and (found := claim()) is not None:
        do(found)
        done += 1
    return done
