"""Liveness for the container engine: exit 0 if the container's process works.

A web process answers the ping; a worker touches its heartbeat file. It imports the standard library
only, because an interpreter starts for it every few seconds.
"""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
import time
from pathlib import Path

HEARTBEAT = Path(tempfile.gettempdir()) / "amani-worker.heartbeat"
LATEST_BEAT = 30.0
"""Seconds without a heartbeat after which a worker counts as stuck."""


def check() -> str:
    """An empty string if the process works, else the reason."""
    try:
        age = time.time() - HEARTBEAT.stat().st_mtime
    except FileNotFoundError:
        return _check_web()
    return "" if age < LATEST_BEAT else f"the worker's last beat was {age:.0f} s ago"


def _check_web() -> str:
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "8000")), 2)
    try:
        connection.request("GET", "/api/v1/ping")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"status {status}"


if __name__ == "__main__":
    sys.exit(check() or None)
