"""The tasks `maintenance.*`."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import ENV, HOSTS, default_environment, split_list
from deploy.tasks.surface import task


@task(help={**ENV, **HOSTS})
def on(context: Context, env: str = "", hosts: str = "") -> None:
    """Answer every request with 503 and Retry-After, from the proxy; the service keeps running."""
    _switch(env, hosts, on=True)


@task(help={**ENV, **HOSTS})
def off(context: Context, env: str = "", hosts: str = "") -> None:
    """End maintenance and serve requests again."""
    _switch(env, hosts, on=False)


def _switch(env: str, hosts: str, *, on: bool) -> None:
    from deploy.operations.maintenance import set_maintenance
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        set_maintenance(name, report.events, on=on, hosts=split_list(hosts))
