"""Set up the archive for point-in-time recovery, add base backups to it, and report its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deploy.environment.model import load_environment
from deploy.errors import DeployError, GateRefused, UsageError
from deploy.operations.backup_context import open_backup_context
from deploy.operations.recovery_context import RecoveryContext, port_and_database
from deploy.pitr import archiving, recovered_cluster, status
from deploy.pitr.plan import ArchivingPlan, plan_archiving, require_live

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.pitr.facts import BaseBackup, Cluster, ClusterFacts
    from deploy.pitr.server import DatabaseServer
    from deploy.pitr.status import RecoveryStatus

KINDS = ("full", "diff", "incr")
_WEEK = 7 * 86400


def set_up_archiving(
    name: str,
    events: Events,
    *,
    confirm: Callable[[str], None],
    dry_run: bool = False,
) -> ArchivingPlan:
    """Configure PostgreSQL to archive its write-ahead log, check it, and make a full backup.

    Idempotent: a step that is done already is skipped. Archiving needs one restart of PostgreSQL;
    `confirm` is called first, before any change. Returns the steps that were applied, or in a dry
    run those that would be.
    """
    context = RecoveryContext.load(name, events)
    with context.locked("db.pitr.setup") as check, context.open() as server:
        made, cluster = _plan(context, server)
        if dry_run or not made.steps:
            return made
        if made.restarts:
            confirm(
                f"archiving needs a restart of PostgreSQL {cluster.label} on {server.name}: every"
                " connection ends, and clients can connect again after some seconds. Restart it?"
            )
        archiving.apply(made, server, cluster, context.config.repository, events, check)
        # The state of a repository that was not configured before is known only now.
        more = _plan(context, server)[0]
        archiving.apply(more, server, cluster, context.config.repository, events, check)
        return ArchivingPlan((*made.steps, *more.steps), made.files)


def _plan(context: RecoveryContext, server: DatabaseServer) -> tuple[ArchivingPlan, Cluster]:
    facts = server.facts(context.port)
    cluster, found = require_live(facts, context.database)
    wanted = context.files(cluster)
    contents = {path: server.read(path) or "" for path in wanted}
    facts = dataclasses.replace(facts, files=contents)
    return plan_archiving(context.environment.name, facts, cluster, found, wanted), cluster


def make_base_backup(name: str, events: Events, *, kind: str = "") -> BaseBackup:
    """Make a base backup and return it; pgBackRest then removes those beyond `backups.pitr.keep`.

    `kind` is `full`, `diff` (changes since the last full backup) or `incr` (changes since the last
    backup); by default full if the last full backup is older than a week, else diff.
    """
    if kind not in ("", *KINDS):
        raise UsageError(f"there is no kind of backup {kind!r}", hint=f"kinds: {', '.join(KINDS)}")
    context = RecoveryContext.load(name, events)
    with context.locked("db.pitr.backup") as check, context.open() as server:
        facts = server.facts(context.port)
        require_live(facts, context.database)
        _require_stanza(name, facts)
        full = [base.stopped for base in facts.repository.bases if base.kind == "full"]
        chosen = kind or ("diff" if full and full[-1] > facts.now - _WEEK else "full")
        check()
        with server.explaining(
            f"the {chosen} backup failed", hint=f"invoke db.pitr.status --env={name}"
        ):
            annotation = recovered_cluster.annotation(facts.past_recoveries)
            server.pgbackrest("backup", f"--type={chosen}", *annotation)
        return server.facts(context.port).repository.bases[-1]


def _require_stanza(name: str, facts: ClusterFacts) -> None:
    if not facts.tool or not facts.repository.stanza:
        cause = facts.repository.problem or "archiving is not set up"
        raise GateRefused(
            f"the repository of {name} cannot take a backup: {cause}",
            hint=f"invoke db.pitr.setup --env={name} --dry-run",
        )


def recovery_status(name: str, events: Events) -> RecoveryStatus:
    """Whether the database can be recovered, and to which points in time. Read-only.

    For a PostgreSQL without `backups.pitr`, the status that its connection shows.
    """
    if load_environment(name).backups.pitr is None:
        return status.status_of_connection(_query_through_connection(name, events))
    context = RecoveryContext.load(name, events)
    with context.open() as server:
        facts = server.facts(context.port)
        errors = ""
        if facts.live and facts.archiving and facts.archiving.failing:
            errors = archiving.read_archiving_errors(server, facts.live)
        return status.status_of_cluster(name, facts, context.config, errors)


def _query_through_connection(name: str, events: Events) -> list[dict[str, Any]]:
    with open_backup_context(name, events, "db.pitr.status") as context:
        port_and_database(context.environment, context.secrets)
        queries = [sql for _, sql in status.STATUS_QUERIES]
        return list(context.container.run("query", seconds=60, queries=queries))


def collect_cluster_facts(name: str, events: Events) -> ClusterFacts | None:
    """The facts that the metrics show; None, with a warning, if they cannot be read."""
    context = RecoveryContext.load(name, events)
    try:
        with context.open() as server:
            return server.facts(context.port)
    except DeployError as error:
        events.emit("warning", error.message)
        return None
