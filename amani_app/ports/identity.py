"""Authentication: tokens, and the passwords of local accounts."""

from __future__ import annotations

from typing import Protocol
from dataclasses import dataclass

from amani_app.domain.users import Role, User


class InvalidToken(Exception):
    """The token is invalid, expired or revoked; the error does not distinguish them."""


class IdentityUnavailable(Exception):
    """The identity provider is unavailable: its keys cannot be fetched."""


@dataclass(frozen=True)
class Claims:
    """The claims of a valid token."""

    user: str
    token_version: int | None = None
    """Set for a local account; `None` if another service keeps the accounts."""
    email: str = ""
    """In lower case; set if another service keeps the accounts, like `name` and `role`."""
    name: str = ""
    role: Role = Role.MEMBER
    second_factor: bool = True
    """False if withdrawals require a second factor and the sign-in had none."""


class Identity(Protocol):
    def verify(self, token: str) -> Claims:
        """The claims of `token`. Raises `InvalidToken` and `IdentityUnavailable`."""


class Accounts(Identity, Protocol):
    """Passwords and tokens of accounts that this service keeps."""

    @property
    def lifetime(self) -> int:
        """Seconds until a token expires."""

    def hash(self, password: str) -> str:
        """A hash of `password`, slow on purpose."""

    def matches(self, password: str, hashed: str) -> bool:
        """Whether `password` matches, in constant time."""

    def issue(self, user: User) -> str:
        """A token for `user`."""
