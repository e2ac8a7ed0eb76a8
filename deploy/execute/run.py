"""What the steps of one run work on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from deploy.errors import DeployError
from deploy.events import Events
from deploy.observe import probe
from deploy.state import journal

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host
    from deploy.proxy.container import ProxyChange
    from deploy.secrets import Secrets
    from deploy.state.release import Release


class Interrupted(DeployError):
    """The operator, or another lane's failure, asked this lane to stop."""


@dataclass
class Progress:
    """How a run went so far: its steps with their times, and what a finishing stage left undone."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    leftovers: list[DeployError] = field(default_factory=list)


@dataclass
class Run:
    """One deploy or rollback under way: the hosts it may touch and the release it brings.

    `generations` maps each host to the generation of secrets its containers get; the step that
    delivers secrets changes it. `proxy_changes` is what the proxy's revert needs to know.
    """

    id: str
    kind: Literal["deploy", "rollback"]
    environment: Environment
    hosts: Mapping[str, Host]
    release: Release
    secrets: Secrets
    events: Events
    plan_hash: str
    """Identifies the plan in the journal: `Plan.hash`."""
    requested_by: str
    previous: journal.Record | None = None
    allowed: tuple[str, ...] = ()
    """What the operator allowed that is refused otherwise."""
    generations: dict[str, str] = field(default_factory=dict)
    proxy_changes: dict[str, ProxyChange] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    progress: Progress = field(default_factory=Progress)
    cancelled: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)
    """Set where the lock is somebody else's now: nothing may be touched any more."""
    renew: Callable[[], None] = lambda: None
    """Renews the lock, and sets `lost` where that cannot be done."""
    confirm: Callable[[], None] = lambda: None
    """As `renew`, where that is overdue."""

    def check_cancelled(self) -> None:
        """Raise `Interrupted` where the run is to stop."""
        if self.cancelled.is_set() or self.lost.is_set():
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

    def ask(self, host: str, path: str, *, timeout: float) -> probe.Answer:
        """GET a path from a host through its public route."""
        return probe.ask(self.environment, host, path, timeout=timeout)

    def redact(self, text: str) -> str:
        """The text without any secret's value."""
        return self.secrets.redact(text)

    def record(self, outcome: str, error: str = "") -> journal.Record:
        """This run as a journal record."""
        previous = self.previous
        return journal.Record(
            id=self.id,
            kind=self.kind,
            environment=self.environment.name,
            hosts=tuple(self.hosts),
            version=str(self.release.version),
            digest=self.release.image.digest,
            revision=self.release.revision,
            outcome=outcome,
            requested_by=self.requested_by,
            started=self.started,
            finished=time.time(),
            schema=self.release.schema_head,
            previous=(
                {
                    "version": previous.version,
                    "digest": previous.digest,
                    "revision": previous.revision,
                }
                if previous
                else {}
            ),
            plan=self.plan_hash,
            strategy=self.environment.strategy,
            steps=tuple(self.progress.steps),
            remediates=previous.id if previous and self.kind == "rollback" else "",
            error=self.redact(error),
            allowed=self.allowed,
        )
