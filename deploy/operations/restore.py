"""Verify backups and restore them: into a new database, or over the live one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.backups import catalogue, jobs
from deploy.backups.container import database_url
from deploy.backups.manifest import LEVELS, Backup, Level, Verification
from deploy.backups.stopped_containers import containers_stopped
from deploy.errors import DeployError, UsageError
from deploy.operations.backup_context import BackupContext, open_backup_context
from deploy.operations.restored_database import check_restored_database
from deploy.secrets.secret import Secret

if TYPE_CHECKING:
    from deploy.events import Events


@dataclass(frozen=True)
class RestoredDatabase:
    """The new database of a restore; `seconds` is how long the restore took."""

    backup: Backup
    database: str
    previous: str = ""
    """The name that the replaced database has now: empty if none was replaced, `none` if there was
    no live database."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Drill:
    """The result of a drill, in seconds."""

    backup: Backup
    recovery: float
    """From the archive to a service that is ready on the restored database: the RTO."""
    total: float


def verify_backup(
    name: str, events: Events, *, id: str = "", level: Level = "restored"
) -> Verification:
    """Verify a backup, by default the newest, up to a level, and record the level.

    Raises `UsageError` for an unknown level or backup, or if the private key is missing, and
    `DeployError` if the backup fails the verification.
    """
    if level not in LEVELS:
        raise UsageError(f"there is no level {level!r}", hint=f"levels: {', '.join(LEVELS)}")
    with open_backup_context(name, events, "db.verify") as context:
        return _verify(context, catalogue.pick(context.backups(), id, name), level)


def restore_backup(
    name: str,
    events: Events,
    *,
    id: str = "",
    replace: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> RestoredDatabase:
    """Restore a backup, by default the newest, into a new database and compare it.

    With `replace` the new database becomes the live one. This needs maintenance and `confirm`, and
    a backup of the live database is made first. The replaced database is renamed and stays until
    `db.prune --databases`. Raises `GateRefused` without maintenance, and `DeployError` if the
    restored database differs from the manifest.
    """
    with open_backup_context(name, events, "db.restore") as context:
        backup = catalogue.pick(context.backups(), id, name)
        identity = _private_key(backup)
        if replace:
            context.require_maintenance()
            confirm(f"replace the database of {name} by backup {backup.manifest.id}?")
        started = time.monotonic()
        # The lock stays until the swap: no migration starts, not even by `flask db upgrade`.
        context.container.run("hold", seconds=60)
        fresh = _new_name(context)
        jobs.restore(context.container, context.environment, backup, fresh, identity)
        if not replace:
            return RestoredDatabase(backup, fresh, seconds=time.monotonic() - started)
        try:
            _check(context, fresh, boot=False)
            exists = bool(context.container.run("describe", seconds=60)["exists"])
            if exists:
                context.back_up("restore")
            previous = fresh.replace("_restored_", "_before_")
            _swap(context, fresh, previous)
        except BaseException:
            # After the swap no database has this name.
            with contextlib.suppress(DeployError):
                context.container.run("drop", seconds=60, name=fresh)
            raise
        seconds = time.monotonic() - started
        return RestoredDatabase(backup, fresh, previous if exists else "none", seconds)


def run_drill(name: str, events: Events) -> Drill:
    """Back up, restore into a scratch database, and start the service on it; timed.

    The result is recorded in the journal.
    """
    with open_backup_context(name, events, "db.drill") as context:
        started = time.time()
        backup = context.back_up("drill")
        seconds = _verify(context, backup, "booted").seconds
        context.record(
            "drill",
            "proved",
            id=backup.manifest.id,
            started=started,
            schema=backup.manifest.revision,
            step={"kind": "recovery", "seconds": seconds},
        )
        return Drill(backup, seconds, time.time() - started)


def _verify(context: BackupContext, backup: Backup, level: Level) -> Verification:
    identity = _private_key(backup)
    started = time.monotonic()
    container, environment = context.container, context.environment
    if level in ("hash", "read"):
        jobs.check_archive(container, environment, backup, level, identity)
    else:
        scratch = _new_name(context)
        jobs.restore(container, environment, backup, scratch, identity)
        try:
            _check(context, scratch, boot=level == "booted")
        finally:
            container.run("drop", seconds=60, name=scratch)
    found = Verification(level, time.time(), round(time.monotonic() - started, 3))
    catalogue.record(context.host, environment, backup, found)
    catalogue.publish(context.host, environment)
    return found


def _private_key(backup: Backup) -> str:
    """The operator's private key as text; empty if the backup is not encrypted."""
    from deploy.secrets.age import read_identity

    if not backup.manifest.encrypted:
        return ""
    key = read_identity()
    if not key:
        raise UsageError(
            f"backup {backup.manifest.id} is encrypted",
            hint="set AMANI_AGE_IDENTITY to the path of an age private key",
        )
    return key


def _new_name(context: BackupContext) -> str:
    live = str(context.container.run("describe", seconds=60)["name"])
    return f"{live}_restored_{jobs.stamp()}"


def _check(context: BackupContext, database: str, *, boot: bool) -> None:
    url = urlsplit(database_url(context.environment, context.secrets))
    folder = suffix = ""
    if "sqlite" in url.scheme:
        folder, suffix = url.path.rpartition("/")[0], "." + url.path.rpartition(".")[2]
    restored = Secret(url._replace(path=f"{folder}/{database}{suffix}").geturl())
    check_restored_database(context, restored, boot=boot)


def _swap(context: BackupContext, fresh: str, previous: str) -> None:
    """Rename both databases. SQLite's file must not be open: its containers are stopped."""
    sqlite = database_url(context.environment, context.secrets).startswith("sqlite")
    stopped = (
        containers_stopped(context.host, context.environment)
        if sqlite
        else contextlib.nullcontext()
    )
    with stopped:
        context.container.run("swap", seconds=120, name=fresh, old=previous)
