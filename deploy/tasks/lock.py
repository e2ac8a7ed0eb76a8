"""The lock of an environment: who holds it, and taking it away from the dead."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.release import ENV, default_environment
from deploy.tasks.surface import task


@task(help=ENV)
def status(context: Context, env: str = "") -> None:
    """Show who holds the lock, since when, and whether they are alive."""
    from deploy.operations.locking import look
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        state = look(name, report.events)
        if state is None:
            print(f"{name} is not locked")
        else:
            print(f"{name} is locked by {state.describe()}" + (" (stale)" if state.stale else ""))


@task(help={**ENV, "auto_confirm": "do not ask, even where its holder seems alive"})
def release(context: Context, env: str = "", auto_confirm: bool = False) -> None:
    """Take the lock away from its holder, and say whose it was."""
    from deploy.operations.locking import release as take_away
    from deploy.output.report import Report

    with Report() as report:
        name = env or default_environment()
        state = take_away(
            name,
            report.events,
            confirm=lambda question: report.confirm(question, name, automatic=auto_confirm),
        )
        if state is None:
            print(f"{name} is not locked")
        else:
            print(f"released the lock of {state.describe()}")
