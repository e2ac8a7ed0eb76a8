"""The OpenAPI document."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
from flask.testing import FlaskClient

from amani_app.api.routes import OPERATIONS


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    return cast(dict[str, Any], answer.json)


def test_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")


def test_every_operation_is_described_once(document: dict[str, Any]) -> None:
    described = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(described) == len(set(described))
    assert {operation.name for operation, _ in OPERATIONS if not operation.raw} <= set(described)


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/([^']+)'", str(document)))
    assert references
    for reference in references:
        found = document
        for key in reference.split("/"):
            found = found[key]
        assert found
