"""The context that the steps of one run work on."""

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
    """A lane stopped because of an interrupt or of another lane's failure."""


@dataclass
class Progress:
    """A run's applied steps with their times, and the failures that do not revert it."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    leftovers: list[DeployError] = field(default_factory=list)


@dataclass
class Run:
    """One execution of a plan: its hosts, its release and its progress.

    `generations` maps each host to the generation of secrets that its containers get; the step
    that delivers secrets changes it. `proxy_changes` maps each host to the change that the proxy's
    revert undoes.
    """

    id: str
    kind: Literal["deploy", "rollback"]
    environment: Environment
    hosts: Mapping[str, Host]
    release: Release
    secrets: Secrets
    events: Events
    plan_hash: str
    """`Plan.hash`, for the journal."""
    requested_by: str
    previous: journal.Record | None = None
    allowed: tuple[str, ...] = ()
    """The options that the operator gave to allow a refused change (`Options.names`)."""
    generations: dict[str, str] = field(default_factory=dict)
    proxy_changes: dict[str, ProxyChange] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    progress: Progress = field(default_factory=Progress)
    cancelled: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)
    """Set once another run took over the lock: this run must change nothing any more."""
    renew: Callable[[], None] = lambda: None
    """Renews the lock's heartbeat, and sets `lost` if another run holds the lock."""
    confirm: Callable[[], None] = lambda: None
    """Calls `renew` if the heartbeat is overdue."""

    def check_cancelled(self) -> None:
        """Raise `Interrupted` if the run must stop."""
        if self.cancelled.is_set() or self.lost.is_set():
            raise Interrupted("interrupted")

    def pause(self, seconds: float, deadline: float) -> bool:
        """Wait `seconds` in a polling loop; return False once `deadline` (monotonic) has passed.

        Raises `Interrupted` if the run must stop.
        """
        self.check_cancelled()
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        self.cancelled.wait(min(seconds, remaining))
        self.check_cancelled()
        return True

    def ask(self, host: str, path: str, *, timeout: float) -> probe.Answer:
        """GET a path from a host through its public route; `timeout` in seconds."""
        return probe.ask(self.environment, host, path, timeout=timeout)

    def redact(self, text: str) -> str:
        """Replace the values of secrets in a text."""
        return self.secrets.redact(text)

    def record(self, outcome: str, error: str = "") -> journal.Record:
        """This run as a journal record with its outcome."""
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
