"""The `Store` in memory: one writer at a time, on a copy that is discarded on an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import cast
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from amani_app.adapters.memory.queues import (
    MemoryVirtualAccounts,
    MemoryInbox,
    MemoryOutbox,
    MemoryTable,
    QueueEntry,
)
from amani_app.domain.errors import AlreadySettled, InsufficientFunds
from amani_app.domain.escrow import Escrow, Party, EscrowState, MilestoneState
from amani_app.domain.ledger import (
    ATTRIBUTED,
    Account,
    AccountKind,
    Balance,
    Entry,
    PendingTransfer,
    Transaction,
)
from amani_app.domain.money import Money, total
from amani_app.domain.payments import Deposit, Withdrawal
from amani_app.domain.users import User
from amani_app.ports.payments import ProviderNotice
from amani_app.ports.store import (
    AlreadyBooked,
    StoredResponse,
    AuditLine,
    EmailTaken,
    OutboxEvent,
    KeyReused,
    LedgerLine,
    StaleVersion,
    T,
    SuspenseItem,
    UnitOfWork,
)


@dataclass
class Contents:
    """The stored data. All values are immutable, so a copy of the containers is a snapshot."""

    entries: list[tuple[LedgerLine, Account]] = field(default_factory=list)
    booked: set[tuple[str, str, str]] = field(default_factory=set)
    pendings: dict[str, PendingTransfer] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    escrows: dict[str, Escrow] = field(default_factory=dict)
    deposits: MemoryTable[Deposit] = field(default_factory=MemoryTable)
    virtual_accounts: MemoryVirtualAccounts = field(default_factory=MemoryVirtualAccounts)
    withdrawals: MemoryTable[Withdrawal] = field(default_factory=MemoryTable)
    notices: dict[str, ProviderNotice] = field(default_factory=dict)
    tickets: dict[str, QueueEntry] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    leases: dict[str, datetime] = field(default_factory=dict)
    delivered: dict[str, datetime] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    answers: dict[tuple[str, str], tuple[str, StoredResponse, datetime]] = field(
        default_factory=dict
    )
    events: list[OutboxEvent] = field(default_factory=list)
    lines: list[AuditLine] = field(default_factory=list)

    def copy(self) -> Contents:
        return replace(self, **{f.name: getattr(self, f.name).copy() for f in fields(self)})


class MemoryLedger:
    """A list of entries; balances are summed from it at each call."""

    def __init__(self, state: Contents, now: Callable[[], datetime]) -> None:
        self._state = state
        self._now = now

    def book(self, transaction: Transaction) -> None:
        """Writes the entries, then checks the balances; `run` discards the copy on an error."""
        if transaction.settles is None:
            self._once("direct", transaction.reason, transaction.reference)
        else:
            self._settle(transaction.settles)
        for entry in transaction.entries:
            self._append(transaction, entry)
        for entry in transaction.entries:
            if entry.account.kind.guarded:
                self._check(entry.account)

    def reserve(self, pending: PendingTransfer) -> None:
        """Stores the transfer, then checks the balance."""
        self._once("pending", pending.reason, pending.reference)
        self._state.pendings[pending.id] = pending
        self._check(pending.account)

    def void(self, id: str, pending: str) -> None:
        """Mark it as settled; no entry is written."""
        self._settle(pending)

    def pending(self, id: str) -> PendingTransfer:
        return self._state.pendings[id]

    def balance(self, account: Account) -> Balance:
        held = [
            pending.amount
            for id, pending in self._state.pendings.items()
            if pending.account == account and id not in self._state.settled
        ]
        return Balance(self.total(account), total(held, account.currency))

    def total(self, account: Account) -> Money:
        mine = (line.amount for line, owner in self._state.entries if owner == account)
        return total(mine, account.currency)

    def lines(self, account: Account, before: int | None, limit: int) -> list[LedgerLine]:
        found = [
            line
            for line, owner in reversed(self._state.entries)
            if owner == account and (before is None or line.id < before)
        ]
        return found[:limit]

    def wallets(self, owner: str) -> list[tuple[Account, Balance]]:
        mine = {
            account
            for _, account in self._state.entries
            if account.kind is AccountKind.WALLET and account.owner == owner
        }
        return [(account, self.balance(account)) for account in sorted(mine, key=lambda a: a.id)]

    def booked(self, reason: str, references: Sequence[str]) -> set[str]:
        """The references that were booked without a pending transfer."""
        return {each for each in references if ("direct", reason, each) in self._state.booked}

    def unattributed(self) -> list[SuspenseItem]:
        entries = self._state.entries
        lines = [line for line, owner in entries if owner.kind is AccountKind.SUSPENSE]
        taken = {line.reference for line in lines if line.reason == ATTRIBUTED}
        return [
            SuspenseItem(line.transfer, line.reason, line.reference, line.amount, line.at)
            for line in lines
            if line.reason != ATTRIBUTED and line.transfer not in taken
        ]

    def differences(self) -> list[str]:
        """Currencies that do not sum to zero, and guarded accounts below zero."""
        found: Counter[str] = Counter()
        for line, _ in self._state.entries:
            found[line.amount.currency] += line.amount.minor
        wrong = [
            f"{currency}: the entries sum to {rest}" for currency, rest in found.items() if rest
        ]
        for account in {owner for _, owner in self._state.entries if owner.kind.guarded}:
            if self.balance(account).available.minor < 0:
                wrong.append(f"{account.id}: below zero")
        return wrong

    def _append(self, transaction: Transaction, entry: Entry) -> None:
        line = LedgerLine(
            len(self._state.entries) + 1,
            transaction.id,
            transaction.reason,
            transaction.reference,
            entry.amount,
            self.total(entry.account) + entry.amount,
            self._now(),
        )
        self._state.entries.append((line, entry.account))

    def _once(self, *name: str) -> None:
        if name in self._state.booked:
            raise AlreadyBooked(f"{name[1]} {name[2]} is already in the ledger")
        self._state.booked.add(cast(tuple[str, str, str], name))

    def _settle(self, pending: str) -> None:
        self.pending(pending)
        if pending in self._state.settled:
            raise AlreadySettled(f"the pending transfer {pending} has been settled before")
        self._state.settled.add(pending)

    def _check(self, account: Account) -> None:
        if self.balance(account).available.minor < 0:
            raise InsufficientFunds(f"the available balance of {account.id} is too low")


class MemoryEscrows:
    """Escrows by id, without locks, because there is one writer."""

    def __init__(self, state: Contents) -> None:
        self._escrows = state.escrows

    def add(self, escrow: Escrow, at: datetime) -> None:
        self._escrows[escrow.id] = escrow

    def get(self, id: str, lock: bool = False) -> Escrow:
        """`lock` has no effect, because there is one writer at a time."""
        return self._escrows[id]

    def save(self, escrow: Escrow) -> None:
        """The version must be the next one."""
        if self._escrows[escrow.id].version != escrow.version - 1:
            raise StaleVersion(f"the escrow {escrow.id} has changed since it was read")
        self._escrows[escrow.id] = escrow

    def of(
        self,
        user: str,
        before: str | None,
        limit: int,
        state: EscrowState | None = None,
        party: Party | None = None,
    ) -> list[Escrow]:
        """Sorted by id, which grows with time."""
        parts = (party,) if party else (Party.CLIENT, Party.FREELANCER)
        mine = (
            e for e in self._escrows.values() if e.party(user) in parts and state in (None, e.state)
        )
        found = (e for e in mine if before is None or e.id < before)
        return sorted(found, key=lambda e: e.id, reverse=True)[:limit]

    def silent_since(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        return [
            (escrow.id, milestone.id)
            for escrow in self._escrows.values()
            if escrow.state is EscrowState.FUNDED
            for milestone in escrow.milestones
            if milestone.state is MilestoneState.SUBMITTED
            and milestone.submitted_at is not None
            and milestone.submitted_at + escrow.silence <= now
        ][:limit]


class MemoryUsers:
    """Users by id; an email address is found by a scan."""

    def __init__(self, state: Contents) -> None:
        self._users = state.users

    def add(self, user: User) -> None:
        if self.by_email(user.email):
            raise EmailTaken(f"{user.email} has an account")
        self._users[user.id] = user

    def save(self, user: User) -> None:
        self._users[user.id] = user

    def get(self, id: str) -> User:
        return self._users[id]

    def by_email(self, email: str) -> User | None:
        return next((u for u in self._users.values() if u.email == email), None)


class MemoryIdempotency:
    """Stored responses by caller and key; raises no `KeyInUse`."""

    def __init__(self, state: Contents) -> None:
        self._state = state

    def foresee(self, caller: str, key: str) -> None:
        """Does nothing: there is no round trip to save."""

    def claim(self, caller: str, key: str, fingerprint: str) -> StoredResponse | None:
        """There is one writer at a time, so a key is never in use."""
        if (found := self._state.answers.get((caller, key))) is None:
            return None
        if found[0] != fingerprint:
            raise KeyReused("this Idempotency-Key was used with a different request")
        return found[1]

    def keep(
        self, caller: str, key: str, fingerprint: str, answer: StoredResponse, at: datetime
    ) -> None:
        self._state.answers[(caller, key)] = (fingerprint, answer, at)

    def amend(self, caller: str, key: str, body: str) -> None:
        fingerprint, answer, at = self._state.answers[(caller, key)]
        self._state.answers[(caller, key)] = (fingerprint, replace(answer, body=body), at)

    def forget(self, before: datetime) -> int:
        old = [key for key, (_, _, at) in self._state.answers.items() if at < before]
        for key in old:
            del self._state.answers[key]
        return len(old)


class MemoryUnitOfWork:
    """The repositories on one copy of the contents."""

    def __init__(self, state: Contents, now: Callable[[], datetime]) -> None:
        self._state = state
        self.ledger = MemoryLedger(state, now)
        self.escrows = MemoryEscrows(state)
        self.deposits = state.deposits
        self.virtual_accounts = state.virtual_accounts
        self.withdrawals = state.withdrawals
        self.inbox = MemoryInbox(state.notices, state.tickets, state.outcomes)
        self.outbox = MemoryOutbox(state.events, state.leases, state.delivered)
        self.users = MemoryUsers(state)
        self.idempotency = MemoryIdempotency(state)

    def publish(self, event: OutboxEvent) -> None:
        self._state.events.append(event)

    def audit(self, line: AuditLine) -> None:
        self._state.lines.append(line)

    def audited(self, before: str | None, limit: int) -> list[AuditLine]:
        found = [x for x in reversed(self._state.lines) if before is None or x.id < before]
        return found[:limit]


class MemoryStore:
    """`run` holds a lock and works on a copy; `read` and `look` hold none."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.state = Contents()
        self._now = now
        self._lock = threading.Lock()

    def run(self, action: Callable[[UnitOfWork], T]) -> T:
        """Calls `action` on a copy, which becomes the state when it returns."""
        with self._lock:
            copy = self.state.copy()
            result = action(MemoryUnitOfWork(copy, self._now))
            self.state = copy
            return result

    def read(self, action: Callable[[UnitOfWork], T]) -> T:
        """Calls `action` on the current state, which is never changed in place."""
        return action(MemoryUnitOfWork(self.state, self._now))

    def look(self, action: Callable[[UnitOfWork], T]) -> T:
        return self.read(action)
