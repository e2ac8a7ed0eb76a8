"""Alembic's environment, the same under ``flask db`` and plain ``alembic``."""

from alembic import context
from flask import has_app_context

from amani_app import create_app
from amani_app.adapters.database.engine import db
from amani_app.adapters.database.migration import exclusive, migration_engine
from amani_app.container import container
from amani_app.practice import fail_to_migrate


def run() -> None:
    """Migrate, or print the SQL with ``--sql``."""
    fail_to_migrate(container().settings)
    options = {
        "target_metadata": db.metadata,
        "render_as_batch": True,
        "compare_server_default": True,
        "transaction_per_migration": True,
        # True of SQLite as well, through the BEGIN of our own engine.
        "transactional_ddl": True,
    }
    if context.is_offline_mode():
        context.configure(dialect_name=db.engine.dialect.name, literal_binds=True, **options)
        context.run_migrations()
        return
    with migration_engine(db.engine) as engine, exclusive(engine), engine.connect() as connection:
        context.configure(connection=connection, **options)
        context.run_migrations()


if has_app_context():
    run()
else:
    with create_app().app_context():
        run()
