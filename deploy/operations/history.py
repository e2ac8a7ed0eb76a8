"""`invoke releases`: the journal of an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.operations.host_session import open_session

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.state.journal import Record


def read_history(name: str, events: Events) -> list[Record]:
    """Return the records of all reachable hosts, newest first.

    Raises `HostUnreachable` if no host is reachable.
    """
    with open_session(load_environment(name), events) as session:
        facts = session.facts()
        if not session.hosts:
            session.require_all()
        return list(reversed(facts.history))
