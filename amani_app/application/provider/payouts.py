"""Withdrawals at the provider: sent once in effect, whatever happens to the answers."""

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
"""A pay-out that was sent without a definite answer may still appear within this time: a refusal
that comes sooner may be of the repetition only, and gives nobody his money back."""


class Payouts:
    """Every call to the provider is outside the units of work; also a job of the worker.

    Nothing is sent before the row says so, and nothing is sent again before the provider was
    asked about its reference. The reservation is settled by the provider's last word only.
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
        """Send a withdrawal that was never sent; one that was is left to the job."""
        until = self._context.now() + LEASE
        found = self._store.run(lambda unit: self._withdrawals.take(unit, actor, id, until))
        if found is not None:
            self._post(replace(found, doubted_at=None), until, 1)  # The first time ever.

    def check(self, reference: str) -> bool:
        """Ask the provider and do as it says; whether that was its last word.

        Raises ``ProviderUnavailable``.
        """
        try:
            known = self._store.read(lambda unit: unit.withdrawals.get(reference))
        except KeyError:
            known = None
        # After that: an answer that was on its way while another one was booked is no new word.
        found = self._payments.payout(reference)
        if known is not None and known.state.final:
            return self._review(known, found)
        return found is not None and self._note(found)

    def __call__(self, going: Going = always) -> int:
        """Ask about what is due, and send again what the provider never got."""
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
            # It was taken on and now is not there: only the provider's people know.
            self._put_off(withdrawal.id, attempts)

    def _post(self, withdrawal: Withdrawal, until: datetime, attempts: int) -> None:
        now = self._context.now()
        if now >= until:
            return  # Paused for so long that another worker may be at it.
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
                # What it cost is told when the provider is asked, and is booked with it.
                self._put_off(withdrawal.id, attempts)
            else:
                self._note(found)

    def _refused(self, withdrawal: Withdrawal, attempts: int, taken: datetime, why: str) -> None:
        # As of when it was taken up: the provider was asked about it after that.
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
            # Only people can tell what that is; the reconciliation shows it to them.
            self._put_off(ours.id, attempts + 5)
            return False
        if last:
            self._settle(found)
            return True
        due = self._context.now() + (wait(attempts + 5) if attempts else POLL_AFTER)
        self._store.run(lambda unit: self._withdrawals.accepted(unit, CLOCK, ours.id, due))
        return False

    def _review(self, ours: Withdrawal, found: Payout | None) -> bool:
        """What was settled by the provider's last word is corrected by a later one."""
        if found is None:
            return not ours.state.paid  # What it refused it does not have.
        paid = found.outcome is PaymentOutcome.SUCCESSFUL
        if found.outcome is PaymentOutcome.WAITING or found.amount != ours.amount:
            return False
        if paid is ours.state.paid:
            return True
        id, why, fee = ours.id, found.reason, found.fee
        try:
            self._store.run(lambda unit: self._withdrawals.correct(unit, CLOCK, id, why, fee))
        except AlreadySettled:
            return False  # Its word turns like the wind; the reconciliation shows what is missing.
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
