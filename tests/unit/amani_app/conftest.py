"""Fixtures of the service, on SQLite."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.support.service_fixtures import (  # noqa: F401
    _no_settings_from_outside,
    app,
    client,
    migrated_sqlite,
    settings,
    shell,
    sqlite_engine,
    sqlite_url,
)


@pytest.fixture
def database_url(sqlite_url: str) -> str:  # noqa: F811
    """The URL of an empty database."""
    return sqlite_url


@pytest.fixture
def engine(sqlite_engine: Engine) -> Engine:  # noqa: F811
    """A migrated database."""
    return sqlite_engine
