"""The store: everything that must change together or not at all.

``Store.run`` gives the work a ``UnitOfWork``; when the work returns, all of it is committed, and
when it raises, none of it is. The work may be called again after a conflict with another one, so
it touches nothing but its unit of work.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

from amani_app.domain.errors import DomainError
from amani_app.domain.escrow import Escrow, Party, EscrowState
from amani_app.domain.ledger import Account, Balance, PendingTransfer, Transaction
from amani_app.domain.money import Money
from amani_app.domain.payments import Deposit, VirtualAccount, Withdrawal
from amani_app.domain.users import User
from amani_app.ports.payments import ProviderNotice

T = t.TypeVar("T")


class AlreadyBooked(DomainError):
    """A transaction of the same reason and reference stands in the ledger."""

    code = "already-booked"


class EmailTaken(DomainError):
    """Somebody has signed up with this address."""

    code = "email-taken"


class StaleVersion(DomainError):
    """The escrow changed since it was read."""

    code = "stale-version"


class KeyReused(DomainError):
    """The idempotency key came before with another request."""

    code = "idempotency-key-reused"


class KeyInUse(DomainError):
    """The request that brought this idempotency key first is still running."""

    code = "idempotency-key-in-use"


@dataclass(frozen=True)
class LedgerLine:
    """One entry as its owner reads it; ``id`` orders the lines of all accounts."""

    id: int
    transfer: str
    reason: str
    reference: str
    amount: Money
    balance_after: Money
    at: datetime


@dataclass(frozen=True)
class SuspenseItem:
    """What one transfer has put into suspense, where it waits for people; negative: it lacks."""

    transfer: str
    reason: str
    reference: str
    amount: Money
    at: datetime


@dataclass(frozen=True)
class OutboxEvent:
    """Something that happened, to be delivered once its unit of work is committed."""

    id: str
    topic: str
    subject: str
    payload: t.Mapping[str, t.Any]
    at: datetime


@dataclass(frozen=True)
class AuditLine:
    """Who did what to what, from where, and what it was before and after."""

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
    """A stored answer: what a repeated request is given again."""

    status: int
    body: str


class Ledger(t.Protocol):
    """The books. Accounts open on first use; guarded ones never go below zero."""

    def book(self, transaction: Transaction) -> None:
        """Write *transaction*; once in a unit of work, or two of them could lock each other out.

        Locks the guarded accounts in the order of their ids. Raises ``InsufficientFunds``,
        ``AlreadyBooked``, and ``AlreadySettled`` for one that settles what is settled: now, or
        when the unit of work ends.
        """

    def reserve(self, pending: PendingTransfer) -> None:
        """Reserve the amount of *pending*. Raises as ``book`` does."""

    def void(self, id: str, pending: str) -> None:
        """Give up the reservation *pending*. Raises as ``book`` does, and ``KeyError``."""

    def pending(self, id: str) -> PendingTransfer:
        """The pending transfer *id*. Raises ``KeyError``."""

    def balance(self, account: Account) -> Balance:
        """Of a guarded account; zero when it was never used."""

    def total(self, account: Account) -> Money:
        """The sum of the entries of any account, credit positive."""

    def lines(self, account: Account, before: int | None, limit: int) -> list[LedgerLine]:
        """The entries of a guarded account, newest first, with ids below *before*."""

    def wallets(self, owner: str) -> list[tuple[Account, Balance]]:
        """The wallets of *owner*, by currency."""

    def booked(self, reason: str, references: t.Sequence[str]) -> set[str]:
        """Those of *references* that a transaction of this *reason* stands in the ledger for."""

    def unattributed(self) -> list[SuspenseItem]:
        """What stands in suspense and was attributed to nobody since, oldest first."""

    def differences(self) -> list[str]:
        """What is wrong with the books, one line each: nothing, ever."""


class Escrows(t.Protocol):
    """The agreements."""

    def add(self, escrow: Escrow, at: datetime) -> None:
        """Keep a new one."""

    def get(self, id: str, lock: bool = False) -> Escrow:
        """The one with *id*; with *lock* nobody else changes it before the end. ``KeyError``."""

    def save(self, escrow: Escrow) -> None:
        """Keep the next version of one. Raises ``StaleVersion`` when it is not the next."""

    def of(
        self,
        user: str,
        before: str | None,
        limit: int,
        state: EscrowState | None = None,
        party: Party | None = None,
    ) -> list[Escrow]:
        """Those that *user* is party to, newest first, with ids below *before*.

        Only those in *state*, and those that *user* has the part of *party* in, where given.
        """

    def silent_since(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """(escrow, milestone) submitted so long before *now* that silence means consent."""


class Users(t.Protocol):
    """The people."""

    def add(self, user: User) -> None:
        """Keep a new one. Raises ``EmailTaken``."""

    def save(self, user: User) -> None:
        """Keep changes of name, role or password."""

    def get(self, id: str) -> User:
        """The one with *id*. Raises ``KeyError``."""

    def by_email(self, email: str) -> User | None:
        """The one with *email*, if any."""


class Idempotency(t.Protocol):
    """Requests that were answered, by caller and key; lives in the same transaction."""

    def foresee(self, caller: str, key: str) -> None:
        """A ``claim`` comes soon: what it asks may be asked together with something else."""

    def claim(self, caller: str, key: str, fingerprint: str) -> StoredResponse | None:
        """The answer given before to the same request, or ``None``: then *key* is now taken.

        Raises ``KeyReused`` when *fingerprint* differs, ``KeyInUse`` while the first one runs.
        """

    def keep(
        self, caller: str, key: str, fingerprint: str, answer: StoredResponse, at: datetime
    ) -> None:
        """Keep the answer to a claimed key."""

    def amend(self, caller: str, key: str, body: str) -> None:
        """Keep *body* instead: what happened after the commit bettered the answer."""

    def forget(self, before: datetime) -> int:
        """Drop the answers older than *before*; how many."""


class Deposits(t.Protocol):
    """Money that people bring in. One with a due time waits for a worker to look at it."""

    def add(self, deposit: Deposit, due: datetime | None) -> None:
        """Keep a new one."""

    def get(self, id: str, lock: bool = False) -> Deposit:
        """The one with *id*; with *lock* nobody else changes it before the end. ``KeyError``."""

    def save(self, deposit: Deposit, due: datetime | None) -> None:
        """Keep its change, and when to look at it again, if ever."""

    def of(self, owner: str, before: str | None, limit: int) -> list[Deposit]:
        """Those of *owner*, newest first, with ids below *before*."""

    def claim(self, now: datetime, until: datetime) -> tuple[Deposit, int] | None:
        """One that is due, and how often it was claimed; no other worker has it before *until*."""

    def waiting(self) -> list[Deposit]:
        """Those that a payer has the link of."""


class VirtualAccounts(t.Protocol):
    """Account numbers that people are paid at. One with a due time waits for a worker."""

    def add(self, account: VirtualAccount, due: datetime | None) -> None:
        """Keep a new one."""

    def get(self, id: str, lock: bool = False) -> VirtualAccount:
        """The one with *id*; with *lock* nobody else changes it before the end. ``KeyError``."""

    def save(self, account: VirtualAccount, due: datetime | None) -> None:
        """Keep its change, and when to look at it again, if ever."""

    def of(self, owner: str, before: str | None, limit: int) -> list[VirtualAccount]:
        """Those of *owner*, newest first, with ids below *before*."""

    def claim(self, now: datetime, until: datetime) -> tuple[VirtualAccount, int] | None:
        """One that is due, and how often it was claimed; no other worker has it before *until*."""

    def named(self, provider_id: str) -> VirtualAccount | None:
        """The one that the provider calls so."""

    def active(self, account_number: str, currency: str) -> VirtualAccount | None:
        """The active one with this number; ``None`` also when several have it."""

    def issued(self) -> list[VirtualAccount]:
        """Those that were ever active: what money may have come in at."""


class Withdrawals(t.Protocol):
    """Money that people take out. One with a due time waits for a worker to look at it."""

    def add(self, withdrawal: Withdrawal) -> None:
        """Keep a new one, whose reservation stands in the ledger under the same id."""

    def get(self, id: str, lock: bool = False) -> Withdrawal:
        """The one with *id*; with *lock* nobody else changes it before the end. ``KeyError``."""

    def save(self, withdrawal: Withdrawal, due: datetime | None) -> None:
        """Keep its change, and when to look at it again, if ever."""

    def of(self, owner: str, before: str | None, limit: int) -> list[Withdrawal]:
        """Those of *owner*, newest first, with ids below *before*."""

    def claim(self, now: datetime, until: datetime) -> tuple[Withdrawal, int] | None:
        """One that is due, and how often it was claimed; no other worker has it before *until*."""

    def waiting(self) -> list[Withdrawal]:
        """Those that the provider may have heard of and has not ended."""


class Inbox(t.Protocol):
    """The provider's notices, and our own to ask it again: kept once, worked off by the worker."""

    def add(self, notice: ProviderNotice, raw: bytes, at: datetime) -> bool:
        """Keep *notice*, due *at*; false for one that is there. A renewable one is due again."""

    def claim(self, now: datetime, until: datetime) -> tuple[str, ProviderNotice, int] | None:
        """One that is due with its id, and how often it was claimed; nobody else's till *until*."""

    def finish(self, id: str, outcome: str) -> None:
        """It was worked off; *outcome* is ``done``, ``ignored`` or ``given-up``."""

    def put_off(self, id: str, due: datetime) -> None:
        """Look at it again when it is *due*."""


