"""The secrets of a fleet: SSH keys and passwords, generated once and kept in files."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import UsageError


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair in OpenSSH's formats."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


class FleetCredentials:
    """The keys and passwords of a fleet in one folder (0700), each in a file (0600)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def identity_file(self) -> Path:
        """The file of the private key for all hosts."""
        return self.folder / "id_ed25519"

    def identity(self) -> KeyPair:
        """The key pair for logins to all hosts as `root` and as `deploy`."""
        return self._key_pair(self.identity_file)

    def host_key(self, number: int) -> KeyPair:
        """The host key of host `number`."""
        return self._key_pair(self.folder / f"host{number}_ed25519")

    def database_password(self) -> str:
        """The password of the service's PostgreSQL user."""
        return self._kept(self.folder / "postgres-password", lambda: secrets.token_urlsafe(24))

    def repository_passphrase(self) -> str:
        """The passphrase of the repository with the database's write-ahead log."""
        return self._kept(self.folder / "repository-passphrase", lambda: secrets.token_urlsafe(24))

    def secret_key(self) -> str:
        """The value of `SECRET_KEY`, the service's signing key."""
        return self._kept(self.folder / "secret-key", lambda: secrets.token_urlsafe(48))

    def _key_pair(self, path: Path) -> KeyPair:
        private = self._kept(path, _new_private_key)
        return KeyPair(private, _public_of(private, path))

    def _kept(self, path: Path, make: Callable[[], str]) -> str:
        if not path.exists():
            write_private(path, make())
        return path.read_text()


def write_private(path: Path, content: str) -> bool:
    """Write a file with mode 0600, its folder with 0700, atomically.

    Returns False if it already has that content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    if path.exists() and path.read_text() == content:
        path.chmod(0o600)
        return False
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(content)
    os.replace(temporary, path)
    return True


def _new_private_key() -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def _public_of(private: str, path: Path) -> str:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_ssh_private_key,
    )

    try:
        key = load_ssh_private_key(private.encode(), password=None).public_key()
    except ValueError as error:
        hint = "Remove the file: the next fleet.up creates a new key."
        raise UsageError(f"{path} is not a private key: {error}", hint=hint) from None
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
