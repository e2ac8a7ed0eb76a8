"""What the steps of one run work on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.errors import DeployError
from deploy.events import Events

if TYPE_CHECKING:
    from deploy.environment import Environment
    from deploy.hosts.host import Host
    from deploy.release import Release
    from deploy.secrets import Secrets


class Interrupted(DeployError):
    """The operator, or another lane's failure, asked this lane to stop."""


@dataclass
class Run:
    """One deploy or rollback under way: the hosts it may touch and the release it brings.

    `generations` is filled by the step that delivers secrets: host name to generation.
    """

    id: str
    environment: Environment
    hosts: Mapping[str, Host]
    release: Release
    secrets: Secrets
    events: Events
    generations: dict[str, str] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check_cancelled(self) -> None:
        """Raise `Interrupted` where the run is to stop."""
        if self.cancelled.is_set():
            raise Interrupted("interrupted")

    def pause(self, seconds: float, deadline: float) -> bool:
        """Wait a little inside a polling loop; False once `deadline` (monotonic) has passed."""
        self.check_cancelled()
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        self.cancelled.wait(min(seconds, remaining))
        self.check_cancelled()
        return True
