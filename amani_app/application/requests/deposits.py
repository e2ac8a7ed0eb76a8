"""Deposits: money that arrives at the payment provider."""

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
    """Call these methods inside a unit of work. They never call the provider."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def request(self, unit: UnitOfWork, actor: Actor, asked: Money) -> Deposit:
        """Create a deposit of `asked`. Raises `MoneyError` unless it is positive."""
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
        """Return a deposit of the actor. Raises `NotFound`."""
        try:
            found = unit.deposits.get(id)
        except KeyError:
            raise NotFound(f"no deposit {id}") from None
        if found.owner != actor.user:
            raise NotFound(f"no deposit {id}")
        return found

    def opened(self, unit: UnitOfWork, actor: Actor, id: str, link: str) -> Deposit:
        """Store the payment `link`; an empty one fails the deposit. No effect in a later state."""
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
        """Book the outcome of a checkout. Repeating it has no effect.

        Money for an unknown deposit, in another currency, or for a deposit that was booked before
        goes to suspense. Raises `AlreadyBooked` if it is there.
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
        """Book what arrived for `reference`; returns the amount credited to `owner`'s wallet.

        Example: 100.00 is `asked`. If 120.00 arrive, the wallet gets 100.00 and suspense 20.00. If
        80.00 arrive, suspense gets all of it, because an operator must decide. Amani bears the
        provider's `fee`. Raises `AlreadyBooked` for a reference that was booked before.
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
        """A payment after the deposit was booked has no owner yet, so it goes to suspense."""
        before, sum_ = deposit.received, found.received
        if before is None or sum_.currency != before.currency or sum_ <= before:
            return
        suspense = (Account(AccountKind.SUSPENSE, sum_.currency), sum_ - before)
        free = Money.zero(sum_.currency)
        # The total makes a third payment a new reference, and a repeated notice the same one.
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
