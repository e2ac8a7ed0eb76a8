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

    with migration_engine(db.engine, container().settings.direct_database) as engine:
        if not moves():
            with engine.connect() as connection:
                context.configure(connection=connection, **options)
                context.run_migrations()
            return
        with exclusive(engine):
            move_by_steps(engine, options)
            for line in find_left_over(engine):
                logging.getLogger("alembic.runtime.migration").warning("left over: %s", line)


def move_by_steps(engine, options) -> None:
    """Each revision by itself: a lock that one meets is waited for there, and what one leaves
    half-made is put back to where it began, whatever came before it in the same command."""
    steps = None

    def move(connection):
        nonlocal steps
        if steps is None:  # once: a relative goal (-2) would be counted anew from each revision
            context.configure(connection=connection, **options)
            migration = context.get_context()
            steps = list(migration.opts["fn"](migration.get_current_heads(), migration))
            # Alembic commits nothing in a transaction that it finds begun.
            connection.rollback()
        context.configure(connection=connection, **options, fn=lambda *_: steps[:1])
        context.run_migrations()

    while steps is None or steps:
        with safety_copy(engine):
            persist(engine, move)
        steps = steps[1:]


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
