"""Withdrawals: reserved, sent, then settled or released."""

from __future__ import annotations

from typing import Any
from dataclasses import replace
from datetime import datetime, timedelta

from amani_app.application.common.acting import Actor, NotFound, Context
from amani_app.domain.errors import AlreadySettled, MoneyError
from amani_app.domain.ledger import Account, AccountKind, Entry, PendingTransfer, receive
from amani_app.domain.money import Money
from amani_app.domain.payments import CORRECTIONS, Destination, Withdrawal, WithdrawalState
from amani_app.ports.payments import ProviderNotice, NoticeKind
from amani_app.ports.store import UnitOfWork

REQUESTED = "withdrawal.requested"
"""The event that makes the worker send the payout."""
REVIEWS = (1, 7)
"""Days after which a settled payout is queried again, in case a notice was lost."""


class WithdrawalUseCases:
    """Call these methods inside a unit of work. They never call the provider."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def request(self, unit: UnitOfWork, actor: Actor, amount: Money, to: Destination) -> Withdrawal:
        """Reserve `amount` in the actor's wallet and request the payout.

        Raises `InsufficientFunds`, and `MoneyError` unless the amount is positive.
        """
        if amount.minor <= 0:
            raise MoneyError(f"{amount} cannot be withdrawn")
        made = Withdrawal(self._context.new_id(), actor.user, amount, to, self._context.now())
        wallet = Account(AccountKind.WALLET, amount.currency, actor.user)
        unit.ledger.reserve(PendingTransfer(made.id, "withdraw", made.id, wallet, amount))
        unit.withdrawals.add(made)
        self._record(unit, actor, made, None, amount=str(amount))
        return made

    def read(self, unit: UnitOfWork, actor: Actor, id: str) -> Withdrawal:
        """Return a withdrawal of the actor. Raises `NotFound`."""
        try:
            found = unit.withdrawals.get(id)
        except KeyError:
            raise NotFound(f"no withdrawal {id}") from None
        if found.owner != actor.user:
            raise NotFound(f"no withdrawal {id}")
        return found

    def take(self, unit: UnitOfWork, actor: Actor, id: str, until: datetime) -> Withdrawal | None:
        """Mark it as being sent; `None` if it was sent before.

        From now on its outcome may be unknown. At `until` another worker may process it.
        """
        found = unit.withdrawals.get(id, lock=True)
        if found.state is not WithdrawalState.REQUESTED:
            return None
        # After a kill it is unknown whether it was sent.
        after = replace(found, state=WithdrawalState.SENDING, doubted_at=self._context.now())
        unit.withdrawals.save(after, until)
        self._record(unit, actor, after, found)
        return after

    def put_off(
        self, unit: UnitOfWork, id: str, due: datetime, doubted: datetime | None = None
    ) -> None:
        """The outcome is unknown: process it again at `due`."""
        found = unit.withdrawals.get(id, lock=True)
        if not found.state.final:
            unit.withdrawals.save(replace(found, doubted_at=doubted or found.doubted_at), due)

    def accepted(self, unit: UnitOfWork, actor: Actor, id: str, due: datetime) -> None:
        """The provider has accepted it: query the outcome at `due`."""
        found = unit.withdrawals.get(id, lock=True)
        if found.state.final:
            return
        after = replace(found, state=WithdrawalState.PROCESSING)
        unit.withdrawals.save(after, due)
        if found.state is not after.state:
            self._record(unit, actor, after, found)

    def settle(
        self,
        unit: UnitOfWork,
        actor: Actor,
        id: str,
        paid: bool,
        failure: str = "",
        fee: Money | None = None,
    ) -> None:
        """The outcome is final: book the payout, or void the reservation.

        Amani bears the provider's `fee` of a successful payout. The outcome is queried again after
        `REVIEWS`, in case it was reversed. Raises `AlreadySettled` the second time, and
        `KeyError` for an unknown id.
        """
        found = unit.withdrawals.get(id, lock=True)
        if found.state.final:
            raise AlreadySettled(f"the withdrawal {id} was {found.state.value} before")
        if paid:
            pending = unit.ledger.pending(id)
            currency = pending.amount.currency
            fee = fee or Money.zero(currency)
            to = [Entry(Account(AccountKind.PROVIDER, currency), pending.amount + fee)]
            if fee:
                to.append(Entry(Account(AccountKind.FEES, currency), -fee))
            unit.ledger.book(pending.post(self._context.new_id(), to))
            after = replace(found, state=WithdrawalState.PAID)
        else:
            unit.ledger.void(self._context.new_id(), id)
            after = replace(found, state=WithdrawalState.FAILED, failure=failure[:200])
        unit.withdrawals.save(after, None)
        for days in REVIEWS:
            reminder = ProviderNotice(NoticeKind.PAYOUT, f"review.{days}d", id, "")
            unit.inbox.add(reminder, b"", self._context.now() + timedelta(days=days))
        self._record(unit, actor, after, found)

    def correct(
        self, unit: UnitOfWork, actor: Actor, id: str, failure: str = "", fee: Money | None = None
    ) -> None:
        """The provider reversed the outcome: correct the ledger.

        A payout that came back is credited to the wallet, with `fee` refunded to Amani. If a failed
        payout was paid after all, the owner has the money twice: the wallet stays as it is, and the
        amount is missing in suspense until an operator attributes it. Raises `AlreadySettled` if
        it was corrected before, and `KeyError` for an unknown id.
        """
        found = unit.withdrawals.get(id, lock=True)
        state = CORRECTIONS.get(found.state)
        if state is None:
            raise AlreadySettled(f"the withdrawal {id} is {found.state.value}")
        currency, fee = found.amount.currency, fee or Money.zero(found.amount.currency)
        target = (Account(AccountKind.WALLET, currency, found.owner), found.amount)
        if state.paid:
            target = (Account(AccountKind.SUSPENSE, currency), -found.amount)
        own = fee if state.paid else -fee
        unit.ledger.book(receive(self._context.new_id(), state.value, id, own, target))
        after = replace(found, state=state, failure=failure[:200])
        unit.withdrawals.save(after, None)
        self._record(unit, actor, after, found, amount=str(found.amount))

    def _record(
        self,
        unit: UnitOfWork,
        actor: Actor,
        after: Withdrawal,
        before: Withdrawal | None,
        **payload: Any,
    ) -> None:
        topic = f"withdrawal.{after.state.value}"
        was = before.state.value if before else ""
        self._context.record(unit, actor, topic, after.id, was, after.state.value, **payload)
