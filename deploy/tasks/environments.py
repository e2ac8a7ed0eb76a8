"""The tasks `env.*`: list environments, show one, and update the reference of all keys."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import ENV, JSON, default_environment
from deploy.tasks.surface import task


@task(name="list", help=JSON)
def list_environments(context: Context, json: bool = False) -> None:
    """List the environments and their files."""
    from deploy.environment.model import find_environments
    from deploy.output.console import choose_console

    with choose_console(json) as console:
        files = sorted(find_environments().items())
        console.show_table("environments", [{"name": n, "file": str(path)} for n, path in files])


@task(help=ENV)
def show(context: Context, env: str = "") -> None:
    """Validate an environment's file and print it as YAML, with all defaults."""
    import yaml

    from deploy.environment.model import load_environment

    values = load_environment(env or default_environment(), placeholders=True).model_dump(
        mode="json"
    )
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")


@task()
def reference(context: Context) -> None:
    """Update the reference of all keys in docs/environments.md from the model."""
    from deploy.environment.reference import PAGE, update

    PAGE.write_text(update(), encoding="utf-8")
