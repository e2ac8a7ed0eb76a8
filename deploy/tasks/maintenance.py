"""Maintenance: 503 with Retry-After to everyone, from the proxies."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.release import ENV, HOSTS, _split, default_environment
from deploy.tasks.surface import task


@task(help={**ENV, **HOSTS})
def on(context: Context, env: str = "", hosts: str = "") -> None:
    """Answer every request with 503 and Retry-After; the service runs on behind."""
    _switch(env, hosts, on=True)


@task(help={**ENV, **HOSTS})
def off(context: Context, env: str = "", hosts: str = "") -> None:
    """Serve again."""
    _switch(env, hosts, on=False)


def _switch(env: str, hosts: str, *, on: bool) -> None:
    from deploy.operations.maintenance import set_maintenance
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        set_maintenance(name, report.events, on=on, hosts=_split(hosts))
