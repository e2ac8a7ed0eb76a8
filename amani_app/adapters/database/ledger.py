"""The ledger in the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from datetime import datetime
from functools import cache

from sqlalchemy import Integer, bindparam, exists, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from amani_app.adapters.database.prepared import Prepared
from amani_app.adapters.database.queues import insert_for
from amani_app.adapters.database.statements import Statements
from amani_app.adapters.database.tables import accounts, entries, transfers
from amani_app.domain.errors import AlreadySettled
from amani_app.domain.ledger import (
    ATTRIBUTED,
    Account,
    AccountKind,
    Balance,
    PendingTransfer,
    Transaction,
)
from amani_app.domain.money import Money
from amani_app.ports.store import LedgerLine, SuspenseItem

_ACCOUNT = bindparam("account", type_=accounts.c.id.type)
_MOVE = Prepared(
    update(accounts)
    .where(accounts.c.id == _ACCOUNT)
    .values(
        posted=accounts.c.posted + bindparam("by"),
        reserved=accounts.c.reserved + bindparam("reserving"),
        version=accounts.c.version + bindparam("moves"),
    )
)
"""The table's constraints refuse an overdraft."""

_TRANSFER = Prepared(insert(transfers))


@cache
def _opening(dialect: str, crediting: bool) -> Prepared:
    """Open an account unless it exists; with `crediting`, add the row's balance to an existing
    one."""
    made = insert_for(dialect)(accounts)
    if not crediting:
        return Prepared(made.on_conflict_do_nothing())
    c = accounts.c
    added = {"posted": c.posted + made.excluded.posted, "version": c.version + 1}
    return Prepared(made.on_conflict_do_update(index_elements=[c.id], set_=added))


@cache
def _entering(number: int) -> Prepared:
    """Insert `number` entries, whose values are named `..._0`, `..._1` and so on."""
    rows = []
    for n in range(number):
        account = bindparam(f"account_{n}", type_=accounts.c.id.type)
        its = accounts.c.id == account
        rows.append(
            {
                "transfer_id": bindparam("transfer"),
                "account_id": account,
                "currency": bindparam(f"of_{n}"),
                "amount": bindparam(f"by_{n}"),
                # The row is locked by now; of a house account both are null.
                "balance_after": select(accounts.c.posted).where(its).scalar_subquery(),
                "version": select(accounts.c.version).where(its).scalar_subquery(),
            }
        )
    return Prepared(insert(entries).inline().values(rows))  # no generated ids are read back


_WALLETS = Prepared(
    select(accounts)
    .where(accounts.c.owner == bindparam("owner"), accounts.c.kind == AccountKind.WALLET.value)
    .order_by(accounts.c.id)
)


_later = transfers.alias()
UNATTRIBUTED = (
    select(
        transfers.c.id,
        transfers.c.reason,
        transfers.c.reference,
        transfers.c.at,
        entries.c.amount,
        entries.c.currency,
    )
    .select_from(
        entries.join(accounts, accounts.c.id == entries.c.account_id).join(
            transfers, transfers.c.id == entries.c.transfer_id
        )
    )
    .where(
        accounts.c.kind == AccountKind.SUSPENSE.value,
        transfers.c.reason != ATTRIBUTED,
        ~exists().where(_later.c.reference == transfers.c.id, _later.c.reason == ATTRIBUTED),
    )
    .order_by(entries.c.id)
)
"""Items in suspense that are not attributed."""


@cache
def _page(further: bool) -> Prepared:
    """The newest entries of an account; with `further`, before an id."""
    query = (
        select(entries, transfers.c.reason, transfers.c.reference, transfers.c.at)
        .select_from(entries.join(transfers, transfers.c.id == entries.c.transfer_id))
        .where(entries.c.account_id == _ACCOUNT)
        .order_by(entries.c.id.desc())
        .limit(bindparam("most", type_=Integer()))
    )
    return Prepared(query.where(entries.c.id < bindparam("before")) if further else query)


