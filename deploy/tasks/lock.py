"""The tasks `lock.*`: show the lock of an environment, and release it."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import ENV, default_environment
from deploy.tasks.surface import task


@task(help=ENV)
def status(context: Context, env: str = "") -> None:
    """Show the holder of the lock, since when, and whether the lock is stale."""
    from deploy.operations.locking import read_lock
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        state = read_lock(name, report.events)
        if state is None:
            print(f"{name} is not locked")
        else:
            print(f"{name} is locked by {state.describe()}" + (" (stale)" if state.stale else ""))


@task(help={**ENV, "auto_confirm": "do not ask for confirmation, even if the lock is not stale"})
def release(context: Context, env: str = "", auto_confirm: bool = False) -> None:
    """Release the lock and show its last holder; ask for confirmation if it is not stale."""
    from deploy.operations.locking import release_lock
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        state = release_lock(
            name,
            report.events,
            confirm=lambda question: report.confirm(question, name, automatic=auto_confirm),
        )
        if state is None:
            print(f"{name} is not locked")
        else:
            print(f"released the lock of {state.describe()}")
