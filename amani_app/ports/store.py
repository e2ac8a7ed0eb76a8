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
from amani_app.domain.escrow import Escrow, Party, State
from amani_app.domain.ledger import Account, Balance, Pending, Transaction
from amani_app.domain.money import Money
from amani_app.domain.users import User

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
class Line:
    """One entry as its owner reads it; ``id`` orders the lines of all accounts."""

    id: int
    transfer: str
    reason: str
    reference: str
    amount: Money
    balance_after: Money
    at: datetime


@dataclass(frozen=True)
class Event:
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
class Answer:
    """A stored answer: what a repeated request is given again."""

    status: int
    body: str


class Ledger(t.Protocol):
    """The books. Accounts open on first use; guarded ones never go below zero."""

    def book(self, transaction: Transaction) -> None:
        """Write *transaction*; once in a unit of work, or two of them could lock each other out.

        Locks the guarded accounts in the order of their ids. Raises ``InsufficientFunds``,
        ``AlreadyBooked``, and ``AlreadySettled`` for one that settles what is settled.
        """

    def reserve(self, pending: Pending) -> None:
        """Reserve the amount of *pending*. Raises ``InsufficientFunds``, ``AlreadyBooked``."""

    def void(self, id: str, pending: str) -> None:
        """Give up the reservation *pending*. Raises ``AlreadySettled``, ``KeyError``."""

    def pending(self, id: str) -> Pending:
        """The pending transfer *id*. Raises ``KeyError``."""

    def balance(self, account: Account) -> Balance:
        """Of a guarded account; zero when it was never used."""

    def total(self, account: Account) -> Money:
        """The sum of the entries of any account, credit positive."""

    def lines(self, account: Account, before: int | None, limit: int) -> list[Line]:
        """The entries of a guarded account, newest first, with ids below *before*."""

    def wallets(self, owner: str) -> list[tuple[Account, Balance]]:
        """The wallets of *owner*, by currency."""

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
        state: State | None = None,
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

    def claim(self, caller: str, key: str, fingerprint: str) -> Answer | None:
        """The answer given before to the same request, or ``None``: then *key* is now taken.

        Raises ``KeyReused`` when *fingerprint* differs, ``KeyInUse`` while the first one runs.
        """

    def keep(self, caller: str, key: str, fingerprint: str, answer: Answer, at: datetime) -> None:
        """Keep the answer to a claimed key."""

    def forget(self, before: datetime) -> int:
        """Drop the answers older than *before*; how many."""


class UnitOfWork(t.Protocol):
    """One transaction's view of everything."""

    @property
    def ledger(self) -> Ledger:
        """The books."""

    @property
    def escrows(self) -> Escrows:
        """The agreements."""

    @property
    def users(self) -> Users:
        """The people."""

    @property
    def idempotency(self) -> Idempotency:
        """The answered requests."""

    def publish(self, event: Event) -> None:
        """Put *event* in the outbox."""

    def audit(self, line: AuditLine) -> None:
        """Append *line* to the audit log."""

    def audited(self, before: str | None, limit: int) -> list[AuditLine]:
        """The audit log, newest first, with ids below *before*."""


class Store(t.Protocol):
    """Runs units of work."""

    def run(self, work: t.Callable[[UnitOfWork], T]) -> T:
        """Do *work* in one transaction. Raises what it raises, and ``DatabaseUnavailable``."""

    def read(self, work: t.Callable[[UnitOfWork], T]) -> T:
        """Do *work*, which changes nothing, on one consistent view; waits for no writer."""
