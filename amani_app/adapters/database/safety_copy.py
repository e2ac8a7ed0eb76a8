"""A copy of the SQLite file, for migrations that fail outside their transaction or are killed."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import Any
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine

VOLATILE = frozenset({"worker_heartbeats"})
"""Tables that are written all the time, whose rows are not compared."""
log = logging.getLogger("alembic.runtime.migration")


@contextmanager
def safety_copy(engine: Engine) -> Iterator[None]:
    """Copy the SQLite file, and restore the copy if a failing revision changed the schema.

    A revision that fails within its transaction is rolled back, so the file stays as it is, with
    the rows that other processes wrote meanwhile. If the copy is restored, the broken file is kept
    beside it.

    A copy that already exists was made for a migration that was killed. If that migration changed
    the schema, the copy is restored before the new migration runs. If rows have changed since the
    copy was made, it is not restored: the migration runs on the current file, and if it fails, both
    files are kept. Use it only inside `exclusive`.
    """
    file = Path(engine.url.database or "")
    if engine.dialect.name != "sqlite" or not file.is_file():
        yield
        return
    copy = file.with_name(f"{file.name}.before-migration")
    kept = _must_keep(file, copy)
    if not kept:
        # Renamed when complete, so that a file with this name is never partial.
        partial = file.with_name(f"{copy.name}.partial")
        _copy(file, partial)
        os.replace(partial, copy)
    before = _shape(copy)
    try:
        yield
    except BaseException:
        if _is_half_applied(before, _shape(file)):
            if kept:
                log.error(
                    "a killed migration left %s partly migrated, and rows have changed since, so "
                    "the copy was not restored; the copy made before that migration is %s",
                    file,
                    copy,
                )
                raise
            _restore(copy, file)
        copy.unlink()
        raise
    copy.unlink()


def _must_keep(file: Path, copy: Path) -> bool:
    """Restore the copy of a killed migration; true if it is kept instead.

    It is kept if the schema has changed and rows were written since.
    """
    if not copy.is_file() or not _is_half_applied(_shape(copy), _shape(file)):
        return False
    if not _same_rows(file, copy):
        return True
    _restore(copy, file)
    return False


def _restore(copy: Path, file: Path) -> None:
    broken = file.with_name(f"{file.name}.broken-{time.strftime('%Y%m%dT%H%M%SZ')}")
    _copy(file, broken)
    _copy(copy, file)
    log.error("restored the copy made before the migration; the broken file is %s", broken)


def _copy(source: Path, target: Path) -> None:
    """All pages in one step: writers wait, so the copy is consistent."""
    with (
        closing(sqlite3.connect(source, timeout=30)) as old,
        closing(sqlite3.connect(target, timeout=30)) as new,
    ):
        old.backup(new, pages=-1)


Shape = tuple[list[Any], list[Any]]


def _shape(file: Path) -> Shape:
    """The schema, and the revision in `alembic_version`."""
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        what = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic_version%'"
        schema = connection.execute(f"{what} ORDER BY 1, 2").fetchall()
        try:
            return schema, connection.execute("SELECT version_num FROM alembic_version").fetchall()
        except sqlite3.OperationalError:  # no such table: nothing was ever migrated
            return schema, []


def _is_half_applied(before: Shape, now: Shape) -> bool:
    """Whether the schema changed while the recorded revision did not."""
    return now[0] != before[0] and now[1] == before[1]


def _same_rows(file: Path, copy: Path) -> bool:
    """Whether no row has changed since the copy, in the tables and columns of both."""
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        connection.execute("ATTACH ? AS saved", [str(copy)])
        connection.execute("BEGIN")
        shared = _tables(connection, "main") & _tables(connection, "saved") - VOLATILE
        return not any(_differs(connection, table) for table in sorted(shared))


def _tables(connection: sqlite3.Connection, place: str) -> set[str]:
    query = f"SELECT name FROM {place}.sqlite_master WHERE type = 'table'"  # nosec B608
    return {str(row[0]) for row in connection.execute(query)}


def _differs(connection: sqlite3.Connection, table: str) -> bool:
    main, before = (_columns(connection, place, table) for place in ("main", "saved"))
    names = ", ".join(_quote(name) for name in main if name in before)
    if not names:
        return False
    one, other = (
        f"SELECT {names} FROM {place}.{_quote(table)}" for place in ("main", "saved")  # nosec B608
    )
    return any(
        connection.execute(f"{first} EXCEPT {second} LIMIT 1").fetchone()
        for first, second in ((one, other), (other, one))
    )


def _columns(connection: sqlite3.Connection, place: str, table: str) -> list[str]:
    rows = connection.execute(f"PRAGMA {place}.table_info({_quote(table)})")
    return [str(row[1]) for row in rows]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
