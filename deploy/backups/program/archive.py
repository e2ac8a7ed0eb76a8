"""Archive files: compressed, encrypted and hashed; their folder is renamed when complete."""

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

from deploy.backups.program.pipes import CHUNK, BackupJob, Failure, unwritable

FOLDER = os.environ.get("BACKUPS", "/backups")
ARCHIVE = "archive"
MANIFEST = "manifest.json"
PARTIAL = ".partial"
ROOM = 1.2
"""The free space that a backup needs, as a multiple of the last archive's size."""


class Dump(NamedTuple):
    """A dump: values for its manifest, and the command that prints it with its environment."""

    facts: dict[str, Any]
    command: Sequence[str]
    environment: Mapping[str, str]
    seconds: float = 0.0
    """Seconds that the dump took before the command."""


class StoredArchive(NamedTuple):
    """An archive file, and the pipeline of commands that turns it into the dump again."""

    path: str
    commands: list[list[str]]
    size: int
    format: str
    """`custom` or `directory` of PostgreSQL, or `file`."""
    unpacked: int
    """Bytes of the files in an archive of format `directory`."""
    database_size: int


def clear_partials() -> None:
    """Remove partial backups of killed runs. Needs the environment's lock."""
    for name in os.listdir(FOLDER):
        if name.endswith(PARTIAL):
            shutil.rmtree(os.path.join(FOLDER, name), ignore_errors=True)


def room() -> int:
    """Free bytes in the folder for backups."""
    found = os.statvfs(FOLDER)
    return found.f_bavail * found.f_frsize


def require_room(needed: float, why: str = "") -> None:
    """Raise `Failure` if fewer than `needed` bytes are free; `why` is appended to the message."""
    if (free := room()) < needed:
        raise Failure(
            f"{free / 1e6:,.1f} MB are free for backups, and {needed / 1e6:,.1f} MB are needed"
            + why,
            kind="refused",
            hint="free some space, remove backups with `invoke db.prune`, or put"
            " `backups.directory` on a larger disk",
        )


@contextlib.contextmanager
def partial(name: str) -> Iterator[str]:
    """Create the folder of a partial backup; it is removed if the block fails."""
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
    job: BackupJob,
    folder: str,
    commands: Sequence[Sequence[str]],
    recipients: Sequence[str],
    environment: Mapping[str, str],
) -> tuple[str, int]:
    """Write the output of a pipeline as an archive, compressed and encrypted for the recipients.

    Returns its SHA-256 and its size, after the file is synced to the disk.
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


def require_whole(job: BackupJob, folder: str, sha256: str, size: int) -> None:
    """Raise `Failure` if size or SHA-256 of the archive on the disk differ from the arguments."""
    path = os.path.join(folder, ARCHIVE)
    try:
        found = os.stat(path).st_size
        if found != size:
            raise Failure(f"the archive has {found} bytes, not the {size} of its manifest")
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                job.check()
                digest.update(data)
                job.done += len(data)
    except OSError as error:
        raise Failure(f"the archive cannot be read: {error.strerror}") from None
    if digest.hexdigest() != sha256:
        raise Failure("the SHA-256 of the archive differs from the one in its manifest")


def reading(
    folder: str, encrypted: bool, identity: str, manifest: Mapping[str, Any]
) -> StoredArchive:
    """The archive in a folder, with `size` and the like from its manifest."""
    commands = [["age", "--decrypt", "--identity", identity]] if encrypted else []
    details = {name: manifest[name] for name in ("size", "format", "unpacked", "database_size")}
    return StoredArchive(
        os.path.join(folder, ARCHIVE), [*commands, ["zstd", "-q", "-d"]], **details
    )


@contextlib.contextmanager
def temporary_key() -> Iterator[tuple[str, str]]:
    """Create a key pair: yields the path of the private key, in memory only, and the public key.

    An archive that is also encrypted for this key can be read to its end on the host, without the
    operator's key. The private key is removed after the block.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "key")
        subprocess.run(["age-keygen", "-o", path], capture_output=True, check=True)  # nosec
        found = subprocess.run(["age-keygen", "-y", path], capture_output=True, check=True)  # nosec
        yield path, found.stdout.decode().strip()


@contextlib.contextmanager
def given_key(text: str) -> Iterator[str]:
    """Write a private key to a file in memory, and yield its path."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "key")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        yield path


def finish(folder: str, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and rename the folder: from then on it is a backup."""
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
    for path in (folder.removesuffix(PARTIAL), FOLDER):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
