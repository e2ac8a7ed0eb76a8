"""Make, list, copy, fetch and prune backups."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deploy.backups import catalogue, retention
from deploy.backups.manifest import Backup
from deploy.environment.model import load_environment
from deploy.errors import DeployError, UsageError
from deploy.operations.backup_context import BackupContext, open_backup_context
from deploy.operations.host_session import open_session

if TYPE_CHECKING:
    from deploy.environment.sections import CopyConfig
    from deploy.events import Events


def list_backups(name: str, events: Events) -> list[Backup]:
    """Every complete backup of an environment, oldest first."""
    environment = load_environment(name)
    with open_session(environment, events) as session:
        host = session.hosts.get(environment.database_host.name)
        if host is None:
            raise session.errors[environment.database_host.name]
        return catalogue.read(host, environment)


def make_backup(name: str, events: Events) -> Backup:
    """Make a backup, read its archive to the end, and copy it to every place for copies.

    Raises `DeployError` if a copy fails; the backup on the host is complete then.
    """
    with open_backup_context(name, events, "db.backup") as context:
        backup = context.back_up("asked")
        _copy(context, backup)
        return backup


def copy_backup(name: str, events: Events, *, id: str = "") -> Backup:
    """Copy a backup, by default the newest, to every place for copies.

    Raises `UsageError` if the environment has no place for copies, and `DeployError` if a copy
    fails.
    """
    with open_backup_context(name, events, "db.copy") as context:
        backup = catalogue.pick(context.backups(), id, name)
        if not context.environment.backups.copies:
            raise UsageError(
                f"{name} has no place for copies", hint="add one to `backups.copies` in its file"
            )
        _copy(context, backup)
        return backup


def fetch_backup(name: str, events: Events, *, id: str = "", place: str = "") -> str:
    """Copy a backup from a place for copies to the database's host, and return its id.

    By default the newest backup of the first place. Raises `UsageError` if there is no such place
    or backup.
    """
    with open_backup_context(name, events, "db.fetch") as context:
        places = [p for p in context.environment.backups.copies if place in ("", p.name)]
        if not places:
            raise UsageError(f"{name} has no place for copies called {place!r}")
        source = _request(context, places[0])
        copied = sorted(context.container.run("copied", **source))
        if not copied or id not in ("", *copied):
            newest = ", ".join(copied[-5:]) or "no backups"
            wanted = f"backup {id}" if id else "backup"
            raise UsageError(f"{places[0].name} has no {wanted}", hint=f"it has: {newest}")
        chosen = id or copied[-1]
        if chosen not in {found.manifest.id for found in context.backups()}:
            context.container.run("fetch", **source, id=chosen)
        return chosen


def prune_backups(
    name: str,
    events: Events,
    *,
    dry_run: bool = False,
    databases: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> tuple[list[Backup], list[str]]:
    """Remove the backups that no rule keeps; with `databases` also those that restores left.

    Returns the backups and the names of the databases. A dry run removes nothing. `confirm` is
    called before a database is removed.
    """
    with open_backup_context(name, events, "db.prune") as context:
        environment = context.environment
        backups = retention.prunable(context.backups(), environment.backups.keep, context.releases)
        left = list(context.container.run("describe", seconds=60)["replaced"]) if databases else []
        if dry_run:
            return backups, left
        if left:
            confirm(f"remove the databases {', '.join(left)} permanently?")
        for backup in backups:
            catalogue.remove(context.host, environment, backup)
        for database in left:
            context.container.run("drop", seconds=60, name=database)
        catalogue.publish(context.host, environment)
        return backups, left


def _copy(context: BackupContext, backup: Backup) -> None:
    failed = []
    for place in context.environment.backups.copies:
        try:
            context.container.run("copy", **_request(context, place), id=backup.manifest.id)
        except DeployError as error:
            failed.append(f"- {place.name}: {error.message}")
    if failed:
        name, id = context.environment.name, backup.manifest.id
        raise DeployError(
            f"backup {id} is complete on {context.host.name}, but these copies failed:\n"
            + "\n".join(failed),
            hint=f"when the place answers again: invoke db.copy --env={name} --id={id}",
        )


def _request(context: BackupContext, place: CopyConfig) -> dict[str, Any]:
    """Timeout and place, with its keys, for a job that reads or writes copies."""
    username, key = (secret.reveal() for secret in context.keys[place.name])
    config = place.model_dump(mode="json", exclude={"username", "key"})
    path = f"{place.path.rstrip('/')}/{context.environment.name}"
    return {
        "seconds": context.environment.backups.timeout,
        "place": {**config, "path": path, "username": username, "key": key},
    }
