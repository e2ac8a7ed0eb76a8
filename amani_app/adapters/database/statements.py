"""What one unit of work says to the database, in as few round trips as it can."""

from __future__ import annotations

import contextlib
import typing as t

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.exc import DBAPIError, IntegrityError

from amani_app.domain.errors import AlreadySettled, DomainError, InsufficientFunds
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.store import AlreadyBooked

Row = t.Mapping[str, t.Any]

REFUSALS: t.Mapping[str, tuple[type[DomainError], str]] = {
    "ck_accounts_available": (InsufficientFunds, "the account holds less"),
    "ck_accounts_reserved": (AlreadySettled, "the pending transfer was settled before"),
    "uq_transfers_pending_id": (AlreadySettled, "the pending transfer was settled before"),
    "uq_transfers_reference_reason_kind": (AlreadyBooked, "it is in the ledger already"),
    # SQLite names the columns of a unique constraint, not the constraint.
    "transfers.pending_id": (AlreadySettled, "the pending transfer was settled before"),
    "transfers.reference,": (AlreadyBooked, "it is in the ledger already"),
}
"""What a constraint that refuses a row means to those who asked for it."""


class Statements:
    """The statements of one transaction on *connection*.

    What nobody needs an answer to is put off, and sent together with the commit: on PostgreSQL all
    of it in one round trip (libpq's pipeline mode), so that the rows it locks are locked while the
    database works, and not while Python does. A refusal comes then, and undoes everything.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        self._put_off: list[tuple[Executable, Row]] = []
        self._begun = False

    def now(self, statement: Executable, row: Row | t.Sequence[Row] = ()) -> CursorResult[t.Any]:
        """Send everything put off, then *statement*, and wait for its result."""
        self._send()
        self._begun = True
        # An empty tuple, unlike None, would be a list of no rows.
        return self.connection.execute(statement, row or None)

    def later(self, statement: Executable, row: Row) -> None:
        """Send *statement* at the latest with the commit."""
        self._put_off.append((statement, row))

    def commit(self) -> None:
        """Send everything put off, and make it last."""
        # Psycopg does not commit in a pipeline what has not begun before it.
        if self.dialect == "postgresql" and self._begun and self._put_off:
            driver: t.Any = self.connection.connection.driver_connection
            try:
                with driver.pipeline():
                    self._send()
                    self.connection.commit()
            except DBAPIError:
                # SQLAlchemy takes a commit that failed for the end of the transaction.
                with contextlib.suppress(type(driver).Error):
                    driver.rollback()
                raise
            except type(driver).Error as error:
                # From the pipeline's own begin or end, which SQLAlchemy does not see: the
                # connection is lost, and whether the commit was heard nobody can tell.
                self.connection.invalidate(error)
                raise DatabaseUnavailable from error
        else:
            self._send()
            self.connection.commit()

    def _send(self) -> None:
        sending, self._put_off = self._put_off, []
        for statement, row in sending:
            self.connection.execute(statement, row)


def refusal(error: IntegrityError) -> DomainError | None:
    """What *error* means in the terms of the ports, if anything."""
    # The first line has the constraint's name; those after it, people's own words.
    words = str(error.orig).partition("\n")[0]
    for name, (kind, meaning) in REFUSALS.items():
        if name in words:
            return kind(meaning)
    return None
