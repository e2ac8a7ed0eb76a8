"""Fixtures of the service, on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.support.service_fixtures import (  # noqa: F401
    _no_settings_from_outside,
    app,
    client,
    migrated_sqlite,
    migrated_template,
    postgres_engine,
    settings,
    shell,
    sqlite_engine,
    sqlite_url,
)


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """The URL of an empty database."""
    return postgres_url


@pytest.fixture
def engine(postgres_engine: Engine) -> Engine:  # noqa: F811
    """A migrated database."""
    return postgres_engine
