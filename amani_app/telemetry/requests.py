"""The id, the log line and the metrics of each request, and the security headers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any, TYPE_CHECKING
from time import perf_counter

import structlog
from flask import Flask, Request, request
from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
"""A caller's `X-Request-ID` is accepted in this form and replaced otherwise."""

QUIET = frozenset({"api.readiness", "api.ping", "metrics"})
"""Called many times a second by machines: successes are logged at debug level only."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

HSTS = "max-age=31536000"
"""Browsers use TLS only for a year (RFC 6797)."""

# The label is the route's template and not the path, or each id would create a time series.
REQUESTS = Counter("amani_http_requests", "Requests answered.", ("method", "route", "status"))
SECONDS = Histogram("amani_http_request_seconds", "Time to answer.", ("method", "route"))
RUNNING = Gauge("amani_http_running", "Requests being answered.", multiprocess_mode="livesum")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_ID = "amani.request_id"


def request_id() -> str:
    """The id of the running request."""
    return str(request.environ[_ID])


def _new_request_id() -> str:
    # Not a secret, so no system call for the kernel's randomness is needed.
    return f"{random.getrandbits(128):032x}"  # nosec B311


def register_telemetry(app: Flask, hsts: bool) -> None:
    """Observe every request of `app`; `hsts` if the service is reachable by TLS only."""
    app.wsgi_app = Telemetry(app.wsgi_app, hsts)  # type: ignore[method-assign]


class Telemetry:
    """WSGI middleware in front of `answer`; Flask's hooks would cost twice as much."""

    def __init__(self, answer: WSGIApplication, hsts: bool) -> None:
        self._answer = answer
        headers = SECURITY_HEADERS | ({"Strict-Transport-Security": HSTS} if hsts else {})
        self._headers = [(name.lower(), (name, value)) for name, value in headers.items()]
        self._log = structlog.get_logger().bind()
        self._meters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID", "")
        id = environ[_ID] = given if REQUEST_ID.fullmatch(given) else _new_request_id()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=id)

        def begin(status: str, headers: list[tuple[str, str]], *failed: Any) -> Any:
            self._record(environ["werkzeug.request"], int(status[:3]), perf_counter() - begun)
            there = {name.lower() for name, _ in headers}
            headers += [header for name, header in self._headers if name not in there]
            headers.append(("X-Request-ID", id))
            return start_response(status, headers, *failed)

        RUNNING.inc()
        try:
            return self._answer(environ, begin)
        finally:
            RUNNING.dec()

    def _record(self, asked: Request, status: int, seconds: float) -> None:
        route = asked.url_rule.rule if asked.url_rule else "unmatched"
        method = asked.method if asked.method in METHODS else "other"
        requests, times = self._meter(method, route, status)
        requests.inc()
        times.observe(seconds)
        quiet = asked.endpoint in QUIET and status < 400
        (self._log.debug if quiet else self._log.info)(
            "request",
            method=asked.method,
            path=asked.path,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            remote_addr=asked.remote_addr,
        )

    def _meter(self, *labels: Any) -> tuple[Counter, Histogram]:
        """Cached: the library looks labels up under a lock each time."""
        found = self._meters.get(labels)
        if found is None:
            found = REQUESTS.labels(*labels), SECONDS.labels(*labels[:2])
            self._meters[labels] = found
        return found
