"""SQLite keeps no half of a transaction, but a revision may have left one: then a copy helps."""

from __future__ import annotations

import logging
import sqlite3
import time
import typing as t
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine

log = logging.getLogger("alembic.runtime.migration")


@contextmanager
def safety_copy(engine: Engine) -> t.Iterator[None]:
    """Copy the SQLite file first, and put the copy back where a failing revision left traces.

    A revision that failed within its transaction left none: then nothing is put back, and what
    others wrote meanwhile stays. Where it is put back, the broken state is kept beside it.
    """
    file = Path(engine.url.database or "")
    if engine.dialect.name != "sqlite" or not file.is_file():
        yield
        return
    copy = file.with_name(f"{file.name}.before-migration")
    _copy(file, copy)
    before = _shape(file)
    try:
        yield
    except BaseException:
        schema, version = _shape(file)
        if schema != before[0] and version == before[1]:
            broken = file.with_name(f"{file.name}.broken-{time.strftime('%Y%m%dT%H%M%SZ')}")
            _copy(file, broken)
            _copy(copy, file)
            log.error("the copy made before was put back; the broken state is in %s", broken)
        copy.unlink()
        raise
    copy.unlink()


def _copy(source: Path, target: Path) -> None:
    """All pages in one step: whoever writes waits, and no copy is of two moments."""
    with (
        closing(sqlite3.connect(source, timeout=30)) as old,
        closing(sqlite3.connect(target, timeout=30)) as new,
    ):
        old.backup(new, pages=-1)


def _shape(file: Path) -> tuple[list[t.Any], list[t.Any]]:
    """The schema, and the revision it says it is at."""
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        what = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic_version%'"
        schema = connection.execute(f"{what} ORDER BY 1, 2").fetchall()
        try:
            return schema, connection.execute("SELECT version_num FROM alembic_version").fetchall()
        except sqlite3.OperationalError:  # no such table: nothing was ever migrated
            return schema, []
