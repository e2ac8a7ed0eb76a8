"""Migrations whose deployer is gone: in their containers they go on without it."""

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


def are_on(facts: HostFacts) -> bool:
    """Whether a migration's container is on a host. Under the lock, nobody waits for it."""
    return any(found.labels.get(containers.ONE_OFF) == PURPOSE for found in facts.containers)


def await_end(
    host: Host, environment: Environment, events: Events, pause: Callable[[], None]
) -> None:
    """Wait for the migration that a run before left at work on a host, and remove its container.

    Ended by force it might stop at half of what cannot be taken back; left alone it would change
    the database under whoever has looked at it. Only under the environment's lock. `pause` waits a
    little, or raises. Raises `Locked` where it still works after `timeouts.migrate`.
    """
    engine = host.engine
    labels = {containers.ENVIRONMENT: environment.name, containers.ONE_OFF: PURPOSE}
    deadline = time.monotonic() + environment.timeouts.migrate
    for left in engine.containers(labels):
        name, told = left["Names"][0].lstrip("/"), False
        while (found := engine.inspect(left["Id"])) and found["State"]["Status"] not in _ENDED:
            if not told:
                words = f"waiting for the migration that a run before began ({name})"
                events.emit("note", words, host=host.name)
                told = True
            if time.monotonic() > deadline:
                raise Locked(
                    f"{host.name}: the migration that a run before began ({name}) has not ended "
                    f"within {environment.timeouts.migrate:g} s",
                    hint=f"`docker logs {name}` there tells what it waits for: end that, or wait, "
                    "and run the same command again",
                    host=host.name,
                )
            pause()
        engine.remove(left["Id"])
