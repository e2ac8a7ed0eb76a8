"""Reconciliation: the ledger against itself and against the payment provider."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from amani_app.domain.ledger import Account, AccountKind
from amani_app.domain.money import EXPONENTS, Money
from amani_app.application.requests.virtual_accounts import INFLOW
from amani_app.domain.payments import Deposit, VirtualAccount, Withdrawal, WithdrawalState
from amani_app.ports.payments import PaymentOutcome, Payments, ProviderUnavailable
from amani_app.ports.store import Store, UnitOfWork

LOOKS = 2
"""Money moves during the comparison, so only a difference that is found twice counts."""


@dataclass(frozen=True)
class ExpectedBalance:
    """By currency, in minor units: the expected balance at the provider, and its tolerance.

    `held` is the ledger's balance plus arrivals and minus payouts that are not booked yet. Open
    payouts are in `lacking`, because the provider may have deducted them already.
    """

    held: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)


class Reconcile:
    """Recomputes all balances; read-only. Without `payments` only the ledger is checked."""

    def __init__(self, store: Store, payments: Payments | None) -> None:
        self._store = store
        self._payments = payments

    def __call__(self) -> list[str]:
        """The differences, one line each; empty if there are none."""
        found: list[str] = []
        for _ in range(LOOKS):
            found = self._store.read(lambda unit: unit.ledger.differences())
            found += self._provider_differences()
            if not found:
                break
        return found

    def _provider_differences(self) -> list[str]:
        if self._payments is None:
            return []
        try:
            return self._compare(self._payments)
        except ProviderUnavailable:
            return ["the payment provider is unreachable: its balance was not compared"]

    def _compare(self, payments: Payments) -> list[str]:
        mirrors, deposits, accounts, withdrawals = self._store.read(_snapshot)
        expected, wrong = ExpectedBalance(), []
        expected.held.update(mirrors)
        for deposit in deposits:
            collection = payments.collection(deposit.id)
            if collection and collection.outcome is PaymentOutcome.SUCCESSFUL:
                got = collection.received - collection.kept
                expected.held[got.currency] += got.minor
        for account in accounts:
            wrong += self._add_inflows(payments, account, expected)
        for withdrawal in withdrawals:
            wrong += _look_at(payments, withdrawal, expected)
        for currency in sorted({*mirrors, *expected.held}):
            most = Money(expected.held[currency], currency)
            least = most - Money(expected.lacking[currency], currency)
            held = payments.balance(currency)
            if not least <= held <= most:
                booked = str(most) if least == most else f"{least} to {most}"
                wrong.append(f"the payment provider holds {held}, the ledger {booked}")
        return wrong

    def _add_inflows(
        self, payments: Payments, account: VirtualAccount, expected: ExpectedBalance
    ) -> list[str]:
        found = payments.inflows(account.provider_id)
        names = [each.reference for each in found]
        known = self._store.read(lambda unit: unit.ledger.booked(INFLOW, names))
        new = [
            x for x in found if x.outcome is PaymentOutcome.SUCCESSFUL and x.reference not in known
        ]
        for each in new:
            expected.held[each.amount.currency] += (each.amount - each.fee).minor
        # Transfers into a closed account are not queried any more.
        prefix = f"virtual account {account.id} is {account.state.value}; not booked:"
        lost = not account.state.open
        return [f"{prefix} {each.amount} of {each.reference}" for each in new if lost]


Snapshot = tuple[dict[str, int], list[Deposit], list[VirtualAccount], list[Withdrawal]]


def _snapshot(unit: UnitOfWork) -> Snapshot:
    totals = (unit.ledger.total(Account(AccountKind.PROVIDER, c)) for c in EXPONENTS)
    mirrors = {total.currency: -total.minor for total in totals if total}
    accounts = unit.virtual_accounts.issued()
    return mirrors, unit.deposits.waiting(), accounts, unit.withdrawals.waiting()


def _look_at(payments: Payments, withdrawal: Withdrawal, expected: ExpectedBalance) -> list[str]:
    found, currency = payments.payout(withdrawal.id), withdrawal.amount.currency
    if found is None:
        lost = withdrawal.state is WithdrawalState.PROCESSING
        difference = "the payment provider accepted it and does not know it now"
        return [f"withdrawal {withdrawal.id}: {difference}"] * lost
    if found.amount != withdrawal.amount:
        difference = f"{withdrawal.amount}, at the payment provider {found.amount}"
        return [f"withdrawal {withdrawal.id}: {difference}"]
    if found.outcome is PaymentOutcome.SUCCESSFUL:
        expected.held[currency] -= found.charged.minor
    elif found.outcome is PaymentOutcome.WAITING:
        expected.lacking[currency] += found.charged.minor
    return []
