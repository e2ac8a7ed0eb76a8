"""The ledger: double entry, append-only.

Entries are signed, credit positive: a transaction's entries sum to zero in each currency, and so
does the ledger. Liabilities (wallets, holds, open payouts, suspense) and fees earned normally have
a credit balance; the asset, the mirror of the provider's wallet, has a debit balance. A mistake is
corrected by a reversing transaction, never by a change.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from amani_app.domain.errors import LedgerError
from amani_app.domain.money import Money

ATTRIBUTED = "attributed"
"""The reason of a transaction that moves an item out of suspense; its reference is the transfer
that put the item there."""


class AccountKind(enum.Enum):
    WALLET = "wallet"
    """A user's money."""
    HOLD = "hold"
    """A milestone's money, held until it is released, refunded or split."""
    FEES = "fees"
    PROVIDER = "provider"
    """The mirror of our wallet at the payment provider."""
    SUSPENSE = "suspense"
    """Money without a known owner, such as over- and underpayments."""

    @property
    def guarded(self) -> bool:
        """Whether it has a stored balance that may never be below zero.

        The others are house accounts: many transactions meet there, so they keep no balance row
        for them to queue at; their balance is the sum of their entries.
        """
        return self in (AccountKind.WALLET, AccountKind.HOLD)


@dataclass(frozen=True)
class Account:
    """One account in one currency; `owner` is the user or milestone, empty for the house."""

    kind: AccountKind
    currency: str
    owner: str = ""

    def __post_init__(self) -> None:
        if bool(self.owner) is not self.kind.guarded:
            raise LedgerError(f"a {self.kind.value} account has owner {self.owner!r}")
        Money.zero(self.currency)

    @cached_property
    def id(self) -> str:
        """Its name, which is also the order in which accounts are locked."""
        return ":".join(filter(None, (self.kind.value, self.owner, self.currency)))


@dataclass(frozen=True)
class Entry:
    """`amount` credited (positive) or debited (negative) on an account."""

    account: Account
    amount: Money

    def __post_init__(self) -> None:
        if self.account.currency != self.amount.currency:
            raise LedgerError(f"{self.amount} does not belong on {self.account.id}")
        if not self.amount:
            raise LedgerError(f"an entry of nothing on {self.account.id}")


@dataclass(frozen=True)
class Transaction:
    """Entries that are written together or not at all.

    `reason` is the kind and `reference` the subject. The pair is unique, so that
    nothing is booked twice. `settles` names the pending transfer that this one posts.
    """

    id: str
    reason: str
    reference: str
    entries: tuple[Entry, ...]
    settles: str | None = None

    def __post_init__(self) -> None:
        if len(self.entries) < 2:
            raise LedgerError(f"{self.reason}: a transaction has two entries at least")
        if len({entry.account for entry in self.entries}) < len(self.entries):
            raise LedgerError(f"{self.reason}: an account appears twice")
        if wrong := {c: s for c, s in sums(self.entries).items() if s}:
            raise LedgerError(f"{self.reason}: the entries do not sum to zero: {wrong}")


@dataclass(frozen=True)
class PendingTransfer:
    """A reservation of `amount` on `account`, until it is posted or voided."""

    id: str
    reason: str
    reference: str
    account: Account
    amount: Money

    def __post_init__(self) -> None:
        if not self.account.kind.guarded or self.account.currency != self.amount.currency:
            raise LedgerError(f"{self.amount} cannot be reserved on {self.account.id}")
        if self.amount.minor <= 0:
            raise LedgerError(f"{self.reason}: {self.amount} cannot be reserved")

    def post(self, id: str, to: Sequence[Entry]) -> Transaction:
        """The transaction that settles it; the entries `to` credit the whole amount."""
        debit = Entry(self.account, -self.amount)
        return Transaction(id, self.reason, self.reference, (debit, *to), settles=self.id)


@dataclass(frozen=True)
class Balance:
    """The balance of a guarded account, and the reserved part of it."""

    posted: Money
    reserved: Money

    @property
    def available(self) -> Money:
        return self.posted - self.reserved


def receive(
    id: str, reason: str, reference: str, fee: Money, *targets: tuple[Account, Money]
) -> Transaction:
    """A transaction for money that arrived at the provider; `targets` are credited in full.

    The provider kept `fee`, which Amani bears; the provider's mirror is debited with the rest.
    Raises `LedgerError` if the amounts sum to zero. Example: 100.00 arrive, the fee is 1.50::

        wallet +100.00, provider -98.50, fees -1.50
    """
    whole = sum((amount for _, amount in targets), Money.zero(fee.currency))
    if not whole:
        raise LedgerError(f"{reason}: nothing moves")
    sides = [
        (Account(AccountKind.PROVIDER, fee.currency), fee - whole),
        (Account(AccountKind.FEES, fee.currency), -fee),
        *targets,
    ]
    entries = tuple(Entry(account, amount) for account, amount in sides if amount)
    return Transaction(id, reason, reference, entries)


def sums(entries: Iterable[Entry]) -> dict[str, int]:
    """The sum of `entries` in minor units, by currency."""
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry.amount.currency] += entry.amount.minor
    return dict(found)


def move(
    id: str, reason: str, reference: str, source: Account, *targets: tuple[Account, Money]
) -> Transaction:
    """A transaction that debits `source` and credits `targets`; a zero amount is left out.

    Raises `LedgerError` if all amounts are zero.
    """
    credits = [Entry(account, amount) for account, amount in targets if amount]
    whole = sum((entry.amount for entry in credits), Money.zero(source.currency))
    if not whole:
        raise LedgerError(f"{reason}: nothing moves")
    return Transaction(id, reason, reference, (Entry(source, -whole), *credits))
