"""Copies in other places, with rclone: send them, read them back, list and fetch them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.backups.program import archive
from deploy.backups.program.pipes import CHUNK, BackupJob, Failure

_RCLONE = ["rclone", "--contimeout=10s", "--timeout=60s", "--retries=2", "--low-level-retries=2"]


@contextlib.contextmanager
def _place(place: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """rclone's name for a place, and its configuration as environment: arguments are public."""
    with tempfile.TemporaryDirectory() as folder:  # in memory
        if place["kind"] == "s3":
            config = {
                "TYPE": "s3",
                "PROVIDER": "Other",
                "ENDPOINT": place["endpoint"],
                "REGION": place["region"],
                "ACCESS_KEY_ID": place["username"],
                "SECRET_ACCESS_KEY": place["key"],
                "NO_CHECK_BUCKET": "true",
            }
        else:
            key, known = os.path.join(folder, "key"), os.path.join(folder, "known")
            with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(place["key"].rstrip("\n") + "\n")
            with open(known, "w", encoding="ascii") as file:
                name = f"[{place['address']}]:{place['port']}"
                names = name if place["port"] != 22 else place["address"]
                file.writelines(f"{names} {key}\n" for key in place["host_keys"])
            config = {
                "TYPE": "sftp",
                "HOST": place["address"],
                "PORT": str(place["port"]),
                "USER": place["user"],
                "KEY_FILE": key,
                "KNOWN_HOSTS_FILE": known,
                "DISABLE_HASHCHECK": "true",
            }
        variables = {
            f"RCLONE_CONFIG_PLACE_{name}": value for name, value in config.items() if value
        }
        yield f"place:{place['path']}", {**variables, "RCLONE_CONFIG": "", "HOME": folder}


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def send(job: BackupJob, request: Mapping[str, Any]) -> None:
    """Copy a backup to a place, the manifest last, and compare both files.

    Raises `Failure` if one differs.
    """
    folder = os.path.join(archive.FOLDER, request["id"])
    with _place(request["place"]) as (root, environment):
        for name in (archive.ARCHIVE, archive.MANIFEST):
            source, target = os.path.join(folder, name), f"{root}/{request['id']}/{name}"
            job.enter("copy")
            job.run([*_RCLONE, "copyto", source, target], environment=environment)
            job.enter("read back", os.path.getsize(source))
            digest = hashlib.sha256()
            job.run([*_RCLONE, "cat", target], sink=digest.update, environment=environment)
            if digest.hexdigest() != _digest(source):
                raise Failure(f"the copy at {target} differs from the file that was sent")


def listing(job: BackupJob, request: Mapping[str, Any]) -> list[str]:
    """The ids of the complete backups in a place."""
    output = bytearray()
    with _place(request["place"]) as (root, environment):
        command = [*_RCLONE, "lsf", "--recursive", "--files-only", root]
        job.run(command, sink=output.extend, environment=environment)
    ends = "/" + archive.MANIFEST
    return [line.removesuffix(ends) for line in output.decode().split("\n") if line.endswith(ends)]


def fetch(job: BackupJob, request: Mapping[str, Any]) -> None:
    """Copy a backup from a place, check it, and rename its folder when it is complete."""
    with archive.partial(request["id"]) as folder, _place(request["place"]) as (root, environment):
        for name in (archive.ARCHIVE, archive.MANIFEST):
            job.enter("fetch")
            with open(os.path.join(folder, name), "wb") as file:
                source = f"{root}/{request['id']}/{name}"
                job.run([*_RCLONE, "cat", source], sink=file.write, environment=environment)
        with open(os.path.join(folder, archive.MANIFEST), "rb") as file:
            manifest = json.load(file)
        archive.require_whole(job, folder, manifest["sha256"], manifest["size"])
        archive.finish(folder, manifest)
