"""Suspense: money without a known owner, until an operator attributes it."""

from __future__ import annotations

from amani_app.application.common.acting import Actor, NotFound, Context
from amani_app.domain.ledger import ATTRIBUTED, Account, AccountKind, move
from amani_app.domain.money import Money
from amani_app.ports.store import SuspenseItem, UnitOfWork


class SuspenseUseCases:
    """Call these methods inside a unit of work, for operators only.

    An item leaves suspense as a whole and once; the audit log holds the operator. Raises
    `NotFound` for an unknown item, and `AlreadyBooked`.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def waiting(self, unit: UnitOfWork) -> list[SuspenseItem]:
        """The items that no operator has attributed, oldest first."""
        return unit.ledger.unattributed()

    def attribute(self, unit: UnitOfWork, actor: Actor, transfer: str, owner: str) -> Money:
        """Credit the item to `owner`'s wallet; a negative item is debited there.

        Raises `InsufficientFunds` if the wallet does not cover a negative item.
        """
        return self._move(unit, actor, transfer, AccountKind.WALLET, owner)

    def send_back(self, unit: UnitOfWork, actor: Actor, transfer: str) -> Money:
        """Record that the provider returned it to the payer, or recovered a negative item."""
        return self._move(unit, actor, transfer, AccountKind.PROVIDER, "")

    def _move(
        self, unit: UnitOfWork, actor: Actor, transfer: str, kind: AccountKind, owner: str
    ) -> Money:
        found = next((each for each in self.waiting(unit) if each.transfer == transfer), None)
        if found is None:
            raise NotFound(f"suspense has no item of transfer {transfer}")
        amount, currency = found.amount, found.amount.currency
        source, target = Account(AccountKind.SUSPENSE, currency), Account(kind, currency, owner)
        id = self._context.new_id()
        unit.ledger.book(move(id, ATTRIBUTED, transfer, source, (target, amount)))
        topic = f"suspense.{ATTRIBUTED}"
        self._context.record(unit, actor, topic, transfer, "", target.id, amount=str(amount))
        return amount
