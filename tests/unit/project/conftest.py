"""Fixtures of the service, on SQLite."""

from tests.support.service_fixtures import (  # noqa: F401
    _no_settings_from_outside,
    app,
    client,
    migrated_sqlite,
    settings,
    sqlite_engine,
    sqlite_url,
)