class DatabaseLedger:
    """The ledger in three tables: accounts, transfers and entries.

    House accounts have no stored balance, so transactions only wait for the accounts of the same
    users. These are locked by updating them in the order of their ids.
    """

    def __init__(self, statements: Statements, now: Callable[[], datetime]) -> None:
        self._run = statements.now
        self._ask = statements.ask
        self._later = statements.later
        self._dialect = statements.dialect
        self._now = now

    def book(self, transaction: Transaction) -> None:
        """Writes balances in the order of the ids, then entries, and last the transfer that seals
        them."""
        settled = transaction.settles and self.pending(transaction.settles)
        in_order = sorted(transaction.entries, key=lambda entry: entry.account.id)
        for account, amount in ((entry.account, entry.amount.minor) for entry in in_order):
            frees = settled if settled and settled.account == account else None
            if account.kind.guarded and amount > 0 and not frees:
                self._open(account, amount)
                continue
            # On PostgreSQL a foreign key refuses the debit of an account that was never opened.
            if not account.kind.guarded or self._dialect != "postgresql":
                self._open(account)
            if account.kind.guarded:
                self._change(account, posted=amount, reserved=-frees.amount.minor if frees else 0)
        row: dict[str, Any] = {"transfer": transaction.id}
        for n, entry in enumerate(in_order):
            row[f"account_{n}"], row[f"of_{n}"] = entry.account.id, entry.amount.currency
            row[f"by_{n}"] = entry.amount.minor
        self._later(_entering(len(in_order)), row)
        kind = "post" if transaction.settles else "direct"
        self._write(kind, transaction.id, transaction.reason, transaction.reference,
                    pending_id=transaction.settles)  # fmt: skip

    def reserve(self, pending: PendingTransfer) -> None:
        """The amount goes from available to reserved; no entry is written."""
        self._open(pending.account)
        amount = pending.amount.minor
        self._change(pending.account, posted=0, reserved=amount)
        self._write("pending", pending.id, pending.reason, pending.reference,
                    account_id=pending.account.id, amount=amount)  # fmt: skip

    def void(self, id: str, pending: str) -> None:
        """The amount becomes available again; no entry is written."""
        found = self.pending(pending)
        self._change(found.account, posted=0, reserved=-found.amount.minor)
        self._write("void", id, found.reason, found.reference, pending_id=pending)

    def pending(self, id: str) -> PendingTransfer:
        joined = transfers.join(accounts, accounts.c.id == transfers.c.account_id)
        wanted = (transfers.c.id == id) & (transfers.c.kind == "pending")
        row = self._run(
            select(transfers, accounts.c.kind.label("account_kind"), accounts.c.owner,
                   accounts.c.currency).select_from(joined).where(wanted)
        ).first()  # fmt: skip
        if row is None:
            raise KeyError(id)
        account = Account(AccountKind(row.account_kind), row.currency, row.owner)
        return PendingTransfer(
            id, row.reason, row.reference, account, Money(row.amount, row.currency)
        )

    def balance(self, account: Account) -> Balance:
        row = self._run(
            select(accounts.c.posted, accounts.c.reserved).where(accounts.c.id == account.id)
        ).first()
        posted, reserved = (row.posted, row.reserved) if row else (0, 0)
        return Balance(Money(posted, account.currency), Money(reserved, account.currency))

    def total(self, account: Account) -> Money:
        wanted = entries.c.account_id == account.id
        found = self._run(select(func.sum(entries.c.amount)).where(wanted)).scalar()
        return Money(int(found or 0), account.currency)

    def lines(self, account: Account, before: int | None, limit: int) -> list[LedgerLine]:
        """One statement along the index of the account."""
        row = {"account": account.id, "most": limit}
        if before is not None:
            row["before"] = before
        (found,) = self._ask((_page(before is not None), row))
        return [
            LedgerLine(
                row.id,
                row.transfer_id,
                row.reason,
                row.reference,
                Money(row.amount, row.currency),
                Money(row.balance_after, row.currency),
                row.at,
            )
            for row in found
        ]

    def wallets(self, owner: str) -> list[tuple[Account, Balance]]:
        (found,) = self._ask((_WALLETS, {"owner": owner}))
        return [
            (
                Account(AccountKind.WALLET, row.currency, row.owner),
                Balance(Money(row.posted, row.currency), Money(row.reserved, row.currency)),
            )
            for row in found
        ]

    def booked(self, reason: str, references: Sequence[str]) -> set[str]:
        c = transfers.c
        wanted = (c.reference.in_(references)) & (c.reason == reason)
        return set(self._run(select(c.reference).where(wanted)).scalars())

    def unattributed(self) -> list[SuspenseItem]:
        return [
            SuspenseItem(row.id, row.reason, row.reference, Money(row.amount, row.currency), row.at)
            for row in self._run(UNATTRIBUTED)
        ]

    def differences(self) -> list[str]:
        """Sums, stored balances and reservations, each computed again from the rows."""
        return [row.what for query in _CHECKS for row in self._run(text(query))]

    def _open(self, account: Account, credit: int = 0) -> None:
        guarded = account.kind.guarded
        row = {
            "id": account.id,
            "kind": account.kind.value,
            "owner": account.owner,
            "currency": account.currency,
            "posted": credit if guarded else None,
            "reserved": 0 if guarded else None,
            "version": int(credit > 0) if guarded else None,
        }
        self._later(_opening(self._dialect, credit > 0), row)

    def _change(self, account: Account, posted: int, reserved: int) -> None:
        row = {"account": account.id, "by": posted, "reserving": reserved}
        self._later(_MOVE, {**row, "moves": 1 if posted else 0})

    def _write(
        self,
        kind: str,
        id: str,
        reason: str,
        reference: str,
        pending_id: str | None = None,
        account_id: str | None = None,
        amount: int | None = None,
    ) -> None:
        row = {
            "id": id,
            "kind": kind,
            "reason": reason,
            "reference": reference,
            "pending_id": pending_id,
            "account_id": account_id,
            "amount": amount,
            "at": self._now(),
        }
        if kind not in ("post", "void"):
            self._later(_TRANSFER, row)
            return
        try:
            self._run(_TRANSFER.statement, row)
        except IntegrityError as error:
            raise AlreadySettled(f"{reason} {reference} has been settled before") from error


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
    """SELECT 'withdrawal ' || w.id || ' was corrected ' || count(t.id) || ' times' AS what
       FROM withdrawals w LEFT JOIN transfers t
            ON t.reference = w.id AND t.reason IN ('returned', 'paid-late')
       GROUP BY w.id, w.corrected
       HAVING count(t.id) <> CASE WHEN w.corrected THEN 1 ELSE 0 END""",
    """SELECT 'deposit ' || d.id || ' is ' || d.state || ', and has '
              || count(t.id) || ' transfers' AS what
       FROM deposits d LEFT JOIN transfers t
            ON t.reference = d.id AND t.reason IN ('deposit', 'unattributed')
       GROUP BY d.id, d.state
       HAVING count(t.id) <> CASE WHEN d.state IN ('credited', 'suspended') THEN 1 ELSE 0 END""",
)
