"""The journal of an environment, as its hosts hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.operations.session import open_session

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.state.journal import Record


def history(name: str, events: Events) -> list[Record]:
    """All records, newest first, of every host that answers."""
    with open_session(load_environment(name), events) as session:
        facts = session.facts()
        if not session.hosts:
            session.require_all()
        return list(reversed(facts.history))
