"""The test suites, one for each CI job: `tests/NAME` holds the suite NAME. Imports nothing."""

from __future__ import annotations

SUITES = {
    "unit": "no server and no engine: the domain, use cases, plans, files",
    "integration": "PostgreSQL, Redis, sshd and the Docker Engine of this machine",
    "api": "requests and responses against the OpenAPI document, with Schemathesis",
    "migrations": "upgrade, downgrade, each revision on rows, models against migrations",
    "image": "the service's image, built and run",
    "e2e": "deploys, failures and outages on practice hosts",
}
WITH_ENGINE = frozenset({"integration", "image", "e2e"})
"""The suites with tests that need a Docker Engine."""
PROFILE = "HYPOTHESIS_PROFILE"
"""Environment variable with the name of a Hypothesis profile: `steady` tries the same examples each
time, `explore` new ones."""
SERVER = "AMANI_TEST_POSTGRES"
"""Environment variable with the URL of a server on which tests may create and drop databases."""
