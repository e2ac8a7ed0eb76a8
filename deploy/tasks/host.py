"""Hosts: making bare ones ready, and asking whether they are."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.release import ENV, HOSTS, _split, default_environment
from deploy.tasks.surface import task


@task(
    help={
        **ENV,
        "login": "who logs in for this: root, or a user with sudo without a password",
        "key": "file of the public key that the deploy user gets",
        **HOSTS,
    }
)
def bootstrap(
    context: Context, env: str = "", login: str = "root", key: str = "", hosts: str = ""
) -> None:
    """Make bare Debian or Ubuntu hosts ready: engine, deploy user, folders. Safe to repeat."""
    from deploy.operations.bootstrap import bootstrap as prepare
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        prepare(name, report.events, login=login, key=key, hosts=_split(hosts))


@task(help={**ENV, **HOSTS})
def check(context: Context, env: str = "", hosts: str = "") -> None:
    """Ask every host what a deploy asks first, and tell all that is missing at once."""
    from deploy.operations.bootstrap import check as ask
    from deploy.output.report import Report

    with Report() as report:
        ask(env or default_environment(), report.events, hosts=_split(hosts))
