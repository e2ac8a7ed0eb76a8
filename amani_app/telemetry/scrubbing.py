"""Removes secrets, tokens and personal data from reports that leave the process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from amani_app.settings import EnvironmentSettings

REMOVED = "[removed]"
SHORTEST = 6
"""Shorter values of settings are not searched for: they would match ordinary text."""

_NAMES = re.compile(
    r"authori[sz]ation|cookie|passw(or)?d|secret|token|api[-_]?key|dsn|signature|account_number"
    r"|^(x-)?(real|forwarded)-(ip|for)$|remote_addr|^email$",
    re.IGNORECASE,
)
_TEXTS = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a JSON web token
    r"|(?<=bearer )\S{8,}|(?<=basic )\S{8,}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # the credentials of a URL
    r"|[\w.+-]+@[\w.-]+\.[a-z]{2,}"  # an email address
    r"|(?<=\[parameters: ).*(?=\])",  # the values of a failed statement
    re.IGNORECASE | re.DOTALL,
)


class Scrubber:
    """Removes the values of secret settings, texts in the form of a token, and values whose name
    suggests a secret.

    Example: the value of a header `X-Api-Key` or a key `password`.
    """

    def __init__(self, *settings: EnvironmentSettings) -> None:
        kept = {value for each in settings for value in _secrets(each) if len(value) >= SHORTEST}
        longest_first = sorted(kept, key=lambda value: (-len(value), value))
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def text(self, text: str) -> str:
        return _TEXTS.sub(REMOVED, self._secrets.sub(REMOVED, text))

    def __call__(self, value: Any) -> Any:
        """A copy of `value` without secrets, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                name: REMOVED if each and _NAMES.search(str(name)) else self(each)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self(each) for each in value]
        return value


def _secrets(settings: EnvironmentSettings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and (secret := value.get_secret_value()):
            yield secret
            yield from (part.strip() for part in secret.split(","))
            yield _password(secret)


def _password(url: str) -> str:
    try:
        return make_url(url).password or ""
    except (ArgumentError, ValueError):
        return ""
