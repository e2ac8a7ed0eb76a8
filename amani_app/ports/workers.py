"""The register of running workers."""

from __future__ import annotations

from typing import Protocol
from datetime import datetime


class WorkerRegister(Protocol):
    """Heartbeats of the workers. Every method may raise `DatabaseUnavailable`."""

    def beat(self, name: str, version: str, at: datetime) -> None:
        """Record a heartbeat of worker `name`, which runs `version`."""

    def leave(self, name: str) -> None:
        """Delete worker `name`, which stopped cleanly."""

    def forget(self, before: datetime) -> int:
        """Delete workers without a heartbeat since `before`; returns their number."""
