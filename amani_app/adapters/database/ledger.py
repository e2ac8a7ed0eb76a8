"""The ledger's books in the database."""

from __future__ import annotations

import typing as t
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from amani_app.adapters.database.queues import insert_for
from amani_app.adapters.database.tables import accounts, entries, transfers
from amani_app.domain.errors import AlreadySettled, InsufficientFunds
from amani_app.domain.ledger import Account, AccountKind, Balance, Pending, Transaction
from amani_app.domain.money import Money
from amani_app.ports.store import AlreadyBooked, Line


class DatabaseLedger:
    """See ``ports.store.Ledger``.

    House accounts have no stored balance: the only rows that two transactions can queue at are
    those of the people concerned, locked by updating them in the order of their ids.
    """

    def __init__(self, connection: Connection, now: t.Callable[[], datetime]) -> None:
        self._run = connection.execute
        self._scalar = connection.scalar
        self._insert = insert_for(connection)
        self._now = now

    def book(self, transaction: Transaction) -> None:
        """Accounts, balances in order, entries, and last the transfer that seals them."""
        self._open(entry.account for entry in transaction.entries)
        settled = transaction.settles and self.pending(transaction.settles)
        rows = []
        for entry in sorted(transaction.entries, key=lambda entry: entry.account.id):
            row: dict[str, t.Any] = {
                "transfer_id": transaction.id,
                "account_id": entry.account.id,
                "currency": entry.amount.currency,
                "amount": entry.amount.minor,
                "balance_after": None,
                "version": None,
            }
            if entry.account.kind.guarded:
                frees = settled if settled and settled.account == entry.account else None
                row["balance_after"], row["version"] = self._change(
                    entry.account,
                    posted=entry.amount.minor,
                    reserved=-frees.amount.minor if frees else 0,
                    settles=transaction.settles,
                )
            rows.append(row)
        self._run(insert(entries), rows)
        kind = "post" if transaction.settles else "direct"
        self._write(kind, transaction.id, transaction.reason, transaction.reference,
                    pending_id=transaction.settles)  # fmt: skip

    def reserve(self, pending: Pending) -> None:
        """The amount goes from available to reserved; no entry is written."""
        self._open([pending.account])
        amount = pending.amount.minor
        self._change(pending.account, posted=0, reserved=amount)
        self._write("pending", pending.id, pending.reason, pending.reference,
                    account_id=pending.account.id, amount=amount)  # fmt: skip

    def void(self, id: str, pending: str) -> None:
        """The amount goes back to available; no entry is written."""
        found = self.pending(pending)
        self._change(found.account, posted=0, reserved=-found.amount.minor, settles=pending)
        self._write("void", id, found.reason, found.reference, pending_id=pending)

    def pending(self, id: str) -> Pending:
        """Read with its account."""
        joined = transfers.join(accounts, accounts.c.id == transfers.c.account_id)
        wanted = (transfers.c.id == id) & (transfers.c.kind == "pending")
        row = self._run(
            select(transfers, accounts.c.kind.label("account_kind"), accounts.c.owner,
                   accounts.c.currency).select_from(joined).where(wanted)
        ).first()  # fmt: skip
        if row is None:
            raise KeyError(id)
        account = Account(AccountKind(row.account_kind), row.currency, row.owner)
        return Pending(id, row.reason, row.reference, account, Money(row.amount, row.currency))

    def balance(self, account: Account) -> Balance:
        """The stored one."""
        row = self._run(
            select(accounts.c.posted, accounts.c.reserved).where(accounts.c.id == account.id)
        ).first()
        posted, reserved = (row.posted, row.reserved) if row else (0, 0)
        return Balance(Money(posted, account.currency), Money(reserved, account.currency))

    def total(self, account: Account) -> Money:
        """Summed up from the entries."""
        wanted = entries.c.account_id == account.id
        found = self._scalar(select(func.sum(entries.c.amount)).where(wanted))
        return Money(int(found or 0), account.currency)

    def lines(self, account: Account, before: int | None, limit: int) -> list[Line]:
        """One statement along the index of the account."""
        joined = entries.join(transfers, transfers.c.id == entries.c.transfer_id)
        query = (
            select(entries, transfers.c.reason, transfers.c.reference, transfers.c.at)
            .select_from(joined)
            .where(entries.c.account_id == account.id)
            .order_by(entries.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(entries.c.id < before)
        return [
            Line(
                row.id,
                row.transfer_id,
                row.reason,
                row.reference,
                Money(row.amount, row.currency),
                Money(row.balance_after, row.currency),
                row.at,
            )
            for row in self._run(query)
        ]

    def wallets(self, owner: str) -> list[tuple[Account, Balance]]:
        """One statement."""
        mine = (accounts.c.owner == owner) & (accounts.c.kind == AccountKind.WALLET.value)
        return [
            (
                Account(AccountKind.WALLET, row.currency, row.owner),
                Balance(Money(row.posted, row.currency), Money(row.reserved, row.currency)),
            )
            for row in self._run(select(accounts).where(mine).order_by(accounts.c.id))
        ]

    def differences(self) -> list[str]:
        """Sums, stored balances and reservations, each computed again from the rows."""
        return [row.what for query in _CHECKS for row in self._run(text(query))]

    def _open(self, wanted: t.Iterable[Account]) -> None:
        rows = [
            {
                "id": account.id,
                "kind": account.kind.value,
                "owner": account.owner,
                "currency": account.currency,
                **dict.fromkeys(
                    ("posted", "reserved", "version"), 0 if account.kind.guarded else None
                ),
            }
            for account in sorted(wanted, key=lambda account: account.id)
        ]
        # Not values(rows): that statement would be compiled anew each time.
        self._run(self._insert(accounts).on_conflict_do_nothing(), rows)

    def _change(
        self, account: Account, posted: int, reserved: int, settles: str | None = None
    ) -> tuple[int, int]:
        """Change a guarded balance; the balance and the version after it."""
        c = accounts.c
        moved = 1 if posted else 0
        row = self._run(
            update(accounts)
            .where(c.id == account.id, c.posted - c.reserved + (posted - reserved) >= 0)
            .where(c.reserved + reserved >= 0)
            .values(
                posted=c.posted + posted,
                reserved=c.reserved + reserved,
                version=c.version + moved,
            )
            .returning(c.posted, c.version)
        ).first()
        if row is None:
            if settles and self._scalar(select(1).where(transfers.c.pending_id == settles)):
                raise AlreadySettled(f"the pending transfer {settles} was settled before")
            raise InsufficientFunds(f"{account.id} holds less")
        return row.posted, row.version

    def _write(self, kind: str, id: str, reason: str, reference: str, **more: t.Any) -> None:
        try:
            self._run(
                insert(transfers).values(
                    id=id, kind=kind, reason=reason, reference=reference, at=self._now(), **more
                )
            )
        except IntegrityError as error:
            if kind in ("post", "void"):
                raise AlreadySettled(f"{reason} {reference} was settled before") from error
            if "reference" in str(error.orig):
                raise AlreadyBooked(f"{reason} {reference} is in the ledger already") from error
            raise


_CHECKS = (
    """SELECT currency || ': the entries sum to ' || sum(amount) AS what
       FROM entries GROUP BY currency HAVING sum(amount) <> 0""",
    """SELECT 'transfer ' || transfer_id || ': the entries sum to ' || sum(amount) AS what
       FROM entries GROUP BY transfer_id, currency HAVING sum(amount) <> 0""",
    """SELECT a.id || ': holds ' || a.posted || ', the entries sum to '
              || coalesce(sum(e.amount), 0) AS what
       FROM accounts a LEFT JOIN entries e ON e.account_id = a.id
       WHERE a.posted IS NOT NULL
       GROUP BY a.id, a.posted, a.version
       HAVING a.posted <> coalesce(sum(e.amount), 0) OR a.version <> count(e.id)""",
    """SELECT a.id || ': reserves ' || a.reserved || ', the open transfers sum to '
              || coalesce(sum(p.amount), 0) AS what
       FROM accounts a
       LEFT JOIN transfers p ON p.account_id = a.id AND p.kind = 'pending'
            AND NOT EXISTS (SELECT 1 FROM transfers s WHERE s.pending_id = p.id)
       WHERE a.reserved IS NOT NULL
       GROUP BY a.id, a.reserved HAVING a.reserved <> coalesce(sum(p.amount), 0)""",
    """SELECT 'milestone ' || m.id || ' is ' || m.state || ', its hold has '
              || coalesce(a.posted, 0) AS what
       FROM milestones m LEFT JOIN accounts a ON a.kind = 'hold' AND a.owner = m.id
       WHERE coalesce(a.posted, 0) <> CASE
           WHEN m.state IN ('funded', 'submitted', 'changes-requested', 'disputed')
           THEN m.amount ELSE 0 END""",
    """SELECT 'withdrawal ' || w.id || ' is ' || w.state || ', its reservation is '
              || coalesce(s.kind, 'open') AS what
       FROM withdrawals w LEFT JOIN transfers s ON s.pending_id = w.id
       WHERE coalesce(s.kind, 'open') <> CASE w.state
           WHEN 'paid' THEN 'post' WHEN 'failed' THEN 'void' ELSE 'open' END""",
    """SELECT 'deposit ' || d.id || ' is ' || d.state || ', and has '
              || count(t.id) || ' transfers' AS what
       FROM deposits d LEFT JOIN transfers t
            ON t.reference = d.id AND t.reason IN ('deposit', 'unattributed')
       GROUP BY d.id, d.state
       HAVING count(t.id) <> CASE WHEN d.state IN ('credited', 'suspended') THEN 1 ELSE 0 END""",
)
