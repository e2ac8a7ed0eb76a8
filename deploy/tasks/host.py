"""The tasks `host.*`: prepare and check hosts."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import ENV, HOSTS, default_environment, split_list
from deploy.tasks.surface import task


@task(
    help={
        **ENV,
        "login": "user to log in as: root (default), or a user that has sudo without a password",
        "key": "file of the deploy user's public key (default: the one of `identity_file`)",
        **HOSTS,
    }
)
def bootstrap(
    context: Context, env: str = "", login: str = "root", key: str = "", hosts: str = ""
) -> None:
    """Prepare Debian or Ubuntu hosts for deploys: Docker Engine, deploy user, folders.

    Idempotent. Ends with the same checks as `host.check`.
    """
    from deploy.operations.bootstrap import bootstrap_hosts
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        bootstrap_hosts(name, report.events, login=login, key=key, hosts=split_list(hosts))


@task(help={**ENV, **HOSTS})
def check(context: Context, env: str = "", hosts: str = "") -> None:
    """Run the preflight checks of a deploy on each host, and report all problems at once."""
    from deploy.operations.bootstrap import check_hosts
    from deploy.output.report import Report

    with Report() as report:
        check_hosts(env or default_environment(), report.events, hosts=split_list(hosts))
