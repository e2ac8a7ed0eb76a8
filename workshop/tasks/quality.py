"""Tasks for the checkout: linters, tests, formatting, lock files."""

from __future__ import annotations

from pathlib import Path

from invoke.context import Context
from invoke.exceptions import Exit

from deploy.tasks.surface import task


@task()
def lint(context: Context) -> None:
    """Run every static check and report each one with its time; fails if any failed."""
    from workshop.quality.lint import run_all

    run_all()


@task(
    iterable=["paths"],
    help={
        "paths": "a test file or folder (may be repeated; default: the whole suite)",
        "quick": "only the tests that need no Docker Engine",
        "explore": "only the tests of random orders of money events, with 100 times the examples",
        "matching": "only tests whose name matches, as pytest's -k",
        "changed": "only the tests that the changes since --base can reach, uncommitted included",
        "base": (
            "with --changed: compare with the merge base of HEAD and this revision (default: the "
            "nearest of origin/develop and origin/main, else of develop and main, else HEAD)"
        ),
        "durations_file": "write the seconds of each test file to this file (JSON)",
    },
)
def test(
    context: Context,
    paths: list[str],
    quick: bool = False,
    explore: bool = False,
    matching: str = "",
    changed: bool = False,
    base: str = "",
    durations_file: str = "",
) -> None:
    """Run the tests; installs what they need (announced) and starts the Docker Engine."""
    from deploy.errors import UsageError
    from workshop.quality import suite_run

    if base and not changed:
        raise UsageError("--base has no effect alone", hint="Add --changed.")
    durations = Path(durations_file).resolve() if durations_file else None
    if changed:
        status = suite_run.run_changed(
            paths, base=base, quick=quick, explore=explore, matching=matching, durations=durations
        )
    else:
        status = suite_run.run_suite(
            paths, quick=quick, explore=explore, matching=matching, durations=durations
        )
    if status:
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
