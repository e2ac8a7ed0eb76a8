"""Deposits, virtual accounts and withdrawals, with their states."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from amani_app.domain.money import Money


class DepositState(enum.Enum):
    OPENING = "opening"
    """There is no payment link yet."""
    PENDING = "pending"
    """The payer has the link."""
    CREDITED = "credited"
    """The wallet has the amount; an overpayment is in suspense."""
    SUSPENDED = "suspended"
    """An underpayment, or another currency: all of it is in suspense."""
    FAILED = "failed"
    """The link expired without a payment. A payment that arrives later is credited."""

    @property
    def booked(self) -> bool:
        """Whether its money is in the ledger."""
        return self in (DepositState.CREDITED, DepositState.SUSPENDED)


class WithdrawalState(enum.Enum):
    """The state of a withdrawal. Its amount is reserved until it is paid or failed."""

    REQUESTED = "requested"
    """The payout was not sent."""
    SENDING = "sending"
    """The payout was sent, or may have been."""
    PROCESSING = "processing"
    """The provider has accepted the payout."""
    PAID = "paid"
    FAILED = "failed"
    RETURNED = "returned"
    """Paid, then returned by the bank: the amount is in the wallet again."""
    PAID_LATE = "paid-late"
    """Failed and released, then paid after all: the amount is missing in suspense."""

    @property
    def final(self) -> bool:
        return self is WithdrawalState.PAID or self is WithdrawalState.FAILED or self.corrected

    @property
    def corrected(self) -> bool:
        """Whether the provider reversed the outcome after the settlement."""
        return self in CORRECTIONS.values()

    @property
    def paid(self) -> bool:
        """Whether the money has left, as far as is known."""
        return self in (WithdrawalState.PAID, WithdrawalState.PAID_LATE)


CORRECTIONS: Mapping[WithdrawalState, WithdrawalState] = {
    WithdrawalState.PAID: WithdrawalState.RETURNED,
    WithdrawalState.FAILED: WithdrawalState.PAID_LATE,
}
"""The state after the provider reverses the outcome of a settled withdrawal; possible once."""


class AccountState(enum.Enum):
    REQUESTED = "requested"
    """The request was sent, or may have been."""
    PENDING = "pending"
    """The provider is reviewing the request."""
    ACTIVE = "active"
    """Transfers into it are credited to its owner."""
    DECLINED = "declined"
    CLOSED = "closed"
    """Transfers into it go to suspense."""
    FAILED = "failed"
    """The provider did not get the request. The owner must repeat it: KYC data is not stored."""

    @property
    def open(self) -> bool:
        """Whether it is active, or may become active without a new request."""
        return self in (AccountState.REQUESTED, AccountState.PENDING, AccountState.ACTIVE)


@dataclass(frozen=True)
class Destination:
    """A bank account and its holder's name, as the bank reports it."""

    bank_code: str
    account_number: str
    account_name: str

    @property
    def masked(self) -> str:
        """The account number with all but the last four digits replaced by `*`."""
        return self.account_number[-4:].rjust(len(self.account_number), "*")

    def __repr__(self) -> str:
        # Account numbers stay out of logs and traces.
        return f"Destination({self.bank_code}, {self.masked})"


@dataclass(frozen=True)
class Deposit:
    """A deposit of `owner`; its id is our reference at the provider."""

    id: str
    owner: str
    asked: Money
    created_at: datetime
    state: DepositState = DepositState.OPENING
    link: str = ""
    received: Money | None = None


@dataclass(frozen=True)
class VirtualAccount:
    """A bank account number of `owner`; its id is our reference at the provider.

    `provider_id` is the provider's id, empty until it is known.
    """

    id: str
    owner: str
    currency: str
    created_at: datetime
    state: AccountState = AccountState.REQUESTED
    provider_id: str = ""
    bank_name: str = ""
    account_number: str = field(default="", repr=False)
    account_name: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Withdrawal:
    """A withdrawal of `owner` to `to`; its id is our reference at the provider."""

    id: str
    owner: str
    amount: Money
    to: Destination
    created_at: datetime
    state: WithdrawalState = WithdrawalState.REQUESTED
    doubted_at: datetime | None = None
    """When it was last sent with an unknown outcome."""
    failure: str = ""
