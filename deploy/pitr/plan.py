"""What has to be done for a database to be archived. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.errors import GateRefused, UsageError
from deploy.pitr.configuration import Placed, archive_command, config_path, settings_path
from deploy.pitr.facts import Archiving, Cluster, Facts

Kind = Literal["install", "write", "reload", "restart", "stanza", "check", "back-up"]


@dataclass(frozen=True)
class Step:
    """One change on the database's machine."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order, and the files that it brings."""

    steps: tuple[Step, ...]
    files: Mapping[str, Placed]

    @property
    def restarts(self) -> bool:
        """Whether PostgreSQL has to be restarted."""
        return any(step.kind == "restart" for step in self.steps)


def require_live(facts: Facts, database: str) -> tuple[Cluster, Archiving]:
    """The live cluster and what it says. Raises `UsageError` where the machine is not the one of
    the database, `GateRefused` where that does not answer or is a standby."""
    cluster, archiving = facts.live, facts.archiving
    if cluster is None:
        found = ", ".join(f"{one.label} on {one.port}" for one in facts.clusters) or "none"
        raise UsageError(
            f"no cluster has port {facts.port} of the database's URL; there are: {found}",
            hint="is `backups.pitr.server` the machine that PostgreSQL runs on?",
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
            hint="is `backups.pitr.server` the machine that the database's URL names?",
        )
    if archiving.recovery:
        raise GateRefused(f"the cluster {cluster.label} is a standby", hint="name its primary")
    return cluster, archiving


def plan(
    name: str, facts: Facts, cluster: Cluster, archiving: Archiving, wanted: Mapping[str, Placed]
) -> Plan:
    """What has to be done; empty where the database is archived and was backed up.

    Raises `GateRefused` where somebody else archives it.
    """
    _require_ours(name, archiving)
    steps: list[Step] = []
    if not facts.tool:
        steps.append(Step("install", "install pgBackRest, from the distribution"))
    changed = {path for path, file in wanted.items() if facts.files.get(path) != file.content}
    steps += [Step("write", f"write {path}") for path in sorted(changed)]
    settings = settings_path(cluster, name)
    # Of what its file says a server that was not restarted knows nothing but that it would differ.
    stale = archiving.value("archive_mode") == "off" or archiving.value("wal_level") == "minimal"
    if stale:
        text = f"restart PostgreSQL {cluster.label}, for archive_mode: every connection ends"
        steps.append(Step("restart", text))
    elif settings in changed or archiving.value("archive_command") != archive_command(name):
        steps.append(Step("reload", f"let PostgreSQL {cluster.label} read its configuration"))
    # What was found is of the repository that was named before.
    if not facts.repository.stanza or config_path(name) in changed:
        steps.append(Step("stanza", "make the stanza in the repository"))
    backed_up = any(base.sound for base in facts.repository.bases)
    if steps or not backed_up:
        steps.append(Step("check", "see a segment arrive in the repository"))
    if not backed_up:
        steps.append(Step("back-up", "make the first full backup"))
    return Plan(tuple(steps), {path: wanted[path] for path in sorted(changed)})


def _require_ours(name: str, archiving: Archiving) -> None:
    command = archiving.value("archive_command")
    own = command in ("", "(disabled)", "/bin/true", "true", archive_command(name))
    library = archiving.value("archive_library")
    if not own and archiving.on or library:
        found = archiving.settings["archive_library" if library else "archive_command"]
        raise GateRefused(
            f"somebody else archives this database: {found.value}",
            hint=f"it is set in {found.file or 'the server'}; two cannot archive it: end that one,"
            " or leave this one away",
        )
    for setting, found in archiving.settings.items():
        if found.file.endswith("postgresql.auto.conf") and setting in (
            "archive_mode",
            "archive_command",
            "archive_timeout",
        ):
            raise GateRefused(
                f"{setting} was set by ALTER SYSTEM, which wins over every file",
                hint=f"ALTER SYSTEM RESET {setting}",
            )
