"""Money that comes in at the payment provider."""

from __future__ import annotations

from dataclasses import replace

from amani_app.application.common.acting import Actor, NotFound, Context
from amani_app.application.common.queues import POLL_AFTER
from amani_app.domain.errors import MoneyError
from amani_app.domain.ledger import Account, AccountKind, receive
from amani_app.domain.money import Money
from amani_app.domain.payments import Deposit, DepositState
from amani_app.ports.payments import Collection, PaymentOutcome
from amani_app.ports.store import UnitOfWork


class DepositUseCases:
    """To be called inside a unit of work; nothing here speaks to the provider."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def request(self, unit: UnitOfWork, actor: Actor, asked: Money) -> Deposit:
        """The actor wants to bring *asked* in. Raises ``MoneyError`` for less than something."""
        if asked.minor <= 0:
            raise MoneyError(f"{asked} cannot be deposited")
        now = self._context.now()
        deposit = Deposit(self._context.new_id(), actor.user, asked, now)
        unit.deposits.add(deposit, now + POLL_AFTER)
        self._context.record(
            unit, actor, "deposit.requested", deposit.id, "", deposit.state.value, asked=str(asked)
        )
        return deposit

    def read(self, unit: UnitOfWork, actor: Actor, id: str) -> Deposit:
        """One of the actor's own. Raises ``NotFound``."""
        try:
            found = unit.deposits.get(id)
        except KeyError:
            raise NotFound(f"no deposit {id}") from None
        if found.owner != actor.user:
            raise NotFound(f"no deposit {id}")
        return found

    def opened(self, unit: UnitOfWork, actor: Actor, id: str, link: str) -> Deposit:
        """The provider gave *link*, or none and never will; what has gone on stays as it is."""
        deposit = unit.deposits.get(id, lock=True)
        if deposit.state is not DepositState.OPENING:
            return deposit
        state = DepositState.PENDING if link else DepositState.FAILED
        after = replace(deposit, state=state, link=link)
        unit.deposits.save(after, self._context.now() + POLL_AFTER if link else None)
        topic = "deposit.opened" if link else "deposit.failed"
        self._context.record(unit, actor, topic, id, deposit.state.value, state.value)
        return after

    def settle(self, unit: UnitOfWork, actor: Actor, found: Collection) -> None:
        """Do as the provider's word on a checkout demands; the second time it demands nothing.

        What came in for no deposit of ours, or in another currency than was asked for, goes to
        suspense, as does what comes in for a deposit that was booked before. Raises
        ``AlreadyBooked`` when it stands there.
        """
        try:
            deposit = unit.deposits.get(found.reference, lock=True)
        except KeyError:
            if _arrived(found):
                self._unattributed(unit, actor, found)
            return
        if deposit.state.booked:
            self._paid_again(unit, actor, deposit, found)
            return
        if _arrived(found):
            unit.deposits.save(self._book(unit, actor, deposit, found), None)
        elif found.outcome is PaymentOutcome.FAILED and deposit.state is not DepositState.FAILED:
            unit.deposits.save(replace(deposit, state=DepositState.FAILED), None)
            self._context.record(
                unit, actor, "deposit.failed", deposit.id, deposit.state.value, "failed"
            )

    def collected(
        self,
        unit: UnitOfWork,
        actor: Actor,
        owner: str,
        reference: str,
        asked: Money,
        got: Money,
        fee: Money | None = None,
    ) -> Money:
        """Book what arrived for *reference*; what *owner*'s wallet was credited with.

        The asked amount is credited, and what is over it goes to suspense; when less arrived, all
        of it goes to suspense, for a person to look at. What the provider kept as its *fee* is ours
        to bear. Raises ``AlreadyBooked`` for a reference that was booked before: a repeated notice
        credits nothing.
        """
        credited = asked if got >= asked else Money.zero(asked.currency)
        unit.ledger.book(
            receive(
                self._context.new_id(),
                "deposit",
                reference,
                fee or Money.zero(asked.currency),
                (Account(AccountKind.WALLET, asked.currency, owner), credited),
                (Account(AccountKind.SUSPENSE, asked.currency), got - credited),
            )
        )
        self._context.record(
            unit, actor, "deposit.collected", reference, str(asked), str(got), owner=owner
        )
        return credited

    def _book(self, unit: UnitOfWork, actor: Actor, deposit: Deposit, found: Collection) -> Deposit:
        got, asked = found.received, deposit.asked
        if got.currency != asked.currency:
            self._unattributed(unit, actor, found)
            return replace(deposit, state=DepositState.SUSPENDED)
        owner, id = deposit.owner, deposit.id
        credited = self.collected(unit, actor, owner, id, asked, got, found.kept)
        state = DepositState.CREDITED if credited else DepositState.SUSPENDED
        return replace(deposit, state=state, received=got)

    def _paid_again(
        self, unit: UnitOfWork, actor: Actor, deposit: Deposit, found: Collection
    ) -> None:
        """What came in after the deposit was booked is nobody's yet: it goes to suspense."""
        before, sum_ = deposit.received, found.received
        if before is None or sum_.currency != before.currency or sum_ <= before:
            return
        suspense = (Account(AccountKind.SUSPENSE, sum_.currency), sum_ - before)
        free = Money.zero(sum_.currency)
        # With the sum so far a third payment has a reference of its own, and a repeat has not.
        reference = f"{deposit.id}:{sum_.minor}"
        book = unit.ledger.book
        book(receive(self._context.new_id(), "paid-again", reference, free, suspense))
        unit.deposits.save(replace(deposit, received=sum_), None)
        self._context.record(unit, actor, "deposit.paid-again", deposit.id, str(before), str(sum_))

    def _unattributed(self, unit: UnitOfWork, actor: Actor, found: Collection) -> None:
        suspense = (Account(AccountKind.SUSPENSE, found.received.currency), found.received)
        id = self._context.new_id()
        unit.ledger.book(receive(id, "unattributed", found.reference, found.kept, suspense))
        self._context.record(
            unit, actor, "deposit.unattributed", found.reference, "", str(found.received)
        )


def _arrived(found: Collection) -> bool:
    return found.outcome is PaymentOutcome.SUCCESSFUL and found.received.minor > 0
