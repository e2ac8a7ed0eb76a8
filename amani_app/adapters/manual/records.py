"""The operator's records: requested transfers, and lines of the bank's statement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from amani_app.domain.money import Money
from amani_app.domain.payments import Destination
from amani_app.ports.payments import PaymentOutcome

_metadata = MetaData()
_requests = Table(
    "transfer_requests",
    _metadata,
    Column("reference", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("amount", BigInteger(), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("fee", BigInteger(), nullable=False, server_default="0"),
    Column("reason", String(200), nullable=False, server_default=""),
    Column("bank_code", String(16), nullable=False, server_default=""),
    Column("account_number", String(32), nullable=False, server_default=""),
    Column("account_name", String(200), nullable=False, server_default=""),
)
_lines = Table(
    "statement_lines",
    _metadata,
    Column("line", String(32), primary_key=True),
    Column("reference", String(64), nullable=False, index=True),
    Column("amount", BigInteger(), nullable=False),
    Column("currency", String(3), nullable=False),
)


class AlreadyRecorded(ValueError):
    """The reference or the line of the statement is in the records."""


@dataclass(frozen=True)
class TransferRequest:
    """A deposit (`in`) or a payout (`out`); `to` is the payout's destination."""

    reference: str
    kind: Literal["in", "out"]
    amount: Money
    to: Destination | None = None
    outcome: PaymentOutcome = PaymentOutcome.WAITING
    fee: int = 0
    """Minor units that the bank charges for a payout, beside the amount."""
    reason: str = ""


class TransferRecords:
    """Two tables in a database of their own; created on first use.

    Raises `sqlalchemy.exc.SQLAlchemyError` if the database is unreachable.
    """

    def __init__(self, url: str) -> None:
        # No pool: this is used seldom, and no connection may survive a fork.
        self._engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
        self._created = False

    def add(self, request: TransferRequest) -> None:
        """Record `request`. Raises `AlreadyRecorded` if its reference was used before."""
        to = request.to
        row = {
            "reference": request.reference,
            "kind": request.kind,
            "amount": request.amount.minor,
            "currency": request.amount.currency,
            "outcome": request.outcome.value,
            "bank_code": to.bank_code if to else "",
            "account_number": to.account_number if to else "",
            "account_name": to.account_name if to else "",
        }
        with self._begin() as connection:
            _insert_once(connection, _requests, row, f"the reference {request.reference}")

    def get(self, reference: str) -> TransferRequest | None:
        with self._begin() as connection:
            wanted = _requests.c.reference == reference
            row = connection.execute(select(_requests).where(wanted)).first()
            return _request(row) if row else None

    def waiting(self) -> list[TransferRequest]:
        """All requests without a final outcome, oldest first (references grow with time)."""
        with self._begin() as connection:
            wanted = _requests.c.outcome == PaymentOutcome.WAITING.value
            query = select(_requests).where(wanted).order_by(_requests.c.reference)
            return [_request(row) for row in connection.execute(query)]

    def receive(self, line: str, reference: str, amount: Money) -> None:
        """Record that `amount` arrived with `reference`; `line` names the line of the statement.

        Raises `AlreadyRecorded` for a line that was recorded before.
        """
        row: dict[str, Any] = {"line": line, "reference": reference}
        row |= {"amount": amount.minor, "currency": amount.currency}
        with self._begin() as connection:
            _insert_once(connection, _lines, row, f"the line {line}")
            done = {"outcome": PaymentOutcome.SUCCESSFUL.value}
            mine = (_requests.c.reference == reference) & (_requests.c.kind == "in")
            connection.execute(update(_requests).where(mine).values(**done))

    def finish(
        self, reference: str, outcome: PaymentOutcome, fee: int = 0, reason: str = ""
    ) -> None:
        """Record the outcome of a request. Raises `KeyError` if there is none."""
        values = {"outcome": outcome.value, "fee": fee, "reason": reason[:200]}
        with self._begin() as connection:
            mine = update(_requests).where(_requests.c.reference == reference)
            if not connection.execute(mine.values(**values)).rowcount:
                raise KeyError(reference)

    def received(self, reference: str) -> list[Money]:
        """The money that arrived with `reference`: one sum for each currency."""
        with self._begin() as connection:
            query = select(_lines.c.currency, func.sum(_lines.c.amount))
            query = query.where(_lines.c.reference == reference).group_by(_lines.c.currency)
            return [Money(int(total), currency) for currency, total in connection.execute(query)]

    def balance(self, currency: str) -> Money:
        """The money that arrived, less successful payouts and their fees."""
        out = (_requests.c.kind == "out") & (_requests.c.outcome == PaymentOutcome.SUCCESSFUL.value)
        queries = (
            select(func.sum(_lines.c.amount)).where(_lines.c.currency == currency),
            select(func.sum(_requests.c.amount + _requests.c.fee)).where(
                out, _requests.c.currency == currency
            ),
        )
        with self._begin() as connection:
            came, went = (int(connection.scalar(query) or 0) for query in queries)
            return Money(came - went, currency)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if not self._created:
                for table in _metadata.sorted_tables:
                    connection.execute(CreateTable(table, if_not_exists=True))
                self._created = True
            yield connection


def _insert_once(connection: Connection, table: Table, row: Mapping[str, Any], what: str) -> None:
    try:
        connection.execute(insert(table).values(**row))
    except IntegrityError:
        raise AlreadyRecorded(f"{what} was recorded before") from None


def _request(row: Any) -> TransferRequest:
    to = Destination(row.bank_code, row.account_number, row.account_name)
    return TransferRequest(
        row.reference,
        row.kind,
        Money(row.amount, row.currency),
        to if row.kind == "out" else None,
        PaymentOutcome(row.outcome),
        row.fee,
        row.reason,
    )
