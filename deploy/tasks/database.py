"""The database of an environment: backed up, proved, restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from deploy.tasks.options import ENV, JSON, default_environment
from deploy.tasks.surface import task

if TYPE_CHECKING:
    from deploy.backups.manifest import Manifest

ID = {"id": "the backup (default: the newest)"}
CONFIRM = {"confirm": "the environment's name, for scripts that nobody can be asked in"}


def _about(manifest: Manifest) -> dict[str, str]:
    return {
        "backup": manifest.id,
        "size": f"{manifest.size / 1e6:,.2f} MB of {manifest.database_size / 1e6:,.2f} MB",
        "rows": f"{manifest.rows:,}",
        "schema": manifest.revision or "none",
        "encrypted": "yes" if manifest.encrypted else "no",
    }


@task(help={**ENV, **JSON})
def backup(context: Context, env: str = "", json: bool = False) -> None:
    """Back the database up, and read the archive to its end."""
    from deploy.operations.backups import back_up
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        manifest = back_up(name, report.events).manifest
        report.show_done(
            f"{name} is backed up",
            {
                **_about(manifest),
                "took": f"{manifest.seconds:.1f} s",
                "prove it": f"invoke db.verify --env={name}",
            },
        )


@task(name="list", help={**ENV, **JSON})
def list_backups(context: Context, env: str = "", json: bool = False) -> None:
    """List the backups, and how far each was proved."""
    from deploy.operations.backups import listing
    from deploy.output.report import Report, when

    name = env or default_environment()
    with Report(json=json) as report:
        rows = [
            {
                **_about(found.manifest),
                "taken": when(found.manifest.taken),
                "why": found.manifest.reason,
                "release": found.manifest.release,
                "proved": found.proof.level if found.proof else "no",
            }
            for found in listing(name, report.events)
        ]
        report.show_rows(f"backups of {name}", rows)


@task(help={**ENV, **JSON, **ID, "level": "hash, read, restored or booted"})
def verify(
    context: Context, env: str = "", id: str = "", level: str = "restored", json: bool = False
) -> None:
    """Prove a backup: restore it into a scratch database and compare."""
    from typing import cast

    from deploy.backups.manifest import Level
    from deploy.operations.backups import verify as prove
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        proof = prove(name, report.events, id=id, level=cast(Level, level))
        report.show_done(
            f"proved: {proof.level}",
            {"backup": id or "the newest", "took": f"{proof.seconds:.1f} s"},
        )


@task(
    help={
        **ENV,
        **JSON,
        **ID,
        **CONFIRM,
        "replace": "make it the live database; the one before stays, renamed",
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
    from deploy.operations.backups import restore as bring_back
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        done = bring_back(
            name,
            report.events,
            id=id,
            replace=replace,
            confirm=lambda question: report.confirm(
                question, name, automatic=confirm == name, option=f"--confirm={name}"
            ),
        )
        details = {**_about(done.backup.manifest), "took": f"{done.seconds:.1f} s"}
        if done.before:
            details |= {
                "the one before": done.before,
                "serve": f"invoke maintenance.off --env={name}",
            }
            report.show_done(f"{name} is on the restored database", details)
        else:
            report.show_done(f"restored into {done.database}; nothing else was changed", details)


@task(help={**ENV, **JSON})
def drill(context: Context, env: str = "", json: bool = False) -> None:
    """Rehearse the worst day: back up, restore, prove, start the service on it; timed."""
    from deploy.operations.backups import drill as rehearse
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        done = rehearse(name, report.events)
        report.show_done(
            f"{name} can be restored in {done.recovery:.1f} s",
            {**_about(done.backup.manifest), "the whole drill": f"{done.whole:.1f} s"},
        )


@task(
    help={
        **ENV,
        **JSON,
        **CONFIRM,
        "dry_run": "only say what would go",
        "databases": "remove the databases, too, that restores made or replaced",
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
    """Remove the backups that no rule keeps."""
    from deploy.operations.backups import prune as thin_out
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        gone, left = thin_out(
            name,
            report.events,
            dry_run=dry_run,
            databases=databases,
            confirm=lambda question: report.confirm(
                question, name, automatic=confirm == name, option=f"--confirm={name}"
            ),
        )
        names = [*(found.manifest.id for found in gone), *left]
        said = "would go" if dry_run else "removed"
        report.show_done(f"{said}: {', '.join(names) or 'nothing'}", {})


@task(help={**ENV, **JSON, **ID})
def copy(context: Context, env: str = "", id: str = "", json: bool = False) -> None:
    """Copy a backup to every place for copies, where that failed before."""
    from deploy.operations.backups import copy as send
    from deploy.output.report import Report

    with Report(json=json) as report:
        backup = send(env or default_environment(), report.events, id=id)
        report.show_done("copied", _about(backup.manifest))


@task(help={**ENV, **JSON, **ID, "place": "where from (default: the first of `backups.copies`)"})
def fetch(
    context: Context, env: str = "", id: str = "", place: str = "", json: bool = False
) -> None:
    """Bring a backup back from a place for copies, onto the database's host."""
    from deploy.operations.backups import fetch as bring
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        found = bring(name, report.events, id=id, place=place)
        report.show_done(
            f"backup {found} is here",
            {"restore it": f"invoke db.restore --env={name} --id={found}"},
        )


@task(help={"since": "only revisions after this one"})
def lint(context: Context, since: str = "") -> None:
    """Check that every migration is of the class that it states, and say what is dangerous."""
    from deploy.database import lint as linting
    from deploy.errors import GateRefused
    from deploy.machine.checkout import ROOT

    verdicts = linting.check(ROOT, since=since)
    for verdict in verdicts:
        print(linting.describe(verdict))
    if wrong := [verdict.revision.id for verdict in verdicts if not verdict.agrees]:
        raise GateRefused(
            f"{', '.join(wrong)}: not of the class that they state",
            hint="docs/migrations.md has the safe way for each",
        )


@task(help={**ENV, **JSON})
def current(context: Context, env: str = "", json: bool = False) -> None:
    """Print the revision that the database is at, and what the live release brings beyond it."""
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
        "to": "the revision to go back to",
        "auto_confirm": "do not ask",
        "allow_data_loss": "with --auto-confirm: yes to what that loses",
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
    """Undo migrations down to a revision, after a backup and a question."""
    from deploy.errors import UsageError
    from deploy.operations.schema import migrate_schema
    from deploy.output.report import Report

    if not to:
        raise UsageError("to which revision?", hint="--to=REV; `invoke db.current` tells the live")
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
