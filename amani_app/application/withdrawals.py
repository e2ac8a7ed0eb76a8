"""Money on its way out: reserved, then sent, then settled or given back."""

from __future__ import annotations

from amani_app.application.acting import Actor, Surroundings
from amani_app.domain.errors import MoneyError
from amani_app.domain.ledger import Account, AccountKind, Entry, Pending
from amani_app.domain.money import Money
from amani_app.ports.store import UnitOfWork


class WithdrawalUseCases:
    """To be called inside a unit of work; nothing here speaks to the provider."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def request(self, work: UnitOfWork, actor: Actor, amount: Money) -> str:
        """Reserve *amount* of the actor's wallet and ask for the pay-out; the withdrawal's id.

        Raises ``InsufficientFunds``, and ``MoneyError`` for less than something.
        """
        if amount.minor <= 0:
            raise MoneyError(f"{amount} cannot be withdrawn")
        id = self._around.new_id()
        wallet = Account(AccountKind.WALLET, amount.currency, actor.user)
        work.ledger.reserve(Pending(id, "withdraw", id, wallet, amount))
        self._around.record(
            work, actor, "withdrawal.requested", id, "", "pending", amount=str(amount)
        )
        return id

    def settle(self, work: UnitOfWork, actor: Actor, id: str, paid: bool) -> None:
        """The provider's word is final: book the pay-out, or give the reservation back.

        Raises ``AlreadySettled`` the second time, and ``KeyError`` for an unknown id.
        """
        pending = work.ledger.pending(id)
        if paid:
            provider = Account(AccountKind.PROVIDER, pending.amount.currency)
            out = pending.post(self._around.new_id(), [Entry(provider, pending.amount)])
            work.ledger.book(out)
        else:
            work.ledger.void(self._around.new_id(), id)
        after = "paid" if paid else "failed"
        self._around.record(work, actor, f"withdrawal.{after}", id, "pending", after)
