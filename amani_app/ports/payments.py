"""The payment provider: money in by checkout or virtual account, money out to bank accounts.

Whatever has an effect carries a reference of ours, and can be asked about by it. The provider
takes a reference once: that, and asking before anything is repeated, makes a pay-out happen once.
"""

from __future__ import annotations

import enum
import hashlib
import typing as t
from dataclasses import dataclass, field

from amani_app.domain.errors import DomainError
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination


class ProviderUnavailable(Exception):
    """No answer; what was asked for has not happened, and may be asked for again."""


class AnswerUnknown(ProviderUnavailable):
    """No definite answer: it may have happened, or may yet. Ask by the reference before more."""


class PaymentRefused(DomainError):
    """The provider's definite no: it has not happened and will not."""

    code = "payment-refused"


class UnknownPayee(DomainError):
    """The bank has no such account."""

    code = "unknown-payee"


class ForgedNotice(Exception):
    """A notice whose signature is not the provider's."""


class PaymentOutcome(enum.Enum):
    """What became of something at the provider."""

    WAITING = "waiting"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    """For good: failed, or expired before anything was paid."""


@dataclass(frozen=True)
class Collection:
    """A checkout as the provider tells it; *received* is what came in, more or less than asked.

    *fee* is what the provider kept of that, where it tells so: payers bear it, as a rule.
    """

    reference: str
    outcome: PaymentOutcome
    received: Money
    link: str = ""
    fee: Money | None = None

    @property
    def kept(self) -> Money:
        """What of *received* our wallet did not get."""
        return self.fee or Money.zero(self.received.currency)


@dataclass(frozen=True)
class Payout:
    """A pay-out as the provider tells it.

    *fee* is what it charges beside *amount*; ``None`` where it does not tell.
    """

    reference: str
    outcome: PaymentOutcome
    amount: Money
    reason: str = ""
    fee: Money | None = None

    @property
    def charged(self) -> Money:
        """What it takes from our wallet."""
        return self.amount + self.fee if self.fee else self.amount


@dataclass(frozen=True)
class AccountHolder:
    """Whose virtual account it is to be, as the provider must know (KYC).

    It is handed through to the provider and kept nowhere: in no row, no log, no queue.
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
    """A virtual account as the provider tells it; *reference* is ours, *id* the provider's."""

    reference: str
    id: str
    state: AccountState
    bank_name: str = ""
    account_number: str = field(default="", repr=False)
    account_name: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Inflow:
    """A bank transfer into a virtual account; *reference* is the provider's.

    *amount* is what was sent. Of it the provider kept *fee*: our wallet there got the rest.
    """

    reference: str
    outcome: PaymentOutcome
    account_number: str = field(repr=False)
    amount: Money
    fee: Money


class NoticeKind(enum.Enum):
    """What a notice is about."""

    COLLECTION = "collection"
    PAYOUT = "payout"
    INFLOW = "inflow"
    """Its reference is the provider's, of the transfer into a virtual account."""
    ACCOUNT = "account"
    """Its reference is the provider's own id of a virtual account."""
    OTHER = "other"


@dataclass(frozen=True)
class ProviderNotice:
    """A signed word of the provider. It is a reason to ask, never a reason to move money."""

    kind: NoticeKind
    event: str
    reference: str
    status: str

    @property
    def personal(self) -> bool:
        """Whether its body tells of a person what we need not know, and must not keep."""
        return self.kind is NoticeKind.ACCOUNT

    @property
    def renewable(self) -> frozenset[str]:
        """The outcomes after which a copy of it is due again.

        An account may be closed and opened in turn, and what became of a pay-out be taken back,
        told in the same words each time.
        """
        turning = self.kind in (NoticeKind.ACCOUNT, NoticeKind.PAYOUT)
        ended = ("done", "ignored") if turning else ()
        return frozenset({"given-up", *ended})

    def fingerprint(self, raw: bytes) -> str:
        """The same for each copy of it, however it is spaced or ordered inside: it has no id.

        An account may be changed more than once in the same words: there, each body is its own.
        """
        said = (self.kind.value, self.event, self.reference, self.status)
        once = self.reference and self.kind is not NoticeKind.ACCOUNT
        words = "\n".join(said).encode() if once else raw
        return hashlib.sha256(words).hexdigest()


class Payments(t.Protocol):
    """Every method but ``read_notice`` may raise ``ProviderUnavailable``."""

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        """Open a checkout for *amount*; the link that the payer follows.

        Raises ``PaymentRefused``, also for a reference that was used before, and
        ``AnswerUnknown``.
        """

    def collection(self, reference: str) -> Collection | None:
        """The checkout with our *reference*; ``None`` when the provider knows none."""

    def request_account(
        self, reference: str, currency: str, holder: AccountHolder
    ) -> IssuedAccount:
        """Ask for a virtual account in *currency*.

        Raises ``PaymentRefused`` and ``AnswerUnknown``.
        """

    def account(self, reference: str) -> IssuedAccount | None:
        """The virtual account with our *reference*; ``None`` when the provider knows none."""

    def account_named(self, id: str) -> IssuedAccount | None:
        """The virtual account that the provider calls *id*; ``None`` when it knows none."""

    def inflow(self, reference: str) -> Inflow | None:
        """The transfer that the provider calls *reference*; ``None`` when it knows none."""

    def inflows(self, id: str) -> list[Inflow]:
        """The newest transfers into the virtual account that the provider calls *id*."""

    def payee(self, bank_code: str, account_number: str, currency: str) -> str:
        """The name that the bank has for an account. Raises ``UnknownPayee``."""

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        """Send *amount* to a bank account.

        A reference that was used before sends nothing: the first one is answered again. Raises
        ``PaymentRefused`` and ``AnswerUnknown``.
        """

    def payout(self, reference: str) -> Payout | None:
        """The pay-out with our *reference*; ``None`` when the provider knows none (yet)."""

    def balance(self, currency: str) -> Money:
        """What our wallet at the provider holds, pay-outs under way perhaps still included."""

    def read_notice(self, raw: bytes, headers: t.Mapping[str, str]) -> ProviderNotice:
        """The notice in the body *raw*, after its signature is verified.

        The names of *headers* are in lower case. Raises ``ForgedNotice``, and ``ValueError`` if a
        signed body is not a notice.
        """
