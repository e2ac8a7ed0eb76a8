"""The data that a downgrade of the schema deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.errors import DeployError, GateRefused
from deploy.operations.one_off import run_in_image
from deploy.steps.backup import BackUp
from deploy.steps.schema import Downgrade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.execute.plan import Plan
    from deploy.operations.host_session import HostSession
    from deploy.state.facts import Facts


def find_data_loss(session: HostSession, facts: Facts, plan: Plan) -> list[str]:
    """Return a line for each table and column with data that the downgrades of a plan delete.

    The release's own `loss_command` reports the lines. Raises `DeployError` if it fails.
    """
    config = session.environment.migrations
    lines: list[str] = []
    for step in plan.steps():
        if isinstance(step, Downgrade):
            generation = facts.hosts[step.host].secrets or ""
            command = (*config.loss_command, step.to)
            seconds = session.environment.timeouts.migrate
            status, text = run_in_image(
                session, step.host, step.image, generation, command, seconds
            )
            if status:
                raise DeployError(f"`{' '.join(command)}` failed with status {status}:\n{text}")
            lines += text.strip().splitlines()
    return lines


def data_loss_refused(change: str, losses: Sequence[str], plan: Plan) -> GateRefused:
    """The error for a change that deletes data without permission; `losses` lists the data."""
    backed_up = any(isinstance(step, BackUp) for step in plan.steps())
    return GateRefused(
        f"the {change} deletes data:\n" + "\n".join(f"- {line}" for line in losses),
        hint="--allow-data-loss permits it" + ("; a backup is taken first" if backed_up else ""),
    )
