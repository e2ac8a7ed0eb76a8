"""Releases: bringing them, taking them back, looking at what runs."""

from __future__ import annotations

import os

from invoke.context import Context

from deploy.tasks.surface import task

ENV = {"env": "the environment: local, staging, production, fleet or one of your own"}
HOSTS = {"hosts": "only these hosts (names or patterns, commas between)"}
JSON = {"json": "JSON lines on standard output"}
DRY_RUN = {"dry_run": "show the plan and change nothing"}


def default_environment() -> str:
    """The environment that is meant where none is named: `AMANI_ENV`, or production."""
    return os.environ.get("AMANI_ENV") or "production"


@task(
    help={
        **ENV,
        "version": "a version, tag or digest from the registry (default: build this checkout)",
        "allow_unsafe_migration": "apply migrations that can stop the service",
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
    """Bring a release to an environment, without losing a request."""
    from deploy.errors import UsageError
    from deploy.operations.deploy import deploy as bring
    from deploy.output.report import Report
    from deploy.planning.schema_changes import Options

    if not env:
        raise UsageError("which environment?", hint="name it with --env=local, --env=staging, ...")
    with Report(json=json) as report:
        result = bring(
            env,
            report.events,
            version=version or None,
            dry_run=dry_run,
            hosts=_split(hosts),
            options=Options(unsafe=allow_unsafe_migration),
        )
        report.show_result(result, dry_run=dry_run)


@task(
    help={
        "version": "the release to go back to, or its digest (default: list them)",
        "env": "the environment (default: AMANI_ENV, or production)",
        "auto_confirm": "do not ask",
        "with_downgrade": "undo the migrations that the release cannot run on, after a backup",
        "allow_data_loss": "with --auto-confirm: yes to what that loses",
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
    """Go back to a release that was live before; without a version, list what there is."""
    from deploy.operations import rollback as rollbacks
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        if not version:
            report.show_targets(name, rollbacks.listing(name, report.events))
            return
        result = rollbacks.rollback(
            name,
            version,
            report.events,
            confirm=None if auto_confirm else lambda question: report.confirm(question, name),
            hosts=_split(hosts),
            dry_run=dry_run,
            with_downgrade=with_downgrade,
            allow_data_loss=allow_data_loss,
        )
        report.show_result(result, dry_run=dry_run)


@task(help={**ENV, **HOSTS, **JSON})
def status(context: Context, env: str = "", hosts: str = "", json: bool = False) -> None:
    """Show what runs on every host, what gets traffic, and what is not as recorded."""
    from deploy.errors import HostUnreachable
    from deploy.operations.status import status as look
    from deploy.output.report import Report

    with Report(json=json) as report:
        found = look(env or default_environment(), report.events, _split(hosts))
        report.show_status(found)
        if found.unreachable:
            raise HostUnreachable("\n".join(found.unreachable))


@task(help={**ENV, "limit": "how many (newest first)", **JSON})
def releases(context: Context, env: str = "", limit: int = 20, json: bool = False) -> None:
    """Show the history: which release, when, by whom, how long it took, how it ended."""
    from deploy.operations.history import history
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        report.show_releases(name, history(name, report.events)[:limit])


@task(
    help={
        **ENV,
        "follow": "go on until Ctrl-C",
        "host": "only this host",
        "role": "web or worker (default: all)",
        "tail": "how many lines of the past",
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
    """Show what the live containers print."""
    from deploy.operations.inspection import logs as read
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        lines = read(name, report.events, follow=follow, hosts=_split(host), role=role, tail=tail)
        for place, line in lines:
            print(f"{place} | {line}", flush=follow)


@task(
    name="exec",
    positional=["command"],
    iterable=["command"],
    help={**ENV, "host": "run there (default: the first)", "command": "words of the command"},
)
def run_command(context: Context, command: list[str], env: str = "", host: str = "") -> None:
    """Run a one-off command in the live image: `invoke exec --env=staging -- flask db current`."""
    import sys

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from deploy.operations.inspection import run_one_off
    from deploy.output.report import Report

    words = command or remainder()
    if not words:
        raise UsageError("which command?", hint="invoke exec --env=staging -- flask db current")
    with Report() as report:
        status, output = run_one_off(env or default_environment(), words, report.events, host=host)
    sys.stdout.write(output)
    if status:
        raise Exit(code=status)


@task(help={**ENV, "volumes": "the data too", "auto_confirm": "do not ask"})
def remove(
    context: Context, env: str = "", volumes: bool = False, auto_confirm: bool = False
) -> None:
    """Take an environment off its hosts: containers, network, secrets; the data only if asked."""
    from deploy.errors import UsageError
    from deploy.operations.maintenance import remove as take_off
    from deploy.output.report import Report

    if not env:
        raise UsageError("which environment?", hint="name it with --env=...")
    what = "everything, its data included" if volumes else "everything but its data"
    with Report() as report:
        report.confirm(f"Remove {env} from its hosts: {what}?", env, automatic=auto_confirm)
        take_off(env, report.events, volumes=volumes)


def remainder() -> list[str]:
    """The words after `--` on the command line; Invoke 2 hands them to nobody."""
    import sys

    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
