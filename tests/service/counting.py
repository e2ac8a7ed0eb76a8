"""What is sent to a database."""

from __future__ import annotations

import contextlib
import typing as t

import psycopg
import pytest
from sqlalchemy import Engine, event

ENDS = ("BEGIN", "COMMIT", "ROLLBACK")


@contextlib.contextmanager
def counted(engine: Engine) -> t.Iterator[list[str]]:
    """The statements of the block in their order, but for those that begin and end transactions.

    Those for PostgreSQL are taken from the driver: not all of them come through SQLAlchemy.
    """
    found: list[str] = []

    def note(statement: t.Any) -> None:
        if not str(statement).startswith(ENDS):
            found.append(str(statement))

    def listen(_connection: t.Any, _cursor: t.Any, statement: str, *_rest: t.Any) -> None:
        note(statement)

    if engine.dialect.name == "sqlite":
        event.listen(engine, "before_cursor_execute", listen)
        try:
            yield found
        finally:
            event.remove(engine, "before_cursor_execute", listen)
        return
    execute = psycopg.Cursor.execute

    def noted(cursor: t.Any, query: t.Any, *rest: t.Any, **more: t.Any) -> t.Any:
        note(query)
        return execute(cursor, query, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", noted)
        yield found
