"""Endpoints for machines: build, readiness, health, metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from functools import cache

from flask import Blueprint, Response

from amani_app.api.problems import ProblemDetails
from amani_app.container import container

blueprint = Blueprint("api", __name__)


def answer(body: Mapping[str, Any], status: int = 200, media: str = "") -> Response:
    return Response(json.dumps(body), status, content_type=media or "application/json")


@blueprint.get("/")
def root() -> Response:
    """Name, version, and links to the other endpoints."""
    names = ("ping", "version", "health", "readiness", "openapi.json", "docs")
    links = {name: f"/api/v1/{name}" for name in names}
    return answer({"name": "amani", "version": container().build.version, "links": links})


@blueprint.get("/ping")
def ping() -> Response:
    return answer({"ping": "pong"})


@blueprint.get("/version")
def version() -> Response:
    """The build, and the schema head that it needs."""
    parts = container()
    return answer({**parts.build.as_dict(), "schema_head": parts.schema.expected})


@blueprint.get("/readiness")
def readiness() -> Response:
    """200 if this process may receive traffic, else 503 with the reason."""
    verdict = container().readiness()
    if verdict.ready:
        return answer({"ready": True})
    return ProblemDetails(503, "not-ready", verdict.reason, headers={"Retry-After": "1"}).response()


@blueprint.get("/health")
def health() -> Response:
    """200 or 503 in the shape of `application/health+json` (draft-inadarei-api-health-check)."""
    parts = container()
    state = parts.health()
    status = "pass" if state.passing else "fail"
    schema = state.schema
    body = {
        "status": status,
        "version": "1",
        "releaseId": parts.build.version,
        "serviceId": "amani",
        "checks": {
            "database:responseTime": [
                {
                    "componentType": "datastore",
                    "status": "pass" if schema else "fail",
                    "observedValue": state.milliseconds,
                    "observedUnit": "ms",
                }
            ],
            "schema:revision": [
                {
                    "componentType": "datastore",
                    "status": status,
                    "observedValue": schema.live if schema else None,
                    "expectedValue": parts.schema.expected,
                }
            ],
        },
    }
    return answer(body, 200 if state.passing else 503, "application/health+json")


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document of this API."""
    return answer(_document(container().build.version))


@cache
def _document(version: str) -> dict[str, Any]:
    from amani_app.api.openapi import describe
    from amani_app.api.routes import OPERATIONS

    return describe([operation for operation, _ in OPERATIONS], version)


def metrics() -> Response:
    """Metrics of all processes of this server and of the ledger, in Prometheus' text format."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    books = CollectorRegistry()
    books.register(container().gauges)
    text = generate_latest(registry) + generate_latest(books)
    return Response(text, content_type=CONTENT_TYPE_LATEST)
