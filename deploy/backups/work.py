"""Making a backup, and restoring one into a new database."""

from __future__ import annotations

import json
import secrets as entropy
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deploy.backups.manifest import Backup, Manifest
from deploy.errors import DeployError

if TYPE_CHECKING:
    from deploy.backups.tool import Tool
    from deploy.environment.model import Environment


def new_id() -> str:
    """A name for a backup that sorts by time."""
    return f"{stamp()}-{entropy.token_hex(2)}"


def stamp() -> str:
    """Now, in UTC, as part of a name."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime())


def make(
    tool: Tool,
    environment: Environment,
    before: Sequence[Backup],
    *,
    host: str,
    reason: str,
    release: str,
) -> Backup:
    """Make a backup and read it to its end. Raises what `Tool.run` does; nothing is left then."""
    wanted = environment.backups
    result = tool.run(
        "back-up",
        seconds=wanted.timeout,
        id=new_id(),
        expected=before[-1].manifest.size if before else 0,
        parallel={"from": wanted.parallel_from, "jobs": wanted.jobs or 0},
        recipients=list(wanted.recipients),
        manifest={
            "environment": environment.name,
            "host": host,
            "reason": reason,
            "release": release,
        },
    )
    return Backup(Manifest.parse(json.dumps(result)))


def check(tool: Tool, environment: Environment, backup: Backup, job: str, identity: str) -> None:
    """Do the job `hash` or `read` on a backup. Raises `DeployError` where it is not sound."""
    tool.run(job, seconds=environment.backups.timeout, **_request(backup, identity))


def restore(tool: Tool, environment: Environment, backup: Backup, name: str, identity: str) -> None:
    """Restore into the new database `name`, and compare it with the manifest.

    Raises `DeployError` where that fails or they differ; the new database is removed then.
    """
    seconds = environment.backups.timeout
    found = tool.run(
        "restore",
        seconds=seconds,
        name=name,
        jobs=environment.backups.jobs or 0,
        **_request(backup, identity),
    )
    if differences := backup.manifest.differences(found):
        tool.run("drop", seconds=seconds, name=name)
        lines = "\n".join(f"- {line}" for line in differences[:20])
        raise DeployError(
            f"what was restored from {backup.manifest.id} is not what was backed up:\n{lines}",
            hint="use another backup, and find out what changed this one: `invoke db.list`",
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
