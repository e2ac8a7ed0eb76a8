"""What happens during a run, as values; console, plain log and `--json` hear the same ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Listener = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

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
    """Hands each event to every listener, one at a time, from whichever thread it comes.

    `redact` takes secrets out of texts; a request sets it as soon as it knows any, and whoever
    prints asks it.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.redact: Callable[[str], str] = str
        self._listeners = list(listeners)
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> None:
        """Add a listener; it is called with every later event."""
        self._listeners.append(listener)

    def emit(self, kind: str, text: str = "", **fields: Any) -> None:
        """Make an event of `kind` and hand it round; `fields` are those of `Event`."""
        event = Event(kind, text, **fields)
        with self._lock:
            for listener in self._listeners:
                listener(event)
