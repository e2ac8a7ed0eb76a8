"""Recover the database to a point in time, and remove the clusters that this leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets as entropy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy.backups.container import database_url
from deploy.errors import DeployError, GateRefused, UsageError
from deploy.operations.backup_context import BackupContext, open_backup_context
from deploy.operations.recovery_context import RecoveryContext
from deploy.operations.restored_database import check_restored_database
from deploy.pitr import archiving, configuration, recovered_cluster, recovery_target
from deploy.pitr.facts import Archiving, Cluster, ClusterFacts
from deploy.secrets.secret import Secret

if TYPE_CHECKING:
    from datetime import datetime

    from deploy.events import Events
    from deploy.pitr.facts import BaseBackup
    from deploy.pitr.recovery_target import RecoveryWindow
    from deploy.pitr.server import DatabaseServer


@dataclass(frozen=True)
class RecoveredCluster:
    """The result of a recovery: a cluster with the state of the database at the target."""

    cluster: Cluster
    base: BaseBackup
    until: float
    """When the last transaction in it was committed, in seconds since the epoch; 0: none after the
    base backup."""
    rows: int
    tables: int
    revision: str
    seconds: float
    """From the request to a checked database, or with `previous` to a live one."""
    copy_seconds: float
    """The part of `seconds` in which the base backup was copied."""
    previous: str = ""
    """The label of the cluster that was live until now; empty if it still is."""


def recover_database(
    name: str,
    events: Events,
    *,
    to: str,
    zone: str = "",
    replace: bool = False,
    whole_cluster: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> RecoveredCluster:
    """Recover the database to a point in time in a new cluster beside the live one, and check it.

    With `replace` the new cluster takes the live one's port. This needs maintenance and `confirm`.
    The replaced cluster stays, stopped, until `prune_clusters`. Other databases of the cluster are
    recovered to the same time, which needs `whole_cluster`. Raises `UsageError` if `to` is no
    date and time, and `GateRefused` if that time cannot be recovered.
    """
    target = recovery_target.parse_target(to, zone)
    context = RecoveryContext.load(name, events)
    with (
        open_backup_context(name, events, "db.pitr.restore") as backup_context,
        context.open() as server,
    ):
        started = time.monotonic()
        live, facts = _require_recoverable(context, server, target)
        base = recovered_cluster.base_for(facts, target)
        recovered_cluster.require_room(server, live, base)
        if replace:
            backup_context.require_maintenance()
            _require_alone(context, facts.archiving, whole_cluster)
            confirm(
                f"recover the database of {name} to {recovery_target.format_time(target)}? Later"
                f" changes stay in the cluster {live.label}, which is stopped."
            )
        _archive_newest(backup_context, server, live, facts.archiving, target)
        fresh = recovered_cluster.create(server, facts, live, target, context.config.port)
        attempt = _RecoveryAttempt(backup_context, context, server, fresh, target)
        try:
            until, copy_seconds = attempt.fill(facts)
            found = attempt.check()
        except BaseException:
            with contextlib.suppress(DeployError):
                recovered_cluster.drop(server, fresh, context.port)
            raise
        if replace:
            # On failure the new cluster stays: it is not known here whether the swap, once begun,
            # was completed.
            backup_context.require_lock()
            past_recoveries = recovered_cluster.swap(server, live, fresh, target, facts)
            # For a machine that replaces this one: its clusters do not have the notes.
            annotation = recovered_cluster.annotation(past_recoveries)
            server.pgbackrest("annotate", f"--set={base.label}", *annotation)
            archiving.check_archiving(server, dataclasses.replace(fresh, port=live.port))
        result = RecoveredCluster(
            cluster=fresh,
            base=base,
            until=until,
            rows=sum(int(table["rows"]) for table in found["tables"].values()),
            tables=len(found["tables"]),
            revision=found["revision"],
            seconds=time.monotonic() - started,
            copy_seconds=copy_seconds,
            previous=live.label if replace else "",
        )
        _record(backup_context, result, target)
        return result


def prune_clusters(
    name: str,
    events: Events,
    *,
    dry_run: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> list[Cluster]:
    """Remove the clusters that recoveries created or replaced, never the live one.

    Returns them. A dry run removes nothing.
    """
    context = RecoveryContext.load(name, events)
    with context.locked("db.pitr.prune") as check, context.open() as server:
        left = leftovers(name, context.port, server.clusters()[0])
        if dry_run or not left:
            return left
        confirm(f"remove the clusters {', '.join(one.label for one in left)} permanently?")
        for cluster in left:
            check()
            recovered_cluster.drop(server, cluster, context.port)
        return left


def leftovers(name: str, port: int, clusters: Sequence[Cluster]) -> list[Cluster]:
    """The clusters that recoveries of an environment created or replaced. Pure."""
    return [one for one in clusters if one.note.get("environment") == name and one.port != port]


def _require_recoverable(
    context: RecoveryContext, server: DatabaseServer, target: datetime
) -> tuple[Cluster, ClusterFacts]:
    """The live cluster, running or not, and the facts.

    A machine that replaced a lost one first gets pgBackRest and its configuration. Raises
    `UsageError` without a live cluster, and `GateRefused` if the target is out of reach.
    """
    name = context.environment.name
    facts = server.facts(context.port, repository=False)
    live = facts.live
    if live is None:
        raise UsageError(
            f"no cluster has port {context.port} of the database's URL on {server.name}",
            hint="the new cluster takes its settings from it: pg_createcluster creates an empty"
            " one",
        )
    if not facts.tool:
        archiving.install(server)
    for path, file in context.files(live).items():
        if path != configuration.settings_path(live, name) and server.read(path) != file.content:
            server.write(path, file.content, secret=file.secret)
    facts = server.facts(context.port)
    window = _window(name, facts)
    if facts.archiving and facts.archiving.on:
        # Archiving that failed until now may succeed in _archive_newest.
        window = dataclasses.replace(window, newest=None)
    window.require(target, facts.now)
    return live, facts


def _window(name: str, facts: ClusterFacts) -> RecoveryWindow:
    if facts.window is None:
        raise GateRefused(
            f"nothing can be restored: {facts.repository.problem or 'there is no base backup'}",
            hint=f"invoke db.pitr.status --env={name}",
        )
    return facts.window


def _require_alone(context: RecoveryContext, found: Archiving | None, allowed: bool) -> None:
    """Raise `GateRefused` if the cluster holds other databases, unless that is `allowed`."""
    own = f"{context.database}_"
    others = [
        name
        for name in (found.databases if found else ())
        if name != context.database and not name.startswith(own)
    ]
    if others and not allowed:
        raise GateRefused(
            f"the same cluster holds {', '.join(others)}: this would recover them to the same time",
            hint="recover without --replace and copy the data with pg_dump, or confirm with"
            " --whole-cluster",
        )


def _archive_newest(
    context: BackupContext,
    server: DatabaseServer,
    live: Cluster,
    found: Archiving | None,
    target: datetime,
) -> None:
    """Archive the newest transactions of a running server.

    A failure is only a warning if the target is in the archive already.
    """
    if found is None or not found.on:
        return
    context.events.emit("note", "archive the newest transactions", host=server.name)
    try:
        recovered_cluster.archive_all(server, live, context.require_lock)
    except DeployError as error:
        context.require_lock()
        if target.timestamp() > found.written:
            raise
        context.events.emit("warning", error.message, host=server.name)


@dataclass(frozen=True)
class _RecoveryAttempt:
    """The recovery of one new cluster."""

    backup_context: BackupContext
    context: RecoveryContext
    server: DatabaseServer
    fresh: Cluster
    target: datetime

    def fill(self, facts: ClusterFacts) -> tuple[float, float]:
        """Restore the base backup and replay the log up to the target.

        Returns the time of the last transaction, in seconds since the epoch, and the seconds that
        copying the base backup took.
        """
        server, fresh, target = self.server, self.fresh, self.target
        environment, events = self.context.environment, self.backup_context.events
        seconds = environment.backups.timeout
        settings = configuration.settings_path(fresh, environment.name)
        server.write(settings, self.context.files(fresh)[settings].content)
        line = recovery_target.find_timeline(target, facts.past_recoveries)
        events.emit("note", f"restore into {fresh.label}, port {fresh.port}", host=server.name)
        began = time.monotonic()
        with server.explaining(
            "the base backup could not be restored",
            hint=f"the live cluster is unchanged; invoke db.pitr.status --env={environment.name}",
        ):
            recovered_cluster.restore(server, fresh, target, timeline=line, timeout=seconds)
        copy_seconds = time.monotonic() - began

        def report(text: str) -> None:
            events.emit("step-progress", text, host=server.name, step="recovery", data={})

        until = recovered_cluster.recover(
            server,
            fresh,
            target,
            timeout=seconds,
            check=self.backup_context.require_lock,
            report=report,
        )
        return until, copy_seconds

    def check(self) -> dict[str, Any]:
        """Measure the recovered database and run the live image's check; `tables`, `revision`."""
        context = self.backup_context
        url = _with_port(database_url(context.environment, context.secrets), self.fresh.port)
        found = self._measure(url)
        check_restored_database(context, url, boot=False)
        return found

    def _measure(self, url: Secret) -> dict[str, Any]:
        context, port = self.backup_context, self.fresh.port
        seconds = context.environment.backups.timeout
        try:
            return dict(context.container.run("look", seconds=seconds, url=url.reveal()))
        except DeployError as error:
            if not error.hint:  # the server answers, and refuses
                raise
            raise DeployError(
                error.message,
                hint=f"{context.host.name} must reach port {port} of the database's machine, and"
                " pg_hba.conf and listen_addresses there must allow it, as for the live port",
                host=error.host,
            ) from None


def _with_port(url: str, port: int) -> Secret:
    parts = urlsplit(url)
    login, at, address = parts.netloc.rpartition("@")
    host = address.rpartition(":")[0] if parts.port else address
    return Secret(parts._replace(netloc=f"{login}{at}{host}:{port}").geturl())


def _record(context: BackupContext, done: RecoveredCluster, target: datetime) -> None:
    context.record(
        "pitr",
        "replaced" if done.previous else "restored",
        id=entropy.token_hex(8),
        started=time.time() - done.seconds,
        schema=done.revision,
        step={
            "kind": "recovery",
            "seconds": round(done.seconds, 3),
            "target": target.timestamp(),
            "cluster": done.cluster.label,
            "before": done.previous,
        },
    )
