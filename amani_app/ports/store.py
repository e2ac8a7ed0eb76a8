"""The store: repositories whose changes are committed together or not at all.

`Store.run` calls an action with a `UnitOfWork` and commits it when the action returns; if the
action raises, everything is rolled back. After a conflict with another transaction the action is
called again, so it must have no effect outside its unit of work. Example::

    store.run(lambda unit: unit.ledger.book(transaction))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from dataclasses import dataclass
from datetime import datetime

from amani_app.domain.errors import DomainError
from amani_app.domain.escrow import Escrow, Party, EscrowState
from amani_app.domain.ledger import Account, Balance, PendingTransfer, Transaction
from amani_app.domain.money import Money
from amani_app.domain.payments import Deposit, VirtualAccount, Withdrawal
from amani_app.domain.users import User
from amani_app.ports.payments import ProviderNotice

T = TypeVar("T")


class AlreadyBooked(DomainError):
    """The ledger has a transaction with the same reason and reference."""

    code = "already-booked"


class EmailTaken(DomainError):
    """Another user has this email address."""

    code = "email-taken"


class StaleVersion(DomainError):
    """The escrow has changed since it was read."""

    code = "stale-version"


class KeyReused(DomainError):
    """The idempotency key was used with a different request."""

    code = "idempotency-key-reused"


class KeyInUse(DomainError):
    """The first request with this idempotency key is still running."""

    code = "idempotency-key-in-use"


@dataclass(frozen=True)
class LedgerLine:
    """One entry of an account, with its transfer. `id` grows over all accounts."""

    id: int
    transfer: str
    reason: str
    reference: str
    amount: Money
    balance_after: Money
    at: datetime


@dataclass(frozen=True)
class SuspenseItem:
    """The amount that one transfer put into suspense; negative if money is missing there."""

    transfer: str
    reason: str
    reference: str
    amount: Money
    at: datetime


@dataclass(frozen=True)
class OutboxEvent:
    """An event that is delivered after its unit of work is committed, at least once."""

    id: str
    topic: str
    subject: str
    payload: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True)
class AuditLine:
    """One action: actor, subject, state before and after, request and client address."""

    id: str
    at: datetime
    actor: str
    action: str
    subject: str
    before: str
    after: str
    request_id: str
    remote_addr: str


@dataclass(frozen=True)
class StoredResponse:
    """The response that a repeated request gets again."""

    status: int
    body: str


class Ledger(Protocol):
    """The double-entry ledger. Accounts open on first use; guarded ones never go below zero."""

    def book(self, transaction: Transaction) -> None:
        """Write `transaction`. Call it at most once in a unit of work, to exclude deadlocks.

        Locks the guarded accounts in the order of their ids. Raises `InsufficientFunds`,
        `AlreadyBooked`, or `AlreadySettled` if it settles a settled transfer: either here or
        when the unit of work ends.
        """

    def reserve(self, pending: PendingTransfer) -> None:
        """Reserve the amount of `pending`. Raises the same errors as `book`."""

    def void(self, id: str, pending: str) -> None:
        """Release the reservation `pending`. Raises the errors of `book`, and `KeyError`."""

    def pending(self, id: str) -> PendingTransfer:
        """The pending transfer `id`. Raises `KeyError`."""

    def balance(self, account: Account) -> Balance:
        """The balance of a guarded account; zero if it was never used."""

    def total(self, account: Account) -> Money:
        """The sum of the entries of any account, credit positive."""

    def lines(self, account: Account, before: int | None, limit: int) -> list[LedgerLine]:
        """The entries of a guarded account, newest first, with ids below `before`."""

    def wallets(self, owner: str) -> list[tuple[Account, Balance]]:
        """The wallets of `owner` with their balances, ordered by currency."""

    def booked(self, reason: str, references: Sequence[str]) -> set[str]:
        """The subset of `references` that have a transaction with `reason`."""

    def unattributed(self) -> list[SuspenseItem]:
        """The unattributed items in suspense, oldest first."""

    def differences(self) -> list[str]:
        """Inconsistencies of the ledger, one line each; empty if it is correct."""


class Escrows(Protocol):
    def add(self, escrow: Escrow, at: datetime) -> None: ...

    def get(self, id: str, lock: bool = False) -> Escrow:
        """Read `id`; with `lock`, hold a row lock until the end. Raises `KeyError`."""

    def save(self, escrow: Escrow) -> None:
        """Update it. Raises `StaleVersion` unless it is the next version of the stored one."""

    def of(
        self,
        user: str,
        before: str | None,
        limit: int,
        state: EscrowState | None = None,
        party: Party | None = None,
    ) -> list[Escrow]:
        """Escrows of `user`, newest first, with ids below `before`.

        `state` and `party` (the role of `user` in the escrow) filter them.
        """

    def silent_since(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Ids (escrow, milestone) of submitted milestones whose days of silence are over."""


