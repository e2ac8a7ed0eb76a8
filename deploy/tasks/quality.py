"""What keeps the checkout clean: linters, tests, formatting, lock files."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.surface import task


@task()
def lint(context: Context) -> None:
    """Run every static check and report each one with its time; fails where any failed."""
    from deploy.quality.lint import run_all

    run_all()


@task(name="format")
def format_code(context: Context) -> None:
    """Format the Python code with black."""
    from deploy.quality.lint import format_all

    format_all()


@task()
def lock_requirements(context: Context) -> None:
    """Resolve requirements/*.in into the hash-locked requirements*.txt."""
    from deploy.quality.requirements import lock_all

    lock_all()
