"""The life of one process: starting, running, stopping."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """Where a process stands between its start and its end."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Lifecycle:
    """The phase of this process; moves forward only, so a late start cannot undo a stop."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    def start(self) -> None:
        """Say that the process may take work."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING

    def stop(self) -> None:
        """Say that the process is going away; safe inside a signal handler."""
        self.phase = Phase.STOPPING
