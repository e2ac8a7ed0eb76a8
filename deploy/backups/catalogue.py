"""The backups on the database's host: a folder each, with archive, manifest and proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from deploy.backups.manifest import LEVELS, Backup, Manifest, Proof
from deploy.errors import DeployError, UsageError

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host

# Three lines each: the folder's name, the manifest, the proof.
_LIST = (
    'for m in "$1"/*/manifest.json; do f="${m%/*}"; case "$f" in *.partial) continue;; esac; '
    '[ -f "$m" ] || continue; echo "${f##*/}"; tr -d "\\n" <"$m"; echo; '
    'tr -d "\\n" <"$f/verified.json" 2>/dev/null; echo; done'
)
# Renamed first: half a folder must never look like a backup.
_REMOVE = 'mv -T "$1/$2" "$1/$2.partial" && rm -rf "$1/$2.partial"'


def folder(environment: Environment) -> str:
    """Where an environment's backups lie on the database's host."""
    return environment.backups.directory or f"{environment.folder}/backups"


def read(host: Host, environment: Environment) -> list[Backup]:
    """Every whole backup, oldest first. Raises `DeployError` for a manifest that is damaged, or is
    of another environment."""
    lines = host.run(("sh", "-c", _LIST, "list", folder(environment))).text.split("\n")
    found = []
    for name, text, proof in zip(lines[0::3], lines[1::3], lines[2::3], strict=False):
        try:
            manifest = Manifest.parse(text)
        except ValueError:
            raise _foreign(host, f"the manifest of backup {name} is damaged") from None
        if (manifest.environment, manifest.id) != (environment.name, name):
            whose = f"{manifest.id} of {manifest.environment}"
            raise _foreign(host, f"what lies in the place of backup {name} is {whose}")
        found.append(Backup(manifest, Proof.parse(proof)))
    return sorted(found, key=lambda backup: backup.manifest.taken)


def _foreign(host: Host, text: str) -> DeployError:
    hint = "move that folder away, and fetch this backup's own from its copy elsewhere"
    return DeployError(f"{host.name}: {text}", hint=hint, host=host.name)


def pick(backups: Sequence[Backup], id: str, name: str) -> Backup:
    """The backup with an id, or the newest where none is given. Raises `UsageError`."""
    chosen = [backup for backup in backups if backup.manifest.id == id or not id]
    if not chosen:
        what = f"backup {id!r}" if id else "backup"
        ids = ", ".join(backup.manifest.id for backup in backups[-5:])
        hint = f"the newest are: {ids}" if ids else f"invoke db.backup --env={name}"
        raise UsageError(f"{name} has no {what}", hint=hint)
    return chosen[-1]


def record(host: Host, environment: Environment, backup: Backup, proof: Proof) -> None:
    """Write down how far a backup was proved, unless that was further already."""
    if backup.proof and LEVELS.index(backup.proof.level) > LEVELS.index(proof.level):
        return
    path = f"{folder(environment)}/{backup.manifest.id}/verified.json"
    host.write_file(path, json.dumps(asdict(proof)).encode() + b"\n")


def remove(host: Host, environment: Environment, backup: Backup) -> None:
    """Remove a backup."""
    host.run(("sh", "-c", _REMOVE, "remove", folder(environment), backup.manifest.id))


def publish(host: Host, environment: Environment) -> None:
    """Write when the newest proved backup was taken, and its size, for node_exporter to show."""
    proved = [backup.manifest for backup in read(host, environment) if backup.restorable]
    newest = proved[-1] if proved else None
    label = f'{{environment="{environment.name}"}}'
    lines = [
        "# HELP amani_backup_verified_timestamp_seconds When the newest backup that was proved by"
        " a restore was taken; 0: there is none.",
        "# TYPE amani_backup_verified_timestamp_seconds gauge",
        f"amani_backup_verified_timestamp_seconds{label} {newest.taken if newest else 0:.0f}",
        "# TYPE amani_backup_size_bytes gauge",
        f"amani_backup_size_bytes{label} {newest.size if newest else 0}",
    ]
    path = environment.backups.textfile or f"{folder(environment)}/metrics.prom"
    host.write_file(path, ("\n".join(lines) + "\n").encode(), mode=0o644)
