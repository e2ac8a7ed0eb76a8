"""Checks that an environment's secrets exist and are not placeholders. Values are never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.machine.checkout import ROOT
from deploy.secrets.sources import (
    list_account_names,
    list_copy_names,
    list_login_names,
    list_repository_names,
    read_layers,
)

if TYPE_CHECKING:
    from deploy.environment.model import Environment

_WORDS = re.compile(
    r"change[ _-]?(me|it|this)|replace[ _-]?(me|this|with)|place[ _-]?holder|fix[ _-]?me"
    r"|to[ _-]?do\b|your[ _-]|\binsert\b|dummy|\bexample\b|example\.(com|org|net)"
    r"|not[ _-]?(set|a[ _-]?secret)|<[a-z][a-z _-]+>|\$\{[^}]*\}|\{\{.*\}\}|\.{3}$"
    r"|(?P<sign>.)(?P=sign){7,}|^(none|null|undefined|secret|password|test)$",
    re.IGNORECASE,
)
"""Common placeholders. The last pattern matches repeated characters: `xxxxxx`, `000000`."""

_PASSWORDS = frozenset(
    {"password", "pass", "passwd", "secret", "postgres", "admin", "amani", "redis"}
)


@dataclass(frozen=True)
class SecretVerdict:
    """The result for one secret. `state` is `good`, `missing`, `empty` or `placeholder`; `origin`
    is the source of the value; `needed` is `yes`, `optional`, `registry`, `smoke`, `backups` or
    `pitr`."""

    name: str
    needed: str
    state: str
    origin: str

    @property
    def wrong(self) -> bool:
        """Whether a deploy or the service would fail because of it."""
        return self.state != "good" and not (
            self.needed == "optional" and self.state in ("missing", "empty")
        )


def examine(
    environment: Environment, *, root: Path = ROOT, environ: Mapping[str, str] | None = None
) -> list[SecretVerdict]:
    """Examine every secret that an environment names, in its order.

    Raises `UsageError` if a file of secrets is malformed, readable by others, committed or cannot
    be decrypted.
    """
    found = list(read_layers(environment, root, os.environ if environ is None else environ))
    needs = [
        *((name, "yes") for name in environment.secrets),
        *((name, "optional") for name in environment.optional_secrets),
        *((name, "registry") for name in list_login_names(environment)),
        *((name, "smoke") for name in list_account_names(environment)),
        *((name, "backups") for name in list_copy_names(environment)),
        *((name, "pitr") for name in list_repository_names(environment)),
    ]
    return [_verdict(name, needed, found) for name, needed in dict(needs).items()]


def _verdict(name: str, needed: str, found: list[tuple[str, Mapping[str, str]]]) -> SecretVerdict:
    said = [(origin, layer[name]) for origin, layer in found if name in layer]
    filled = [(origin, value) for origin, value in said if value.strip()]
    if not filled:
        return SecretVerdict(
            name, needed, "empty" if said else "missing", said[0][0] if said else ""
        )
    origin, value = filled[0]
    return SecretVerdict(name, needed, "placeholder" if is_placeholder(value) else "good", origin)


def is_placeholder(value: str) -> bool:
    """Whether a value looks like a placeholder: a typical word, a repeated character, or an address
    with a placeholder as its password. Pure."""
    if _WORDS.search(value.strip()):
        return True
    try:
        password = urlsplit(value).password
    except ValueError:
        return False
    return password is not None and password.lower() in _PASSWORDS
