"""The events of a run, as values. Console, plain log and `--json` get the same ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Listener = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """One event of a run.

    `kind` is one of: `note`, `warning`, `plan`, `stage-started`, `stage-finished`, `step-started`,
    `step-progress`, `step-skipped`, `step-finished`, `step-failed`, `revert-started`,
    `revert-finished`, `revert-failed`, `finished`. `at` is seconds since the epoch; `data` holds
    JSON values only and never a secret.
    """

    kind: str
    text: str = ""
    host: str | None = None
    step: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


class Events:
    """Passes each event to every listener, one at a time, from any thread.

    `redact` removes secrets from texts. An operation sets it once it has loaded the secrets, and
    listeners call it before they print.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.redact: Callable[[str], str] = str
        self._listeners = list(listeners)
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> None:
        """Add a listener for all later events."""
        self._listeners.append(listener)

    def emit(self, kind: str, text: str = "", **fields: Any) -> None:
        """Create an event and pass it on; `fields` are the other fields of `Event`."""
        event = Event(kind, text, **fields)
        with self._lock:
            for listener in self._listeners:
                listener(event)