class Outbox(t.Protocol):
    """The events of committed units of work, on their way to who listens."""

    def claim(self, topics: t.Sequence[str], now: datetime, until: datetime) -> OutboxEvent | None:
        """The oldest undelivered one of *topics*; no other worker has it before *until*."""

    def delivered(self, id: str, at: datetime) -> None:
        """It has reached who listens."""

    def skip(self, topics: t.Sequence[str], at: datetime, limit: int) -> int:
        """Count those of all other topics as delivered, *limit* at most; how many they were."""

    def forget(self, before: datetime) -> int:
        """Drop those delivered before *before*; how many."""


class UnitOfWork(t.Protocol):
    """One transaction's view of everything."""

    @property
    def ledger(self) -> Ledger:
        """The books."""

    @property
    def escrows(self) -> Escrows:
        """The agreements."""

    @property
    def deposits(self) -> Deposits:
        """Money on its way in."""

    @property
    def virtual_accounts(self) -> VirtualAccounts:
        """Where people are paid by bank transfer."""

    @property
    def withdrawals(self) -> Withdrawals:
        """Money on its way out."""

    @property
    def inbox(self) -> Inbox:
        """The provider's notices."""

    @property
    def outbox(self) -> Outbox:
        """Events on their way."""

    @property
    def users(self) -> Users:
        """The people."""

    @property
    def idempotency(self) -> Idempotency:
        """The answered requests."""

    def publish(self, event: OutboxEvent) -> None:
        """Put *event* in the outbox."""

    def audit(self, line: AuditLine) -> None:
        """Append *line* to the audit log."""

    def audited(self, before: str | None, limit: int) -> list[AuditLine]:
        """The audit log, newest first, with ids below *before*."""


class Store(t.Protocol):
    """Runs units of work."""

    def run(self, action: t.Callable[[UnitOfWork], T]) -> T:
        """Do *action* in one transaction. Raises what it raises, and ``DatabaseUnavailable``."""

    def read(self, action: t.Callable[[UnitOfWork], T]) -> T:
        """Do *action*, which changes nothing, on one consistent view; waits for no writer."""

    def look(self, action: t.Callable[[UnitOfWork], T]) -> T:
        """Do *action*, which reads one thing."""
