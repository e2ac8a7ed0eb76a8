"""The tasks for releases: deploy, rollback, status, releases, logs, exec and remove."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import (
    AUTO_CONFIRM,
    DRY_RUN,
    ENV,
    HOSTS,
    JSON,
    REQUIRED_ENV,
    default_environment,
    split_list,
    words_after_separator,
)
from deploy.tasks.surface import task


@task(
    help={
        **REQUIRED_ENV,
        "version": "version, tag or digest in the registry (default: build this checkout)",
        "allow_unsafe_migration": "permit migrations that can interrupt the service",
        **DRY_RUN,
        **HOSTS,
        **JSON,
    }
)
def deploy(
    context: Context,
    env: str = "",
    version: str = "",
    dry_run: bool = False,
    hosts: str = "",
    json: bool = False,
    allow_unsafe_migration: bool = False,
) -> None:
    """Deploy a release to an environment, without downtime."""
    from deploy.errors import UsageError
    from deploy.operations.deploy import deploy_release
    from deploy.output.report import Report
    from deploy.planning.schema_changes import Options

    if not env:
        raise UsageError(
            "no environment given", hint="name it with --env=local, --env=staging, ..."
        )
    with Report(json=json) as report:
        result = deploy_release(
            env,
            report.events,
            version=version or None,
            dry_run=dry_run,
            hosts=split_list(hosts),
            options=Options(unsafe=allow_unsafe_migration),
        )
        report.show_result(result, dry_run=dry_run)


@task(
    help={
        "version": "version or digest of an earlier release (default: list them)",
        **ENV,
        **AUTO_CONFIRM,
        "with_downgrade": "revert the migrations that the release does not support",
        "allow_data_loss": "with --auto-confirm: permit a downgrade that deletes data",
        **DRY_RUN,
        **HOSTS,
        **JSON,
    },
)
def rollback(
    context: Context,
    version: str = "",
    env: str = "",
    auto_confirm: bool = False,
    dry_run: bool = False,
    hosts: str = "",
    json: bool = False,
    with_downgrade: bool = False,
    allow_data_loss: bool = False,
) -> None:
    """Roll back to an earlier release, or list the earlier releases if no version is given."""
    from deploy.operations.rollback import list_rollback_targets, roll_back
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        if not version:
            report.show_targets(name, list_rollback_targets(name, report.events))
            return
        result = roll_back(
            name,
            version,
            report.events,
            confirm=None if auto_confirm else lambda question: report.confirm(question, name),
            hosts=split_list(hosts),
            dry_run=dry_run,
            with_downgrade=with_downgrade,
            allow_data_loss=allow_data_loss,
        )
        report.show_result(result, dry_run=dry_run)


@task(help={**ENV, **HOSTS, **JSON})
def status(context: Context, env: str = "", hosts: str = "", json: bool = False) -> None:
    """Show the containers on each host, their traffic, and the drift from the journal."""
    from deploy.errors import HostUnreachable
    from deploy.operations.status import read_status
    from deploy.output.report import Report

    with Report(json=json) as report:
        found = read_status(env or default_environment(), report.events, split_list(hosts))
        report.show_status(found)
        if found.unreachable:
            raise HostUnreachable("\n".join(found.unreachable))


@task(help={**ENV, "limit": "number of entries, newest first (default: 20)", **JSON})
def releases(context: Context, env: str = "", limit: int = 20, json: bool = False) -> None:
    """Show the journal: each deploy and rollback, its version, operator, duration and outcome."""
    from deploy.operations.history import read_history
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        report.show_releases(name, read_history(name, report.events)[:limit])


@task(
    help={
        **ENV,
        "follow": "print new lines until Ctrl-C",
        "host": "name of a host (default: all)",
        "role": "web or worker (default: all)",
        "tail": "number of earlier lines from each container (default: 50)",
    }
)
def logs(
    context: Context,
    env: str = "",
    follow: bool = False,
    host: str = "",
    role: str = "",
    tail: int = 50,
) -> None:
    """Print the logs of the live containers."""
    from deploy.operations.logs import read_logs
    from deploy.output.report import Report

    with Report() as report:
        lines = read_logs(
            env or default_environment(),
            report.events,
            follow=follow,
            hosts=split_list(host),
            role=role,
            tail=tail,
        )
        for place, line in lines:
            print(f"{place} | {line}", flush=follow)


@task(
    name="exec",
    positional=["command"],
    iterable=["command"],
    help={
        **ENV,
        "host": "name of the host (default: the first one)",
        "command": "the command, or write it after --",
    },
)
def run_command(context: Context, command: list[str], env: str = "", host: str = "") -> None:
    """Run a command in a one-off container: `invoke exec --env=staging -- flask db current`.

    The container has the live image, its settings and its secrets. Ends with the exit status of
    the command.
    """
    import sys

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from deploy.operations.one_off import run_one_off
    from deploy.output.report import Report

    words = command or words_after_separator()
    if not words:
        raise UsageError("no command given", hint="invoke exec --env=staging -- flask db current")
    with Report() as report:
        status, output = run_one_off(env or default_environment(), words, report.events, host=host)
    sys.stdout.write(output)
    if status:
        raise Exit(code=status)


@task(
    help={
        **REQUIRED_ENV,
        "volumes": "remove the named volumes, too; they may hold the database",
        **AUTO_CONFIRM,
    }
)
def remove(
    context: Context, env: str = "", volumes: bool = False, auto_confirm: bool = False
) -> None:
    """Remove an environment from its hosts: containers, networks, secrets and files."""
    from deploy.errors import UsageError
    from deploy.operations.removal import remove_environment
    from deploy.output.report import Report

    if not env:
        raise UsageError("no environment given", hint="name it with --env=...")
    extent = "everything, with its volumes" if volumes else "everything except its volumes"
    with Report() as report:
        report.confirm(f"Remove {env} from its hosts: {extent}?", env, automatic=auto_confirm)
        remove_environment(env, report.events, volumes=volumes)
