"""Fixtures that tests of both wings share."""

from __future__ import annotations

import typing as t

import hypothesis
import pytest

from tests.postgres import PostgresServer

# A busy machine is no failure: no example has a deadline, and slow ones are as good.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgres_server() -> t.Iterator[PostgresServer]:
    """A PostgreSQL server of this test process."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a new, empty PostgreSQL database."""
    return postgres_server.url(postgres_server.create_database())
