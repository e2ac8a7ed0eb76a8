"""Money that came in at the payment provider."""

from __future__ import annotations

from amani_app.application.acting import Actor, Surroundings
from amani_app.domain.ledger import Account, AccountKind, move
from amani_app.domain.money import Money
from amani_app.ports.store import UnitOfWork


class DepositUseCases:
    """To be called inside a unit of work."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def collected(
        self, work: UnitOfWork, actor: Actor, owner: str, reference: str, asked: Money, got: Money
    ) -> Money:
        """Book what arrived for *reference*; what *owner*'s wallet was credited with.

        The asked amount is credited, and what is over it goes to suspense; when less arrived, all
        of it goes to suspense, for a person to look at. Raises ``AlreadyBooked`` for a reference
        that was booked before: a repeated notice credits nothing.
        """
        credited = asked if got >= asked else Money.zero(asked.currency)
        work.ledger.book(
            move(
                self._around.new_id(),
                "deposit",
                reference,
                Account(AccountKind.PROVIDER, asked.currency),
                (Account(AccountKind.WALLET, asked.currency, owner), credited),
                (Account(AccountKind.SUSPENSE, asked.currency), got - credited),
            )
        )
        self._around.record(
            work, actor, "deposit.collected", reference, str(asked), str(got), owner=owner
        )
        return credited
