"""Money that comes in from outside and goes out again: deposits, virtual accounts, withdrawals."""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass, field
from datetime import datetime

from amani_app.domain.money import Money


class DepositState(enum.Enum):
    """Where a deposit stands."""

    OPENING = "opening"
    """The provider has not given the link yet."""
    PENDING = "pending"
    """The payer has the link."""
    CREDITED = "credited"
    """The wallet has what was asked for; what came on top of it is in suspense."""
    SUSPENDED = "suspended"
    """Less came than was asked for, or another currency: all of it is in suspense."""
    FAILED = "failed"
    """Nothing came, and the link is dead. A payment that arrives all the same is credited."""

    @property
    def booked(self) -> bool:
        """Whether money came in for it; that happens once."""
        return self in (DepositState.CREDITED, DepositState.SUSPENDED)


class WithdrawalState(enum.Enum):
    """Where a withdrawal stands. Its amount is reserved until it is paid or failed."""

    REQUESTED = "requested"
    """The provider has not heard of it."""
    SENDING = "sending"
    """The provider may have heard of it."""
    PROCESSING = "processing"
    """The provider has taken it on."""
    PAID = "paid"
    FAILED = "failed"
    RETURNED = "returned"
    """It was paid, and the bank has sent it back since: its owner has it again."""
    PAID_LATE = "paid-late"
    """It was given back, and has been paid all the same: what is missing is missing in suspense."""

    @property
    def final(self) -> bool:
        """Whether the reservation is settled."""
        return self is WithdrawalState.PAID or self is WithdrawalState.FAILED or self.corrected

    @property
    def corrected(self) -> bool:
        """Whether the provider has taken back the word by which it was settled."""
        return self in CORRECTIONS.values()

    @property
    def paid(self) -> bool:
        """Whether the money has left for good, as far as is known."""
        return self in (WithdrawalState.PAID, WithdrawalState.PAID_LATE)


CORRECTIONS: t.Mapping[WithdrawalState, WithdrawalState] = {
    WithdrawalState.PAID: WithdrawalState.RETURNED,
    WithdrawalState.FAILED: WithdrawalState.PAID_LATE,
}
"""What becomes of a settled withdrawal, once, when the provider says the opposite."""


class AccountState(enum.Enum):
    """Where a virtual account stands."""

    REQUESTED = "requested"
    """The provider may have heard of it."""
    PENDING = "pending"
    """The provider considers it."""
    ACTIVE = "active"
    """What is paid into it is its owner's."""
    DECLINED = "declined"
    CLOSED = "closed"
    """What is paid into it all the same goes to suspense."""
    FAILED = "failed"
    """The provider never heard of it; the owner asks anew, for nobody kept what it must be told."""

    @property
    def open(self) -> bool:
        """Whether it is or may become active by itself."""
        return self in (AccountState.REQUESTED, AccountState.PENDING, AccountState.ACTIVE)


@dataclass(frozen=True)
class Destination:
    """A bank account, and the name that its bank has for it."""

    bank_code: str
    account_number: str
    account_name: str

    @property
    def masked(self) -> str:
        """The account's number, of which only the last four digits are shown."""
        return self.account_number[-4:].rjust(len(self.account_number), "*")

    def __repr__(self) -> str:
        # Account numbers stay out of logs and traces.
        return f"Destination({self.bank_code}, {self.masked})"


@dataclass(frozen=True)
class Deposit:
    """Money that *owner* wants to bring in; its id is our reference at the provider."""

    id: str
    owner: str
    asked: Money
    created_at: datetime
    state: DepositState = DepositState.OPENING
    link: str = ""
    received: Money | None = None


@dataclass(frozen=True)
class VirtualAccount:
    """A bank account number for *owner* to be paid at; its id is our reference at the provider.

    ``provider_id`` is the provider's own name for it, empty until that is known.
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
    """Money that *owner* wants to have at *to*; its id is our reference at the provider."""

    id: str
    owner: str
    amount: Money
    to: Destination
    created_at: datetime
    state: WithdrawalState = WithdrawalState.REQUESTED
    doubted_at: datetime | None = None
    """When it was last sent without a definite answer."""
    failure: str = ""
