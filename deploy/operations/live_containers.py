"""The containers that serve a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.state.facts import ContainerFacts, HostFacts


def find_live_container(host: HostFacts, role: str) -> ContainerFacts | None:
    """Return the container of a role on a host, or None.

    For `web` it is the container in the live slot; for another role, the first one that runs.
    """
    if role == "web":
        return host.container("web", host.live_slot) if host.live_slot else None
    running = (found for found in host.containers if found.role == role and found.running)
    return next(running, None)
