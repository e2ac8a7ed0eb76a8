"""The register of running workers."""

from __future__ import annotations

import typing as t
from datetime import datetime


class WorkerRegister(t.Protocol):
    """Where each worker says that it lives. Every method may raise ``DatabaseUnavailable``."""

    def beat(self, name: str, version: str, at: datetime) -> None:
        """Note that worker *name* running *version* was alive *at*."""

    def leave(self, name: str) -> None:
        """Forget worker *name*: it stopped cleanly."""

    def forget(self, before: datetime) -> int:
        """Drop the workers not seen since *before*; how many they were."""
