"""A WSGI function without an application: the baseline for the latency of the service's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

BODY = b'{"ping": "pong"}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def app(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the bytes of the service's ping."""
    start("200 OK", HEADERS)
    return [BODY]
