"""A secret value that shows itself only on request, and the set of them that a run knows."""

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
"""Shorter values are not looked for in texts: they would black out half of every line."""


class Secret:
    """A value that prints as `***` wherever it is put: text, logs, tracebacks, JSON by `str`.

    `reveal()` gives the value. It cannot be pickled.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The value itself."""
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
    """The secrets of one environment: what containers get, and what registries are opened with.

    `logins` maps a repository to its user name and password.
    """

    values: Mapping[str, Secret]
    logins: Mapping[str, tuple[Secret, Secret]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def registry(self, repository: str) -> tuple[str, str] | None:
        """User name and password for a repository; None where it is open to all."""
        login = self.logins.get(repository)
        return (login[0].reveal(), login[1].reveal()) if login else None

    def digest(self, salt: bytes) -> str:
        """A hash of names and values of what containers get: dear to compute, so dear to guess."""
        return _digest(self, salt)

    def redact(self, text: str) -> str:
        """The text with every secret value in it, in any of the usual encodings, as `***`."""
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
    """A value as it may turn up: whole, by its lines, quoted, encoded; a URL's password alone."""
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
    """The last line of defence of outputs: see `Secrets.redact`."""
    return secrets.redact(text)
