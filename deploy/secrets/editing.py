"""Changes to a whole age-encrypted file: in an editor, or from a plain file."""

from __future__ import annotations

import os
import shlex
import subprocess  # nosec B404
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deploy.errors import UsageError
from deploy.machine.checkout import ROOT
from deploy.secrets import age
from deploy.secrets.sources import locate_age_file, parse, quote_value, read_plain

_MEMORY = Path("/dev/shm")  # nosec B108 - what is written there never reaches a disk


def edit(environment: str, *, root: Path = ROOT, environ: Mapping[str, str] | None = None) -> bool:
    """Open the decrypted file in `$EDITOR` and encrypt the result. Returns whether it changed.

    The plain text is in a file of mode 0600, in memory if the system supports that, and is removed
    in every case. Raises `UsageError` if the editor fails or the text is malformed; the encrypted
    file then stays unchanged.
    """
    environ = os.environ if environ is None else environ
    path = locate_age_file(environment, root)
    before = age.decrypt(path, environ) if path.exists() else ""
    folder = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as private:
        plain = Path(private, f"{environment}.env")
        plain.touch(mode=0o600)
        plain.write_text(before)
        _open(plain, environ)
        after = plain.read_text()
    if after == before:
        return False
    parse(after, path)
    _seal(after, path)
    return True


def encrypt(environment: str, *, root: Path = ROOT) -> tuple[Path, int]:
    """Add all values of `.env.<environment>` to the encrypted file, which keeps its other values.

    Returns its path and its number of values. The plain file stays; its owner removes it. Raises
    `UsageError` if it is missing or invalid.
    """
    plain, path = root / f".env.{environment}", locate_age_file(environment, root)
    if not plain.exists():
        raise UsageError(f"there is no {plain}", hint=f"./inv secrets.edit --env={environment}")
    kept = parse(age.decrypt(path, os.environ), path) if path.exists() else {}
    values = kept | {name: value for name, value in read_plain(plain).items() if value}
    _seal("".join(f"{name}={quote_value(value)}\n" for name, value in sorted(values.items())), path)
    return path, len(values)


def _seal(text: str, path: Path) -> None:
    sealed = age.encrypt(text, path.parent / age.RECIPIENTS)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(sealed)
    fresh.replace(path)


def _open(file: Path, environ: Mapping[str, str]) -> None:
    editor = environ.get("VISUAL") or environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(file)], check=False)  # nosec B603
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the editor {editor!r} cannot be started: {error}", hint="name another in EDITOR"
        ) from None
    if done.returncode:
        raise UsageError(f"{editor!r} ended with status {done.returncode}; nothing was changed")
