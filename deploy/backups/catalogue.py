"""The backups on the database's host: a folder each, with archive, manifest and verification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from deploy.backups.manifest import LEVELS, Backup, BackupManifest, Verification
from deploy.errors import DeployError, UsageError

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host

# Three lines for each: the folder's name, the manifest, the verification.
_LIST = (
    'for m in "$1"/*/manifest.json; do f="${m%/*}"; case "$f" in *.partial) continue;; esac; '
    '[ -f "$m" ] || continue; echo "${f##*/}"; tr -d "\\n" <"$m"; echo; '
    'tr -d "\\n" <"$f/verified.json" 2>/dev/null; echo; done'
)
# Renamed first: a folder that is partly removed must not look like a backup.
_REMOVE = 'mv -T "$1/$2" "$1/$2.partial" && rm -rf "$1/$2.partial"'


def folder(environment: Environment) -> str:
    """The folder on the database's host that holds an environment's backups."""
    return environment.backups.directory or f"{environment.folder}/backups"


def read(host: Host, environment: Environment) -> list[Backup]:
    """Every complete backup, oldest first.

    Raises `DeployError` if a manifest is damaged or belongs to another environment.
    """
    lines = host.run(("sh", "-c", _LIST, "list", folder(environment))).text.split("\n")
    found = []
    for name, text, verification in zip(lines[0::3], lines[1::3], lines[2::3], strict=False):
        try:
            manifest = BackupManifest.parse(text)
        except ValueError:
            raise _foreign(host, f"the manifest of backup {name} is damaged") from None
        if (manifest.environment, manifest.id) != (environment.name, name):
            owner = f"{manifest.id} of {manifest.environment}"
            raise _foreign(host, f"the folder of backup {name} contains {owner}")
        found.append(Backup(manifest, Verification.parse(verification)))
    return sorted(found, key=lambda backup: backup.manifest.taken)


def _foreign(host: Host, text: str) -> DeployError:
    hint = "move that folder out of the way, and fetch this backup from a copy: invoke db.fetch"
    return DeployError(f"{host.name}: {text}", hint=hint, host=host.name)


def pick(backups: Sequence[Backup], id: str, name: str) -> Backup:
    """The backup with an id, or the newest if `id` is empty.

    Raises `UsageError` if the environment `name` has none.
    """
    chosen = [backup for backup in backups if backup.manifest.id == id or not id]
    if not chosen:
        wanted = f"backup {id!r}" if id else "backup"
        ids = ", ".join(backup.manifest.id for backup in backups[-5:])
        hint = f"the newest are: {ids}" if ids else f"invoke db.backup --env={name}"
        raise UsageError(f"{name} has no {wanted}", hint=hint)
    return chosen[-1]


def record(host: Host, environment: Environment, backup: Backup, found: Verification) -> None:
    """Write the verification of a backup, unless one with a higher level is there."""
    known = backup.verification
    if known and LEVELS.index(known.level) > LEVELS.index(found.level):
        return
    path = f"{folder(environment)}/{backup.manifest.id}/verified.json"
    host.write_file(path, json.dumps(asdict(found)).encode() + b"\n")


def remove(host: Host, environment: Environment, backup: Backup) -> None:
    host.run(("sh", "-c", _REMOVE, "remove", folder(environment), backup.manifest.id))


def publish(host: Host, environment: Environment) -> None:
    """Write time and size of the newest verified backup as metrics for node_exporter."""
    verified = [backup.manifest for backup in read(host, environment) if backup.restorable]
    newest = verified[-1] if verified else None
    label = f'{{environment="{environment.name}"}}'
    lines = [
        "# HELP amani_backup_verified_timestamp_seconds When the newest backup that was verified by"
        " a restore was taken; 0: there is none.",
        "# TYPE amani_backup_verified_timestamp_seconds gauge",
        f"amani_backup_verified_timestamp_seconds{label} {newest.taken if newest else 0:.0f}",
        "# TYPE amani_backup_size_bytes gauge",
        f"amani_backup_size_bytes{label} {newest.size if newest else 0}",
    ]
    path = environment.backups.textfile or f"{folder(environment)}/metrics.prom"
    host.write_file(path, ("\n".join(lines) + "\n").encode(), mode=0o644)
