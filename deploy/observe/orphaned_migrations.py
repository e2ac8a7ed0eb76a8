"""Migrations still running after their deployer died."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.errors import Locked
from deploy.state import containers

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.hosts.host import Host
    from deploy.state.facts import HostFacts

PURPOSE = "migrate"
_ENDED = ("created", "exited", "dead")


def has_migration(facts: HostFacts) -> bool:
    """Whether a host has a migration's container. Under the lock, no other run owns it."""
    return any(found.labels.get(containers.ONE_OFF) == PURPOSE for found in facts.containers)


def await_end(
    host: Host, environment: Environment, events: Events, pause: Callable[[], None]
) -> None:
    """Wait for the migration that an earlier run left running, and remove its container.

    Killing it could leave a half-applied migration, and ignoring it would let it change the
    database after the facts were gathered. The caller holds the lock. `pause` waits for a moment,
    or raises. Raises `Locked` if the migration still runs after `timeouts.migrate`.
    """
    engine = host.engine
    labels = {containers.ENVIRONMENT: environment.name, containers.ONE_OFF: PURPOSE}
    deadline = time.monotonic() + environment.timeouts.migrate
    for left in engine.containers(labels):
        name, reported = left["Names"][0].lstrip("/"), False
        while (found := engine.inspect(left["Id"])) and found["State"]["Status"] not in _ENDED:
            if not reported:
                text = f"waiting for the migration of an earlier run ({name})"
                events.emit("note", text, host=host.name)
                reported = True
            if time.monotonic() > deadline:
                raise Locked(
                    f"{host.name}: the migration of an earlier run ({name}) has not ended "
                    f"within {environment.timeouts.migrate:g} s",
                    hint=f"see `docker logs {name}` on the host for the cause; end it or wait, "
                    "then run the same command again",
                    host=host.name,
                )
            pause()
        engine.remove(left["Id"])
