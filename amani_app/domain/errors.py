"""What the business refuses."""

from __future__ import annotations

import typing as t


class DomainError(Exception):
    """The rules forbid it; nothing was changed. ``code`` is stable, the text is for people."""

    code = "refused"


class MoneyError(DomainError, ValueError):
    """An amount that is none, or arithmetic across currencies."""

    code = "invalid-amount"


class LedgerError(DomainError, ValueError):
    """A transaction that does not balance or is not one."""

    code = "unbalanced-transaction"


class InsufficientFunds(DomainError):
    """The account holds less than is asked of it."""

    code = "insufficient-funds"


class AlreadySettled(DomainError):
    """The pending transfer was posted or voided before: that happens once."""

    code = "already-settled"


class IllegalTransition(DomainError):
    """The state does not allow the action; ``allowed`` says which ones it does allow."""

    code = "illegal-transition"

    def __init__(self, what: str, state: str, action: str, allowed: t.Iterable[str]) -> None:
        self.state = state
        self.action = action
        self.allowed = tuple(sorted(allowed))
        ways = ", ".join(self.allowed) or "nothing"
        super().__init__(f"{what} is {state}: {action} is not allowed, {ways} is")


class NotYourPart(DomainError):
    """The action belongs to another party of the escrow."""

    code = "not-your-part"


class InvalidEscrow(DomainError, ValueError):
    """An escrow that cannot be agreed on as written."""

    code = "invalid-escrow"
