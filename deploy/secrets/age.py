"""The age-encrypted file of an environment's secrets, safe to commit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.errors import UsageError

IDENTITY = "AMANI_AGE_IDENTITY"
RECIPIENTS = "recipients"
_SSH_KEYS = ("id_ed25519", "id_rsa")


def decrypt(path: Path, environ: Mapping[str, str]) -> str:
    """The decrypted text of an age file.

    The identity is the one in `AMANI_AGE_IDENTITY` (the path of an age or SSH private key, or an
    AGE-SECRET-KEY itself), or the operator's own SSH key. Raises `UsageError` if there is no
    identity, or none that fits.
    """
    import pyrage

    identities = _identities(environ)
    if not identities:
        raise UsageError(
            f"{path} is encrypted, and no key to decrypt it was found",
            hint=f"put the path of an age or SSH private key into {IDENTITY}",
        )
    try:
        return bytes(pyrage.decrypt(path.read_bytes(), identities)).decode()
    except (pyrage.DecryptError, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{path} cannot be decrypted: {error}",
            hint=f"{IDENTITY} must name a key that the file was encrypted for",
        ) from None


def encrypt(text: str, recipients: Path) -> bytes:
    """Encrypt a text as an armoured age file for all public keys in `recipients`, one per line.

    Raises `UsageError` if there is no key, or one that cannot be read.
    """
    import pyrage

    keys = [_recipient(line, recipients) for line in _lines(recipients)]
    if not keys:
        raise UsageError(
            f"{recipients} names no public key",
            hint="put public keys into it, one per line: age1... or ssh-ed25519 AAAA...",
        )
    return bytes(pyrage.encrypt(text.encode(), keys, armored=True))


def read_identity(environ: Mapping[str, str] = os.environ) -> str:
    """The private key in `AMANI_AGE_IDENTITY` or in the file that it names; empty if unset."""
    given = environ.get(IDENTITY, "")
    if not given or given.startswith("AGE-SECRET-KEY-"):
        return given
    try:
        return Path(given).expanduser().read_text()
    except OSError as error:
        raise UsageError(f"{IDENTITY}: {given}: {error.strerror}") from None


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _recipient(line: str, path: Path) -> Any:
    import pyrage

    kind = pyrage.ssh if line.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(line)
    except pyrage.RecipientError as error:
        raise UsageError(f"{path}: {line[:20]}... is not a public key: {error}") from None


def _identities(environ: Mapping[str, str]) -> list[Any]:
    given = environ.get(IDENTITY)
    if given:
        if given.startswith("AGE-SECRET-KEY-"):
            return [_identity(given, IDENTITY)]
        try:
            return [_identity(Path(given).expanduser().read_text(), given)]
        except OSError as error:
            raise UsageError(f"{IDENTITY}: {given}: {error.strerror}") from None
    folder = Path(environ.get("HOME", os.path.expanduser("~"))) / ".ssh"
    found = []
    for path in (folder / name for name in _SSH_KEYS):
        # A key with a passphrase cannot be used here, but another key may fit.
        try:
            found.append(_identity(path.read_text(), str(path)))
        except (OSError, UsageError):
            continue
    return found


def _identity(text: str, where: str) -> Any:
    import pyrage

    lines = [line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")]
    try:
        if lines:
            return pyrage.x25519.Identity.from_str(lines[0].strip())
        return pyrage.ssh.Identity.from_buffer(text.encode())
    except (pyrage.IdentityError, ValueError) as error:
        raise UsageError(
            f"{where} is not a usable private key: {error}",
            hint="it must be an age identity, or an SSH key (ed25519 or RSA) without a passphrase",
        ) from None
