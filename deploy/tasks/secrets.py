"""The tasks `secrets.*`: store encrypted values, and check that none is missing."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import ENV, JSON, REQUIRED_ENV, default_environment
from deploy.tasks.surface import task


@task(
    name="set",
    positional=["name"],
    help={"name": "name of the secret", **REQUIRED_ENV},
)
def set_secret(context: Context, name: str, env: str = "") -> None:
    """Store one value in config/secrets/ENV.age, from a prompt or from standard input.

    An empty value removes the secret.
    """
    import getpass
    import sys

    from deploy.environment.model import load_environment
    from deploy.secrets.sources import check_name, store

    environment = load_environment(env, placeholders=True)
    check_name(environment, name)
    if sys.stdin.isatty():
        value = getpass.getpass(f"{name} for {env} (empty to remove it): ")
    else:
        value = sys.stdin.read().removesuffix("\n")
    path = store(env, name, value)
    print(f"{name} {'stored in' if value else 'removed from'} {path}")


@task(name="list", help={**ENV, **JSON})
def list_secrets(context: Context, env: str = "", json: bool = False) -> None:
    """List the secrets that an environment needs and the source of each; never print a value."""
    from deploy.environment.model import load_environment
    from deploy.output.console import choose_console
    from deploy.secrets.sources import list_origins

    with choose_console(json) as console:
        environment = load_environment(env or default_environment(), placeholders=True)
        found = list_origins(environment)
        rows = [{"name": name, "needed": needed, "from": origin} for name, needed, origin in found]
        console.show_table(f"secrets of {environment.name}", rows, empty="no secrets needed")


@task(name="check", help={**ENV, **JSON})
def check_secrets(context: Context, env: str = "", json: bool = False) -> None:
    """Check that no needed secret is missing, empty or a placeholder; never print a value.

    Exit codes: 0 every needed secret has a value, 2 a secret has none.
    """
    from dataclasses import asdict

    from deploy.environment.model import load_environment
    from deploy.errors import UsageError
    from deploy.output.console import choose_console
    from deploy.secrets.inspection import examine

    with choose_console(json) as console:
        environment = load_environment(env or default_environment(), placeholders=True)
        verdicts = examine(environment)
        rows = [asdict(verdict) for verdict in verdicts]
        console.show_table(f"secrets of {environment.name}", rows, empty="no secrets needed")
        if wrong := [found for found in verdicts if found.wrong]:
            raise UsageError(
                f"{environment.name}: " + ", ".join(f"{each.name}: {each.state}" for each in wrong),
                hint=f"./inv secrets.set NAME --env={environment.name}",
            )


@task(name="edit", help=ENV)
def edit_secrets(context: Context, env: str = "") -> None:
    """Decrypt config/secrets/ENV.age, open it in $EDITOR, and encrypt the result."""
    from deploy.environment.model import load_environment
    from deploy.secrets.editing import edit
    from deploy.secrets.sources import locate_age_file

    name = load_environment(env or default_environment(), placeholders=True).name
    changed = edit(name)
    print(f"{locate_age_file(name)} {'was updated' if changed else 'was not changed'}")


@task(name="encrypt", help=ENV)
def encrypt_secrets(context: Context, env: str = "") -> None:
    """Add every value of .env.ENV to config/secrets/ENV.age; the plain file is not removed."""
    from deploy.environment.model import load_environment
    from deploy.secrets.editing import encrypt

    name = load_environment(env or default_environment(), placeholders=True).name
    path, count = encrypt(name)
    print(f"{path} now has {count} values; remove .env.{name} if you do not need it")
