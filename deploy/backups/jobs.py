"""The jobs of the backup container on one backup: make it, check its archive, restore it."""

from __future__ import annotations

import json
import secrets as entropy
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deploy.backups.manifest import Backup, BackupManifest
from deploy.errors import DeployError

if TYPE_CHECKING:
    from deploy.backups.container import BackupContainer
    from deploy.environment.model import Environment


def stamp() -> str:
    """The current time in UTC, as a part of names that sort by time."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime())


def back_up(
    container: BackupContainer,
    environment: Environment,
    earlier: Sequence[Backup],
    *,
    host: str,
    reason: str,
    release: str,
) -> Backup:
    """Make a backup and read its archive to the end.

    `earlier` are the backups there are, oldest first: the newest one gives the expected size.
    Raises what `BackupContainer.run` raises; nothing is left then.
    """
    config = environment.backups
    result = container.run(
        "back-up",
        seconds=config.timeout,
        id=f"{stamp()}-{entropy.token_hex(2)}",
        expected=earlier[-1].manifest.size if earlier else 0,
        parallel={"from": config.parallel_from, "jobs": config.jobs or 0},
        recipients=list(config.recipients),
        manifest={
            "environment": environment.name,
            "host": host,
            "reason": reason,
            "release": release,
        },
    )
    return Backup(BackupManifest.parse(json.dumps(result)))


def check_archive(
    container: BackupContainer, environment: Environment, backup: Backup, job: str, identity: str
) -> None:
    """Run the job `hash` or `read` on an archive. Raises `DeployError` if it is damaged."""
    container.run(job, seconds=environment.backups.timeout, **_request(backup, identity))


def restore(
    container: BackupContainer, environment: Environment, backup: Backup, name: str, identity: str
) -> None:
    """Restore into the new database `name`, and compare it with the manifest.

    Raises `DeployError` if that fails or they differ; the new database is removed then.
    """
    seconds = environment.backups.timeout
    found = container.run(
        "restore",
        seconds=seconds,
        name=name,
        jobs=environment.backups.jobs or 0,
        **_request(backup, identity),
    )
    if differences := backup.manifest.differences(found):
        container.run("drop", seconds=seconds, name=name)
        lines = "\n".join(f"- {line}" for line in differences[:20])
        raise DeployError(
            f"the database restored from {backup.manifest.id} differs from its manifest:\n{lines}",
            hint="the backup was changed after it was made: use another one (`invoke db.list`)",
        )


def _request(backup: Backup, identity: str) -> dict[str, Any]:
    manifest = backup.manifest
    return {
        "id": manifest.id,
        "sha256": manifest.sha256,
        "size": manifest.size,
        "format": manifest.format,
        "unpacked": manifest.unpacked,
        "database_size": manifest.database_size,
        "encrypted": manifest.encrypted,
        "identity": identity if manifest.encrypted else "",
    }
