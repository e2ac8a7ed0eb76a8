"""Deposits and withdrawals in the database."""

from __future__ import annotations

from typing import Any
from datetime import datetime

from sqlalchemy import Row, insert, select, update

from amani_app.adapters.database.queues import claim_row
from amani_app.adapters.database.statements import Statements
from amani_app.adapters.database.tables import deposits, withdrawals
from amani_app.domain.money import Money
from amani_app.domain.payments import (
    CORRECTIONS,
    Deposit,
    DepositState,
    Destination,
    Withdrawal,
    WithdrawalState,
)


class DatabaseDeposits:
    """Deposits in one table; `claim` skips rows that another worker has locked."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._run = statements.now

    def add(self, deposit: Deposit, due: datetime | None) -> None:
        self._run(insert(deposits).values(**_deposit_row(deposit), due_at=due))

    def get(self, id: str, lock: bool = False) -> Deposit:
        query = select(deposits).where(deposits.c.id == id)
        row = self._run(query.with_for_update() if lock else query).first()
        if row is None:
            raise KeyError(id)
        return _deposit(row)

    def save(self, deposit: Deposit, due: datetime | None) -> None:
        mine = update(deposits).where(deposits.c.id == deposit.id)
        self._run(mine.values(**_deposit_row(deposit), due_at=due))

    def of(self, owner: str, before: str | None, limit: int) -> list[Deposit]:
        """Uses the index on owner and id."""
        query = select(deposits).where(deposits.c.owner_id == owner)
        if before is not None:
            query = query.where(deposits.c.id < before)
        return list(map(_deposit, self._run(query.order_by(deposits.c.id.desc()).limit(limit))))

    def claim(self, now: datetime, until: datetime) -> tuple[Deposit, int] | None:
        """Uses the index on due time and id."""
        row = claim_row(self._statements, deposits, until, deposits.c.due_at <= now)
        return (_deposit(row), row.attempts) if row else None

    def waiting(self) -> list[Deposit]:
        """Pending deposits that have a due time."""
        wanted = deposits.c.due_at.is_not(None) & (deposits.c.state == DepositState.PENDING.value)
        return list(map(_deposit, self._run(select(deposits).where(wanted))))


class DatabaseWithdrawals:
    """Withdrawals in one table; a corrected one keeps its first outcome and a flag."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._run = statements.now

    def add(self, withdrawal: Withdrawal) -> None:
        """The row has no due time until its event is delivered."""
        self._run(insert(withdrawals).values(**_withdrawal_row(withdrawal)))

    def get(self, id: str, lock: bool = False) -> Withdrawal:
        query = select(withdrawals).where(withdrawals.c.id == id)
        row = self._run(query.with_for_update() if lock else query).first()
        if row is None:
            raise KeyError(id)
        return _withdrawal(row)

    def save(self, withdrawal: Withdrawal, due: datetime | None) -> None:
        mine = update(withdrawals).where(withdrawals.c.id == withdrawal.id)
        self._run(mine.values(**_withdrawal_row(withdrawal), due_at=due))

    def of(self, owner: str, before: str | None, limit: int) -> list[Withdrawal]:
        """Uses the index on owner and id."""
        query = select(withdrawals).where(withdrawals.c.owner_id == owner)
        if before is not None:
            query = query.where(withdrawals.c.id < before)
        query = query.order_by(withdrawals.c.id.desc()).limit(limit)
        return list(map(_withdrawal, self._run(query)))

    def claim(self, now: datetime, until: datetime) -> tuple[Withdrawal, int] | None:
        """Uses the index on due time and id."""
        row = claim_row(self._statements, withdrawals, until, withdrawals.c.due_at <= now)
        return (_withdrawal(row), row.attempts) if row else None

    def waiting(self) -> list[Withdrawal]:
        """Withdrawals that have a due time."""
        wanted = withdrawals.c.due_at.is_not(None)
        return list(map(_withdrawal, self._run(select(withdrawals).where(wanted))))


def _deposit_row(deposit: Deposit) -> dict[str, Any]:
    return {
        "id": deposit.id,
        "owner_id": deposit.owner,
        "currency": deposit.asked.currency,
        "asked": deposit.asked.minor,
        "received": deposit.received.minor if deposit.received else None,
        "state": deposit.state.value,
        "link": deposit.link,
        "created_at": deposit.created_at,
    }


def _deposit(row: Row[Any]) -> Deposit:
    return Deposit(
        id=row.id,
        owner=row.owner_id,
        asked=Money(row.asked, row.currency),
        created_at=row.created_at,
        state=DepositState(row.state),
        link=row.link,
        received=None if row.received is None else Money(row.received, row.currency),
    )


def _withdrawal_row(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "id": withdrawal.id,
        "owner_id": withdrawal.owner,
        "currency": withdrawal.amount.currency,
        "amount": withdrawal.amount.minor,
        "bank_code": withdrawal.to.bank_code,
        "account_number": withdrawal.to.account_number,
        "account_name": withdrawal.to.account_name,
        "state": _SETTLED.get(withdrawal.state, withdrawal.state).value,
        "corrected": withdrawal.state.corrected,
        "doubted_at": withdrawal.doubted_at,
        "failure": withdrawal.failure,
        "created_at": withdrawal.created_at,
    }


_SETTLED = {after: before for before, after in CORRECTIONS.items()}
"""The state that is stored, so that releases without corrections can read the row."""


def _withdrawal(row: Row[Any]) -> Withdrawal:
    state = WithdrawalState(row.state)
    return Withdrawal(
        id=row.id,
        owner=row.owner_id,
        amount=Money(row.amount, row.currency),
        to=Destination(row.bank_code, row.account_number, row.account_name),
        created_at=row.created_at,
        state=CORRECTIONS[state] if row.corrected else state,
        doubted_at=row.doubted_at,
        failure=row.failure,
    )
