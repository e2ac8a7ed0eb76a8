"""Secrets: storing them encrypted, and telling where each value comes from."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.release import ENV, JSON, default_environment
from deploy.tasks.surface import task


@task(
    name="set",
    positional=["name"],
    help={"name": "the secret's name", **ENV},
)
def set_secret(context: Context, name: str, env: str = "") -> None:
    """Store one value in config/secrets/ENV.age; asked for, or read from standard input."""
    import getpass
    import sys

    from deploy.environment import load
    from deploy.secrets.sources import check_name, store

    environment = load(env, placeholders=True)
    check_name(environment, name)
    if sys.stdin.isatty():
        value = getpass.getpass(f"{name} for {env} (empty: remove it): ")
    else:
        value = sys.stdin.read().removesuffix("\n")
    path = store(env, name, value)
    print(f"{name} {'stored in' if value else 'removed from'} {path}")


@task(name="list", help={**ENV, **JSON})
def list_secrets(context: Context, env: str = "", json: bool = False) -> None:
    """Tell which secrets an environment needs and where each value comes from, never what it is."""
    from deploy.console import choose_listener
    from deploy.environment import load
    from deploy.secrets.sources import origins

    with choose_listener(json) as console:
        environment = load(env or default_environment(), placeholders=True)
        found = origins(environment)
        rows = [{"name": name, "needed": needed, "from": origin} for name, needed, origin in found]
        console.show_table(f"secrets of {environment.name}", rows, empty="it needs none")
