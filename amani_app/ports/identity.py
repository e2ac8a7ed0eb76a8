"""Who a caller is: tokens, and the passwords of those who have theirs here."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from amani_app.domain.users import Role, User


class InvalidToken(Exception):
    """The token is none of ours, is over, or was made void; the caller learns no more."""


class IdentityUnavailable(Exception):
    """Nobody can say now whether a token is good: the issuer's keys cannot be fetched."""


@dataclass(frozen=True)
class Claims:
    """What a valid token says of its owner."""

    user: str
    token_version: int | None = None
    """Of a local account; ``None`` where another service keeps the accounts."""
    email: str = ""
    """In lower case; told where another service keeps the accounts, like *name* and *role*."""
    name: str = ""
    role: Role = Role.MEMBER
    second_factor: bool = True
    """False where one is demanded for taking money out, and was not shown."""


class Identity(t.Protocol):
    """Tells whose a token is."""

    def verify(self, token: str) -> Claims:
        """What *token* says. Raises ``InvalidToken``, ``IdentityUnavailable``."""


class Accounts(Identity, t.Protocol):
    """Makes what people prove themselves with, where their accounts are kept here."""

    @property
    def lifetime(self) -> int:
        """Seconds a token is good for."""

    def hash(self, password: str) -> str:
        """A hash of *password*, slow on purpose."""

    def matches(self, password: str, hashed: str) -> bool:
        """Whether *password* is the one; takes as long for a wrong one."""

    def issue(self, user: User) -> str:
        """A token for *user*."""
