"""What one unit of work says to the database, in as few round trips as it can."""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.exc import IntegrityError

from amani_app.adapters.database.engine import opening
from amani_app.adapters.database.prepared import PreparedCall, Prepared, Row
from amani_app.domain.errors import AlreadySettled, DomainError, InsufficientFunds
from amani_app.ports.store import AlreadyBooked

if t.TYPE_CHECKING:
    from amani_app.adapters.database.wire import LibpqPipeline

REFUSALS: t.Mapping[str, tuple[type[DomainError], str]] = {
    "ck_accounts_available": (InsufficientFunds, "the account holds less"),
    "fk_entries_account_id_accounts": (InsufficientFunds, "the account was never used"),
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
        self._put_off: list[PreparedCall] = []
        self._foreseen: list[PreparedCall] = []
        self._told: dict[Prepared, tuple[Row, t.Sequence[t.Any]]] = {}
        self._wire: LibpqPipeline | None = None
        if self.dialect == "postgresql":
            # The driver of a database that is not in use is not loaded.
            from amani_app.adapters.database import wire

            self._wire = wire.LibpqPipeline(connection, opening(connection))

    def now(self, statement: Executable, row: Row | t.Sequence[Row] = ()) -> CursorResult[t.Any]:
        """Send everything put off, then *statement*, and wait for its result."""
        self._send()
        # An empty tuple, unlike None, would be a list of no rows.
        return self.connection.execute(statement, row or None)

    def foresee(self, *asked: PreparedCall) -> None:
        """Ask *asked* ahead of what is asked next, where that saves a round trip."""
        if self._wire:
            self._foreseen += asked

    def ask(self, *asked: PreparedCall) -> list[t.Sequence[t.Any]]:
        """Send everything put off, then *asked*, and wait for the rows of each of them.

        What was foreseen and has been told meanwhile is not asked again.
        """
        if self._wire is None:
            self._send()
            return [self.connection.execute(each.statement, row).all() for each, row in asked]
        if all(self._told.get(each, (None, ()))[0] == row for each, row in asked):
            return [self._told.pop(each)[1] for each, _ in asked]
        put_off, foreseen = self._put_off, [each for each in self._foreseen if each not in asked]
        self._put_off, self._foreseen = [], []
        found = self._wire.exchange([*put_off, *foreseen, *asked])
        answers = iter(found[len(put_off) :])
        self._told |= {each: (row, next(answers)) for each, row in foreseen}
        return list(answers)

    def later(self, statement: Prepared, row: Row) -> None:
        """Send *statement* at the latest with the commit."""
        self._put_off.append((statement, row))

    def commit(self) -> None:
        """Send everything put off, and make it last."""
        if self._wire:
            sending, self._put_off = self._put_off, []
            self._wire.commit(sending)
        else:
            self._send()
            self.connection.commit()

    def _send(self) -> None:
        sending, self._put_off = self._put_off, []
        if self._wire:
            self._wire.exchange(sending)
            return
        for statement, row in sending:
            self.connection.execute(statement.statement, row)


def refusal(error: IntegrityError) -> DomainError | None:
    """What *error* means in the terms of the ports, if anything."""
    # The first line has the constraint's name; those after it, people's own words.
    words = str(error.orig).partition("\n")[0]
    for name, (kind, meaning) in REFUSALS.items():
        if name in words:
            return kind(meaning)
    return None
