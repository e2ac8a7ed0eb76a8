"""The OpenAPI 3.1 document, generated from the operations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from amani_app.api.operations import LARGEST_PAGE, Operation

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
        "allowed": {"type": "array", "items": {"type": "string"}},
    },
}

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
SYSTEM: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ping": ("Return `pong`, without any access to the database.", {"ping": _TEXT}),
    "version": (
        "Return the build and the schema head that it needs.",
        {"version": _TEXT, "schema_head": _TEXT},
    ),
    "readiness": ("Return 200 if this process may receive traffic, else 503.", {"ready": _FLAG}),
    "health": (
        "Return the health of the service and its database.",
        {"status": _TEXT, "checks": {}},
    ),
}
"""Endpoints for machines: path, summary, and required properties of the response."""


def describe(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = []
    for operation in operations:
        models.append((operation.answer, "serialization"))
        if operation.body:
            models.append((operation.body, "validation"))
    names, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(f"/api/v1{operation.path}", {})[operation.method.lower()] = _operation(
            operation, names
        )
    paths |= {f"/api/v1/{name}": {"get": _probe(name)} for name in SYSTEM}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Amani", "version": version, "description": "Escrow for freelancers."},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Problem": PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _probe(name: str) -> dict[str, Any]:
    summary, properties = SYSTEM[name]
    schema = {"type": "object", "required": sorted(properties), "properties": properties}
    good = _content(summary, schema)
    problem = _content("Problem", {"$ref": "#/components/schemas/Problem"}, True)
    responses = {"200": good}
    if name == "readiness":
        responses["503"] = problem
    if name == "health":
        good["content"] = {"application/health+json": {"schema": schema}}
        responses["503"] = good
    return {"operationId": name, "summary": summary, "parameters": [], "responses": responses}


def _operation(operation: Operation, names: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): _content(
                operation.summary, names[(operation.answer, "serialization")]
            ),
            **{
                str(status): _content("Problem", {"$ref": "#/components/schemas/Problem"}, True)
                for status in sorted(statuses(operation))
            },
        },
    }
    if operation.versioned:
        found["responses"][str(operation.status)]["headers"] = {
            "ETag": {"schema": {"type": "string"}}
        }
    if operation.body:
        schema = names[(operation.body, "validation")]
        found["requestBody"] = {
            "required": bool(operation.body.model_fields),
            "content": {"application/json": {"schema": schema}},
        }
    if operation.roles is not None:
        found["security"] = [{"bearer": []}]
    return found


def statuses(operation: Operation) -> set[int]:
    """The status of every error that `operation` may return."""
    found = {429, 503, *operation.problems}
    if operation.roles is not None:
        found |= {401}
    if operation.roles is not None and len(operation.roles) < 3:
        found |= {403}
    if operation.body:
        found |= {400, 413, 415, 422}
    if "{" in operation.path:
        found |= {404}
    if operation.method == "POST" and operation.transactional:
        found |= {400, 409, 422}
    if operation.versioned:
        found |= {403, 409, 412, 428}
    if operation.paged:
        found |= {422}
    if operation.quota == "pay-out":
        found |= {403}
    return found


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    def parameter(name: str, where: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
        return {"name": name, "in": where, "required": required, "schema": schema}

    text = {"type": "string"}
    found = [
        parameter(name, "path", {**text, "pattern": "^[A-Za-z0-9:._-]{1,200}$"}, True)
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    if operation.method == "POST" and operation.transactional:
        key = {**text, "pattern": "^[!-~]{8,255}$"}
        found.append(parameter("Idempotency-Key", "header", key, operation.money))
    found += [parameter(name, "header", text, True) for name in operation.headers]
    if operation.versioned:
        found.append(parameter("If-Match", "header", {**text, "pattern": '^"[0-9]+"$'}, True))
    if operation.paged:
        found.append(
            parameter("limit", "query", {"type": "integer", "minimum": 1, "default": 50}, False)
            | {"description": f"Items in a page, at most {LARGEST_PAGE}."}
        )
        found.append(
            parameter("cursor", "query", text, False)
            | {"description": "The `next_cursor` of the previous page, unchanged."}
        )
    for name, values in operation.filters.items():
        found.append(parameter(name, "query", {"type": "string", "enum": list(values)}, False))
    return found


def _content(description: str, schema: Any, problem: bool = False) -> dict[str, Any]:
    media = "application/problem+json" if problem else "application/json"
    return {"description": description, "content": {media: {"schema": schema}}}
