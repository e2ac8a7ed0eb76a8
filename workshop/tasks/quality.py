"""What keeps the checkout clean: linters, tests, formatting, lock files."""

from __future__ import annotations

from invoke.context import Context
from invoke.exceptions import Exit

from deploy.tasks.surface import task


@task()
def lint(context: Context) -> None:
    """Run every static check and report each one with its time; fails where any failed."""
    from workshop.quality.lint import run_all

    run_all()


@task(
    positional=["paths"],
    iterable=["paths"],
    help={
        "paths": "a test file or folder (may be repeated; default: the whole suite)",
        "quick": "only the tests that need no Docker Engine",
        "explore": "only orders of events over money, new ones, a hundred times as many",
        "matching": "only tests whose name matches, as pytest's -k",
    },
)
def test(
    context: Context,
    paths: list[str],
    quick: bool = False,
    explore: bool = False,
    matching: str = "",
) -> None:
    """Run the tests; installs what they need (announced) and starts the Docker Engine."""
    from workshop.quality.suite import run_suite

    if status := run_suite(paths, quick=quick, explore=explore, matching=matching):
        raise Exit(code=status)


@task(name="format")
def format_code(context: Context) -> None:
    """Format the Python code with black."""
    from workshop.quality.lint import format_all

    format_all()


@task()
def lock_requirements(context: Context) -> None:
    """Resolve requirements/*.in into the hash-locked requirements*.txt."""
    from workshop.quality.requirements import lock_all

    lock_all()
