"""The `Payments` in memory, with methods that simulate payers and banks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from collections import Counter
from dataclasses import dataclass, field, replace

from amani_app.adapters.fincra import notices
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination
from amani_app.ports.payments import (
    Collection,
    AccountHolder,
    Inflow,
    IssuedAccount,
    ProviderNotice,
    PaymentOutcome,
    PaymentRefused,
    Payout,
    UnknownPayee,
)

UNKNOWN_NUMBER = "0000000000"
"""The account number that `payee` reports as unknown."""
NO_BVN = "00000000000"
"""The bank verification number that is always refused."""


@dataclass
class MemoryPayments:
    """The `Payments` in memory; notices are signed as Fincra signs them.

    `fund`, `pay`, `expire`, `finish`, `decide` and `transfer` simulate payers, banks
    and the provider's staff.
    """

    secret: str = "the webhook secret of the twin"
    base: str = "https://checkout.invalid"
    fee: int = 0
    """The fee of a payout beside its amount, in minor units."""
    accounts: AccountState = AccountState.ACTIVE
    """The first state of a requested virtual account."""
    issued_accounts: dict[str, IssuedAccount] = field(default_factory=dict)
    account_numbers: dict[str, str] = field(default_factory=dict)
    transfers: dict[str, Inflow] = field(default_factory=dict)
    amounts: dict[str, Money] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    payouts: dict[str, Payout] = field(default_factory=dict)
    balances: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        with self._lock:
            if reference in self.amounts:
                raise PaymentRefused(f"the reference {reference} was used before")
            link = f"{self.base}/pay/{reference}"
            self.amounts[reference] = amount
            nothing = Money.zero(amount.currency)
            self.collections[reference] = Collection(
                reference, PaymentOutcome.WAITING, nothing, link
            )
            return link

    def collection(self, reference: str) -> Collection | None:
        return self.collections.get(reference)

    def asked(self, reference: str) -> Money:
        """The amount of the checkout. Raises `KeyError` if there is none."""
        return self.amounts[reference]

    def payee(self, bank_code: str, account_number: str, currency: str) -> str:
        if account_number == UNKNOWN_NUMBER:
            raise UnknownPayee(f"the bank {bank_code} has no account with this number")
        return f"Holder of {account_number}"

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        """Refused unless the wallet covers the amount and the fee."""
        with self._lock:
            if found := self.payouts.get(reference):
                return found
            fee = Money(self.fee, amount.currency)
            made = Payout(reference, PaymentOutcome.WAITING, amount, fee=fee)
            if self.balances[amount.currency] < made.charged.minor:
                raise PaymentRefused("not enough money in the wallet")
            self.balances[amount.currency] -= made.charged.minor
            self.payouts[reference] = made
            return made

    def payout(self, reference: str) -> Payout | None:
        return self.payouts.get(reference)

    def balance(self, currency: str) -> Money:
        """The wallet's balance; open payouts are deducted."""
        return Money(self.balances[currency], currency)

    def read_notice(self, raw: bytes, headers: Mapping[str, str]) -> ProviderNotice:
        return notices.read(self.secret, raw, headers.get("signature", ""))

    def fund(self, amount: Money) -> None:
        """Add `amount` to the wallet without a checkout."""
        with self._lock:
            self.balances[amount.currency] += amount.minor

    def pay(self, reference: str, amount: Money, fee: int = 0) -> None:
        """The payer pays `amount`, which may differ from the amount of the checkout, and may be a
        further payment.

        The provider keeps `fee` minor units of it; 0 if the payer bears the fee.
        """
        with self._lock:
            self.balances[amount.currency] += amount.minor - fee
            # A notice may name a payment that never had a checkout.
            known = self.collections.get(reference)
            received = amount
            if known and known.received.currency == amount.currency:
                received = known.received + amount
            self.amounts.setdefault(reference, amount)
            link = known.link if known else ""
            kept = Money(fee, amount.currency) if fee else None
            made = Collection(reference, PaymentOutcome.SUCCESSFUL, received, link, kept)
            self.collections[reference] = made

    def expire(self, reference: str) -> None:
        with self._lock:
            found = self.collections[reference]
            self.collections[reference] = replace(found, outcome=PaymentOutcome.FAILED)

    def finish(self, reference: str, outcome: PaymentOutcome, reason: str = "") -> None:
        """Set the outcome of a payout, also a second time; a failed one is credited again."""
        with self._lock:
            found = self.payouts[reference]
            back = (outcome is PaymentOutcome.FAILED) - (found.outcome is PaymentOutcome.FAILED)
            self.balances[found.amount.currency] += back * found.charged.minor
            self.payouts[reference] = replace(found, outcome=outcome, reason=reason)

    def request_account(
        self, reference: str, currency: str, holder: AccountHolder
    ) -> IssuedAccount:
        """The account gets the state `accounts`; the holder's data is not stored."""
        with self._lock:
            if holder.bvn == NO_BVN:
                raise PaymentRefused(f"the BVN {holder.bvn[:4]}... does not match the name")
            if any(each.reference == reference for each in self.issued_accounts.values()):
                raise PaymentRefused(f"the reference {reference} was used before")
            name = f"{holder.first_name} {holder.last_name}"
            id = hashlib.sha256(reference.encode()).hexdigest()[:24]
            self.account_numbers[id] = f"{9_900_000_000 + len(self.issued_accounts)}"
            self.issued_accounts[id] = IssuedAccount(
                reference, id, AccountState.PENDING, "Sandbox Bank", "", name
            )
            if self.accounts is not AccountState.PENDING:
                self.decide(id, self.accounts)
            return self.issued_accounts[id]

    def account(self, reference: str) -> IssuedAccount | None:
        found = (each for each in self.issued_accounts.values() if each.reference == reference)
        return next(found, None)

    def account_named(self, id: str) -> IssuedAccount | None:
        return self.issued_accounts.get(id)

    def inflow(self, reference: str) -> Inflow | None:
        return self.transfers.get(reference)

    def inflows(self, id: str) -> list[Inflow]:
        """All transfers into the account, newest first."""
        found = self.transfers.values()
        return [
            each for each in reversed(found) if each.account_number == self.account_numbers.get(id)
        ]

    def id_of(self, number: str) -> str:
        """The id of the account with this number; empty if there is none."""
        return next((id for id, each in self.account_numbers.items() if each == number), "")

    def decide(self, id: str, state: AccountState, reason: str = "") -> None:
        """Set the state of an account; an active one has a number."""
        with self._lock:
            number = self.account_numbers[id] if state is AccountState.ACTIVE else ""
            found = self.issued_accounts[id]
            number = number or found.account_number
            self.issued_accounts[id] = replace(
                found, state=state, account_number=number, reason=reason
            )

    def transfer(self, number: str, amount: Money, fee: Money, reference: str) -> Inflow:
        """Record a transfer of `amount` to `number`; the provider keeps `fee` of it."""
        with self._lock:
            self.balances[amount.currency] += amount.minor - fee.minor
            made = Inflow(reference, PaymentOutcome.SUCCESSFUL, number, amount, fee)
            self.transfers[reference] = made
            return made
