"""The payment provider: money in by checkout, money out to bank accounts.

Whatever has an effect carries a reference of ours, and can be asked about by it. The provider
takes a reference once: that, and asking before anything is repeated, makes a pay-out happen once.
"""

from __future__ import annotations

import enum
import hashlib
import typing as t
from dataclasses import dataclass

from amani_app.domain.errors import DomainError
from amani_app.domain.money import Money
from amani_app.domain.payments import Destination


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


class Outcome(enum.Enum):
    """What became of something at the provider."""

    WAITING = "waiting"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    """For good: failed, or expired before anything was paid."""


@dataclass(frozen=True)
class Collection:
    """A checkout as the provider tells it; *received* is what came in, more or less than asked."""

    reference: str
    outcome: Outcome
    received: Money
    link: str = ""


@dataclass(frozen=True)
class Payout:
    """A pay-out as the provider tells it."""

    reference: str
    outcome: Outcome
    amount: Money
    reason: str = ""


class NoticeKind(enum.Enum):
    """What a notice is about."""

    COLLECTION = "collection"
    PAYOUT = "payout"
    OTHER = "other"


@dataclass(frozen=True)
class Notice:
    """A signed word of the provider. It is a reason to ask, never a reason to move money."""

    kind: NoticeKind
    event: str
    reference: str
    status: str

    def fingerprint(self, raw: bytes) -> str:
        """The same for each copy of it, however it is spaced or ordered inside: it has no id."""
        said = (self.kind.value, self.event, self.reference, self.status)
        words = "\n".join(said).encode() if self.reference else raw
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

    def read_notice(self, raw: bytes, signature: str) -> Notice:
        """What a notice says, once its signature over *raw* is found to be the provider's.

        Raises ``ForgedNotice``, and ``ValueError`` for a signed body that is no notice.
        """
