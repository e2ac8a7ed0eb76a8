"""The payment provider: deposits by checkout or virtual account, payouts to bank accounts.

Every call with an effect carries a reference of ours, and its outcome can be queried by it. The
provider accepts a reference once. Together with a query before every retry, this makes a payout
happen exactly once.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from typing import Protocol
from dataclasses import dataclass, field

from amani_app.domain.errors import DomainError
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination


class ProviderUnavailable(Exception):
    """The provider is unreachable. The request had no effect and may be repeated."""


class AnswerUnknown(ProviderUnavailable):
    """The outcome is unknown: the request may have had its effect, or may have it later.

    Query it by the reference before a retry.
    """


class PaymentRefused(DomainError):
    """The provider refused the request. It had no effect and will have none."""

    code = "payment-refused"


class UnknownPayee(DomainError):
    """The bank does not know the account."""

    code = "unknown-payee"


class ForgedNotice(Exception):
    """The signature of a notice is not valid."""


class PaymentOutcome(enum.Enum):
    """The outcome of a checkout, a payout or a transfer."""

    WAITING = "waiting"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    """Final: failed, or expired without a payment."""


@dataclass(frozen=True)
class Collection:
    """The state of a checkout. `received` is what arrived, which may differ from the amount.

    `fee` is the part that the provider kept; `None` if the payer bore it, as is the rule.
    """

    reference: str
    outcome: PaymentOutcome
    received: Money
    link: str = ""
    fee: Money | None = None

    @property
    def kept(self) -> Money:
        """The part of `received` that did not reach our wallet."""
        return self.fee or Money.zero(self.received.currency)


@dataclass(frozen=True)
class Payout:
    """The state of a payout.

    `fee` is charged beside `amount`; `None` if the provider has not reported it.
    """

    reference: str
    outcome: PaymentOutcome
    amount: Money
    reason: str = ""
    fee: Money | None = None

    @property
    def charged(self) -> Money:
        """The amount that leaves our wallet."""
        return self.amount + self.fee if self.fee else self.amount


@dataclass(frozen=True)
class AccountHolder:
    """The owner of a virtual account, as the provider must know them (KYC).

    Passed through to the provider and stored nowhere: in no row, no log and no queue.
    """

    first_name: str
    last_name: str
    email: str
    bvn: str
    """The bank verification number."""

    def __repr__(self) -> str:
        return "Holder(...)"


@dataclass(frozen=True)
class IssuedAccount:
    """The state of a virtual account; `reference` is ours, `id` is the provider's."""

    reference: str
    id: str
    state: AccountState
    bank_name: str = ""
    account_number: str = field(default="", repr=False)
    account_name: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Inflow:
    """A bank transfer into a virtual account; `reference` is the provider's.

    `amount` is what was sent. The provider kept `fee` of it; our wallet received the rest.
    """

    reference: str
    outcome: PaymentOutcome
    account_number: str = field(repr=False)
    amount: Money
    fee: Money


class NoticeKind(enum.Enum):
    COLLECTION = "collection"
    PAYOUT = "payout"
    INFLOW = "inflow"
    """The reference is the provider's id of a transfer into a virtual account."""
    ACCOUNT = "account"
    """The reference is the provider's id of a virtual account."""
    OTHER = "other"


@dataclass(frozen=True)
class ProviderNotice:
    """A webhook's content, after its signature was verified.

    It triggers a query of the provider; by itself it never moves money.
    """

    kind: NoticeKind
    event: str
    reference: str
    status: str

    @property
    def personal(self) -> bool:
        """Whether the body holds personal data (KYC), which must not be stored."""
        return self.kind is NoticeKind.ACCOUNT

    @property
    def renewable(self) -> frozenset[str]:
        """The outcomes after which a copy of it is due again.

        An account may close and open several times, and a payout may be reversed: each time the
        provider sends the same text.
        """
        turning = self.kind in (NoticeKind.ACCOUNT, NoticeKind.PAYOUT)
        ended = ("done", "ignored") if turning else ()
        return frozenset({"given-up", *ended})

    def fingerprint(self, raw: bytes) -> str:
        """The identity of the notice, which has no id: equal for copies with other spacing.

        For an account, whose changes repeat the same fields, it is the hash of the whole body.
        """
        fields = (self.kind.value, self.event, self.reference, self.status)
        once = self.reference and self.kind is not NoticeKind.ACCOUNT
        content = "\n".join(fields).encode() if once else raw
        return hashlib.sha256(content).hexdigest()


class Payments(Protocol):
    """A payment provider. All methods except `read_notice` may raise `ProviderUnavailable`."""

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        """Open a checkout for `amount`; returns the payment link.

        Raises `PaymentRefused`, also for a reference that was used before, and
        `AnswerUnknown`.
        """

    def collection(self, reference: str) -> Collection | None:
        """The checkout with our `reference`; `None` if there is none."""

    def request_account(
        self, reference: str, currency: str, holder: AccountHolder
    ) -> IssuedAccount:
        """Request a virtual account in `currency`.

        Raises `PaymentRefused` and `AnswerUnknown`.
        """

    def account(self, reference: str) -> IssuedAccount | None:
        """The virtual account with our `reference`; `None` if there is none."""

    def account_named(self, id: str) -> IssuedAccount | None:
        """The virtual account with the provider's `id`; `None` if there is none."""

    def inflow(self, reference: str) -> Inflow | None:
        """The transfer with the provider's `reference`; `None` if there is none."""

    def inflows(self, id: str) -> list[Inflow]:
        """The newest transfers into the virtual account with the provider's `id`."""

    def payee(self, bank_code: str, account_number: str, currency: str) -> str:
        """The account holder's name at the bank. Raises `UnknownPayee`."""

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        """Send `amount` to a bank account.

        A reference that was used before sends nothing; the first payout is returned. Raises
        `PaymentRefused` and `AnswerUnknown`.
        """

    def payout(self, reference: str) -> Payout | None:
        """The payout with our `reference`; `None` if there is none (yet)."""

    def balance(self, currency: str) -> Money:
        """The balance of our wallet; open payouts may or may not be deducted."""

    def read_notice(self, raw: bytes, headers: Mapping[str, str]) -> ProviderNotice:
        """The notice in the body `raw`, after its signature is verified.

        The names of `headers` are in lower case. Raises `ForgedNotice`, and `ValueError` if a
        signed body is not a notice.
        """
