"""The ``Payments`` in memory: a provider that does what it is told, and forgets it at the end."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace

from amani_app.adapters.fincra import notices
from amani_app.domain.money import Money
from amani_app.domain.payments import Destination
from amani_app.ports.payments import (
    Collection,
    Notice,
    Outcome,
    PaymentRefused,
    Payout,
    UnknownPayee,
)

NOBODY = "0000000000"
"""The one account number that no bank has."""


@dataclass
class MemoryPayments:
    """See ``ports.payments.Payments``; ``pay`` and ``finish`` are what the world does to it."""

    secret: str = "the webhook secret of the twin"
    base: str = "https://checkout.invalid"
    _asked: dict[str, Money] = field(default_factory=dict)
    _collections: dict[str, Collection] = field(default_factory=dict)
    _payouts: dict[str, Payout] = field(default_factory=dict)
    _balances: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        """A link that leads nowhere."""
        with self._lock:
            if reference in self._asked:
                raise PaymentRefused(f"the reference {reference} was used before")
            link = f"{self.base}/pay/{reference}"
            self._asked[reference] = amount
            nothing = Money.zero(amount.currency)
            self._collections[reference] = Collection(reference, Outcome.WAITING, nothing, link)
            return link

    def collection(self, reference: str) -> Collection | None:
        """As it stands."""
        return self._collections.get(reference)

    def asked(self, reference: str) -> Money:
        """What the checkout is for. Raises ``KeyError``."""
        return self._asked[reference]

    def payee(self, bank_code: str, account_number: str, currency: str) -> str:
        """Everybody but nobody."""
        if account_number == NOBODY:
            raise UnknownPayee(f"the bank {bank_code} has no account with this number")
        return f"Holder of {account_number}"

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        """Taken on when the wallet has the money."""
        with self._lock:
            if found := self._payouts.get(reference):
                return found
            if self._balances[amount.currency] < amount.minor:
                raise PaymentRefused("not enough money in the wallet")
            self._balances[amount.currency] -= amount.minor
            self._payouts[reference] = Payout(reference, Outcome.WAITING, amount)
            return self._payouts[reference]

    def payout(self, reference: str) -> Payout | None:
        """As it stands."""
        return self._payouts.get(reference)

    def balance(self, currency: str) -> Money:
        """Less what is on its way out."""
        return Money(self._balances[currency], currency)

    def read_notice(self, raw: bytes, signature: str) -> Notice:
        """In Fincra's shape."""
        return notices.read(self.secret, raw, signature)

    def fund(self, amount: Money) -> None:
        """Money comes in that belongs to no checkout."""
        with self._lock:
            self._balances[amount.currency] += amount.minor

    def pay(self, reference: str, amount: Money) -> None:
        """The payer pays *amount*, which need not be what was asked for, nor the first time."""
        with self._lock:
            self._balances[amount.currency] += amount.minor
            # A notice may name a payment that never had a checkout.
            known = self._collections.get(reference)
            received = amount
            if known and known.received.currency == amount.currency:
                received = known.received + amount
            self._asked.setdefault(reference, amount)
            link = known.link if known else ""
            self._collections[reference] = Collection(reference, Outcome.SUCCESSFUL, received, link)

    def expire(self, reference: str) -> None:
        """Nobody paid in time."""
        with self._lock:
            found = self._collections[reference]
            self._collections[reference] = replace(found, outcome=Outcome.FAILED)

    def finish(self, reference: str, outcome: Outcome, reason: str = "") -> None:
        """The bank's word on a pay-out; one that failed comes back."""
        with self._lock:
            found = self._payouts[reference]
            if found.outcome is Outcome.WAITING and outcome is Outcome.FAILED:
                self._balances[found.amount.currency] += found.amount.minor
            self._payouts[reference] = replace(found, outcome=outcome, reason=reason)
