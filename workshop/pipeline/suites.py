"""The suites of the tests, one for each CI job: `tests/NAME` holds the suite NAME."""

from __future__ import annotations

SUITES = {
    "unit": "no server and no engine: the domain, use cases, plans, files",
    "integration": "PostgreSQL, Redis, sshd and the Docker Engine of this machine",
    "api": "requests and responses against the OpenAPI document, with Schemathesis",
    "migrations": "upgrade, downgrade, each revision on rows, models against migrations",
    "image": "the service's image, built and run",
    "e2e": "deploys, failures and outages on practice hosts",
}
