"""Local accounts in memory, for tests: tokens are looked up, passwords compared."""

from __future__ import annotations

import time
from collections.abc import Callable

from amani_app.domain.users import User
from amani_app.ports.identity import Claims, InvalidToken


class MemoryAccounts:
    """For tests only, because the hash is reversible."""

    lifetime = 3600

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._issued: dict[str, tuple[Claims, float]] = {}

    def hash(self, password: str) -> str:
        return f"plain:{password}"

    def matches(self, password: str, hashed: str) -> bool:
        return hashed == self.hash(password)

    def issue(self, user: User) -> str:
        """`token-1`, `token-2` and so on; `verify` looks them up."""
        token = f"token-{len(self._issued) + 1}"
        end = self._clock() + self.lifetime
        self._issued[token] = (Claims(user.id, user.token_version), end)
        return token

    def verify(self, token: str) -> Claims:
        claims, end = self._issued.get(token, (None, 0.0))
        if claims is None or end <= self._clock():
            raise InvalidToken
        return claims