class Users(Protocol):
    def add(self, user: User) -> None:
        """Insert `user`. Raises `EmailTaken` if another user has the address."""

    def save(self, user: User) -> None:
        """Update the stored user with the same id."""

    def get(self, id: str) -> User:
        """The user `id`. Raises `KeyError` if there is none."""

    def by_email(self, email: str) -> User | None:
        """The user with `email`, or `None`."""


class Idempotency(Protocol):
    """Stored responses by caller and key, written in the transaction of the request.

    See draft-ietf-httpapi-idempotency-key-header.
    """

    def foresee(self, caller: str, key: str) -> None:
        """Announce a `claim`, so that its query can share a round trip with the next one."""

    def claim(self, caller: str, key: str, fingerprint: str) -> StoredResponse | None:
        """The stored response to the same request, or `None`: then `key` is now taken.

        Raises `KeyReused` if `fingerprint` differs, `KeyInUse` while the first request runs.
        """

    def keep(
        self, caller: str, key: str, fingerprint: str, answer: StoredResponse, at: datetime
    ) -> None:
        """Store the response to a claimed key."""

    def amend(self, caller: str, key: str, body: str) -> None:
        """Replace the stored body: post-commit work produced a more complete response."""

    def forget(self, before: datetime) -> int:
        """Delete the responses older than `before`; returns their number."""


class Deposits(Protocol):
    """The repository of deposits. A worker processes each one that is due."""

    def add(self, deposit: Deposit, due: datetime | None) -> None: ...

    def get(self, id: str, lock: bool = False) -> Deposit:
        """Read `id`; with `lock`, hold a row lock until the end. Raises `KeyError`."""

    def save(self, deposit: Deposit, due: datetime | None) -> None:
        """Update it, and set when it is due again; `None` is never."""

    def of(self, owner: str, before: str | None, limit: int) -> list[Deposit]:
        """Items of `owner`, newest first, with ids below `before`."""

    def claim(self, now: datetime, until: datetime) -> tuple[Deposit, int] | None:
        """Lease one that is due `until` then, with the number of times it was claimed."""

    def waiting(self) -> list[Deposit]:
        """Deposits whose payment link is open."""


class VirtualAccounts(Protocol):
    """The repository of virtual accounts. A worker processes each one that is due."""

    def add(self, account: VirtualAccount, due: datetime | None) -> None: ...

    def get(self, id: str, lock: bool = False) -> VirtualAccount:
        """Read `id`; with `lock`, hold a row lock until the end. Raises `KeyError`."""

    def save(self, account: VirtualAccount, due: datetime | None) -> None:
        """Update it, and set when it is due again; `None` is never."""

    def of(self, owner: str, before: str | None, limit: int) -> list[VirtualAccount]:
        """Items of `owner`, newest first, with ids below `before`."""

    def claim(self, now: datetime, until: datetime) -> tuple[VirtualAccount, int] | None:
        """Lease one that is due `until` then, with the number of times it was claimed."""

    def named(self, provider_id: str) -> VirtualAccount | None:
        """The account with this id of the provider."""

    def active(self, account_number: str, currency: str) -> VirtualAccount | None:
        """The active account with this number; `None` if several have it."""

    def issued(self) -> list[VirtualAccount]:
        """Accounts that were ever active, and so may have received money."""


