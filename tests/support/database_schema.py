"""The schema of a database as a comparable value."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

_PROGRAMS = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
    "postgresql": """
        SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
        ORDER BY 1, 2
    """,
}


def read_schema(engine: Engine) -> dict[str, Any]:
    """Tables, indexes, constraints, triggers and functions of the database."""
    with engine.connect() as connection:
        return {**_tables(connection), "programs": _programs(connection)}


def _tables(connection: Connection) -> dict[str, Any]:
    look = inspect(connection)
    return {
        table: (
            [
                (c["name"], str(c["type"]), c["nullable"], c["default"])
                for c in look.get_columns(table)
            ],
            look.get_pk_constraint(table),
            look.get_indexes(table),
            look.get_foreign_keys(table),
            look.get_unique_constraints(table),
            look.get_check_constraints(table),
        )
        for table in sorted(look.get_table_names())
    }


def _programs(connection: Connection) -> list[tuple[str, str]]:
    return [tuple(row) for row in connection.execute(text(_PROGRAMS[connection.dialect.name]))]
