"""What a request costs before there is an application: the floor of the service's own answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

BODY = b'{"ping": "pong"}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def app(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answers the bytes of the service's ping, and does nothing else."""
    start("200 OK", HEADERS)
    return [BODY]
