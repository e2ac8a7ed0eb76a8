"""The sources of an operator's secrets: environment variables, `.env.<name>`, an age file."""

from __future__ import annotations

import os
import re
import stat
import subprocess  # nosec B404
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.environment.documents import suggest
from deploy.errors import UsageError
from deploy.machine.checkout import ROOT
from deploy.secrets import age
from deploy.secrets.secret import Secret, Secrets

if TYPE_CHECKING:
    from deploy.environment.model import Environment

PREFIX = "AMANI_SECRET_"
FOLDER = Path("config") / "secrets"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.ASCII | re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t"}


def load_secrets(
    environment: Environment,
    *,
    registries: bool = True,
    containers: bool = True,
    root: Path = ROOT,
    environ: Mapping[str, str] | None = None,
) -> Secrets:
    """The values of all secrets that an environment names.

    The first source that has a value is used: the variable `AMANI_SECRET_<NAME>`;
    `.env.<environment>` in the root of the checkout, then beside the environment file;
    `config/secrets/<environment>.age`. The variable `<NAME>` is not read, so that a value in a
    developer's shell cannot reach production. An empty value counts as missing. Without
    `registries`, registry logins may be missing; without `containers`, secrets that only a running
    service needs.

    Raises `UsageError` that names all required secrets without a value, or if a file is
    malformed, readable by others or committed.
    """
    environ = os.environ if environ is None else environ
    found = _find(environment, root, environ)
    logins = list_login_names(environment)
    required = [*(environment.secrets if containers else ()), *(logins if registries else ())]
    if missing := [name for name in dict.fromkeys(required) if name not in found]:
        raise _missing(environment.name, missing, list(found), environ)
    return Secrets(
        values={name: found[name][0] for name in environment.container_secrets if name in found},
        logins={
            repository: (found[login.username][0], found[login.password][0])
            for repository, login in environment.image.credentials.items()
            if login.username in found and login.password in found
        },
    )


def load_account(
    environment: Environment, *, root: Path = ROOT, environ: Mapping[str, str] | None = None
) -> tuple[Secret, Secret] | None:
    """Name and password of the account for smoke tests. None if the environment names no account.

    Raises `UsageError` if it names one that has no value.
    """
    if environment.smoke.account is None:
        return None
    environ = os.environ if environ is None else environ
    found, names = _find(environment, root, environ), list_account_names(environment)
    if missing := [name for name in names if name not in found]:
        raise _missing(environment.name, missing, list(found), environ)
    username, password = (found[name][0] for name in names)
    return username, password


def load_copy_keys(
    environment: Environment, *, root: Path = ROOT, environ: Mapping[str, str] | None = None
) -> Mapping[str, tuple[Secret, Secret]]:
    """The user name (may be empty) and key of each place for copies of backups, by the place's
    name. They are never delivered to the service's containers.

    Raises `UsageError` that names all secrets without a value.
    """
    if not environment.backups.copies:
        return {}
    found = _find(environment, root, os.environ if environ is None else environ)
    if missing := [name for name in list_copy_names(environment) if name not in found]:
        environ = os.environ if environ is None else environ
        raise _missing(environment.name, missing, list(found), environ)
    return {
        copy.name: (found[copy.username][0] if copy.username else Secret(""), found[copy.key][0])
        for copy in environment.backups.copies
    }


def load_repository_keys(
    environment: Environment, *, root: Path = ROOT, environ: Mapping[str, str] | None = None
) -> Mapping[str, Secret]:
    """The secrets of the repository for point-in-time recovery, by name. They are never delivered
    to the service's containers.

    Raises `UsageError` that names all secrets without a value.
    """
    environ = os.environ if environ is None else environ
    names = list_repository_names(environment)
    found = _find(environment, root, environ) if names else {}
    if missing := [name for name in names if name not in found]:
        raise _missing(environment.name, missing, list(found), environ)
    return {name: found[name][0] for name in names}


def list_origins(
    environment: Environment, *, root: Path = ROOT, environ: Mapping[str, str] | None = None
) -> list[tuple[str, str, str | None]]:
    """The name, the purpose and the source (None: no value) of every secret of an environment."""
    found = _find(environment, root, os.environ if environ is None else environ)
    needs = [
        *((name, "yes") for name in environment.secrets),
        *((name, "optional") for name in environment.optional_secrets),
        *((name, "registry") for name in list_login_names(environment)),
        *((name, "smoke") for name in list_account_names(environment)),
        *((name, "backups") for name in list_copy_names(environment)),
        *((name, "pitr") for name in list_repository_names(environment)),
    ]
    return [(name, need, found[name][1] if name in found else None) for name, need in needs]


def check_name(environment: Environment, name: str) -> None:
    """Raise `UsageError` for a secret that the environment does not name."""
    operators = (*list_login_names(environment), *list_account_names(environment))
    backups = (*list_copy_names(environment), *list_repository_names(environment))
    known = [*environment.container_secrets, *operators, *backups]
    if name not in known:
        raise UsageError(
            f"{environment.name} names no secret {name!r}{suggest(name, known)}",
            hint=f"it names: {', '.join(known) or 'none'}; add it to `secrets` in its file first",
        )


def list_login_names(environment: Environment) -> list[str]:
    """Names of the secrets for registry logins."""
    logins = environment.image.credentials.values()
    return [name for login in logins for name in (login.username, login.password)]


