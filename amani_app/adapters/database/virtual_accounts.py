"""Virtual accounts in the database."""

from __future__ import annotations

from typing import Any
from datetime import datetime

from sqlalchemy import Row, insert, select, update

from amani_app.adapters.database.queues import claim_row
from amani_app.adapters.database.statements import Statements
from amani_app.adapters.database.tables import virtual_accounts
from amani_app.domain.payments import AccountState, VirtualAccount

_ALL, _C = select(virtual_accounts), virtual_accounts.c


class DatabaseVirtualAccounts:
    """Virtual accounts in one table, with indexes on the provider's id and the number."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._run = statements.now

    def add(self, account: VirtualAccount, due: datetime | None) -> None:
        self._run(insert(virtual_accounts).values(**_row(account), due_at=due))

    def get(self, id: str, lock: bool = False) -> VirtualAccount:
        query = _ALL.where(_C.id == id)
        row = self._run(query.with_for_update() if lock else query).first()
        if row is None:
            raise KeyError(id)
        return _account(row)

    def save(self, account: VirtualAccount, due: datetime | None) -> None:
        mine = update(virtual_accounts).where(_C.id == account.id)
        self._run(mine.values(**_row(account), due_at=due))

    def of(self, owner: str, before: str | None, limit: int) -> list[VirtualAccount]:
        """Uses the index on owner and id."""
        query = _ALL.where(_C.owner_id == owner)
        if before is not None:
            query = query.where(_C.id < before)
        return list(map(_account, self._run(query.order_by(_C.id.desc()).limit(limit))))

    def claim(self, now: datetime, until: datetime) -> tuple[VirtualAccount, int] | None:
        """Uses the index on due time and id."""
        row = claim_row(self._statements, virtual_accounts, until, _C.due_at <= now)
        return (_account(row), row.attempts) if row else None

    def named(self, provider_id: str) -> VirtualAccount | None:
        row = self._run(_ALL.where(_C.provider_id == provider_id).order_by(_C.id)).first()
        return _account(row) if row else None

    def active(self, account_number: str, currency: str) -> VirtualAccount | None:
        """Uses the index on the account number."""
        mine = (_C.account_number == account_number) & (_C.currency == currency)
        rows = self._run(_ALL.where(mine, _C.state == AccountState.ACTIVE.value).limit(2)).all()
        return _account(rows[0]) if len(rows) == 1 else None

    def issued(self) -> list[VirtualAccount]:
        return list(map(_account, self._run(_ALL.where(_C.account_number != ""))))


def _row(account: VirtualAccount) -> dict[str, Any]:
    return {
        "id": account.id,
        "owner_id": account.owner,
        "currency": account.currency,
        "state": account.state.value,
        "provider_id": account.provider_id,
        "bank_name": account.bank_name,
        "account_number": account.account_number,
        "account_name": account.account_name,
        "failure": account.failure,
        "created_at": account.created_at,
    }


def _account(row: Row[Any]) -> VirtualAccount:
    return VirtualAccount(
        id=row.id,
        owner=row.owner_id,
        currency=row.currency,
        created_at=row.created_at,
        state=AccountState(row.state),
        provider_id=row.provider_id,
        bank_name=row.bank_name,
        account_number=row.account_number,
        account_name=row.account_name,
        failure=row.failure,
    )
