"""The plan that sets up archiving for a database. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.errors import GateRefused, UsageError
from deploy.pitr.configuration import ConfigurationFile, archive_command, config_path, settings_path
from deploy.pitr.facts import Archiving, Cluster, ClusterFacts

Kind = Literal["install", "write", "reload", "restart", "stanza", "check", "back-up"]


@dataclass(frozen=True)
class ArchivingStep:
    """One change on the database's machine."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class ArchivingPlan:
    """The steps in their order, and the files that they write."""

    steps: tuple[ArchivingStep, ...]
    files: Mapping[str, ConfigurationFile]

    @property
    def restarts(self) -> bool:
        return any(step.kind == "restart" for step in self.steps)


def require_live(facts: ClusterFacts, database: str) -> tuple[Cluster, Archiving]:
    """The live cluster and its archiving.

    Raises `UsageError` if the machine has no such cluster or database, and `GateRefused` if the
    cluster does not answer or is a standby.
    """
    cluster, archiving = facts.live, facts.archiving
    if cluster is None:
        found = ", ".join(f"{one.label} on {one.port}" for one in facts.clusters) or "none"
        raise UsageError(
            f"no cluster has port {facts.port} of the database's URL; there are: {found}",
            hint="check that PostgreSQL runs on the machine in `backups.pitr.server`",
        )
    if archiving is None:
        raise GateRefused(
            f"the cluster {cluster.label} does not answer",
            hint=f"on that machine: pg_ctlcluster {cluster.version} {cluster.name} start",
        )
    if database not in archiving.databases:
        found = ", ".join(archiving.databases) or "none"
        raise UsageError(
            f"the cluster {cluster.label} has no database {database}; it has: {found}",
            hint="check that `backups.pitr.server` is the machine in the database's URL",
        )
    if archiving.recovery:
        raise GateRefused(
            f"the cluster {cluster.label} is a standby",
            hint="name the machine of its primary in `backups.pitr.server`",
        )
    return cluster, archiving


def plan_archiving(
    name: str,
    facts: ClusterFacts,
    cluster: Cluster,
    archiving: Archiving,
    wanted: Mapping[str, ConfigurationFile],
) -> ArchivingPlan:
    """The steps that are missing until the database is archived and has a base backup.

    Raises `GateRefused` if another program archives the database.
    """
    _require_ours(name, archiving)
    steps: list[ArchivingStep] = []
    if not facts.tool:
        steps.append(ArchivingStep("install", "install pgBackRest from the distribution"))
    changed = {path for path, file in wanted.items() if facts.files.get(path) != file.content}
    steps += [ArchivingStep("write", f"write {path}") for path in sorted(changed)]
    settings = settings_path(cluster, name)
    # Before a restart the server reports the old values of these settings.
    stale = archiving.value("archive_mode") == "off" or archiving.value("wal_level") == "minimal"
    if stale:
        text = f"restart PostgreSQL {cluster.label} for archive_mode: every connection ends"
        steps.append(ArchivingStep("restart", text))
    elif settings in changed or archiving.value("archive_command") != archive_command(name):
        steps.append(
            ArchivingStep("reload", f"reload the configuration of PostgreSQL {cluster.label}")
        )
    # With a changed configuration, the facts are those of the previous repository.
    if not facts.repository.stanza or config_path(name) in changed:
        steps.append(ArchivingStep("stanza", "create the stanza in the repository"))
    backed_up = any(base.sound for base in facts.repository.bases)
    if steps or not backed_up:
        steps.append(ArchivingStep("check", "check that a segment reaches the repository"))
    if not backed_up:
        steps.append(ArchivingStep("back-up", "make the first full backup"))
    return ArchivingPlan(tuple(steps), {path: wanted[path] for path in sorted(changed)})


def _require_ours(name: str, archiving: Archiving) -> None:
    command = archiving.value("archive_command")
    own = command in ("", "(disabled)", "/bin/true", "true", archive_command(name))
    library = archiving.value("archive_library")
    if not own and archiving.on or library:
        found = archiving.settings["archive_library" if library else "archive_command"]
        raise GateRefused(
            f"another program archives this database: {found.value}",
            hint=f"it is set in {found.file or 'the server'}; only one program can archive a"
            " database: remove that setting, or `backups.pitr`",
        )
    for setting, found in archiving.settings.items():
        if found.file.endswith("postgresql.auto.conf") and setting in (
            "archive_mode",
            "archive_command",
            "archive_timeout",
        ):
            raise GateRefused(
                f"{setting} was set by ALTER SYSTEM, which overrides every file",
                hint=f"ALTER SYSTEM RESET {setting}",
            )
