"""The life of one process: starting, running, stopping."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """A process is ready for traffic only while it is `RUNNING`."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Lifecycle:
    """The phase of this process. It moves forward only, so a late start cannot undo a stop."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    def start(self) -> None:
        """Enter the running phase; ready for traffic."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING

    def stop(self) -> None:
        """Enter the stopping phase. Safe inside a signal handler."""
        self.phase = Phase.STOPPING
