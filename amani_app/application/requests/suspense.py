"""Money that stands in suspense until a person has said whose it is."""

from __future__ import annotations

from amani_app.application.common.acting import Actor, NotFound, Context
from amani_app.domain.ledger import ATTRIBUTED, Account, AccountKind, move
from amani_app.domain.money import Money
from amani_app.ports.store import SuspenseItem, UnitOfWork


class SuspenseUseCases:
    """To be called inside a unit of work, by operators only.

    What a transfer has put into suspense leaves it whole and once, and who has said so is in the
    audit log. Raises ``NotFound`` for what does not wait there, and ``AlreadyBooked``.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def waiting(self, unit: UnitOfWork) -> list[SuspenseItem]:
        """What nobody has attributed yet, the oldest first."""
        return unit.ledger.unattributed()

    def attribute(self, unit: UnitOfWork, actor: Actor, transfer: str, owner: str) -> Money:
        """It is *owner*'s and goes to their wallet; what is missing is taken from there.

        Raises ``InsufficientFunds`` for a wallet that lacks it.
        """
        return self._move(unit, actor, transfer, AccountKind.WALLET, owner)

    def send_back(self, unit: UnitOfWork, actor: Actor, transfer: str) -> Money:
        """It has gone back to the payer at the provider; what was missing has come back there."""
        return self._move(unit, actor, transfer, AccountKind.PROVIDER, "")

    def _move(
        self, unit: UnitOfWork, actor: Actor, transfer: str, kind: AccountKind, owner: str
    ) -> Money:
        found = next((each for each in self.waiting(unit) if each.transfer == transfer), None)
        if found is None:
            raise NotFound(f"no transfer {transfer} waits in suspense")
        amount, currency = found.amount, found.amount.currency
        source, target = Account(AccountKind.SUSPENSE, currency), Account(kind, currency, owner)
        id = self._context.new_id()
        unit.ledger.book(move(id, ATTRIBUTED, transfer, source, (target, amount)))
        topic = f"suspense.{ATTRIBUTED}"
        self._context.record(unit, actor, topic, transfer, "", target.id, amount=str(amount))
        return amount
