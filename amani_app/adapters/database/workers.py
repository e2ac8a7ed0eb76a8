"""The register of workers, a row each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine, delete, insert, update
from sqlalchemy.exc import SQLAlchemyError

from amani_app.adapters.database.tables import worker_heartbeats as table
from amani_app.ports.schema import DatabaseUnavailable


class DatabaseWorkerRegister:
    """The `WorkerRegister` of a SQLAlchemy engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def beat(self, name: str, version: str, at: datetime) -> None:
        """Update the row, or write it the first time."""
        with self._begin() as connection:
            mine = update(table).where(table.c.name == name).values(version=version, seen_at=at)
            if not connection.execute(mine).rowcount:
                connection.execute(insert(table).values(name=name, version=version, seen_at=at))

    def leave(self, name: str) -> None:
        with self._begin() as connection:
            connection.execute(delete(table).where(table.c.name == name))

    def forget(self, before: datetime) -> int:
        """Delete the rows older than `before`."""
        with self._begin() as connection:
            return connection.execute(delete(table).where(table.c.seen_at < before)).rowcount

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise DatabaseUnavailable from error
