"""This machine: the service on it, by one command."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.surface import task


@task(help={"json": "JSON lines on standard output"})
def up(context: Context, json: bool = False) -> None:
    """Run the service on this machine, with whatever that still needs. Start here."""
    from deploy.operations.local import up as bring_up
    from deploy.output.report import Report

    with Report(json=json) as report:
        report.show_start(bring_up(report.events))
