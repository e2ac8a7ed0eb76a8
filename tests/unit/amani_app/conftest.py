"""Fixtures of the service."""

from tests.support.service_fixtures import (  # noqa: F401
    _no_settings_from_outside,
    app,
    client,
    database_url,
    migrated_sqlite,
    migrated_template,
    postgres_engine,
    settings,
    shell,
    sqlite_engine,
    sqlite_url,
)
