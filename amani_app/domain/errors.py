"""Errors of the business rules."""

from __future__ import annotations

from collections.abc import Iterable


class DomainError(Exception):
    """A business rule was violated; nothing was changed. `code` is stable, the text is not."""

    code = "refused"


class MoneyError(DomainError, ValueError):
    """An invalid amount, or arithmetic across currencies."""

    code = "invalid-amount"


class LedgerError(DomainError, ValueError):
    """A transaction that does not balance."""

    code = "unbalanced-transaction"


class InsufficientFunds(DomainError):
    """The account's available balance is too low."""

    code = "insufficient-funds"


class AlreadySettled(DomainError):
    """The pending transfer has been posted or voided before."""

    code = "already-settled"


class IllegalTransition(DomainError):
    """The state does not allow the action; `allowed` lists the actions that it allows."""

    code = "illegal-transition"

    def __init__(self, what: str, state: str, action: str, allowed: Iterable[str]) -> None:
        self.state = state
        self.action = action
        self.allowed = tuple(sorted(allowed))
        listed = ", ".join(self.allowed) or "nothing"
        super().__init__(f"{what} is {state}: {action} is not allowed (allowed: {listed})")


class NotYourPart(DomainError):
    """The action is reserved for another party of the escrow."""

    code = "not-your-part"


class InvalidEscrow(DomainError, ValueError):
    """The terms of the escrow are invalid."""

    code = "invalid-escrow"
