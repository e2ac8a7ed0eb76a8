"""The deployer waits for the migration that a killed run left running, but not for ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.errors import Locked
from deploy.events import Event, Events
from deploy.observe.orphaned_migrations import await_end

NAME = "amani-staging-migrate-20261126-ab"


@dataclass
class Engine:
    """An engine with the container of one migration, in the given states in turn."""

    states: list[str]
    removed: list[str] = field(default_factory=list)

    def containers(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        assert labels == {"amani.environment": "staging", "amani.one-off": "migrate"}
        return [{"Id": "1", "Names": [f"/{NAME}"], "State": self.states[0]}]

    def inspect(self, container: str) -> dict[str, Any] | None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"State": {"Status": state}} if state else None

    def remove(self, container: str) -> None:
        self.removed.append(container)


def wait(engine: Engine, patience: float) -> list[str]:
    heard: list[Event] = []
    host: Any = SimpleNamespace(name="host1", engine=engine)
    timeouts = SimpleNamespace(migrate=patience)
    environment: Any = SimpleNamespace(name="staging", timeouts=timeouts)
    await_end(host, environment, Events(heard.append), lambda: None)
    return [event.text for event in heard]


@pytest.mark.parametrize("state", ["exited", "created", "dead", ""])
def test_stopped_migration_container_is_removed_silently(state: str) -> None:
    engine = Engine([state])
    assert (wait(engine, 60), engine.removed) == ([], ["1"])


def test_running_migration_is_awaited_and_reported_once() -> None:
    engine = Engine(["running", "running", "paused", "exited"])
    assert wait(engine, 60) == [f"waiting for the migration of an earlier run ({NAME})"]
    assert engine.removed == ["1"]


def test_migration_over_time_limit_is_reported_and_kept() -> None:
    engine = Engine(["running"])
    words = rf"host1: the migration of an earlier run \({NAME}\) has not ended within 0 s"
    with pytest.raises(Locked, match=words) as refused:
        wait(engine, 0)
    assert f"`docker logs {NAME}` on the host" in refused.value.hint and engine.removed == []
