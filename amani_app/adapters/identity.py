"""Local accounts: argon2 passwords, and tokens signed with the service's own key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from functools import lru_cache

from amani_app.domain.users import User
from amani_app.ports.identity import Claims, InvalidToken

ISSUER = "amani"
AUDIENCE = "amani-api"
LIFETIME = 3600
"""Seconds."""
REQUIRED = ("exp", "iat", "iss", "aud", "sub", "ver")
REMEMBERED = 4096
"""Number of verified tokens that are cached: the keys of a process never change."""


class LocalAccounts:
    """Passwords hashed with argon2id, and tokens signed with HS256.

    The first of `keys` signs, and all of them verify. To rotate a key, put the new one in front,
    and remove the old one after its last token has expired. argon2 and PyJWT are imported at their
    first use, because they would take a tenth of the boot.
    """

    lifetime = LIFETIME

    def __init__(self, keys: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._keys = tuple(keys)
        self._clock = clock
        # A refused token raises, so it is not cached.
        self._decoded = lru_cache(REMEMBERED)(self._decode)

    def hash(self, password: str) -> str:
        """argon2id with the library's default parameters (RFC 9106)."""
        from argon2 import PasswordHasher

        return PasswordHasher().hash(password)

    def matches(self, password: str, hashed: str) -> bool:
        """False also for a `hashed` that is not an argon2 hash."""
        from argon2 import PasswordHasher
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return PasswordHasher().verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    def issue(self, user: User) -> str:
        """HS256. The version revokes it when the password changes."""
        import jwt

        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user.id,
            "ver": user.token_version,
            "iat": now,
            "exp": now + LIFETIME,
        }
        return jwt.encode(claims, self._keys[0], algorithm="HS256")

    def verify(self, token: str) -> Claims:
        """Verifies the signature once (cached), and the expiry each time."""
        return self._claims(self._decoded(token))

    def _decode(self, token: str) -> Mapping[str, Any]:
        """Only HS256, whatever the token's header names (RFC 8725); all claims are required."""
        import jwt

        for key in self._keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=["HS256"],
                    issuer=ISSUER,
                    audience=AUDIENCE,
                    options={"require": list(REQUIRED), "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.InvalidTokenError as error:
                raise InvalidToken from error
        raise InvalidToken

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        match claims:
            case {"sub": str(user), "ver": int(version), "exp": int(end)} if end > self._clock():
                return Claims(user, version)
        raise InvalidToken
