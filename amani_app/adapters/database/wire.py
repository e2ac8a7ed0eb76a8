"""What is said to PostgreSQL past SQLAlchemy: several statements in one round trip."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from amani_app.adapters.database.prepared import Prepared, Row
from amani_app.ports.schema import DatabaseUnavailable

Asked = tuple[Prepared, Row]


class Wire:
    """The psycopg connection under *connection*, in libpq's pipeline mode.

    *opening* begins its transactions; without one each statement stands for itself. Raises what
    SQLAlchemy would, and ``DatabaseUnavailable`` where the connection is lost: whether a commit
    was heard nobody can tell then.
    """

    def __init__(self, connection: Connection, opening: str | None) -> None:
        self._connection = connection
        self._dialect = connection.dialect
        self._opening = opening
        self._driver = t.cast(psycopg.Connection[t.Any], connection.connection.driver_connection)

    def exchange(self, asked: Sequence[Asked]) -> list[list[t.Any]]:
        """The rows of each of *asked*; none of what reads nothing."""
        try:
            return self._exchange(asked)
        except psycopg.Error as error:
            raise self._translated(error) from error

    def commit(self, asked: Sequence[Asked]) -> None:
        """Send *asked* and make everything last."""
        idle = self._driver.pgconn.transaction_status == TransactionStatus.IDLE
        if self._opening is None or (idle and not asked):
            self.exchange(asked)
            return
        try:
            with self._driver.pipeline():
                self._send(asked)
                end = self._driver.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            raise self._translated(error) from error
        if end.statusmessage != "COMMIT":
            # PostgreSQL's only word about the commit of a transaction that had failed before.
            raise RuntimeError(f"the commit was a {end.statusmessage}")

    def _exchange(self, asked: Sequence[Asked]) -> list[list[t.Any]]:
        if not asked:
            return []
        idle = self._driver.pgconn.transaction_status == TransactionStatus.IDLE
        if len(asked) == 1 and not (self._opening and idle):
            sent = self._send(asked)
        else:
            with self._driver.pipeline():
                sent = self._send(asked)
        return [
            statement.text(self._dialect, row).rows(cursor.fetchall()) if statement.reads else []
            for (statement, row), cursor in zip(asked, sent, strict=True)
        ]

    def _send(self, asked: Sequence[Asked]) -> list[psycopg.Cursor[t.Any]]:
        driver, dialect = self._driver, self._dialect
        if self._opening and driver.pgconn.transaction_status == TransactionStatus.IDLE:
            driver.execute(self._opening, prepare=False)
        writer = driver.cursor()
        sent = []
        for statement, row in asked:
            text = statement.text(dialect, row)
            cursor = driver.cursor(row_factory=namedtuple_row) if statement.reads else writer
            sent.append(cursor.execute(text.sql, text.values(row)))
        return sent

    def _translated(self, error: psycopg.Error) -> Exception:
        if self._driver.closed:
            self._connection.invalidate(error)
            return DatabaseUnavailable()
        return DBAPIError.instance(
            None, None, error, psycopg.Error, hide_parameters=True, dialect=self._dialect
        )
