"""What is told about each request: its id, one log line, and its metrics."""

from __future__ import annotations

import random
import re
import typing as t
from time import perf_counter

import structlog
from flask import Flask, Request, request
from prometheus_client import Counter, Gauge, Histogram

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
"""What is believed of a caller's ``X-Request-ID``; anything else is replaced."""

QUIET = frozenset({"api.readiness", "api.ping", "metrics"})
"""Asked many times a second by machines: good answers are logged at debug level only."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

HSTS = "max-age=31536000"
"""Seconds in which a browser comes by TLS only: a year."""

# Labels are the route's template, never the path: an id in a label would be a series of its own.
REQUESTS = Counter("amani_http_requests", "Requests answered.", ("method", "route", "status"))
SECONDS = Histogram("amani_http_request_seconds", "Time to answer.", ("method", "route"))
RUNNING = Gauge("amani_http_running", "Requests being answered.", multiprocess_mode="livesum")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_ID = "amani.request_id"


def request_id() -> str:
    """The id of the running request."""
    return str(request.environ[_ID])


def _made_up() -> str:
    # No secret. The kernel's randomness is a system call, at which threads take turns.
    return f"{random.getrandbits(128):032x}"  # nosec B311


def register_telemetry(app: Flask, hsts: bool) -> None:
    """Observe every request of *app*; *hsts* where nobody may come without TLS."""
    app.wsgi_app = Telemetry(app.wsgi_app, hsts)  # type: ignore[method-assign]


class Telemetry:
    """Stands before *answer*, the application: hooks of Flask's cost twice as much for the same."""

    def __init__(self, answer: WSGIApplication, hsts: bool) -> None:
        self._answer = answer
        headers = SECURITY_HEADERS | ({"Strict-Transport-Security": HSTS} if hsts else {})
        self._headers = [(name.lower(), (name, value)) for name, value in headers.items()]
        self._log = structlog.get_logger().bind()
        self._meters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> t.Iterable[bytes]:
        begun = perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID", "")
        id = environ[_ID] = given if REQUEST_ID.fullmatch(given) else _made_up()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=id)

        def begin(status: str, headers: list[tuple[str, str]], *failed: t.Any) -> t.Any:
            self._tell(environ["werkzeug.request"], int(status[:3]), perf_counter() - begun)
            there = {name.lower() for name, _ in headers}
            headers += [header for name, header in self._headers if name not in there]
            headers.append(("X-Request-ID", id))
            return start_response(status, headers, *failed)

        RUNNING.inc()
        try:
            return self._answer(environ, begin)
        finally:
            RUNNING.dec()

    def _tell(self, asked: Request, status: int, seconds: float) -> None:
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

    def _meter(self, *labels: t.Any) -> tuple[Counter, Histogram]:
        """Found once: the library looks labels up under a lock each time."""
        found = self._meters.get(labels)
        if found is None:
            found = REQUESTS.labels(*labels), SECONDS.labels(*labels[:2])
            self._meters[labels] = found
        return found
