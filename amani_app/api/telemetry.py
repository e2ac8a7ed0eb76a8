"""What is told about each request: its id, one log line, and its metrics."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from flask import Flask, Request, Response, g, request
from prometheus_client import Counter, Gauge, Histogram

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

# Labels are the route's template, never the path: an id in a label would be a series of its own.
REQUESTS = Counter("amani_http_requests", "Requests answered.", ("method", "route", "status"))
SECONDS = Histogram("amani_http_request_seconds", "Time to answer.", ("method", "route"))
RUNNING = Gauge("amani_http_running", "Requests being answered.", multiprocess_mode="livesum")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


HSTS = "max-age=31536000"
"""Seconds in which a browser comes by TLS only: a year."""


def register_telemetry(app: Flask, hsts: bool) -> None:
    """Observe every request of *app*; *hsts* where nobody may come without TLS."""
    app.before_request(_begin)
    app.after_request(_end)
    if hsts:

        @app.after_request
        def _strict(response: Response) -> Response:
            response.headers["Strict-Transport-Security"] = HSTS
            return response


def _begin() -> None:
    RUNNING.inc()
    g.begun = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    # Each use of the proxies looks the request up anew; of a ping that is a good part.
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    kept = g._get_current_object()
    seconds = time.perf_counter() - kept.begun
    route = asked.url_rule.rule if asked.url_rule else "unmatched"
    method = asked.method if asked.method in METHODS else "other"
    RUNNING.dec()
    REQUESTS.labels(method, route, response.status_code).inc()
    SECONDS.labels(method, route).observe(seconds)
    headers = response.headers
    headers["X-Request-ID"] = kept.request_id
    for name, value in SECURITY_HEADERS.items():
        if name not in headers:
            headers.add(name, value)
    quiet = asked.endpoint in QUIET and response.status_code < 400
    log = structlog.get_logger()
    (log.debug if quiet else log.info)(
        "request",
        method=asked.method,
        path=asked.path,
        route=route,
        status=response.status_code,
        duration_ms=round(seconds * 1000, 2),
        remote_addr=asked.remote_addr,
    )
    return response
