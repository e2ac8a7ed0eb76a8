"""Tasks on an environment's database: backups, restores and migrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from invoke.context import Context

from deploy.tasks.options import ENV, JSON, default_environment
from deploy.tasks.surface import task

if TYPE_CHECKING:
    from deploy.backups.manifest import BackupManifest
    from deploy.output.report import Report

ID = {"id": "the backup's id (default: the newest)"}
CONFIRM = {"confirm": "the environment's name; confirms without a question, for scripts"}


def confirmation(report: Report, name: str, confirm: str) -> Callable[[str], None]:
    """A callback that requires the environment's name, given as `confirm` or typed."""
    return lambda question: report.confirm(
        question, name, automatic=confirm == name, option=f"--confirm={name}"
    )


def _describe(manifest: BackupManifest) -> dict[str, str]:
    return {
        "backup": manifest.id,
        "size": f"{manifest.size / 1e6:,.2f} MB of {manifest.database_size / 1e6:,.2f} MB",
        "rows": f"{manifest.rows:,}",
        "schema": manifest.revision or "none",
        "encrypted": "yes" if manifest.encrypted else "no",
    }


@task(help={**ENV, **JSON})
def backup(context: Context, env: str = "", json: bool = False) -> None:
    """Back up the database, and read the archive to its end."""
    from deploy.operations.backup import make_backup
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        manifest = make_backup(name, report.events).manifest
        report.show_done(
            f"backed up the database of {name}",
            {
                **_describe(manifest),
                "took": f"{manifest.seconds:.1f} s",
                "verify": f"invoke db.verify --env={name}",
            },
        )


@task(name="list", help={**ENV, **JSON})
def list_(context: Context, env: str = "", json: bool = False) -> None:
    """List the backups, with the level of verification of each."""
    from deploy.operations.backup import list_backups
    from deploy.output.report import Report, when

    name = env or default_environment()
    with Report(json=json) as report:
        rows = [
            {
                **_describe(found.manifest),
                "taken": when(found.manifest.taken),
                "why": found.manifest.reason,
                "release": found.manifest.release,
                "verified": found.verification.level if found.verification else "no",
            }
            for found in list_backups(name, report.events)
        ]
        report.show_rows(f"backups of {name}", rows)


@task(help={**ENV, **JSON, **ID, "level": "hash, read, restored or booted"})
def verify(
    context: Context, env: str = "", id: str = "", level: str = "restored", json: bool = False
) -> None:
    """Verify a backup: restore it into a scratch database and compare it."""
    from typing import cast

    from deploy.backups.manifest import Level
    from deploy.operations.restore import verify_backup
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        found = verify_backup(name, report.events, id=id, level=cast(Level, level))
        report.show_done(
            f"verified: {found.level}",
            {"backup": id or "the newest", "took": f"{found.seconds:.1f} s"},
        )


@task(
    help={
        **ENV,
        **JSON,
        **ID,
        **CONFIRM,
        "replace": "make it the live database; the replaced one is renamed and stays",
    }
)
def restore(
    context: Context,
    env: str = "",
    id: str = "",
    replace: bool = False,
    confirm: str = "",
    json: bool = False,
) -> None:
    """Restore a backup into a new database, or over the live one with --replace."""
    from deploy.operations.restore import restore_backup
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        done = restore_backup(
            name,
            report.events,
            id=id,
            replace=replace,
            confirm=confirmation(report, name, confirm),
        )
        details = {**_describe(done.backup.manifest), "took": f"{done.seconds:.1f} s"}
        if done.previous:
            details |= {
                "replaced database": done.previous,
                "then": f"invoke maintenance.off --env={name}",
            }
            report.show_done(f"{name} uses the restored database", details)
        else:
            report.show_done(
                f"restored into {done.database}; the live database is unchanged", details
            )


@task(help={**ENV, **JSON})
def drill(context: Context, env: str = "", json: bool = False) -> None:
    """Rehearse a restore: back up, restore, verify, start the service on it; timed."""
    from deploy.operations.restore import run_drill
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        done = run_drill(name, report.events)
        report.show_done(
            f"{name} can be restored in {done.recovery:.1f} s",
            {**_describe(done.backup.manifest), "whole drill": f"{done.total:.1f} s"},
        )