def list_copy_names(environment: Environment) -> list[str]:
    """Names of the secrets for the places with copies of backups."""
    pairs = ((copy.username, copy.key) for copy in environment.backups.copies)
    return [name for pair in pairs for name in pair if name]


def list_repository_names(environment: Environment) -> list[str]:
    """Names of the secrets of the repository for point-in-time recovery."""
    if environment.backups.pitr is None:
        return []
    repository = environment.backups.pitr.repository
    return [name for name in (repository.username, repository.key, repository.passphrase) if name]


def list_account_names(environment: Environment) -> list[str]:
    """Names of the secrets for the account of smoke tests."""
    account = environment.smoke.account
    return [account.username, account.password] if account else []


def _find(
    environment: Environment, root: Path, environ: Mapping[str, str]
) -> dict[str, tuple[Secret, str]]:
    found: dict[str, tuple[Secret, str]] = {}
    for origin, layer in read_layers(environment, root, environ):
        for name, value in layer.items():
            if value:
                found.setdefault(name, (Secret(value), origin))
    return found


def read_layers(
    environment: Environment, root: Path, environ: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The name and the values of every source of secrets, in order of precedence."""
    yield "environment", {
        name.removeprefix(PREFIX): value
        for name, value in environ.items()
        if name.startswith(PREFIX)
    }
    beside = environment.source.parent if environment.source else root
    for plain in (folder / f".env.{environment.name}" for folder in dict.fromkeys((root, beside))):
        if plain.exists():
            yield plain.name, read_plain(plain)
    encrypted = locate_age_file(environment.name, root)
    if encrypted.exists():
        yield str(FOLDER / encrypted.name), parse(age.decrypt(encrypted, environ), encrypted)


def locate_age_file(environment: str, root: Path = ROOT) -> Path:
    """The path of the environment's age-encrypted file, which need not exist."""
    return root / FOLDER / f"{environment}.age"


def store(environment: str, name: str, value: str, *, root: Path = ROOT) -> Path:
    """Set one secret in the environment's age-encrypted file. An empty value removes it.

    The file is encrypted for every public key in `config/secrets/recipients`. Returns its path.
    """
    path = locate_age_file(environment, root)
    values = parse(age.decrypt(path, os.environ), path) if path.exists() else {}
    values[name] = value
    text = "".join(f"{key}={quote_value(kept)}\n" for key, kept in sorted(values.items()) if kept)
    sealed = age.encrypt(text, path.parent / age.RECIPIENTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(sealed)
    fresh.replace(path)
    return path


def parse(text: str, path: Path) -> dict[str, str]:
    """Parse `NAME=value` lines: bare, 'literal' or "with backslash escapes". `#` starts a comment.

    Raises `UsageError` with file and line, never with the content.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        value = _unquoted(found[2]) if found else None
        if found is None or value is None:
            raise UsageError(
                f"{path}:{number}: not a line of the form NAME=value",
                hint="a quoted value must end with the same quote in the same line",
            )
        if found[1] in values:
            raise UsageError(f"{path}:{number}: {found[1]} is a duplicate name")
        values[found[1]] = value
    return values


def _unquoted(text: str) -> str | None:
    quote = text[:1]
    if quote not in ("'", '"'):
        return text
    if len(text) < 2 or text[-1] != quote:
        return None
    inner = text[1:-1]
    if quote == "'":
        return None if quote in inner else inner
    if re.fullmatch(r'(?:[^"\\]|\\.)*', inner) is None:
        return None
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), inner)


def quote_value(value: str) -> str:
    """Quote a value so that `parse` returns it unchanged."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        value = value.replace(plain, escaped)
    return f'"{value}"'


def read_plain(path: Path) -> dict[str, str]:
    """The values of a plain file. Raises `UsageError` if others can read it or git tracks it."""
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(
            f"{path} can be read by other users of this machine", hint=f"chmod 600 {path}"
        )
    if _tracked(path):
        raise UsageError(
            f"{path} holds secrets and is committed to git",
            hint=f"git rm --cached {path.name}   # and replace every value: all are exposed",
        )
    try:
        return parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {type(error).__name__}") from None


def _tracked(path: Path) -> bool:
    if not any((folder / ".git").exists() for folder in path.resolve().parents):
        return False
    listed = subprocess.run(  # nosec B603
        ("git", "-C", str(path.parent), "ls-files", "--", path.name),
        capture_output=True,
        check=False,
    )
    return bool(listed.stdout)


def _missing(
    environment: str, names: list[str], known: list[str], environ: Mapping[str, str]
) -> UsageError:
    remarks: list[str] = []
    for name in names:
        if near := suggest(name, known):
            remarks.append(f"{name}: a similar name has a value{near}")
        elif environ.get(name):
            remarks.append(f"{name} is set, but only {PREFIX}{name} is read")
    ways = [
        f"provide each in one of these ways (example: {names[0]}):",
        f"  the environment variable {PREFIX}{names[0]}",
        f"  a line {names[0]}=... in .env.{environment} (mode 0600)",
        f"  ./inv secrets.set {names[0]} --env={environment} (encrypted, in {FOLDER})",
    ]
    return UsageError(
        f"{environment} needs secrets that have no value: {', '.join(names)}",
        hint="\n".join([*remarks, *ways]),
    )
