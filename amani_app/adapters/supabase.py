"""Identity by Supabase Auth: its access tokens, checked here with the project's keys.

Only tokens are looked at, no request goes to Supabase but the one for its keys: a session that was
revoked there stays good here until its token ends, so let the project's tokens be short.
"""

from __future__ import annotations

import time
import typing as t

import jwt
from jwt import PyJWKClient

from amani_app.domain.users import Role
from amani_app.ports.identity import Claims, IdentityUnavailable, InvalidToken

AUDIENCE = "authenticated"
REQUIRED = ("exp", "sub", "aud", "iss", "role")
ALGORITHMS = frozenset({"ES256", "RS256"})
LEEWAY = 10
"""Seconds the two clocks may differ."""
KEYS_LIVE = 3600
"""Seconds fetched keys are believed; an outage of the issuer shorter than this is not felt."""
COOLDOWN = 30
"""Seconds between two fetches for the sake of unknown keys: forged tokens cause no flood."""
FETCH_TIMEOUT = 3
AWAY = 5
"""Seconds after a failed fetch in which no other one is tried: nobody queues for a dead host."""


class ProjectKeys(PyJWKClient):
    """The project's public keys."""

    _away_until = 0.0

    def fetch_data(self) -> t.Any:
        """Over HTTP, not again right after a failure."""
        if time.monotonic() < self._away_until:
            raise jwt.PyJWKClientConnectionError("the keys could not be fetched a moment ago")
        try:
            return super().fetch_data()
        except jwt.PyJWKClientConnectionError:
            self._away_until = time.monotonic() + AWAY
            raise


class SupabaseIdentity:
    """See ``ports.identity.Identity``.

    *url* is the project's. *secret* is the legacy one that signs HS256; without it such tokens are
    refused. Each kind of key has its own algorithms: none follows from what a token claims. With
    *second_factor*, a person who signed in without one is told apart.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        clock: t.Callable[[], float] = time.time,
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
        """Signature, issuer, audience, end, and that it is a signed-in person's."""
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

    def _key(self, token: str) -> tuple[t.Any, list[str]]:
        if self._secret and jwt.get_unverified_header(token).get("alg") == "HS256":
            return self._secret, ["HS256"]
        found = self._keys.get_signing_key_from_jwt(token)
        # The key's own algorithm: with another one's, the library stumbles over the kind of key.
        return found.key, [found.algorithm_name] if found.algorithm_name in ALGORITHMS else []

    def _claims(self, claims: t.Mapping[str, t.Any]) -> Claims:
        match claims:
            # The audience alone lets the service's own all-powerful token pass.
            case {"sub": str(user), "email": str(email), "role": "authenticated", "exp": int(end)}:
                if user and email and end + LEEWAY > self._clock():
                    if not claims.get("is_anonymous"):
                        shown = claims.get("aal") == "aal2" or not self._second_factor
                        name, role = _name(claims), _role(claims)
                        return Claims(user, None, email.lower(), name, role, shown)
        raise InvalidToken


def _name(claims: t.Mapping[str, t.Any]) -> str:
    """What the person calls themselves; ``user_metadata`` is theirs to write."""
    match claims.get("user_metadata"):
        case {"full_name": str(name)} | {"name": str(name)}:
            # PostgreSQL holds no NUL, UTF-8 no half of a pair.
            if plain := "".join(filter(str.isprintable, name)).strip()[:200]:
                return plain
    return str(claims["email"]).partition("@")[0]


def _role(claims: t.Mapping[str, t.Any]) -> Role:
    """``app_metadata`` alone is believed: only the project's own servers can write it."""
    match claims.get("app_metadata"):
        case {"amani_role": str(role)} if role in {each.value for each in Role}:
            return Role(role)
    return Role.MEMBER
