"""A secret value that is shown only on request, and the set of secrets of a run."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

REDACTED = "***"
_SHORTEST = 4
"""Shorter values are not redacted: they occur by chance in half of all lines."""


class Secret:
    """A value that prints as `***` in text, logs, tracebacks and JSON (by `str`).

    `reveal()` returns the value. It cannot be pickled.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, specification: str) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


@dataclass(frozen=True)
class Secrets:
    """The secrets of one environment: values for containers, and logins for registries.

    `logins` maps a repository to its user name and password.
    """

    values: Mapping[str, Secret]
    logins: Mapping[str, tuple[Secret, Secret]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def registry(self, repository: str) -> tuple[str, str] | None:
        """User name and password for a repository. None if it needs no login."""
        login = self.logins.get(repository)
        return (login[0].reveal(), login[1].reveal()) if login else None

    def digest(self, salt: bytes) -> str:
        """A hash of the names and values for containers. Slow to compute, so that it is hard to
        guess."""
        return _digest(self, salt)

    def redact(self, text: str) -> str:
        """The text with every secret value, in any common encoding, replaced by `***`."""
        pattern = self._pattern
        return pattern.sub(REDACTED, text) if pattern else text

    def __hash__(self) -> int:
        return id(self)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        forms: set[str] = set()
        for secret in (*self.values.values(), *(login[1] for login in self.logins.values())):
            forms |= _forms(secret.reveal())
        found = sorted((f for f in forms if len(f) >= _SHORTEST), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, found))) if found else None


@functools.lru_cache(maxsize=64)
def _digest(secrets: Secrets, salt: bytes) -> str:
    content = {name: secret.reveal() for name, secret in secrets.values.items()}
    message = json.dumps(content, sort_keys=True).encode()
    return hashlib.scrypt(message, salt=salt, n=2**14, r=8, p=1, dklen=32).hex()


def _forms(value: str) -> set[str]:
    """The forms in which a value can occur: whole, by line, quoted, encoded; a URL's password
    alone."""
    plain = {value, value.strip(), *value.split("\n")}
    try:
        plain |= {urlsplit(value).password or ""}
    except ValueError:
        pass
    return plain | {
        encoded
        for text in plain
        for encoded in (
            quote(text, safe=""),
            json.dumps(text)[1:-1],
            base64.b64encode(text.encode()).decode().rstrip("="),
        )
    }


def redact(text: str, secrets: Secrets) -> str:
    """Redact a text before it is printed, as `Secrets.redact` does."""
    return secrets.redact(text)
