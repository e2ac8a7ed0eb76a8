"""The data that a downgrade to an older revision would delete."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import Engine, inspect, text

from amani_app.ports.schema import UnknownRevision

_TABLE = re.compile(r"^DROP TABLE (?:IF EXISTS )?(\w+)", re.MULTILINE)
_COLUMN = re.compile(r"^ALTER TABLE (\w+) DROP COLUMN (?:IF EXISTS )?(\w+)", re.MULTILINE)


def find_losses(engine: Engine, migrations: Path, live: str, to: str) -> Iterator[str]:
    """A line for each table and column with data that the downgrade from `live` to `to` drops.

    Generates the downgrades' SQL for PostgreSQL and searches it for drops, which are the same for
    SQLite. Raises `UnknownRevision` if `to` is unknown or not older than `live`.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations))
    script = ScriptDirectory.from_config(config)
    printed = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": printed}
    )
    with Operations.context(context):
        try:
            revisions = list(script.iterate_revisions(live, to))
        except RevisionError as error:
            raise UnknownRevision(str(error)) from None
        for revision in revisions:
            revision.module.downgrade()
    tables = dict.fromkeys(_TABLE.findall(printed.getvalue()))
    columns = [pair for pair in _COLUMN.findall(printed.getvalue()) if pair[0] not in tables]
    with engine.connect() as connection:
        there = set(inspect(connection).get_table_names())
        quote = engine.dialect.identifier_preparer.quote
        for table in there.intersection(tables):
            rows = connection.scalar(text(f"SELECT count(*) FROM {quote(table)}"))  # nosec B608
            if rows:
                yield f"table {table}: {rows} rows"
        for table, column in columns:
            what = f"SELECT count({quote(column)}) FROM {quote(table)}"  # nosec B608
            rows = connection.scalar(text(what)) if table in there else 0
            if rows:
                yield f"column {table}.{column}: {rows} values"
