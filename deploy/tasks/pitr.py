"""The database taken back to any moment, by pgBackRest."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.database import CONFIRM
from deploy.tasks.options import ENV, JSON, default_environment
from deploy.tasks.surface import task

DRY_RUN = {"dry_run": "say what would be done and change nothing"}


@task(
    help={**ENV, **JSON, **DRY_RUN, "restart": "restart PostgreSQL where that is needed, unasked"}
)
def setup(
    context: Context,
    env: str = "",
    restart: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Let PostgreSQL archive its write-ahead log, and make the first base backup."""
    from deploy.operations.pitr import setup as establish
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        made = establish(
            name,
            report.events,
            confirm=lambda question: report.confirm(
                question, name, automatic=restart, option="--restart"
            ),
            dry_run=dry_run,
        )
        rows = [{"step": step.kind, "what": step.text} for step in made.steps]
        if dry_run and rows:
            report.show_rows(f"to archive the database of {name}", rows)
        done = "nothing was changed" if dry_run else f"the database of {name} is archived"
        text = done if rows else f"the database of {name} is archived already: nothing to do"
        report.show_done(text, {"look": f"invoke db.pitr.status --env={name}"})


@task(help={**ENV, **JSON, "type": "full, diff or incr (default: full once a week, else diff)"})
def backup(context: Context, env: str = "", type: str = "", json: bool = False) -> None:
    """Make a base backup, from which a restore replays the log."""
    from deploy.operations.pitr import back_up
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        base = back_up(name, report.events, kind=type)
        report.show_done(
            f"{name} has a new base backup",
            {
                "backup": f"{base.label} ({base.kind})",
                "size": f"{base.size / 1e6:,.1f} MB, stored {base.stored / 1e6:,.1f} MB",
                "took": f"{base.stopped - base.started:.0f} s",
            },
        )


@task(help={**ENV, **JSON})
def status(context: Context, env: str = "", json: bool = False) -> None:
    """Tell to which moments the database can be taken back; ends with 3 where that is in danger."""
    from deploy.errors import GateRefused
    from deploy.operations.pitr import status as look
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        found = look(name, report.events)
        rows = [{"what": what, "found": said} for what, said in found.rows]
        rows += [{"what": "not to be seen from here", "found": said} for said in found.hidden]
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
        "to": 'the moment, such as "2026-11-23 14:05" (UTC) or "2026-11-23 15:05+01:00"',
        "zone": "the time zone of --to, such as Africa/Lagos (default: UTC)",
        "replace": "make it the live database; the one before stays, stopped",
        "whole_cluster": "with --replace: take the cluster's other databases back, too",
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
    """Bring the database as it was at a moment into a new cluster, or over the live one."""
    from deploy.errors import UsageError
    from deploy.operations.pitr import restore as bring_back
    from deploy.output.report import Report
    from deploy.pitr.moment import FORM, show

    if not to:
        raise UsageError("to which moment?", hint=f"--to: {FORM}")
    name = env or default_environment()
    with Report(json=json) as report:
        done = bring_back(
            name,
            report.events,
            to=to,
            zone=zone,
            replace=replace,
            whole_cluster=whole_cluster,
            confirm=lambda question: report.confirm(
                question, name, automatic=confirm == name, option=f"--confirm={name}"
            ),
        )
        details = {
            "last transaction in it": show(done.until or None),
            "rows": f"{done.rows:,} in {done.tables} tables",
            "schema": done.revision or "none",
            "took": f"{done.seconds:.1f} s",
            "base backup": f"{done.base.size / 1e6:,.1f} MB in {done.filling:.1f} s"
            f" ({done.base.size / 1e6 / max(done.filling, 0.001):,.1f} MB/s)",
        }
        if done.before:
            details |= {
                "the one before": f"{done.before}, stopped; invoke db.pitr.prune --env={name}",
                "serve": f"invoke maintenance.off --env={name}",
                "then": f"invoke db.pitr.backup --env={name} --type=full",
            }
            report.show_done(f"{name} is on {done.cluster.label}, as it was then", details)
        else:
            place = f"{done.cluster.label}, port {done.cluster.port}"
            report.show_done(f"restored into {place}; nothing else was changed", details)


@task(help={**ENV, **JSON, **CONFIRM, **DRY_RUN})
def prune(
    context: Context, env: str = "", dry_run: bool = False, confirm: str = "", json: bool = False
) -> None:
    """Remove the clusters that restores made or replaced; never the live one."""
    from deploy.operations.pitr import prune as tidy
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        gone = tidy(
            name,
            report.events,
            dry_run=dry_run,
            confirm=lambda question: report.confirm(
                question, name, automatic=confirm == name, option=f"--confirm={name}"
            ),
        )
        said = "would go" if dry_run else "removed"
        names = ", ".join(cluster.label for cluster in gone)
        report.show_done(f"{said}: {names or 'nothing'}", {})
