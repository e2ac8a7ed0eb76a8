"""How a migration connects: alone, and never waiting long for a lock."""

from __future__ import annotations

import typing as t
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from amani_app.adapters.database.engine import tune_sqlite

LOCK_TIMEOUT = "2s"
"""How long DDL waits for a table: everyone behind it in the queue waits as well."""
STATEMENT_TIMEOUT = "15min"
ADVISORY_LOCK = 0x616D616E69
"""The number of the lock that one migrator holds ("amani")."""


class MigrationRunning(RuntimeError):
    """Another migrator is at work on this database."""


@contextmanager
def migration_engine(engine: Engine) -> t.Iterator[Engine]:
    """An engine for the database of *engine*, with the timeouts of a migration.

    They go in as connection options: after a plain SET Alembic would run everything, commit
    nothing, and exit 0. On SQLite foreign keys are off, because changing a table there means
    replacing it.
    """
    if engine.dialect.name == "postgresql":
        options = f"-c lock_timeout={LOCK_TIMEOUT} -c statement_timeout={STATEMENT_TIMEOUT}"
        arguments = {"application_name": "amani-migrate", "options": options}
        own = create_engine(engine.url, poolclass=NullPool, connect_args=arguments)
    else:
        own = create_engine(engine.url, poolclass=NullPool, connect_args={"timeout": 30})
        tune_sqlite(own, foreign_keys=False)
    try:
        yield own
    finally:
        own.dispose()


@contextmanager
def exclusive(engine: Engine) -> t.Iterator[None]:
    """Hold the migrators' lock; raise ``MigrationRunning`` when somebody else does.

    On a connection of its own, so that no commit of a migration lets it go. SQLite needs none:
    it has one writer at a time.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": ADVISORY_LOCK}):
            raise MigrationRunning("another migration is running on this database; wait for it")
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": ADVISORY_LOCK})
