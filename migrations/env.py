"""Alembic's environment, the same under ``flask db`` and plain ``alembic``."""

import logging

from alembic import context
from alembic.util import CommandError
from flask import has_app_context

from amani_app import create_app
from amani_app.adapters.database.engine import db
from amani_app.adapters.database.migration import (
    exclusive,
    find_left_over,
    migration_engine,
    persist,
)
from amani_app.adapters.database.safety_copy import safety_copy
from amani_app.container import container
from amani_app.practice import fail_to_migrate


def run() -> None:
    """Migrate, or print the SQL with ``--sql``."""
    fail_to_migrate(container().settings)
    applied = []
    options = {
        "target_metadata": db.metadata,
        "render_as_batch": True,
        "compare_server_default": True,
        "transaction_per_migration": True,
        # True of SQLite as well, through the BEGIN of our own engine.
        "transactional_ddl": True,
        "on_version_apply": lambda step, **_: applied.append(step),
    }
    if context.is_offline_mode():
        context.configure(dialect_name=db.engine.dialect.name, literal_binds=True, **options)
        context.run_migrations()
        return

    def move(connection):
        if applied:  # a relative goal (-2) would be counted anew from here
            raise CommandError(f"no lock, {len(applied)} revisions on the way; those stay applied")
        context.configure(connection=connection, **options)
        context.run_migrations()

    with migration_engine(db.engine, container().settings.direct_database) as engine:
        if not moves():
            with engine.connect() as connection:
                move(connection)
            return
        with exclusive(engine), safety_copy(engine):
            persist(engine, move)
            for line in find_left_over(engine):
                logging.getLogger("alembic.runtime.migration").warning("left over: %s", line)


def moves() -> bool:
    """Whether this command changes the revision; `current`, `check` and their like only look."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    except CommandError:  # an unknown revision: Alembic says so itself
        return True
    return True


if has_app_context():
    run()
else:
    with create_app().app_context():
        run()
