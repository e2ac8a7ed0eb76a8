"""`invoke lock.status` and `lock.release`: the lock of an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.hosts.connect import connect
from deploy.state import lock

if TYPE_CHECKING:
    from deploy.events import Events


def read_lock(name: str, events: Events) -> lock.LockState | None:
    """Return the state of the lock; None if it is free."""
    environment = load_environment(name)
    host = connect(environment.lock_host, environment.timeouts)
    try:
        return lock.read(host, environment.folder)
    finally:
        host.close()


def release_lock(
    name: str, events: Events, *, confirm: Callable[[str], None]
) -> lock.LockState | None:
    """Remove the lock and return its last state; None if it was free.

    If the lock is not stale, `confirm` gets the question and raises if the operator declines.
    """
    environment = load_environment(name)
    host = connect(environment.lock_host, environment.timeouts)
    try:
        state = lock.read(host, environment.folder)
        if state is None:
            return None
        if not state.stale:
            confirm(
                f"The lock is not stale: {state.describe()}. "
                "Two runs at the same time can damage each other. Release the lock?"
            )
        lock.break_lock(host, environment.folder, state)
        return state
    finally:
        host.close()