@task(
    help={
        **ENV,
        **JSON,
        **CONFIRM,
        "dry_run": "show which backups would be removed, and remove none",
        "databases": "also remove the databases that restores created or replaced",
    }
)
def prune(
    context: Context,
    env: str = "",
    dry_run: bool = False,
    databases: bool = False,
    confirm: str = "",
    json: bool = False,
) -> None:
    """Remove the backups that no retention rule keeps."""
    from deploy.operations.backup import prune_backups
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        backups, left = prune_backups(
            name,
            report.events,
            dry_run=dry_run,
            databases=databases,
            confirm=confirmation(report, name, confirm),
        )
        show_removed(report, [*(found.manifest.id for found in backups), *left], dry_run=dry_run)


def show_removed(report: Report, names: list[str], *, dry_run: bool) -> None:
    """Show the names of everything that was removed, or in a dry run would be."""
    verb = "would remove" if dry_run else "removed"
    report.show_done(f"{verb}: {', '.join(names) or 'nothing'}", {})


@task(help={**ENV, **JSON, **ID})
def copy(context: Context, env: str = "", id: str = "", json: bool = False) -> None:
    """Copy a backup to every place for copies, for example after a copy failed."""
    from deploy.operations.backup import copy_backup
    from deploy.output.report import Report

    with Report(json=json) as report:
        found = copy_backup(env or default_environment(), report.events, id=id)
        report.show_done("copied", _describe(found.manifest))


@task(help={**ENV, **JSON, **ID, "place": "the place to copy from (default: the first one)"})
def fetch(
    context: Context, env: str = "", id: str = "", place: str = "", json: bool = False
) -> None:
    """Copy a backup from a place for copies to the database's host."""
    from deploy.operations.backup import fetch_backup
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        found = fetch_backup(name, report.events, id=id, place=place)
        report.show_done(
            f"fetched backup {found}",
            {"restore": f"invoke db.restore --env={name} --id={found}"},
        )


@task(help={"since": "only revisions after this one"})
def lint(context: Context, since: str = "") -> None:
    """Check that every migration is of the class that it states, and report dangerous ones."""
    from deploy.database.lint import check, describe
    from deploy.errors import GateRefused
    from deploy.machine.checkout import ROOT

    verdicts = check(ROOT, since=since)
    for verdict in verdicts:
        print(describe(verdict))
    if wrong := [verdict.revision.id for verdict in verdicts if not verdict.agrees]:
        raise GateRefused(
            f"{', '.join(wrong)}: the class differs from the one that the migration states",
            hint="docs/migrations.md describes the safe form of each",
        )


@task(help={**ENV, **JSON})
def current(context: Context, env: str = "", json: bool = False) -> None:
    """Print the database's revision, and the pending ones of the live release."""
    from deploy.operations.schema import read_schema
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        live, pending = read_schema(name, report.events)
        report.show_done(f"{name} is at {live or 'an unknown revision'}", {"pending": pending})


@task(
    help={
        **ENV,
        **JSON,
        "to": "the revision (default: the live release's newest)",
        "dry_run": "show the plan and change nothing",
    }
)
def upgrade(
    context: Context, env: str = "", to: str = "", dry_run: bool = False, json: bool = False
) -> None:
    """Apply the live release's migrations up to a revision, after a backup."""
    from deploy.operations.schema import migrate_schema
    from deploy.output.report import Report

    with Report(json=json) as report:
        result = migrate_schema(
            env or default_environment(), to, report.events, confirm=None, dry_run=dry_run
        )
        report.show_schema(result, dry_run=dry_run)


@task(
    help={
        **ENV,
        **JSON,
        "to": "the revision to downgrade to",
        "auto_confirm": "confirm without a question",
        "allow_data_loss": "with --auto-confirm: accept the loss of data",
        "dry_run": "show the plan and change nothing",
    }
)
def downgrade(
    context: Context,
    env: str = "",
    to: str = "",
    auto_confirm: bool = False,
    allow_data_loss: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Downgrade the schema to a revision, after a backup and a confirmation."""
    from deploy.errors import UsageError
    from deploy.operations.schema import migrate_schema
    from deploy.output.report import Report

    if not to:
        raise UsageError("to which revision?", hint="--to=REV; `invoke db.current` shows the live")
    name = env or default_environment()
    with Report(json=json) as report:
        result = migrate_schema(
            name,
            to,
            report.events,
            confirm=None if auto_confirm else lambda question: report.confirm(question, name),
            allow_data_loss=allow_data_loss,
            dry_run=dry_run,
        )
        report.show_schema(result, dry_run=dry_run)
