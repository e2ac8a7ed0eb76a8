"""Tasks for point-in-time recovery (PITR) of PostgreSQL with pgBackRest."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.database import CONFIRM, confirmation, show_removed
from deploy.tasks.options import ENV, JSON, default_environment
from deploy.tasks.surface import task

DRY_RUN = {"dry_run": "show the changes and apply none"}


@task(
    help={
        **ENV,
        **JSON,
        **DRY_RUN,
        "restart": "restart PostgreSQL without a question, if that is needed",
    }
)
def setup(
    context: Context,
    env: str = "",
    restart: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Configure PostgreSQL to archive its write-ahead log, and make the first base backup."""
    from deploy.operations.recovery_archive import set_up_archiving
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        made = set_up_archiving(
            name,
            report.events,
            confirm=lambda question: report.confirm(
                question, name, automatic=restart, option="--restart"
            ),
            dry_run=dry_run,
        )
        rows = [{"step": step.kind, "what": step.text} for step in made.steps]
        if dry_run and rows:
            report.show_rows(f"steps to archive the database of {name}", rows)
        done = "nothing was changed" if dry_run else f"the database of {name} is archived"
        text = done if rows else f"the database of {name} is archived already: nothing to do"
        report.show_done(text, {"look": f"invoke db.pitr.status --env={name}"})


@task(help={**ENV, **JSON, "type": "full, diff or incr (default: full once a week, else diff)"})
def backup(context: Context, env: str = "", type: str = "", json: bool = False) -> None:
    """Make a base backup, from which a recovery replays the write-ahead log."""
    from deploy.operations.recovery_archive import make_base_backup
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        base = make_base_backup(name, report.events, kind=type)
        report.show_done(
            f"{name} has a new base backup",
            {
                "backup": f"{base.label} ({base.kind})",
                "size": base.sizes,
                "took": f"{base.stopped - base.started:.0f} s",
            },
        )


@task(help={**ENV, **JSON})
def status(context: Context, env: str = "", json: bool = False) -> None:
    """Show to which points in time the database can be recovered; exit code 3 on a problem."""
    from deploy.errors import GateRefused
    from deploy.operations.recovery_archive import recovery_status
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        found = recovery_status(name, report.events)
        rows = [{"what": label, "found": text} for label, text in found.rows]
        rows += [{"what": "not visible from here", "found": text} for text in found.hidden]
        report.show_rows(f"point-in-time recovery of {name}", rows)
        if found.problems:
            raise GateRefused(
                "\n".join(found.problems),
                hint="docs/runbooks/incident_playbook.md#the-archive-falls-behind",
            )


@task(
    help={
        **ENV,
        **JSON,
        **CONFIRM,
        "to": 'date and time, such as "2026-11-23 14:05" (UTC) or "2026-11-23 15:05+01:00"',
        "zone": "the time zone of --to, such as Africa/Lagos (default: UTC)",
        "replace": "make it the live database; the replaced cluster stays, stopped",
        "whole_cluster": "with --replace: recover the cluster's other databases, too",
    }
)
def restore(
    context: Context,
    env: str = "",
    to: str = "",
    zone: str = "",
    replace: bool = False,
    whole_cluster: bool = False,
    confirm: str = "",
    json: bool = False,
) -> None:
    """Recover the database to a point in time: in a new cluster, or over the live one."""
    from deploy.errors import UsageError
    from deploy.operations.recovery import recover_database
    from deploy.output.report import Report
    from deploy.pitr.recovery_target import TARGET_FORM, format_time

    if not to:
        raise UsageError("to which point in time?", hint=f"--to: {TARGET_FORM}")
    name = env or default_environment()
    with Report(json=json) as report:
        done = recover_database(
            name,
            report.events,
            to=to,
            zone=zone,
            replace=replace,
            whole_cluster=whole_cluster,
            confirm=confirmation(report, name, confirm),
        )
        details = {
            "last transaction": format_time(done.until or None),
            "rows": f"{done.rows:,} in {done.tables} tables",
            "schema": done.revision or "none",
            "took": f"{done.seconds:.1f} s",
            "base backup": f"{done.base.size / 1e6:,.1f} MB in {done.copy_seconds:.1f} s"
            f" ({done.base.size / 1e6 / max(done.copy_seconds, 0.001):,.1f} MB/s)",
        }
        if done.previous:
            details |= {
                "replaced cluster": f"{done.previous}, stopped; invoke db.pitr.prune --env={name}",
                "next": f"invoke maintenance.off --env={name}",
                "then": f"invoke db.pitr.backup --env={name} --type=full",
            }
            report.show_done(f"{name} uses {done.cluster.label}, recovered to that time", details)
        else:
            place = f"{done.cluster.label}, port {done.cluster.port}"
            report.show_done(f"restored into {place}; the live cluster is unchanged", details)


@task(help={**ENV, **JSON, **CONFIRM, **DRY_RUN})
def prune(
    context: Context, env: str = "", dry_run: bool = False, confirm: str = "", json: bool = False
) -> None:
    """Remove the clusters that recoveries created or replaced; never the live one."""
    from deploy.operations.recovery import prune_clusters
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        clusters = prune_clusters(
            name,
            report.events,
            dry_run=dry_run,
            confirm=confirmation(report, name, confirm),
        )
        show_removed(report, [cluster.label for cluster in clusters], dry_run=dry_run)
