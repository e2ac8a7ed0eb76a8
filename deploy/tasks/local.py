"""The task `up`: run the service on this machine."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import JSON
from deploy.tasks.surface import task


@task(help=JSON)
def up(context: Context, json: bool = False) -> None:
    """Run the service on this machine: Docker Engine, images, containers. Start here."""
    from deploy.operations.local import start_local
    from deploy.output.report import Report

    with Report(json=json) as report:
        report.show_start(start_local(report.events))
