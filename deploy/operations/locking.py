"""Looking at the lock, and taking it away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.hosts.connect import connect
from deploy.state import lock

if TYPE_CHECKING:
    from deploy.events import Events


def look(name: str, events: Events) -> lock.LockState | None:
    """The lock's state; None where it is free."""
    environment = load_environment(name)
    host = connect(environment.lock_host, environment.timeouts)
    try:
        return lock.read(host, environment.folder)
    finally:
        host.close()


def release(name: str, events: Events, *, confirm: Callable[[str], None]) -> lock.LockState | None:
    """Take the lock away and return what it was; `confirm` is asked where its holder is alive."""
    environment = load_environment(name)
    host = connect(environment.lock_host, environment.timeouts)
    try:
        state = lock.read(host, environment.folder)
        if state is None:
            return None
        if not state.stale:
            confirm(
                f"{state.describe()} seems to be at work: two runs at once can harm each other. "
                "Take the lock away all the same?"
            )
        lock.break_(host, environment.folder, state)
        return state
    finally:
        host.close()
