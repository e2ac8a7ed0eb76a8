"""The statements of one unit of work, in as few round trips as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TYPE_CHECKING

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.exc import IntegrityError

from amani_app.adapters.database.engine import opening
from amani_app.adapters.database.prepared import PreparedCall, Prepared, Row
from amani_app.domain.errors import AlreadySettled, DomainError, InsufficientFunds
from amani_app.ports.store import AlreadyBooked

if TYPE_CHECKING:
    from amani_app.adapters.database.wire import LibpqPipeline

REFUSALS: Mapping[str, tuple[type[DomainError], str]] = {
    "ck_accounts_available": (InsufficientFunds, "the available balance is too low"),
    "fk_entries_account_id_accounts": (InsufficientFunds, "the account was never used"),
    "ck_accounts_reserved": (AlreadySettled, "the pending transfer has been settled before"),
    "uq_transfers_pending_id": (AlreadySettled, "the pending transfer has been settled before"),
    "uq_transfers_reference_reason_kind": (AlreadyBooked, "it is already in the ledger"),
    # SQLite names the columns of a unique constraint, not the constraint.
    "transfers.pending_id": (AlreadySettled, "the pending transfer has been settled before"),
    "transfers.reference,": (AlreadyBooked, "it is already in the ledger"),
}
"""The domain error of each constraint that may refuse a row."""


class Statements:
    """The statements of one transaction on `connection`.

    Statements without a result are deferred and sent together with the commit. On PostgreSQL that
    is one round trip (libpq's pipeline mode), so that rows are locked while the database works and
    not while Python does. A constraint violation is raised then, and rolls everything back.
    Without `pipeline`, each statement goes through SQLAlchemy.
    """

    def __init__(self, connection: Connection, pipeline: bool = True) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        self._put_off: list[PreparedCall] = []
        self._foreseen: list[PreparedCall] = []
        self._received: dict[Prepared, tuple[Row, Sequence[Any]]] = {}
        self._wire: LibpqPipeline | None = None
        if pipeline and self.dialect == "postgresql":
            # Imported only if PostgreSQL is used.
            from amani_app.adapters.database import wire

            self._wire = wire.LibpqPipeline(connection, opening(connection))

    def now(self, statement: Executable, row: Row | Sequence[Row] = ()) -> CursorResult[Any]:
        """Send the deferred statements, then `statement`, and return its result."""
        self._send()
        # SQLAlchemy reads an empty tuple as a list without rows.
        return self.connection.execute(statement, row or None)

    def foresee(self, *asked: PreparedCall) -> None:
        """Send `asked` together with the next query, if that saves a round trip."""
        if self._wire:
            self._foreseen += asked

    def ask(self, *asked: PreparedCall) -> list[Sequence[Any]]:
        """Send the deferred statements, then `asked`, and return the rows of each of them.

        Statements whose rows came ahead with `foresee` are not sent again.
        """
        if self._wire is None:
            self._send()
            return [self.connection.execute(each.statement, row).all() for each, row in asked]
        if all(self._received.get(each, (None, ()))[0] == row for each, row in asked):
            return [self._received.pop(each)[1] for each, _ in asked]
        put_off, foreseen = self._put_off, [each for each in self._foreseen if each not in asked]
        self._put_off, self._foreseen = [], []
        found = self._wire.exchange([*put_off, *foreseen, *asked])
        answers = iter(found[len(put_off) :])
        self._received |= {each: (row, next(answers)) for each, row in foreseen}
        return list(answers)

    def later(self, statement: Prepared, row: Row) -> None:
        """Defer `statement`, at most until the commit."""
        self._put_off.append((statement, row))

    def commit(self) -> None:
        """Send the deferred statements and commit."""
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
    """The domain error that `error` means, or `None`."""
    # Only the first line: the next ones contain values.
    first_line = str(error.orig).partition("\n")[0]
    for name, (kind, meaning) in REFUSALS.items():
        if name in first_line:
            return kind(meaning)
    return None
