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

    from deploy.environment.model import load_environment
    from deploy.secrets.sources import check_name, store

    environment = load_environment(env, placeholders=True)
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
    from deploy.environment.model import load_environment
    from deploy.output.console import choose_listener
    from deploy.secrets.sources import list_origins

    with choose_listener(json) as console:
        environment = load_environment(env or default_environment(), placeholders=True)
        found = list_origins(environment)
        rows = [{"name": name, "needed": needed, "from": origin} for name, needed, origin in found]
        console.show_table(f"secrets of {environment.name}", rows, empty="it needs none")


@task(name="check", help={**ENV, **JSON})
def check_secrets(context: Context, env: str = "", json: bool = False) -> None:
    """Tell which secrets are missing, empty or look like placeholders; never what they are.

    Exit codes: 0 every needed one has a value of its own, 2 one has not.
    """
    from dataclasses import asdict

    from deploy.environment.model import load_environment
    from deploy.errors import UsageError
    from deploy.output.console import choose_listener
    from deploy.secrets.inspection import examine

    with choose_listener(json) as console:
        environment = load_environment(env or default_environment(), placeholders=True)
        verdicts = examine(environment)
        rows = [asdict(verdict) for verdict in verdicts]
        console.show_table(f"secrets of {environment.name}", rows, empty="it needs none")
        if wrong := [found for found in verdicts if found.wrong]:
            raise UsageError(
                f"{environment.name}: " + ", ".join(f"{each.name}: {each.state}" for each in wrong),
                hint=f"./inv secrets.set NAME --env={environment.name}",
            )


@task(name="edit", help=ENV)
def edit_secrets(context: Context, env: str = "") -> None:
    """Open config/secrets/ENV.age decrypted in $EDITOR, and encrypt what is left."""
    from deploy.environment.model import load_environment
    from deploy.secrets.editing import edit
    from deploy.secrets.sources import locate_age_file

    name = load_environment(env or default_environment(), placeholders=True).name
    changed = edit(name)
    print(f"{locate_age_file(name)} {'was encrypted anew' if changed else 'is as it was'}")


@task(name="encrypt", help=ENV)
def encrypt_secrets(context: Context, env: str = "") -> None:
    """Take every value of .env.ENV into config/secrets/ENV.age; the plain file stays yours."""
    from deploy.environment.model import load_environment
    from deploy.secrets.editing import encrypt

    name = load_environment(env or default_environment(), placeholders=True).name
    path, count = encrypt(name)
    print(f"{path} holds {count} values; remove .env.{name} when you need it no more")
