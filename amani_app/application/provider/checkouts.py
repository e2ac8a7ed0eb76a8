"""Deposits at the provider: opening checkouts and querying their outcome."""

from __future__ import annotations


from amani_app.application.common.acting import CLOCK, Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.common.queues import LEASE, Going, always, drain, wait
from amani_app.domain.payments import Deposit, DepositState
from amani_app.ports.payments import PaymentOutcome, PaymentRefused, Payments, ProviderUnavailable
from amani_app.ports.store import AlreadyBooked, Store, UnitOfWork


class Checkouts:
    """Opens and checks deposits; also a job of the worker. Calls no provider in a unit of work."""

    name = "check-deposits"

    def __init__(
        self,
        context: Context,
        store: Store,
        payments: Payments,
        deposits: DepositUseCases,
    ) -> None:
        self._context = context
        self._store = store
        self._payments = payments
        self._deposits = deposits

    def open(self, id: str, actor: Actor = CLOCK, tried: bool = False) -> Deposit:
        """Request the payment link of a deposit and store it.

        If `tried`, the provider is queried first. A checkout whose link was lost cannot be paid,
        so its deposit fails. Raises `ProviderUnavailable`.
        """
        deposit = self._store.read(lambda unit: unit.deposits.get(id))
        if deposit.state is not DepositState.OPENING:
            return deposit
        user = self._store.read(lambda unit: unit.users.get(deposit.owner))
        known = self._payments.collection(id) if tried else None
        try:
            if known is None:
                link = self._payments.checkout(id, deposit.asked, user.email, user.name)
            else:
                link = known.link
        except PaymentRefused:
            link = ""
        return self._store.run(lambda unit: self._deposits.opened(unit, actor, id, link))

    def check(self, reference: str, actor: Actor = CLOCK) -> bool:
        """Query the provider and settle the deposit; returns whether the outcome is final.

        Raises `ProviderUnavailable`.
        """
        if (found := self._payments.collection(reference)) is None:
            return False
        try:
            self._store.run(lambda unit: self._deposits.settle(unit, actor, found))
        except AlreadyBooked:
            pass  # By another worker, or for another notice of the same payment.
        return found.outcome is not PaymentOutcome.WAITING

    def __call__(self, going: Going = always) -> int:
        """Open and check what is due. This also finds payments whose notice was lost."""
        return drain(self._claim, self._do, going)

    def _claim(self) -> tuple[Deposit, int] | None:
        now = self._context.now()
        return self._store.run(lambda unit: unit.deposits.claim(now, now + LEASE))

    def _do(self, claimed: tuple[Deposit, int]) -> None:
        deposit, attempts = claimed
        try:
            if deposit.state is DepositState.OPENING:
                self.open(deposit.id, tried=True)
                return
            last = self.check(deposit.id)
        except ProviderUnavailable:
            last = False
        if not last:
            self._put_off(deposit.id, attempts)

    def _put_off(self, id: str, attempts: int) -> None:
        due = self._context.now() + wait(attempts + 5)
        unsettled = (DepositState.OPENING, DepositState.PENDING)

        def change(unit: UnitOfWork) -> None:
            found = unit.deposits.get(id, lock=True)
            if found.state in unsettled:
                unit.deposits.save(found, due)

        self._store.run(change)
