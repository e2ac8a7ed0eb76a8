"""Identity by Supabase Auth: its access tokens, checked here with the project's keys.

Tokens are verified locally; the only request to Supabase fetches its keys. A session that is
revoked there stays valid here until its token expires, so configure short-lived tokens in the
project.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from jwt import PyJWKClient

from amani_app.domain.users import Role
from amani_app.ports.identity import Claims, IdentityUnavailable, InvalidToken

AUDIENCE = "authenticated"
REQUIRED = ("exp", "sub", "aud", "iss", "role")
ALGORITHMS = frozenset({"ES256", "RS256"})
LEEWAY = 10
"""Allowed clock difference in seconds."""
KEYS_LIVE = 3600
"""Seconds for which keys are cached; a shorter outage of the issuer has no effect."""
COOLDOWN = 30
"""Seconds between two fetches for unknown keys, so that forged tokens cause no flood."""
FETCH_TIMEOUT = 3
RETRY_AFTER = 5
"""Seconds after a failed fetch without another one, so that requests do not queue."""


class ProjectKeys(PyJWKClient):
    _paused_until = 0.0

    def fetch_data(self) -> Any:
        """Fetch the keys over HTTP, except shortly after a failure."""
        if time.monotonic() < self._paused_until:
            raise jwt.PyJWKClientConnectionError("the keys could not be fetched a moment ago")
        try:
            return super().fetch_data()
        except jwt.PyJWKClientConnectionError:
            self._paused_until = time.monotonic() + RETRY_AFTER
            raise


class SupabaseIdentity:
    """Verifies the access tokens of one Supabase project.

    `url` is the project's. `secret` is the legacy HS256 secret; without it such tokens are refused.
    The key determines the algorithm, never the token's header (RFC 8725). With `second_factor`, the
    claims show whether the sign-in used one.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        clock: Callable[[], float] = time.time,
        cooldown: float = COOLDOWN,
        second_factor: bool = True,
    ) -> None:
        self._issuer = f"{url.rstrip('/')}/auth/v1"
        self._secret = secret or ""
        self._clock = clock
        self._second_factor = second_factor
        self._keys = ProjectKeys(
            f"{self._issuer}/.well-known/jwks.json",
            lifespan=KEYS_LIVE,
            timeout=FETCH_TIMEOUT,
            cooldown_duration=cooldown,
        )

    def verify(self, token: str) -> Claims:
        """Checks signature, issuer, audience, expiry, and that it belongs to a signed-in user."""
        try:
            key, algorithms = self._key(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=AUDIENCE,
                issuer=self._issuer,
                options={"require": list(REQUIRED), "verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise IdentityUnavailable("the issuer's keys cannot be fetched") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidToken from error
        return self._claims(claims)

    def _key(self, token: str) -> tuple[Any, list[str]]:
        if self._secret and jwt.get_unverified_header(token).get("alg") == "HS256":
            return self._secret, ["HS256"]
        found = self._keys.get_signing_key_from_jwt(token)
        # The algorithm must fit the key's type, or the library raises another error.
        return found.key, [found.algorithm_name] if found.algorithm_name in ALGORITHMS else []

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        match claims:
            # The audience alone would accept the project's service-role token.
            case {"sub": str(user), "email": str(email), "role": "authenticated", "exp": int(end)}:
                if user and email and end + LEEWAY > self._clock():
                    if not claims.get("is_anonymous"):
                        shown = claims.get("aal") == "aal2" or not self._second_factor
                        name, role = _name(claims), _role(claims)
                        return Claims(user, None, email.lower(), name, role, shown)
        raise InvalidToken


def _name(claims: Mapping[str, Any]) -> str:
    """The display name; the user may write `user_metadata`, so it is sanitized."""
    match claims.get("user_metadata"):
        case {"full_name": str(name)} | {"name": str(name)}:
            # PostgreSQL rejects NUL, and UTF-8 has no lone surrogates.
            if plain := "".join(filter(str.isprintable, name)).strip()[:200]:
                return plain
    return str(claims["email"]).partition("@")[0]


def _role(claims: Mapping[str, Any]) -> Role:
    """From `app_metadata` only, which only the project's servers can write."""
    match claims.get("app_metadata"):
        case {"amani_role": str(role)} if role in {each.value for each in Role}:
            return Role(role)
    return Role.MEMBER
