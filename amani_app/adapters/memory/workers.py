"""The register of workers in memory."""

from __future__ import annotations

from datetime import datetime


class MemoryWorkerRegister:
    """Workers by name, with their version and last heartbeat."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[str, datetime]] = {}

    def beat(self, name: str, version: str, at: datetime) -> None:
        self.seen[name] = (version, at)

    def leave(self, name: str) -> None:
        self.seen.pop(name, None)

    def forget(self, before: datetime) -> int:
        old = [name for name, (_, at) in self.seen.items() if at < before]
        for name in old:
            del self.seen[name]
        return len(old)
