"""Who a caller is: passwords and tokens."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from amani_app.domain.users import User


class InvalidToken(Exception):
    """The token is none of ours, is over, or was made void; the caller learns no more."""


@dataclass(frozen=True)
class Claims:
    """What a valid token says."""

    user: str
    token_version: int


class Identity(t.Protocol):
    """Makes and checks what people prove themselves with."""

    @property
    def lifetime(self) -> int:
        """Seconds a token is good for."""

    def hash(self, password: str) -> str:
        """A hash of *password*, slow on purpose."""

    def matches(self, password: str, hashed: str) -> bool:
        """Whether *password* is the one; takes as long for a wrong one."""

    def issue(self, user: User) -> str:
        """A token for *user*."""

    def verify(self, token: str) -> Claims:
        """What *token* says. Raises ``InvalidToken``."""
