"""Errors for Sentry and traces for an OpenTelemetry collector, if the settings name one.

Both are extras (`requirements/observability.in`), which the default image does not contain, and
off by default; they are imported only when a process starts to report. Each process starts them
after its fork, because the sending threads do not survive one.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TYPE_CHECKING, cast

import structlog
from flask import Flask

from amani_app.build_info import BuildIdentity
from amani_app.settings import EnvironmentSettings, Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from sentry_sdk.types import Event, Hint

    from amani_app.telemetry.scrubbing import Scrubber

SERVICE = "amani"
QUIET = "/metrics,/api/v1/ping,/api/v1/readiness,/api/v1/health"
"""Paths that machines call many times a minute; they start no trace."""
HEADERS = frozenset({"Content-Length", "Content-Type", "Host", "User-Agent", "X-Request-Id"})
"""The request headers that are reported."""
_ADDRESSES = frozenset({"client.address", "client.port", "http.client_ip", "net.peer.ip"})
_WITH_QUERY = frozenset({"http.target", "http.url", "url.full"})


def require_extras(settings: Settings) -> None:
    """Raise `SettingsError` if `settings` need a package that is not installed."""
    asked = {
        "SENTRY_DSN": (settings.sentry_dsn.get_secret_value(), "sentry_sdk"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": (settings.otel_exporter_otlp_endpoint, "opentelemetry"),
    }
    missing = [
        f"{name}: {module} is not installed; build the image with EXTRAS=observability, "
        f"or unset {name}"
        for name, (value, module) in asked.items()
        if value and importlib.util.find_spec(module) is None
    ]
    if missing:
        raise SettingsError("\n".join(missing))


def start(
    app: Flask | None,
    settings: Settings,
    build: BuildIdentity,
    provider: EnvironmentSettings | None = None,
) -> None:
    """Start to report errors, and the requests of a web process (`app`).

    Does nothing if the settings name no receiver. The secrets of `provider` are scrubbed as well.
    """
    if not (settings.sentry_dsn.get_secret_value() or settings.otel_exporter_otlp_endpoint):
        return
    from amani_app.telemetry.scrubbing import Scrubber

    scrub = Scrubber(settings, *([provider] if provider else []))
    if settings.sentry_dsn.get_secret_value():
        _start_sentry(settings, build, scrub)
    if app is not None and settings.otel_exporter_otlp_endpoint:
        _start_traces(app, settings, build, scrub)


def _start_sentry(settings: Settings, build: BuildIdentity, scrub: Scrubber) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.argv import ArgvIntegration
    from sentry_sdk.integrations.flask import FlaskIntegration

    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        release=f"{SERVICE}@{build.version}",
        environment=settings.environment,
        integrations=[FlaskIntegration()],
        auto_enabling_integrations=False,
        disabled_integrations=[ArgvIntegration()],
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        before_send=lambda event, hint: _clean_event(event, hint, scrub),
    )
    sentry_sdk.set_tag("commit", build.commit)
    # Our error handlers return a response and log, so Sentry's own handlers see no exception.
    # In place: loggers that were used before the fork keep this list.
    structlog.get_config()["processors"].insert(0, _report)


def _report(_log: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
    """Send the exception of a log line, if it has one."""
    if isinstance(error := line.get("exc_info"), BaseException):
        import sentry_sdk

        sentry_sdk.capture_exception(error)
    return line


def _clean_event(event: Event, _hint: Hint, scrub: Scrubber) -> Event:
    clean: dict[str, Any] = scrub(event)
    if request := clean.get("request"):
        headers = request.get("headers") or {}
        clean["request"] = {
            "method": request.get("method"),
            "url": request.get("url"),
            "headers": {name: value for name, value in headers.items() if name in HEADERS},
        }
    clean.pop("user", None)
    if request_id := structlog.contextvars.get_contextvars().get("request_id"):
        clean["tags"] = {**(clean.get("tags") or {}), "request_id": request_id}
    return cast("Event", clean)


def _start_traces(app: Flask, settings: Settings, build: BuildIdentity, scrub: Scrubber) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.util.re import parse_env_headers

    headers = settings.otel_exporter_otlp_headers.get_secret_value()
    exporter = OTLPSpanExporter(
        endpoint=settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces",
        headers=parse_env_headers(headers, liberal=True),
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.otel_traces_sampler_arg)),
        resource=Resource.create(
            {
                "service.name": SERVICE,
                "service.version": build.version,
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
                "deployment.environment.name": settings.environment,
                "vcs.ref.head.revision": build.commit,
            }
        ),
    )
    provider.add_span_processor(BatchSpanProcessor(_cleaning(exporter, scrub)))
    instrument: Any = FlaskInstrumentor()  # its method has no types
    instrument.instrument_app(app, tracer_provider=provider, excluded_urls=QUIET)


def _cleaning(exporter: SpanExporter, scrub: Scrubber) -> SpanExporter:
    """Wraps `exporter`: removes secrets, query strings and addresses from spans."""
    from opentelemetry.sdk.trace import Event as SpanEvent, ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Status

    def clean(span: ReadableSpan) -> ReadableSpan:
        return ReadableSpan(
            name=scrub.text(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=_attributes(span.attributes or {}, scrub),
            events=[
                SpanEvent(each.name, _attributes(each.attributes or {}, scrub), each.timestamp)
                for each in span.events
            ],
            links=span.links,
            kind=span.kind,
            status=Status(
                span.status.status_code,
                scrub.text(span.status.description) if span.status.description else None,
            ),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    class Cleaning(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return exporter.export([clean(span) for span in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Cleaning()


def _attributes(attributes: Mapping[str, Any], scrub: Scrubber) -> dict[str, Any]:
    clean: dict[str, Any] = scrub(attributes)
    return {
        name: str(value).partition("?")[0] if name in _WITH_QUERY else value
        for name, value in clean.items()
        if name not in _ADDRESSES and name != "url.query"
    }
