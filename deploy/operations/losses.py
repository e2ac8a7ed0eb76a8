"""What taking the schema back loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.errors import DeployError
from deploy.operations.inspection import run_in_image
from deploy.steps.schema import Downgrade

if TYPE_CHECKING:
    from deploy.execute.plan import Plan
    from deploy.operations.session import Session
    from deploy.state.facts import Facts


def find_losses(session: Session, facts: Facts, plan: Plan) -> list[str]:
    """What a plan's downgrade loses, a line for each table and column that holds something.

    Raises `DeployError` where that cannot be told.
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
