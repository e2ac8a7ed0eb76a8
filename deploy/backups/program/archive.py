"""Archives as files: compressed, encrypted, hashed, read again, and renamed when whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess  # nosec B404 - argument lists only, never a shell
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from deploy.backups.program.pipes import CHUNK, Failure, Job, unwritable

FOLDER = os.environ.get("BACKUPS", "/backups")
ARCHIVE = "archive"
MANIFEST = "manifest.json"
PARTIAL = ".partial"
ROOM = 1.2
"""How many times the last archive's size must be free."""


class Dump(NamedTuple):
    """What is to be an archive: what its manifest shall say, and the command that prints it."""

    facts: dict[str, Any]
    command: Sequence[str]
    environment: Mapping[str, str]
    seconds: float = 0.0
    """What has been spent on the dump already."""


class Stored(NamedTuple):
    """An archive as it lies there, and the commands that make what was dumped of it."""

    path: str
    commands: list[list[str]]
    size: int
    format: str
    """`custom` or `directory` of PostgreSQL, or `file`."""
    unpacked: int
    """Bytes of the files that a directory's archive holds."""
    database_size: int


def clear_partials() -> None:
    """Remove what runs that were cut short left behind. Only under the environment's lock."""
    for name in os.listdir(FOLDER):
        if name.endswith(PARTIAL):
            shutil.rmtree(os.path.join(FOLDER, name), ignore_errors=True)


def room() -> int:
    """Bytes that are free for backups."""
    found = os.statvfs(FOLDER)
    return found.f_bavail * found.f_frsize


def require_room(needed: float, why: str = "") -> None:
    """Raise `Failure` where less than `needed` bytes are free."""
    if (free := room()) < needed:
        raise Failure(
            f"{free / 1e6:,.1f} MB are free for backups, and {needed / 1e6:,.1f} MB are needed"
            + why,
            kind="refused",
            hint="make room, thin out with `invoke db.prune`, or give `backups.directory` a larger"
            " disk",
        )


@contextlib.contextmanager
def partial(name: str) -> Iterator[str]:
    """A folder for a backup under way; removed where the block fails."""
    folder = os.path.join(FOLDER, name + PARTIAL)
    try:
        os.mkdir(folder, 0o700)
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(error) from None
        raise


def write(
    job: Job,
    folder: str,
    commands: Sequence[Sequence[str]],
    recipients: Sequence[str],
    environment: Mapping[str, str],
) -> tuple[str, int]:
    """Write what the commands print as an archive, compressed and for the recipients encrypted.

    Returns its SHA-256 and its size; the file is on the disk then, not in its cache.
    """
    pipeline = [*commands, ["zstd", "-q", "-3"]]
    if recipients:
        pipeline.append(["age", *(word for key in recipients for word in ("-r", key))])
    digest = hashlib.sha256()
    with open(os.path.join(folder, ARCHIVE), "wb") as file:

        def keep(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        job.run(*pipeline, sink=keep, environment=environment)
        file.flush()
        os.fsync(file.fileno())
        return digest.hexdigest(), file.tell()


def require_whole(job: Job, folder: str, sha256: str, size: int) -> None:
    """Raise `Failure` where the archive on the disk is not the one that was written."""
    path = os.path.join(folder, ARCHIVE)
    try:
        found = os.stat(path).st_size
        if found != size:
            raise Failure(f"the archive has {found} bytes and not the {size} of its manifest")
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                job.check()
                digest.update(data)
                job.done += len(data)
    except OSError as error:
        raise Failure(f"the archive cannot be read: {error.strerror}") from None
    if digest.hexdigest() != sha256:
        raise Failure("the archive is not what was written: its SHA-256 is another")


def reading(folder: str, encrypted: bool, identity: str, manifest: Mapping[str, Any]) -> Stored:
    """The archive in a folder, of which the manifest tells `size`, `format` and the like."""
    commands = [["age", "--decrypt", "--identity", identity]] if encrypted else []
    said = {name: manifest[name] for name in ("size", "format", "unpacked", "database_size")}
    return Stored(os.path.join(folder, ARCHIVE), [*commands, ["zstd", "-q", "-d"]], **said)


@contextlib.contextmanager
def passing_key() -> Iterator[tuple[str, str]]:
    """A key pair for one test: the path of its private half, in memory only, and its public half.

    An archive made for it too can be read to its end where it lies, though the keys that others
    open it with are elsewhere; this one is gone a moment later.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "key")
        subprocess.run(["age-keygen", "-o", path], capture_output=True, check=True)  # nosec
        found = subprocess.run(["age-keygen", "-y", path], capture_output=True, check=True)  # nosec
        yield path, found.stdout.decode().strip()


@contextlib.contextmanager
def given_key(text: str) -> Iterator[str]:
    """The path of a private key, in memory only."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "key")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        yield path


def finish(folder: str, manifest: Mapping[str, Any]) -> None:
    """Lay the manifest beside the archive and give the folder its name: now it is a backup."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")) + "\n"
    with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as file:
        file.write(canonical)
        file.flush()
        os.fsync(file.fileno())
    owner = os.stat(FOLDER)
    for name in (ARCHIVE, MANIFEST):
        path = os.path.join(folder, name)
        os.chmod(path, 0o600)
        os.chown(path, owner.st_uid, owner.st_gid)
    os.chown(folder, owner.st_uid, owner.st_gid)
    os.rename(folder, folder.removesuffix(PARTIAL))
    for place in (folder.removesuffix(PARTIAL), FOLDER):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
