"""Withdrawals at the provider: each payout happens once, even if responses are lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from amani_app.application.common.acting import CLOCK, Actor, Context
from amani_app.application.common.queues import LEASE, POLL_AFTER, Going, always, drain, wait
from amani_app.application.requests.withdrawals import WithdrawalUseCases
from amani_app.domain.errors import AlreadySettled
from amani_app.domain.payments import Withdrawal, WithdrawalState
from amani_app.ports.payments import (
    AnswerUnknown,
    PaymentOutcome,
    PaymentRefused,
    Payments,
    Payout,
    ProviderUnavailable,
)
from amani_app.ports.store import Store

QUIET = timedelta(minutes=15)
"""A payout that was sent with an unknown outcome may still appear within this time. A refusal that
comes sooner may concern the retry only, so it does not release the reservation."""


class Payouts:
    """Sends and checks payouts; also a job of the worker. Calls no provider in a unit of work.

    A payout is sent only after its row records that, and repeated only after a query by its
    reference. Only a final outcome of the provider settles the reservation.
    """

    name = "check-withdrawals"

    def __init__(
        self,
        context: Context,
        store: Store,
        payments: Payments,
        withdrawals: WithdrawalUseCases,
    ) -> None:
        self._context = context
        self._store = store
        self._payments = payments
        self._withdrawals = withdrawals

    def send(self, id: str, actor: Actor = CLOCK) -> None:
        """Send a withdrawal for the first time; the job retries it."""
        until = self._context.now() + LEASE
        found = self._store.run(lambda unit: self._withdrawals.take(unit, actor, id, until))
        if found is not None:
            self._post(
                replace(found, doubted_at=None), until, 1
            )  # Never sent before, so never in doubt.

    def check(self, reference: str) -> bool:
        """Query the provider and settle the withdrawal; returns whether the outcome is final.

        Raises `ProviderUnavailable`.
        """
        try:
            known = self._store.read(lambda unit: unit.withdrawals.get(reference))
        except KeyError:
            known = None
        # Query after the read: a response from before a settlement must not count as a reversal.
        found = self._payments.payout(reference)
        if known is not None and known.state.final:
            return self._review(known, found)
        return found is not None and self._note(found)

    def __call__(self, going: Going = always) -> int:
        """Query what is due, and send again what the provider never received."""
        return drain(self._claim, self._do, going)

    def _claim(self) -> tuple[Withdrawal, int, datetime] | None:
        now = self._context.now()
        found = self._store.run(lambda unit: unit.withdrawals.claim(now, now + LEASE))
        return (*found, now + LEASE) if found else None

    def _do(self, claimed: tuple[Withdrawal, int, datetime]) -> None:
        withdrawal, attempts, until = claimed
        try:
            found = self._payments.payout(withdrawal.id)
        except ProviderUnavailable:
            self._put_off(withdrawal.id, attempts)
            return
        if found is not None:
            self._note(found, attempts)
        elif withdrawal.state is WithdrawalState.SENDING:
            self._post(withdrawal, until, attempts + 1)
        else:
            # Accepted, and now unknown to the provider: an operator must ask its support.
            self._put_off(withdrawal.id, attempts)

    def _post(self, withdrawal: Withdrawal, until: datetime, attempts: int) -> None:
        now = self._context.now()
        if now >= until:
            return  # The lease has expired: another worker may be sending it.
        try:
            found = self._payments.pay_out(withdrawal.id, withdrawal.amount, withdrawal.to)
        except PaymentRefused as refusal:
            self._refused(withdrawal, attempts, until - LEASE, str(refusal))
        except AnswerUnknown:
            self._put_off(withdrawal.id, attempts, doubted=now)
        except ProviderUnavailable:
            self._put_off(withdrawal.id, attempts)
        else:
            if found.outcome is PaymentOutcome.SUCCESSFUL and found.fee is None:
                # The fee is known at the next query, and is booked with the payout.
                self._put_off(withdrawal.id, attempts)
            else:
                self._note(found)

    def _refused(self, withdrawal: Withdrawal, attempts: int, taken: datetime, why: str) -> None:
        # Measured from the claim, because the provider was queried after it.
        if withdrawal.doubted_at is not None and taken - withdrawal.doubted_at < QUIET:
            self._put_off(withdrawal.id, attempts)
        else:
            self._settle(Payout(withdrawal.id, PaymentOutcome.FAILED, withdrawal.amount, why))

    def _note(self, found: Payout, attempts: int = 0) -> bool:
        last = found.outcome is not PaymentOutcome.WAITING
        try:
            ours = self._store.read(lambda unit: unit.withdrawals.get(found.reference))
        except KeyError:
            return last  # Not one of ours.
        if found.amount != ours.amount:
            # An operator must decide; the reconciliation lists it.
            self._put_off(ours.id, attempts + 5)
            return False
        if last:
            self._settle(found)
            return True
        due = self._context.now() + (wait(attempts + 5) if attempts else POLL_AFTER)
        self._store.run(lambda unit: self._withdrawals.accepted(unit, CLOCK, ours.id, due))
        return False

    def _review(self, ours: Withdrawal, found: Payout | None) -> bool:
        """Correct a settled withdrawal if the provider has reversed its outcome."""
        if found is None:
            return not ours.state.paid  # A refused payout is unknown to the provider.
        paid = found.outcome is PaymentOutcome.SUCCESSFUL
        if found.outcome is PaymentOutcome.WAITING or found.amount != ours.amount:
            return False
        if paid is ours.state.paid:
            return True
        id, why, fee = ours.id, found.reason, found.fee
        try:
            self._store.run(lambda unit: self._withdrawals.correct(unit, CLOCK, id, why, fee))
        except AlreadySettled:
            return False  # A second reversal; the reconciliation lists the difference.
        return True

    def _settle(self, found: Payout) -> None:
        id, why, fee = found.reference, found.reason, found.fee
        paid = found.outcome is PaymentOutcome.SUCCESSFUL
        try:
            self._store.run(lambda unit: self._withdrawals.settle(unit, CLOCK, id, paid, why, fee))
        except AlreadySettled:
            pass  # By another worker, or for another notice.

    def _put_off(self, id: str, attempts: int, doubted: datetime | None = None) -> None:
        due = self._context.now() + wait(attempts)
        self._store.run(lambda unit: self._withdrawals.put_off(unit, id, due, doubted))
