"""Settings, profiles and fixtures of all suites."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.postgres import GivenServer, PostgresServer
from workshop.quality import suite_order
from workshop.quality.suite_catalog import PROFILE, SERVER

TEST_VALUES = {
    "ENVIRONMENT": "testing",
    "SECRET_KEY": "a key of the tests, and of nothing else",
    "DATABASE_URL": "sqlite:///:memory:",
    "SUPABASE_URL": "https://tests.supabase.co",
    "SUPABASE_KEY": "a publishable key of the tests",
    "SUPABASE_SERVICE_KEY": "a service key of the tests",
}
"""Environment variables of the tests, so that no test reaches a real project."""

pytest.register_assert_rewrite("tests.support.contracts")

for _name, _value in TEST_VALUES.items():
    os.environ.setdefault(_name, _value)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest test files first, so that parallel workers end at about the same time."""
    durations = suite_order.known()

    def seconds(item: pytest.Item) -> float:
        return suite_order.cost(suite_order.name_of(item.path), durations)

    items.sort(key=seconds, reverse=True)


# A busy machine must not fail a test: examples have no deadline and may be slow.
PATIENT = hypothesis.settings(
    deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("steady", PATIENT, derandomize=True)
hypothesis.settings.register_profile("explore", PATIENT)
hypothesis.settings.load_profile(os.environ.get(PROFILE, "steady"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer | GivenServer]:
    """A PostgreSQL server of this process, or the server that `AMANI_TEST_POSTGRES` names."""
    given = os.environ.get(SERVER)
    server = GivenServer(given) if given else PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer | GivenServer) -> str:
    """The URL of a new, empty PostgreSQL database."""
    return postgres_server.url(postgres_server.create_database())