class Withdrawals(Protocol):
    """The repository of withdrawals. A worker processes each one that is due."""

    def add(self, withdrawal: Withdrawal) -> None:
        """Insert `withdrawal`; its reservation is in the ledger under the same id."""

    def get(self, id: str, lock: bool = False) -> Withdrawal:
        """Read `id`; with `lock`, hold a row lock until the end. Raises `KeyError`."""

    def save(self, withdrawal: Withdrawal, due: datetime | None) -> None:
        """Update it, and set when it is due again; `None` is never."""

    def of(self, owner: str, before: str | None, limit: int) -> list[Withdrawal]:
        """Items of `owner`, newest first, with ids below `before`."""

    def claim(self, now: datetime, until: datetime) -> tuple[Withdrawal, int] | None:
        """Lease one that is due `until` then, with the number of times it was claimed."""

    def waiting(self) -> list[Withdrawal]:
        """Withdrawals that were sent, or may have been, and have no final outcome."""


class Inbox(Protocol):
    """Notices of the payment provider, and our own reminders. The worker processes each once."""

    def add(self, notice: ProviderNotice, raw: bytes, at: datetime) -> bool:
        """Store `notice`, due `at`; false for a copy. A copy of a renewable one is due again."""

    def claim(self, now: datetime, until: datetime) -> tuple[str, ProviderNotice, int] | None:
        """Lease one that is due `until` then: id, notice, number of claims."""

    def finish(self, id: str, outcome: str) -> None:
        """Mark it as processed; `outcome` is `done`, `ignored` or `given-up`."""

    def put_off(self, id: str, due: datetime) -> None:
        """Make it due again at `due`; its claims still count."""


class Outbox(Protocol):
    """Events of committed units of work that are still to be delivered."""

    def claim(self, topics: Sequence[str], now: datetime, until: datetime) -> OutboxEvent | None:
        """Lease the oldest undelivered event of `topics` `until` then."""

    def delivered(self, id: str, at: datetime) -> None:
        """Mark the event as delivered, so that it is not claimed again."""

    def skip(self, topics: Sequence[str], at: datetime, limit: int) -> int:
        """Mark up to `limit` events of all other topics as delivered; returns their number."""

    def forget(self, before: datetime) -> int:
        """Delete the events delivered before `before`; returns their number."""


class UnitOfWork(Protocol):
    """The repositories of one transaction: all changes are committed together or not at all."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def escrows(self) -> Escrows: ...

    @property
    def deposits(self) -> Deposits: ...

    @property
    def virtual_accounts(self) -> VirtualAccounts: ...

    @property
    def withdrawals(self) -> Withdrawals: ...

    @property
    def inbox(self) -> Inbox: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def users(self) -> Users: ...

    @property
    def idempotency(self) -> Idempotency: ...

    def publish(self, event: OutboxEvent) -> None:
        """Put `event` in the outbox; it is delivered only if the unit is committed."""

    def audit(self, line: AuditLine) -> None:
        """Append `line` to the audit log."""

    def audited(self, before: str | None, limit: int) -> list[AuditLine]:
        """The audit log, newest first, with ids below `before`."""


class Store(Protocol):
    def run(self, action: Callable[[UnitOfWork], T]) -> T:
        """Run `action` in one transaction. Raises its errors, and `DatabaseUnavailable`."""

    def read(self, action: Callable[[UnitOfWork], T]) -> T:
        """Run a read-only `action` on one consistent snapshot; waits for no writer."""

    def look(self, action: Callable[[UnitOfWork], T]) -> T:
        """Run an `action` of one read statement, without a transaction."""
