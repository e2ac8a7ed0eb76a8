"""The parts of the suite, one a job: each test belongs to exactly one of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

SUITES = {
    "unit": "what needs neither a server nor an engine: the domain, use cases, plans, files",
    "integration": "PostgreSQL, and the engine of this machine",
    "api": "requests and responses against the OpenAPI document, Schemathesis among them",
    "migrations": "up, down, each revision alone with rows in it, models against migrations",
    "image": "the service's image, built and run as it will be",
    "e2e": "deploys, failures and outages on practice hosts",
}

_HOMES = {
    "tests/service/test_each_revision.py": "migrations",
    "tests/service/test_migrations.py": "migrations",
    "tests/service/test_waiting_migrations.py": "migrations",
    "tests/service/test_image.py": "image",
}
_API = {
    "test_document.py",
    "test_escrow_api.py",
    "test_limits.py",
    "test_money_in_and_out.py",
    "test_reference.py",
    "test_system_api.py",
}


def classify(path: str, markers: Collection[str]) -> str:
    """The suite of a test by its file, relative to the checkout, and its markers."""
    if home := _HOMES.get(path):
        return home
    if "fleet" in markers:
        return "e2e"
    if "engine" in markers:
        return "integration"
    place = PurePosixPath(path)
    if place.parent == PurePosixPath("tests/service") and place.name in _API:
        return "api"
    return "integration" if "postgres" in markers else "unit"
